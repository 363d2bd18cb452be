//! Where each byte of an archive comes from: a function of the listing, computed once and without
//! opening a file.
//!
//! ```text
//! zip: (local header, content, data descriptor) for each member, (record) for each member, end
//! tar: (headers, content, padding) for each member, end
//! ```

use std::time::Instant;

use cap_std::fs::Dir;

use super::format::Format;
use super::listing::{Entry, Listing, Member};
use super::naming::Naming;
use super::stored::{Spelling, Stored};
use super::sums::Sums;
use super::zip::Step;
use super::{tar, zip};

/// A piece of the archive that has one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What stands before a member's content.
    Head(usize),
    /// A member's content, as the format encodes it.
    Content(usize),
    /// What stands after a member's content.
    Tail(usize),
    /// A member's record in a zip's central directory.
    Record(usize),
    /// What stands at the end of the archive.
    End,
}

/// A position in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) part: Part,
    /// Bytes from the part's beginning.
    pub(super) offset: u64,
}

/// A listing laid out as one stream, and the CRCs that its readers have come to know.
#[derive(Debug, Default)]
pub struct Archive {
    listing: Listing,
    format: Format,
    stored: Stored,
    /// Where each member begins; last, where all members end.
    starts: Vec<u64>,
    /// Where each member's record begins within the central directory; last, its length. Zip only.
    records: Vec<u64>,
    /// Members in the central directory.
    count: u64,
    pub(super) sums: Sums,
    /// The content of the last member, if not empty.
    skipped: Vec<u8>,
    length: u64,
    tag: u64,
}

/// A listing that is being laid out.
#[derive(Debug, Default)]
pub struct Layout {
    /// As long as names are looked at.
    naming: Option<Box<Naming>>,
    archive: Archive,
    /// The next member.
    next: usize,
    /// Where it and its record begin.
    position: u64,
    record: u64,
    path: Vec<u8>,
    spelling: Spelling,
    bytes: Vec<u8>,
}

impl Layout {
    /// Bytes of memory that laying out takes for each entry, besides those of the listing: positions,
    /// CRCs, and hashes of names.
    pub const MEMORY: usize = 48;

    /// Begins to lay `listing` out. If there is something to tell about it, a last member does.
    pub fn new(listing: Listing, format: Format) -> Layout {
        let naming = Some(Box::new(Naming::new(&listing, format)));
        let tag = listing.tag(format);
        let archive = Archive { listing, format, tag, ..Archive::default() };
        Layout { naming, archive, ..Layout::default() }
    }

    /// Goes on until `until`, or to the end. Returns `None` if there is more to be laid out.
    pub fn step(&mut self, until: Instant) -> Option<Archive> {
        if let Some(mut naming) = self.naming.take() {
            if !naming.step(&self.archive.listing, until) {
                self.naming = Some(naming);
                return None;
            }
            let (stored, notes) = naming.into_parts();
            self.archive.begin(stored, notes.into_text().into_bytes());
        }
        while self.next < self.archive.listing.len() {
            self.place();
            self.next += 1;
            if Instant::now() >= until {
                return None;
            }
        }
        let mut archive = std::mem::take(&mut self.archive);
        archive.starts.push(self.position);
        if archive.format == Format::Zip {
            archive.records.push(self.record);
        }
        archive.length = self.position + self.record + archive.part_length(Part::End);
        Some(archive)
    }

    /// Finds where the next member begins.
    fn place(&mut self) {
        let (archive, index) = (&mut self.archive, self.next);
        archive.starts.push(self.position);
        let is_zip = archive.format == Format::Zip;
        if is_zip {
            archive.records.push(self.record);
        }
        let member = archive.listing.next_member(index, &mut self.path);
        let stored = archive.stored.member(&archive.listing, index, member, &mut self.spelling);
        let Some(member) = stored else { return };
        if is_zip {
            archive.count += 1;
            self.record += zip::record(&member, 0, self.position).len() as u64;
        }
        self.bytes.clear();
        archive.head(&member, &mut self.bytes);
        let content = archive.content_length(index) + archive.tail_length(index);
        self.position += self.bytes.len() as u64 + content;
    }
}

