//! Names of one directory that would become one file: for a zip those that come out the same, and on
//! disks of Windows and macOS those that differ only in case or in how an accent is encoded.
//!
//! A directory's entries do not stand side by side in a listing and there may be 200,000 of them, so
//! what is compared is a hash of the directory and the name. No method takes long for one entry.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::names::fold;

/// The directory of an entry, and the name that it is stored under, which is borrowed if it is its own.
pub(super) type Spelt<'a> = (u32, Cow<'a, [u8]>);

/// The entries of a listing, by hashes of their names.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    all: Vec<Named>,
    /// Those that have the name of another one, after the first of those that are alike.
    doubles: Vec<(u32, u32)>,
    /// The number that was given last, and the first of those that are alike there.
    last: Option<(u32, u32)>,
    /// Hashes of names with numbers.
    taken: HashSet<u64>,
    /// Entries that some disks take for another one, and that one, in the order of the listing.
    pub(super) twins: Vec<(u32, u32)>,
    folded: String,
}

/// An entry. They sort by what they have in common; and whoever bears a name on the server keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    /// Hash of the name as disks compare it.
    folded: u64,
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

    /// Adds the entry `index`.
    pub(super) fn add(&mut self, index: u32, (parent, name): &Spelt<'_>) {
        let folded = self.hash_folded(*parent, name);
        let is_folded = self.folded.as_bytes() == &**name;
        let exact = if is_folded { folded } else { hash(*parent, name) };
        self.all.push(Named { folded, exact, is_renamed: matches!(name, Cow::Owned(_)), index });
    }

    /// Compares all names, once all entries are added. Returns how many have that of another one.
    pub(super) fn compare(&mut self) -> usize {
        self.all.sort_unstable();
        let groups = self.all.chunk_by(|one, other| one.folded == other.folded);
        for group in groups.filter(|group| group.len() > 1) {
            // Not their hash, which another build may compute in another way.
            let first = group.iter().map(|named| named.index).min().unwrap_or_default();
            let mut kept = Vec::new();
            for same in group.chunk_by(|one, other| one.exact == other.exact) {
                kept.push(same[0].index);
                self.doubles.extend(same[1..].iter().map(|double| (first, double.index)));
            }
            kept.sort_unstable();
            self.twins.extend(kept[1..].iter().map(|&index| (index, kept[0])));
        }
        self.twins.sort_unstable();
        self.doubles.sort_unstable();
        self.doubles.len()
    }

    /// Finds a number that tells one of those apart that have the name of another one. `spell` says
    /// what it is called with a number. Returns the entry and its number.
    pub(super) fn number<'a>(
        &mut self,
        at: usize,
        spell: impl Fn(u32, u32) -> Spelt<'a>,
    ) -> (u32, u32) {
        let (first, index) = self.doubles[at];
        // Counted on for all that are alike: a hostile directory may have nothing else.
        let last = self.last.filter(|last| last.0 == first);
        let mut number = last.map_or(1, |(_, number)| number);
        loop {
            number += 1;
            let (parent, name) = spell(index, number);
            let hash = self.hash_folded(parent, &name);
            let is_used = self.all.binary_search_by_key(&hash, |named| named.folded).is_ok();
            if !is_used && self.taken.insert(hash) {
                break;
            }
        }
        self.last = Some((first, number));
        (index, number)
    }

    fn hash_folded(&mut self, parent: u32, name: &[u8]) -> u64 {
        fold(name, &mut self.folded);
        hash(parent, self.folded.as_bytes())
    }
}

/// A hash of `name` in the directory `parent`.
pub(super) fn hash(parent: u32, name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parent.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}
