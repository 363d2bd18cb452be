//! Reads a file for a download without filling the page cache, which belongs to the game servers.
//!
//! What lies behind the last byte that the client has acknowledged is dropped from the cache
//! (posix_fadvise(2)): a page that is on its way cannot be. A file that is in use, such as a running
//! world, stays.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::pipe::Pipe;
use super::readers::{Place, Readers};

/// Files below this many bytes are read like any other.
const WORTH_SPARING: u64 = 8 << 20;
/// Acknowledged bytes are dropped this many at a time. The same number before them is tried again: a
/// page that was on its way could not be dropped, nor a folio of which the last byte was to come.
pub const DROP: u64 = 16 << 20;
/// What the kernel may have read ahead of a reader, in bytes.
const READAHEAD: u64 = 16 << 20;
/// Places of a file that are looked at to tell whether it is in use.
const SAMPLES: u64 = 16;
/// …but no more than one for each so many bytes.
const SAMPLE: u64 = 64 << 10;

/// A file on its way to a client.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    /// True until its file system refuses to lend its pages.
    lends: bool,
    sparing: Option<Sparing>,
}

/// Which files are worth the trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Of 8 MiB or more, and not in use.
    Large,
    /// Of any length, and not in use: one of very many.
    Any,
    /// It is certain that nobody uses it.
    Unused,
}

#[derive(Debug)]
struct Sparing {
    place: Place,
    /// Everything before it has been dropped, or left to another reader.
    dropped: u64,
    /// Nothing from here on is in the cache because of this reader.
    cached: u64,
}

impl DiskFile {
    /// `file`, read like any other.
    pub fn keep(file: File) -> DiskFile {
        DiskFile { file, lends: true, sparing: None }
    }

    /// `span` of `file`, which has `length` bytes, read so that nothing stays in the cache; but files
    /// that `worth` leaves out, and those that somebody else has there, are read like any other.
    pub fn spare(
        file: File,
        length: u64,
        span: &Range<u64>,
        worth: Worth,
        readers: &Arc<Readers>,
    ) -> DiskFile {
        let is_worth_it = match worth {
            Worth::Unused => true,
            Worth::Any => !is_in_use(&file, length),
            Worth::Large => length >= WORTH_SPARING && !is_in_use(&file, length),
        };
        let metadata = is_worth_it.then(|| file.metadata().ok()).flatten();
        let sparing = metadata.map(|metadata| Sparing {
            place: readers.enter((metadata.dev(), metadata.ino()), span.clone()),
            dropped: span.start,
            cached: span.start,
        });
        DiskFile { file, lends: true, sparing }
    }

    /// Reads at `position`, before which nothing is needed any more: it is copied.
    ///
    /// # Errors
    /// Whatever pread(2) returns.
    pub fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    let count = result?;
                    self.note_cached(position + count as u64);
                    self.drop_behind(position, position);
                    return Ok(count);
                }
            }
        }
    }

    /// Bytes of a hole at `position`, up to `end`; 0 if there is data, or if the file system does not
    /// say.
    pub fn hole_at(&self, position: u64, end: u64) -> u64 {
        match seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => data.min(end).saturating_sub(position),
            // All that is left is a hole, if the file is still that long.
            Err(Errno::NXIO) => match self.file.metadata() {
                Ok(metadata) if metadata.len() >= end => end - position,
                _ => 0,
            },
            Err(_) => 0,
        }
    }

    /// Where lending has to end in a file that is sent up to `end`: what is copied at last is not on
    /// its way any more when the cache is to be left.
    pub fn lends_until(&self, end: u64) -> u64 {
        match (self.lends, &self.sparing) {
            (false, _) => 0,
            (true, None) => end,
            (true, Some(_)) => end.saturating_sub(DROP),
        }
    }

    /// Puts up to `length` bytes from `position` on into `pipe`. Returns how many that were, or `None`
    /// if the file has to be read.
    ///
    /// # Errors
    /// Whatever splice(2) returns.
    pub fn lend(
        &mut self,
        pipe: &mut Pipe,
        position: u64,
        length: usize,
    ) -> io::Result<Option<usize>> {
        match pipe.fill(&self.file, position, length) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.lends = false;
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(count) => {
                self.note_cached(position + count as u64);
                Ok(Some(count))
            }
        }
    }

    fn note_cached(&mut self, end: u64) {
        if let Some(sparing) = &mut self.sparing {
            sparing.cached = sparing.cached.max(end + READAHEAD);
        }
    }

    /// Drops what lies behind `acknowledged`, of a client that has come to `position`.
    pub fn drop_behind(&mut self, acknowledged: u64, position: u64) {
        if let Some(sparing) = &mut self.sparing
            && acknowledged >= sparing.dropped.saturating_add(DROP)
        {
            sparing.place.advance(position);
            sparing.drop_until(&self.file, acknowledged);
        }
    }

    /// Drops what is left, nothing more being sent.
    pub fn finish(&mut self) {
        let Some(mut sparing) = self.sparing.take() else { return };
        let end = sparing.cached;
        sparing.drop_until(&self.file, end);
        if sparing.place.leave() {
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }
}

impl Sparing {
    fn drop_until(&mut self, file: &File, end: u64) {
        let range = self.dropped.saturating_sub(DROP)..end;
        if range.start < range.end && self.place.may_drop(&range) {
            // Advice: if it is not taken, the cache is used as ever.
            let _ = fadvise(
                file,
                range.start,
                NonZeroU64::new(range.end - range.start),
                Advice::DontNeed,
            );
        }
        self.dropped = end;
    }
}

/// Whether half of the file or more is in the cache: somebody else works with it. cachestat(2) and
/// mincore(2) tell that only to those who may write to the file, which this process may not, so
/// bytes all over the file are read that may not be waited for. A place that is not in the cache
/// costs a page's read from the disk.
fn is_in_use(file: &File, length: u64) -> bool {
    use std::hash::{BuildHasher, RandomState};
    // Other places each time: a page that was looked at is in the cache from then on.
    let random = RandomState::new().hash_one(0);
    let samples = (length / SAMPLE).clamp(1, SAMPLES);
    let stride = (length / samples).max(1);
    let (mut hits, mut misses) = (0, 0);
    for number in 0..samples {
        let position = number * stride + random % stride;
        let mut byte = [0];
        let flags = ReadWriteFlags::NOWAIT;
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], position, flags) {
            Ok(_) => hits += 1,
            Err(Errno::AGAIN | Errno::INTR) => misses += 1,
            // Not to be told here: rather too much in the cache than a world gone from it.
            Err(_) => return true,
        }
        if misses > samples / 2 {
            return false;
        }
    }
    hits >= misses
}
