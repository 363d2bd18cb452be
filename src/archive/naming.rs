//! Finds out, in steps, what an archive of one format holds of a listing and under which names, and
//! what is to be told about it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

use super::format::Format;
use super::listing::{Kind, Listing, MAX_PATH, Member, NO_PARENT, Notes};
use super::names::{is_barred_by_windows, one_line, zip_name};
use super::siblings::{Siblings, Spelt, hash};
use super::stored::{BARRED, MOVED, OMITTED, RENAMED, Stored, ZipPath};
use super::targets::Link;

/// A path of this length is not too long in a zip, whatever its names become: one of a byte and its
/// slash become at most 13 bytes, `%01 (200000)/`.
const SHORT: usize = MAX_PATH * 2 / 13;

/// What is done with one entry after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Names are looked at, and
    Name,
    /// those that are the same numbered.
    Number,
    /// Then it is known what the archive holds, and what is to be told.
    Decide,
}

/// Names that are being looked at.
#[derive(Debug)]
pub(super) struct Naming {
    format: Format,
    phase: Phase,
    /// How many entries this phase has, and how many are done.
    count: usize,
    done: usize,
    stored: Stored,
    siblings: Siblings,
    /// Hashes of the paths of all links, for a tar.
    links: HashSet<u64>,
    notes: Notes,
    /// The next one of the twins.
    twin: usize,
    zip_path: ZipPath,
    path: Vec<u8>,
}

impl Naming {
    /// Begins with `listing`, which is to become an archive in `format`.
    pub(super) fn new(listing: &Listing, format: Format) -> Naming {
        let count = listing.len();
        Naming {
            format,
            phase: Phase::Name,
            count,
            done: 0,
            stored: Stored { marks: vec![0; count], numbers: Vec::new() },
            siblings: Siblings::new(count),
            links: HashSet::new(),
            notes: listing.notes.clone(),
            twin: 0,
            zip_path: ZipPath::default(),
            path: Vec::new(),
        }
    }

    /// Goes on with the same listing until `until`, or to the end. Returns true at the end.
    pub(super) fn step(&mut self, listing: &Listing, until: Instant) -> bool {
        loop {
            while self.done < self.count {
                match self.phase {
                    Phase::Name => self.name(listing, self.done),
                    Phase::Number => self.number(listing, self.done),
                    Phase::Decide => self.decide(listing, self.done),
                }
                self.done += 1;
                // A look at the clock costs about as much as one at a name.
                if self.done.is_multiple_of(16) && Instant::now() >= until {
                    return false;
                }
            }
            (self.phase, self.count) = match self.phase {
                Phase::Name => (Phase::Number, self.siblings.compare()),
                Phase::Number => {
                    self.stored.numbers.sort_unstable();
                    (Phase::Decide, listing.len())
                }
                Phase::Decide => return true,
            };
            self.done = 0;
        }
    }

    /// What was found, once it is at its end.
    pub(super) fn into_parts(self) -> (Stored, Notes) {
        let (mut stored, mut notes) = (self.stored, self.notes);
        if self.format == Format::Zip && stored.marks.is_empty() {
            notes.say_empty();
        }
        if stored.marks.iter().all(|marks| marks & (OMITTED | MOVED) == 0) {
            stored.marks = Vec::new();
        }
        (stored, notes)
    }

    fn name(&mut self, listing: &Listing, index: usize) {
        let spelt = spell(listing, self.format, index as u32, 0);
        if matches!(spelt.1, Cow::Owned(_)) {
            self.stored.marks[index] |= RENAMED;
        }
        if is_barred_by_windows(&spelt.1) {
            self.stored.marks[index] |= BARRED;
        }
        self.siblings.add(index as u32, &spelt);
        if self.format == Format::Tar && listing.entries[index].kind() == Kind::Link {
            let path = listing.member(index, &mut self.path).path;
            self.links.insert(hash(NO_PARENT, path));
        }
    }

