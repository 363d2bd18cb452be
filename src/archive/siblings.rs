//! Names of one directory that would become one file: for a zip those that come out the same, and on
//! disks of Windows and macOS those that differ only in case or in how an accent is encoded.
//!
//! A directory's entries do not stand side by side in a listing and there may be 200,000 of them, so
//! what is compared is a hash of the directory and the folded name, and few names are ever spelt out.
//! Each method takes about the same time for each entry.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;

use super::names::fold;

/// What is to be done about names that fall together. Both are in the order of the listing.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    /// Entries whose name another one has, and the number that tells each apart.
    pub(super) numbers: Vec<(u32, u32)>,
    /// Entries that some disks take for another one, and that one.
    pub(super) twins: Vec<(u32, u32)>,
}

/// The entries of a listing, by hashes of their names.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    /// Hash of the folded name, and entry.
    all: Vec<(u64, u32)>,
    /// Those whose hash another one has.
    alike: Vec<Alike>,
    /// Those that have the name of another one; and the first of those that are alike.
    doubles: Vec<(u32, u32)>,
    /// The number that was given last, and the first of those that are alike there.
    last: Option<(u32, u32)>,
    /// Hashes of names with numbers.
    taken: HashSet<u64>,
    clashes: Clashes,
    folded: String,
}

/// One of several entries that some disks take for one. They sort by what they have in common; and
/// whoever bears a name on the server keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    /// The first entry of them. Not their hash, which another build may compute in another way.
    first: u32,
    /// Hash of the name itself.
    exact: u64,
    is_renamed: bool,
    index: u32,
}

impl Siblings {
    /// Makes room for `count` entries.
    pub(super) fn new(count: usize) -> Siblings {
        Siblings { all: Vec::with_capacity(count), ..Siblings::default() }
    }

    /// Adds the entry `index` of the directory `parent`, which is stored under `name`.
    pub(super) fn add(&mut self, index: u32, parent: u32, name: &[u8]) {
        let hash = self.hash(parent, name);
        self.all.push((hash, index));
    }

    /// Finds those that are alike, once all are added. Returns how many there are.
    pub(super) fn find_alike(&mut self) -> usize {
        self.all.sort_unstable();
        let groups = self.all.chunk_by(|one, other| one.0 == other.0);
        for group in groups.filter(|group| group.len() > 1) {
            let first = group[0].1;
            let alike = |&(_, index)| Alike { first, exact: 0, is_renamed: false, index };
            self.alike.extend(group.iter().map(alike));
        }
        self.alike.len()
    }

    /// Looks at one of those that are alike. `spell` says the parent of an entry and the name that
    /// it gets with a number, which is borrowed if it is its own.
    pub(super) fn look_at<'a>(&mut self, at: usize, spell: impl Fn(u32, u32) -> Spelt<'a>) {
        let (parent, name) = spell(self.alike[at].index, 0);
        self.alike[at].exact = hash(parent, &name);
        self.alike[at].is_renamed = matches!(name, Cow::Owned(_));
    }

    /// Finds those that have the name of another one, once all that are alike were looked at.
    /// Returns how many there are.
    pub(super) fn find_doubles(&mut self) -> usize {
        self.alike.sort_unstable();
        for group in self.alike.chunk_by(|one, other| one.first == other.first) {
            let mut kept = Vec::new();
            for same in group.chunk_by(|one, other| one.exact == other.exact) {
                kept.push(same[0].index);
                self.doubles.extend(same[1..].iter().map(|double| (double.first, double.index)));
            }
            kept.sort_unstable();
            self.clashes.twins.extend(kept.iter().skip(1).map(|&index| (index, kept[0])));
        }
        self.doubles.sort_unstable();
        self.doubles.len()
    }

    /// Gives a number to one of those that have the name of another one.
    pub(super) fn number<'a>(&mut self, at: usize, spell: impl Fn(u32, u32) -> Spelt<'a>) {
        let (first, index) = self.doubles[at];
        // Counted on for all that are alike: a hostile directory may have nothing else.
        let last = self.last.filter(|last| last.0 == first);
        let mut number = last.map_or(1, |(_, number)| number);
        loop {
            number += 1;
            let (parent, name) = spell(index, number);
            let hash = self.hash(parent, &name);
            let is_used = self.all.binary_search_by_key(&hash, |&(other, _)| other).is_ok();
            if !is_used && self.taken.insert(hash) {
                break;
            }
        }
        self.last = Some((first, number));
        self.clashes.numbers.push((index, number));
    }

    /// What was found.
    pub(super) fn take_clashes(&mut self) -> Clashes {
        let mut clashes = mem::take(self).clashes;
        clashes.numbers.sort_unstable();
        clashes.twins.sort_unstable();
        clashes
    }

    fn hash(&mut self, parent: u32, name: &[u8]) -> u64 {
        fold(name, &mut self.folded);
        hash(parent, self.folded.as_bytes())
    }
}

/// The directory of an entry, and the name that it is stored under.
pub(super) type Spelt<'a> = (u32, Cow<'a, [u8]>);

fn hash(parent: u32, name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parent.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}
