//! What an archive of one format holds of a listing, and under which names.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::format::Format;
use super::listing::{Kind, Listing, MAX_PATH, Member, NO_PARENT, Notes};
use super::names::{is_barred_by_windows, one_line, zip_name};
use super::siblings::{Clashes, Siblings};
use super::targets::Link;

/// The archive does not hold it.
const OMITTED: u8 = 1;
/// It has a name of its own in the archive.
const RENAMED: u8 = 2;
/// It has a path of its own there: its name or that of a directory above it is another one.
const MOVED: u8 = 4;
/// Windows cannot hold its name.
const BARRED: u8 = 8;

/// What is different from the listing, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// For each entry; empty if nothing is omitted or moved.
    marks: Vec<u8>,
    /// What tells equal names apart, in the order of the entries.
    numbers: Vec<(u32, u32)>,
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
struct ZipPath {
    path: Vec<u8>,
    /// Entries, and where each ends in `path`.
    above: Vec<(u32, usize)>,
}

impl Stored {
    /// Finds out what of `listing` an archive in `format` holds, and what is to be told about it.
    pub(super) fn new(listing: &Listing, format: Format) -> (Stored, Notes) {
        let mut stored = Stored { marks: vec![0; listing.len()], numbers: Vec::new() };
        let clashes = stored.name_all(listing, format);
        stored.numbers.clone_from(&clashes.numbers);
        match format {
            Format::Zip => stored.omit_from_zip(listing),
            Format::Tar => stored.omit_from_tar(listing),
        }
        let notes = stored.notes(listing, format, &clashes.twins);
        if stored.marks.iter().all(|marks| marks & (OMITTED | MOVED) == 0) {
            stored.marks = Vec::new();
        }
        (stored, notes)
    }

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
            Kind::Link => listing.led(index).map(|entry| entry.size),
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
        if let Some(file) = listing.led(index) {
            let path = stored.path;
            return Some(Member { path, ..file.member() });
        }
        if let Some(Cow::Owned(relative)) = Link::of(listing, &member).target(|_| false) {
            *target = relative;
            stored.target = target;
        }
        Some(stored)
    }

    fn has(&self, index: usize, mark: u8) -> bool {
        self.marks.get(index).is_some_and(|marks| marks & mark != 0)
    }

    /// The name of an entry in a zip.
    fn zip_name<'a>(&self, listing: &'a Listing, index: u32) -> Cow<'a, [u8]> {
        let found = self.numbers.binary_search_by_key(&index, |&(index, _)| index);
        zip_name(listing.name(index as usize), found.map_or(0, |found| self.numbers[found].1))
    }

    /// Marks names that are not what they are on the server, and compares all of them.
    fn name_all(&mut self, listing: &Listing, format: Format) -> Clashes {
        let spell = |index: u32, number: u32| {
            let name = listing.name(index as usize);
            let name = match format {
                Format::Zip => zip_name(name, number),
                Format::Tar => Cow::Borrowed(name),
            };
            (listing.entries[index as usize].parent, name)
        };
        let mut siblings = Siblings::new(listing.len());
        for index in 0..listing.len() {
            let (parent, name) = spell(index as u32, 0);
            let mark = |is: bool, mark: u8| if is { mark } else { 0 };
            self.marks[index] = mark(matches!(name, Cow::Owned(_)), RENAMED)
                | mark(is_barred_by_windows(&name), BARRED);
            siblings.add(index as u32, parent, &name);
        }
        let clashes = siblings.clashes(spell);
        for &(index, _) in &clashes.numbers {
            self.marks[index as usize] |= RENAMED;
        }
        for (index, entry) in listing.entries.iter().enumerate() {
            let above = self.marks.get(entry.parent as usize).map_or(0, |marks| marks & MOVED);
            if above != 0 || self.has(index, RENAMED) {
                self.marks[index] |= MOVED;
            }
        }
        clashes
    }

    /// Marks links that lead to no file, and what has so long a path that it cannot be unpacked.
    fn omit_from_zip(&mut self, listing: &Listing) {
        let mut path = ZipPath::default();
        for index in 0..listing.len() {
            let is_link = listing.entries[index].kind() == Kind::Link;
            let is_omitted = is_link && listing.led(index).is_none()
                || self.has(index, MOVED)
                    && path.spell(self, listing, index as u32).len() > MAX_PATH;
            if is_omitted {
                self.marks[index] |= OMITTED;
            }
        }
    }

    /// Marks links that lead out of the archive's folder, or in circles.
    fn omit_from_tar(&mut self, listing: &Listing) {
        let links = OnceCell::new();
        let is_link =
            |path: &[u8]| links.get_or_init(|| paths_of_links(listing)).contains(&hash(path));
        let mut path = Vec::new();
        for index in 0..listing.len() {
            if listing.entries[index].kind() == Kind::Link {
                let link = Link::of(listing, &listing.member(index, &mut path));
                let is_unfit = listing.unfit.binary_search(&(index as u32)).is_ok();
                if is_unfit || link.target(is_link).is_none() {
                    self.marks[index] |= OMITTED;
                }
            }
        }
    }

    fn notes(&self, listing: &Listing, format: Format, twins: &[(u32, u32)]) -> Notes {
        let mut notes = listing.notes.clone();
        let mut twins = twins.iter().peekable();
        let mut path = Vec::new();
        for index in 0..listing.len() {
            let twin = twins.next_if(|&&(twin, _)| twin as usize == index).map(|&(_, other)| other);
            if self.marks[index] & (OMITTED | RENAMED | BARRED) == 0 && twin.is_none() {
                continue;
            }
            if notes.is_full() {
                notes.count();
            } else {
                let member = listing.member(index, &mut path);
                notes.add(member.path, &self.reason(listing, format, index, &member, twin));
            }
        }
        if format == Format::Zip && listing.is_empty() {
            notes.say_empty();
        }
        notes
    }

    /// Why there is a note about an entry.
    fn reason(
        &self,
        listing: &Listing,
        format: Format,
        index: usize,
        member: &Member<'_>,
        twin: Option<u32>,
    ) -> String {
        if self.omits(index) {
            return match (member.kind, format) {
                (Kind::Link, Format::Zip) if listing.led(index).is_none() => {
                    let target = one_line(member.target);
                    let is_large = listing.unfit.binary_search(&(index as u32)).is_ok();
                    let size = if is_large { ", which is too much to be here twice" } else { "" };
                    format!("a symbolic link to {target}{size}")
                }
                (Kind::Link, Format::Tar) => {
                    format!(
                        "a symbolic link out of this folder or in circles, to {}",
                        one_line(member.target)
                    )
                }
                _ => format!("its path in a zip is longer than {MAX_PATH} bytes"),
            };
        }
        let mut reasons = Vec::new();
        if self.has(index, RENAMED) {
            reasons.push(format!("stored as {}", one_line(&self.zip_name(listing, index as u32))));
        }
        if self.has(index, BARRED) {
            reasons.push("not a name that Windows allows".to_owned());
        }
        if let Some(other) = twin {
            let other = one_line(listing.name(other as usize));
            reasons.push(format!("some systems take it for {other}"));
        }
        reasons.join("; ")
    }
}

impl ZipPath {
    /// Spells the path of the entry `index`.
    fn spell(&mut self, stored: &Stored, listing: &Listing, index: u32) -> &[u8] {
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

/// Hashes of the paths of all links.
fn paths_of_links(listing: &Listing) -> HashSet<u64> {
    let mut path = Vec::new();
    let links = (0..listing.len()).filter(|&index| listing.entries[index].kind() == Kind::Link);
    links.map(|index| hash(listing.member(index, &mut path).path)).collect()
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