impl Archive {
    /// Lays `listing` out in one go.
    #[cfg(test)]
    pub(super) fn new(listing: Listing, format: Format) -> Archive {
        let far = Instant::now() + std::time::Duration::from_secs(3600);
        Layout::new(listing, format).step(far).expect("an hour is enough")
    }

    /// Makes room for what is to be computed.
    fn begin(&mut self, stored: Stored, skipped: Vec<u8>) {
        if !skipped.is_empty() {
            self.listing.add_skipped(skipped.len() as u64);
        }
        let members = self.listing.len();
        self.starts.reserve_exact(members + 1);
        if self.format == Format::Zip {
            self.records.reserve_exact(members + 1);
            self.sums = Sums::new(members);
            if !skipped.is_empty() {
                self.sums.set(members - 1, crc32fast::hash(&skipped));
            }
        }
        (self.stored, self.skipped) = (stored, skipped);
    }

    /// Bytes of the whole archive.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A strong validator: changes with the listing and the format.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The newest modification among the members, seconds since the epoch.
    pub fn modified(&self) -> u64 {
        u64::try_from(self.listing.modified).unwrap_or(0)
    }

    /// Zip or tar.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Files, directories and links, and the list of what was left out.
    pub fn members(&self) -> usize {
        self.listing.len()
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.listing.memory()
            + (self.starts.capacity() + self.records.capacity()) * size_of::<u64>()
            + self.sums.memory()
            + self.stored.memory()
            + self.skipped.capacity()
    }

    pub(super) fn member<'a>(&'a self, index: usize, path: &'a mut Vec<u8>) -> Member<'a> {
        self.listing.member(index, path)
    }

    /// What a member's content was listed as: of a link that leads to a file, that file.
    pub(super) fn entry(&self, index: usize) -> &Entry {
        self.listing.links.led(index).unwrap_or(&self.listing.entries[index])
    }

    /// Where the content of a member begins.
    pub(super) fn content_start(&self, index: usize) -> u64 {
        self.starts[index] + self.part_length(Part::Head(index))
    }

    /// Bytes of a member if it is a file and in the archive.
    pub(super) fn file_size(&self, index: usize) -> Option<u64> {
        self.stored.file_size(&self.listing, index)
    }

