//! Where a download's bytes come from: a file on the disk, or a directory that becomes an archive on
//! the way.

use std::io::{self, Read};

use crate::archive::ArchiveReader;
use crate::disk::file::DiskFile;

/// What is sent.
#[derive(Debug)]
pub enum Content {
    /// A file.
    File(DiskFile),
    /// An archive.
    Archive(Box<ArchiveReader>),
}

impl Content {
    /// Reads at `position`, everything before which has been sent.
    ///
    /// # Errors
    /// A [`Pause`](crate::archive::Pause) if others should have their turn before this is called
    /// again; any other ends the download.
    pub fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self {
            Content::File(file) => file.read_at(buffer, position),
            Content::Archive(archive) => {
                archive.seek(position)?;
                archive.read(buffer)
            }
        }
    }

    /// The file, if its pages can be lent.
    pub fn file(&mut self) -> Option<&mut DiskFile> {
        match self {
            Content::File(file) => Some(file),
            Content::Archive(_) => None,
        }
    }

    /// A piece has ended. Returns the bytes that were read for it and are not part of it.
    pub fn take_extra(&mut self) -> u64 {
        match self {
            Content::File(_) => 0,
            Content::Archive(archive) => archive.take_extra(),
        }
    }

    /// Closes what is open, all before `position` having been sent and nothing more to come.
    pub fn finish(&mut self, position: u64) {
        match self {
            Content::File(file) => file.finish(position),
            Content::Archive(archive) => archive.finish(),
        }
    }
}
