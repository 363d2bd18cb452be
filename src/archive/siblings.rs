//! Names of one directory that would become one file: for a zip those that come out the same, and on
//! disks of Windows and macOS those that differ only in case or in how an accent is encoded.
//!
//! A directory's entries do not stand side by side in a listing and there may be 200,000 of them, so
//! what is compared is a hash of the directory and the folded name, and few names are ever spelt out.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;

use super::names::fold;

/// All entries of a listing, by the hashes of their names.
#[derive(Debug)]
pub(super) struct Siblings {
    /// Hashes and indices, in this order once all are there.
    all: Vec<(u64, u32)>,
    folded: String,
}

/// What is to be done about names that fall together. Both are in the order of the listing.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    /// Entries whose name another one has, and the number that tells each apart.
    pub(super) numbers: Vec<(u32, u32)>,
    /// Entries that some disks take for another one, and that one.
    pub(super) twins: Vec<(u32, u32)>,
}

impl Siblings {
    /// Makes room for `count` entries.
    pub(super) fn new(count: usize) -> Siblings {
        Siblings { all: Vec::with_capacity(count), folded: String::new() }
    }

    /// Adds the entry `index` of the directory `parent`, which is stored under `name`.
    pub(super) fn add(&mut self, index: u32, parent: u32, name: &[u8]) {
        let hash = self.hash(parent, name);
        self.all.push((hash, index));
    }

    /// Finds what falls together, once all entries are added. `spell` says the parent of an entry
    /// and the name that it gets with a number, which is borrowed if it is its own.
    pub(super) fn clashes<'a>(
        mut self,
        spell: impl Fn(u32, u32) -> (u32, Cow<'a, [u8]>),
    ) -> Clashes {
        self.all.sort_unstable();
        let all = mem::take(&mut self.all);
        let groups = all.chunk_by(|one, other| one.0 == other.0);
        let mut groups: Vec<_> = groups.filter(|group| group.len() > 1).collect();
        // Not in the order of the hashes, which another build may compute in another way.
        groups.sort_unstable_by_key(|group| group[0].1);
        let mut clashes = Clashes::default();
        let mut taken = HashSet::new();
        for group in groups {
            let (kept, doubles) = told_apart(group, &spell);
            clashes.twins.extend(kept.iter().skip(1).map(|&index| (index, kept[0])));
            // Counted on for the whole group: a hostile one may be as large as the listing.
            let mut number = 1;
            for index in doubles {
                loop {
                    number += 1;
                    let (parent, name) = spell(index, number);
                    let hash = self.hash(parent, &name);
                    let is_used = all.binary_search_by_key(&hash, |&(other, _)| other).is_ok();
                    if !is_used && taken.insert(hash) {
                        break;
                    }
                }
                clashes.numbers.push((index, number));
            }
        }
        clashes.numbers.sort_unstable();
        clashes.twins.sort_unstable();
        clashes
    }

    fn hash(&mut self, parent: u32, name: &[u8]) -> u64 {
        fold(name, &mut self.folded);
        hash(parent, self.folded.as_bytes())
    }
}

/// Entries of `group` whose names differ, and those that have the name of one of them. Whoever bears
/// a name on the server keeps it.
fn told_apart<'a>(
    group: &[(u64, u32)],
    spell: &impl Fn(u32, u32) -> (u32, Cow<'a, [u8]>),
) -> (Vec<u32>, Vec<u32>) {
    let spelt = |&(_, index): &(u64, u32)| {
        let (parent, name) = spell(index, 0);
        (hash(parent, &name), matches!(name, Cow::Owned(_)), index)
    };
    let mut exact: Vec<(u64, bool, u32)> = group.iter().map(spelt).collect();
    exact.sort_unstable();
    let (mut kept, mut doubles) = (Vec::new(), Vec::new());
    for same in exact.chunk_by(|one, other| one.0 == other.0) {
        kept.push(same[0].2);
        doubles.extend(same[1..].iter().map(|&(_, _, index)| index));
    }
    kept.sort_unstable();
    doubles.sort_unstable();
    (kept, doubles)
}

fn hash(parent: u32, name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parent.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}