    /// Where the content of a file in the archive is: its path in `root`, the listed directory, or in
    /// the volume if a link leads there.
    pub(super) fn content<'a>(
        &'a self,
        index: usize,
        root: &'a Dir,
        path: &'a mut Vec<u8>,
    ) -> (&'a Dir, &'a [u8]) {
        let led = self.listing.links.path(index);
        led.unwrap_or_else(|| (root, self.listing.member(index, path).path))
    }

    /// A member as it is in the archive, if it is.
    pub(super) fn stored<'a>(
        &'a self,
        index: usize,
        path: &'a mut Vec<u8>,
        spelling: &'a mut Spelling,
    ) -> Option<Member<'a>> {
        let member = self.listing.member(index, path);
        self.stored.member(&self.listing, index, member, spelling)
    }

    /// The content of a member that is no file on disk.
    pub(super) fn text(&self, index: usize) -> Option<&[u8]> {
        (!self.skipped.is_empty() && index + 1 == self.listing.len()).then_some(&self.skipped)
    }

    /// The part that `position` lies in; the end of the last one from the archive's length on.
    pub(super) fn locate(&self, position: u64) -> Place {
        let members_end = self.starts[self.listing.len()];
        if position < members_end {
            // The last member that begins here or before: those without a byte are passed over.
            let index = self.starts.partition_point(|&start| start <= position) - 1;
            let mut place =
                Place { part: Part::Head(index), offset: position - self.starts[index] };
            loop {
                let length = self.part_length(place.part);
                if place.offset < length {
                    return place;
                }
                place = Place { part: self.next(place.part), offset: place.offset - length };
            }
        }
        let position = position - members_end;
        let records_end = self.records.last().copied().unwrap_or(0);
        if position < records_end {
            let index = self.records.partition_point(|&start| start <= position) - 1;
            return Place { part: Part::Record(index), offset: position - self.records[index] };
        }
        Place { part: Part::End, offset: position - records_end }
    }

    /// The part after `part`. Nothing comes after the end.
    pub(super) fn next(&self, part: Part) -> Part {
        let members = self.listing.len();
        match part {
            Part::Head(index) => Part::Content(index),
            Part::Content(index) => Part::Tail(index),
            Part::Tail(index) if index + 1 < members => Part::Head(index + 1),
            Part::Tail(_) if self.format == Format::Zip => Part::Record(0),
            Part::Record(index) if index + 1 < members => Part::Record(index + 1),
            Part::Tail(_) | Part::Record(_) | Part::End => Part::End,
        }
    }

    /// Bytes of `part`.
    pub(super) fn part_length(&self, part: Part) -> u64 {
        match part {
            Part::Head(index) => {
                let whole = self.starts[index + 1] - self.starts[index];
                whole - self.content_length(index) - self.tail_length(index)
            }
            Part::Content(index) => self.content_length(index),
            Part::Tail(index) => self.tail_length(index),
            Part::Record(index) => self.records[index + 1] - self.records[index],
            Part::End => match self.format {
                Format::Zip => self.zip_end().len() as u64,
                Format::Tar => tar::END,
            },
        }
    }

    fn content_length(&self, index: usize) -> u64 {
        match (self.file_size(index), self.format) {
            (None, _) => 0,
            (Some(size), Format::Zip) => zip::content_length(size),
            (Some(size), Format::Tar) => size,
        }
    }

    fn tail_length(&self, index: usize) -> u64 {
        match (self.file_size(index), self.format) {
            (None, _) => 0,
            (Some(size), Format::Zip) => zip::descriptor_length(size),
            (Some(size), Format::Tar) => tar::padding(size),
        }
    }

    /// What stands at `position` of the content of the file `index`.
    pub(super) fn step(&self, index: usize, position: u64) -> Step {
        let size = self.file_size(index).unwrap_or(0);
        match self.format {
            Format::Zip => zip::step(size, position),
            Format::Tar => Step::Data { offset: position, length: size - position },
        }
    }

    /// The member whose CRC is part of `part`.
    pub(super) fn needs_sum(&self, part: Part) -> Option<usize> {
        match part {
            Part::Tail(index) | Part::Record(index) if self.format == Format::Zip => {
                self.file_size(index).map(|_| index)
            }
            _ => None,
        }
    }

    /// The bytes of any part but content, into `bytes`.
    pub(super) fn render(&self, part: Part, crc: u32, path: &mut Vec<u8>, bytes: &mut Vec<u8>) {
        bytes.clear();
        let index = match part {
            Part::Head(index) | Part::Tail(index) | Part::Record(index) => index,
            Part::Content(_) => return,
            Part::End => return self.end(bytes),
        };
        let mut spelling = Spelling::default();
        let member = self.stored(index, path, &mut spelling);
        let Some(member) = member.filter(|_| self.part_length(part) > 0) else { return };
        match (part, self.format) {
            (Part::Tail(_), Format::Zip) => *bytes = zip::descriptor(&member, crc),
            (Part::Tail(_), Format::Tar) => bytes.resize(self.tail_length(index) as usize, 0),
            (Part::Record(_), _) => *bytes = zip::record(&member, crc, self.starts[index]),
            _ => self.head(&member, bytes),
        }
    }

    fn end(&self, bytes: &mut Vec<u8>) {
        match self.format {
            Format::Zip => *bytes = self.zip_end(),
            Format::Tar => bytes.resize(tar::END as usize, 0),
        }
    }

    fn head(&self, member: &Member<'_>, bytes: &mut Vec<u8>) {
        *bytes = match self.format {
            Format::Zip => zip::local_header(member),
            Format::Tar => tar::headers(member),
        };
    }

    fn zip_end(&self) -> Vec<u8> {
        let length = self.records.last().copied().unwrap_or(0);
        zip::end(self.count, length, self.starts[self.listing.len()])
    }
}