    fn number(&mut self, listing: &Listing, at: usize) {
        let spell = |index, number| spell(listing, self.format, index, number);
        let (index, number) = self.siblings.number(at, spell);
        self.stored.marks[index as usize] |= RENAMED;
        self.stored.numbers.push((index, number));
    }

    fn decide(&mut self, listing: &Listing, index: usize) {
        // Directories come before what is in them.
        let above = self.stored.has(listing.entries[index].parent as usize, MOVED);
        if above || self.stored.has(index, RENAMED) {
            self.stored.marks[index] |= MOVED;
        }
        if self.is_omitted(listing, index) {
            self.stored.marks[index] |= OMITTED;
        }
        let twin = self.siblings.twins.get(self.twin).filter(|twin| twin.0 as usize == index);
        let twin = twin.map(|&(_, other)| other);
        self.twin += usize::from(twin.is_some());
        if twin.is_some() || self.stored.has(index, OMITTED | RENAMED | BARRED) {
            let (stored, format) = (&self.stored, self.format);
            self.notes.add(|| {
                let mut path = Vec::new();
                let member = listing.member(index, &mut path);
                let reason = reason(stored, format, listing, index, &member, twin);
                (path, reason)
            });
        }
    }

    /// Returns true for a link that leads to no file in a zip, or that leads out of the folder or in
    /// circles in a tar; and for what has so long a path that it could not be unpacked.
    fn is_omitted(&mut self, listing: &Listing, index: usize) -> bool {
        let entry = &listing.entries[index];
        let is_link = entry.kind() == Kind::Link;
        match self.format {
            Format::Zip if is_link && listing.links.led(index).is_none() => true,
            Format::Zip => {
                self.stored.has(index, MOVED)
                    && usize::from(entry.path_length) > SHORT
                    && self.zip_path.spell(&self.stored, listing, index as u32).len() > MAX_PATH
            }
            Format::Tar if !is_link => false,
            Format::Tar => {
                let link = Link::of(listing, &listing.member(index, &mut self.path));
                let is_link = |path: &[u8]| self.links.contains(&hash(NO_PARENT, path));
                listing.links.is_unfit(index) || link.target(is_link).is_none()
            }
        }
    }
}

/// Why there is a note about an entry.
fn reason(
    stored: &Stored,
    format: Format,
    listing: &Listing,
    index: usize,
    member: &Member<'_>,
    twin: Option<u32>,
) -> String {
    let target = || one_line(member.target);
    if stored.omits(index) {
        return match (member.kind, format) {
            (Kind::Link, Format::Tar) => {
                format!("a symbolic link out of this folder or in circles, to {}", target())
            }
            (Kind::Link, Format::Zip) if listing.links.led(index).is_none() => {
                let is_large = listing.links.is_unfit(index);
                let size = if is_large { ", which is too much to be here twice" } else { "" };
                format!("a symbolic link to {}{size}", target())
            }
            _ => format!("its path in a zip is longer than {MAX_PATH} bytes"),
        };
    }
    let mut reasons = Vec::new();
    if stored.has(index, RENAMED) {
        let name = stored.zip_name(listing, index as u32);
        reasons.push(format!("stored as {}", one_line(&name)));
    }
    if stored.has(index, BARRED) {
        reasons.push("not a name that Windows allows".to_owned());
    }
    if let Some(other) = twin {
        let other = one_line(listing.name(other as usize));
        reasons.push(format!("some systems take it for {other}"));
    }
    reasons.join("; ")
}

/// The directory of an entry, and the name that it has in an archive with a number.
fn spell(listing: &Listing, format: Format, index: u32, number: u32) -> Spelt<'_> {
    let name = listing.name(index as usize);
    let name = match format {
        Format::Zip => zip_name(name, number),
        Format::Tar => Cow::Borrowed(name),
    };
    (listing.entries[index as usize].parent, name)
}
