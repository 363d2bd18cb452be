//! What an archive of one format holds of a listing, and under which names.

use std::borrow::Cow;

use super::listing::{Kind, Listing, Member, NO_PARENT};
use super::names::zip_name;
use super::targets::Link;

/// The archive does not hold it.
pub(super) const OMITTED: u8 = 1;
/// It has a name of its own in the archive.
pub(super) const RENAMED: u8 = 2;
/// It has a path of its own there: its name or that of a directory above it is another one.
pub(super) const MOVED: u8 = 4;
/// Windows cannot hold its name.
pub(super) const BARRED: u8 = 8;

/// What is different from the listing, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// For each entry; empty if nothing is omitted or moved.
    pub(super) marks: Vec<u8>,
    /// What tells equal names apart, in the order of the entries.
    pub(super) numbers: Vec<(u32, u32)>,
}

/// Room for what a member is called in an archive.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    path: ZipPath,
    target: Vec<u8>,
}

/// The path of an entry in a zip. It remembers where the directories end that lead there, so that the
/// next entry's path is not spelt from its beginning again: there may be thousands.
#[derive(Debug, Default)]
pub(super) struct ZipPath {
    path: Vec<u8>,
    /// Entries, and where each ends in `path`.
    above: Vec<(u32, usize)>,
}

impl Stored {
    /// Returns true if the archive does not hold the entry `index`.
    pub(super) fn omits(&self, index: usize) -> bool {
        self.has(index, OMITTED)
    }

    /// Bytes of the entry `index` if the archive holds it as a file.
    pub(super) fn file_size(&self, listing: &Listing, index: usize) -> Option<u64> {
        let entry = &listing.entries[index];
        match entry.kind() {
            _ if self.omits(index) => None,
            Kind::File => Some(entry.size),
            Kind::Link => listing.links.led(index).map(|entry| entry.size),
            Kind::Directory => None,
        }
    }

    /// Bytes of memory that it takes besides its own.
    pub(super) fn memory(&self) -> usize {
        self.marks.capacity() + self.numbers.capacity() * size_of::<(u32, u32)>()
    }

    /// `member`, which is the entry `index` of `listing`, as the archive holds it, if it does.
    pub(super) fn member<'a>(
        &self,
        listing: &'a Listing,
        index: usize,
        member: Member<'a>,
        spelling: &'a mut Spelling,
    ) -> Option<Member<'a>> {
        if self.omits(index) {
            return None;
        }
        let Spelling { path, target } = spelling;
        let mut stored = member;
        if self.has(index, MOVED) {
            stored.path = path.spell(self, listing, index as u32);
        }
        if member.kind != Kind::Link {
            return Some(stored);
        }
        if let Some(file) = listing.links.led(index) {
            let path = stored.path;
            return Some(Member { path, ..file.member() });
        }
        if let Some(Cow::Owned(relative)) = Link::of(listing, &member).target(|_| false) {
            *target = relative;
            stored.target = target;
        }
        Some(stored)
    }

    /// Returns true if an entry has one of these marks.
    pub(super) fn has(&self, index: usize, mark: u8) -> bool {
        self.marks.get(index).is_some_and(|marks| marks & mark != 0)
    }

    /// The name of an entry in a zip.
    pub(super) fn zip_name<'a>(&self, listing: &'a Listing, index: u32) -> Cow<'a, [u8]> {
        let found = self.numbers.binary_search_by_key(&index, |&(index, _)| index);
        zip_name(listing.name(index as usize), found.map_or(0, |found| self.numbers[found].1))
    }
}

impl ZipPath {
    /// Spells the path of the entry `index`.
    pub(super) fn spell(&mut self, stored: &Stored, listing: &Listing, index: u32) -> &[u8] {
        // Directories come before what is in them, so those that lead there have smaller numbers.
        let mut missing = vec![index];
        loop {
            let at = listing.entries[missing[missing.len() - 1] as usize].parent;
            if at == NO_PARENT {
                self.above.clear();
                break;
            }
            while self.above.last().is_some_and(|&(above, _)| above > at) {
                self.above.pop();
            }
            if self.above.last().is_some_and(|&(above, _)| above == at) {
                break;
            }
            missing.push(at);
        }
        self.path.truncate(self.above.last().map_or(0, |&(_, end)| end));
        while let Some(index) = missing.pop() {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&stored.zip_name(listing, index));
            self.above.push((index, self.path.len()));
        }
        &self.path
    }
}
