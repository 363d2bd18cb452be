//! Where a download's bytes come from: a file on the disk, or a directory that becomes an archive on
//! the way.

use std::io::{self, Read};
use std::sync::Arc;

use crate::archive::{ArchiveReader, Memory, pause};
use crate::disk::file::DiskFile;
use crate::disk::readers::Readers;
use crate::link::folder::Folder;

/// What is sent.
#[derive(Debug)]
pub enum Content {
    /// A file.
    File(DiskFile),
    /// An archive.
    Archive(Box<ArchiveContent>),
}

/// An archive that is sent piece by piece. Between two pieces it holds on to the member that is open
/// and the CRC of what was sent of it, and not to the listing: hundreds of parked transfers must not
/// keep hundreds of listings.
#[derive(Debug)]
pub struct ArchiveContent {
    folder: Folder,
    end: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(ArchiveReader),
    Between(Memory),
}

impl Content {
    /// `folder` as an archive from `start` to `end`. With `readers`, what is read of its members does
    /// not stay in the page cache.
    pub fn archive(folder: Folder, start: u64, end: u64, readers: Option<Arc<Readers>>) -> Content {
        let state = State::Between(Memory::new(start, readers));
        Content::Archive(Box::new(ArchiveContent { folder, end, state }))
    }

    /// Reads at `position`, everything before which has been sent.
    ///
    /// # Errors
    /// One for which [`is_pause`](crate::archive::is_pause) holds if others should have their turn
    /// before this is called again; any other ends the transfer.
    pub fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self {
            Content::File(file) => file.read_at(buffer, position),
            Content::Archive(archive) => archive.read_at(buffer, position),
        }
    }

    /// A piece has ended. Returns the bytes that were read for it and are not part of it.
    pub fn take_extra(&mut self) -> u64 {
        match self {
            Content::File(_) => 0,
            Content::Archive(archive) => archive.memory().take_extra(),
        }
    }

    /// Closes what is open, all before `position` having been sent and nothing more to come.
    pub fn finish(&mut self, position: u64) {
        match self {
            Content::File(file) => file.finish(position),
            Content::Archive(archive) => archive.memory().finish(),
        }
    }
}

impl ArchiveContent {
    fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let reader = self.reader()?;
        reader.seek(position)?;
        reader.read(buffer)
    }

    fn reader(&mut self) -> io::Result<&mut ArchiveReader> {
        if let State::Between(memory) = &mut self.state {
            let packed = self.folder.packed().map_err(|error| io::Error::other(error.cause()))?;
            let packed = packed.ok_or_else(pause)?;
            let memory = std::mem::take(memory);
            let reader = ArchiveReader::again(packed.archive, packed.root, self.end, memory);
            self.state = State::Reading(reader);
        }
        match &mut self.state {
            State::Reading(reader) => Ok(reader),
            State::Between(_) => Err(pause()),
        }
    }

    /// Lets go of the listing.
    fn memory(&mut self) -> &mut Memory {
        let state = std::mem::replace(&mut self.state, State::Between(Memory::default()));
        self.state = match state {
            State::Reading(reader) => State::Between(reader.into_memory()),
            between => between,
        };
        match &mut self.state {
            State::Between(memory) => memory,
            State::Reading(_) => unreachable!("it was put aside above"),
        }
    }
}
