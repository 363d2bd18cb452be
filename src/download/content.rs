//! Where a download's bytes come from: a file on the disk, or a directory that becomes an archive on
//! the way.

use std::io::{self, Read};
use std::ops::Range;

use crate::archive::ArchiveReader;
use crate::disk::file::DiskFile;
use crate::disk::pipe::CAPACITY;

/// Less than this is copied.
const LEAST: u64 = CAPACITY as u64;

/// What is sent.
#[derive(Debug)]
pub enum Content {
    /// A file.
    File(DiskFile),
    /// An archive.
    Archive(Box<ArchiveReader>),
}

impl Content {
    /// Reads at `position`, everything before which has been sent. In all of its piece, at most about
    /// `most` bytes are read besides what is returned.
    ///
    /// # Errors
    /// A [`Pause`](crate::archive::Pause) if others should have their turn before this is called
    /// again; any other ends the download.
    pub fn read_at(&mut self, buffer: &mut [u8], position: u64, most: u64) -> io::Result<usize> {
        match self {
            Content::File(file) => file.read_at(buffer, position),
            Content::Archive(archive) => {
                archive.limit_extra(most);
                archive.seek(position)?;
                archive.read(buffer)
            }
        }
    }

    /// Returns the file whose pages are worth lending from the beginning of `rest` on, and where in it
    /// that is; `None` if what is there has to be copied.
    pub fn lendable(&mut self, rest: &Range<u64>) -> Option<(&mut DiskFile, u64)> {
        let (file, place) = self.file_at(rest.start)?;
        let (from, end) = (rest.start - place.start, rest.end.min(place.end) - place.start);
        (from + LEAST < file.lends_until(end)).then_some((file, from))
    }

    /// Drops from the page cache what lies behind `acknowledged`, of a client that has come to
    /// `position`.
    pub fn drop_behind(&mut self, acknowledged: u64, position: u64) {
        if let Some((file, place)) = self.file_at(position) {
            file.drop_behind(acknowledged.saturating_sub(place.start), position - place.start);
        }
    }

    /// The file that is open at `position`, and where in the content it lies.
    fn file_at(&mut self, position: u64) -> Option<(&mut DiskFile, Range<u64>)> {
        match self {
            Content::File(file) => Some((file, 0..u64::MAX)),
            Content::Archive(archive) => archive.file_at(position),
        }
    }

    /// A piece has ended. Returns the bytes that were read for it and are not part of it.
    pub fn take_extra(&mut self) -> u64 {
        match self {
            Content::File(_) => 0,
            Content::Archive(archive) => archive.take_extra(),
        }
    }

    /// Closes what is open, nothing more of it being sent.
    pub fn finish(&mut self) {
        match self {
            Content::File(file) => file.finish(),
            Content::Archive(archive) => archive.finish(),
        }
    }
}
