//! The bytes of an archive from any position on, as a [`Read`] that `std::io::copy` takes.
//!
//! A member is opened when its first byte is due and one is open at a time. A zip wants the CRC of
//! each member after its content and again in the central directory. What this reader sends is
//! summed as it passes; the CRC of what it did not send is read when it is due, and no sooner.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::format::Format;
use super::layout::Part;
use super::names::one_line;
use super::open::{self, Since};
use super::pause::Pause;
use super::shelf::Packed;
use super::sums::Running;
use super::zip::Step;
use crate::disk::file::{DiskFile, Worth};
use crate::disk::readers::Readers;

/// Most bytes that one call reads of files beyond what it returns.
const CALL: u64 = 1 << 20;

/// What opening a member counts for in [`CALL`]: 64 files, and on a cold disk half a second.
pub(super) const OPENING: u64 = CALL / 64;

/// Most members of which this reader sent something else than others did.
const MAX_OWN: usize = 4096;

/// Of an archive longer than this, small members do not stay in the page cache either.
const LARGE: u64 = 64 << 20;

/// What was read and not sent is at most this much, and is read again for a zip's CRCs.
const AGAIN: u64 = 2 << 20;

/// Reads a range of an archive.
///
/// # Errors
/// [`Read::read`] fails with an error that is a [`Pause`] when it has read 1 MiB for CRCs (or what
/// [`ArchiveReader::limit_extra`] allows) or opened 64 members without a byte to return, or while
/// somebody else reads for a CRC: call again. Any other error means that a member is not what was
/// listed or cannot be read, and the stream must be broken off; `UnexpectedEof` if it shrank. Messages
/// name the member, for the log and not for the client.
#[derive(Debug)]
pub struct ArchiveReader {
    pub(super) packed: Packed,
    /// Where it began.
    start: u64,
    end: u64,
    part: Part,
    /// Bytes of `part` that are read.
    offset: u64,
    /// What `bytes` holds.
    rendered: Option<Part>,
    bytes: Vec<u8>,
    path: Vec<u8>,
    /// If the page cache is to be spared.
    readers: Option<Arc<Readers>>,
    position: u64,
    open: Option<Open>,
    /// Of the member that was sent last.
    pub(super) sent: Option<Running>,
    /// Position and `sent` before the last read, all of which may have to be read again.
    before: (u64, Option<Running>),
    /// Of a member, or of its beginning, that was not sent.
    pub(super) unsent: Option<Running>,
    /// CRCs of what this reader sent, if another reader's came first and differs.
    pub(super) own: BTreeMap<usize, u32>,
    /// Bytes that were read of files for CRCs in this piece, and the most that may be.
    pub(super) extra: u64,
    most_extra: u64,
}

/// The member that is open.
#[derive(Debug)]
pub(super) struct Open {
    index: usize,
    pub(super) file: DiskFile,
}

impl ArchiveReader {
    /// Reads `range` of an archive. Nothing is opened yet. With `readers`, what is read of its members
    /// does not stay in the page cache.
    pub fn new(packed: Packed, range: &Range<u64>, readers: Option<Arc<Readers>>) -> ArchiveReader {
        let place = packed.archive.locate(range.start);
        ArchiveReader {
            start: range.start,
            end: range.end.min(packed.archive.length()),
            packed,
            part: place.part,
            offset: place.offset,
            rendered: None,
            bytes: Vec::new(),
            path: Vec::new(),
            readers,
            position: range.start,
            open: None,
            sent: None,
            before: (range.start, None),
            unsent: None,
            own: BTreeMap::new(),
            extra: 0,
            most_extra: u64::MAX,
        }
    }

    /// Lets at most `bytes` be read of files for CRCs until [`ArchiveReader::take_extra`] is called, less
    /// than a call might read otherwise. What a limit of the bandwidth gives one piece would be gone for
    /// many, and others would wait for that.
    pub fn limit_extra(&mut self, bytes: u64) {
        self.most_extra = bytes;
    }

    /// Ends a piece. Returns the bytes that were read of files for CRCs since this was last called,
    /// to be charged to the link.
    pub fn take_extra(&mut self) -> u64 {
        // A transfer that waits for its client keeps as little as it can.
        (self.rendered, self.bytes, self.path) = (None, Vec::new(), Vec::new());
        mem::take(&mut self.extra)
    }

    /// Closes what is open.
    pub fn finish(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.file.finish();
        }
    }

    /// Goes to `position`. What this reader knows of the member there stays known if it has just
    /// read that position, or is shortly before it.
    ///
    /// # Errors
    /// As [`Read::read`].
    pub fn seek(&mut self, position: u64) -> io::Result<()> {
        let (at, before) = &self.before;
        if (*at..self.position).contains(&position) {
            self.sent.clone_from(before);
            self.go_to(*at);
        }
        let most = if self.packed.archive.format() == Format::Zip { AGAIN } else { 0 };
        let again = position.checked_sub(self.position).filter(|again| *again <= most);
        let Some(again) = again else {
            self.sent = None;
            self.go_to(position);
            return Ok(());
        };
        let mut scratch = vec![0; again as usize];
        while self.position < position {
            let left = (position - self.position) as usize;
            if self.read(&mut scratch[..left])? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The member that is open, and where in the archive its content lies, if `position` is there and
    /// its bytes need not pass through here. A zip's have to, for the CRC.
    pub fn file_at(&mut self, position: u64) -> Option<(&mut DiskFile, Range<u64>)> {
        let archive = &self.packed.archive;
        let open = self.open.as_mut().filter(|_| archive.format() == Format::Tar)?;
        let start = archive.content_start(open.index);
        let place = start..start + archive.file_size(open.index)?;
        place.contains(&position).then_some((&mut open.file, place))
    }

    fn go_to(&mut self, position: u64) {
        let place = self.packed.archive.locate(position);
        (self.part, self.offset) = (place.part, place.offset);
        self.position = position;
    }

    /// The position in the archive of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes read of files so far for CRCs only, to be charged to the link.
    pub fn extra_read(&self) -> u64 {
        self.extra
    }

    /// Copies what is next; nothing if that was the end of a part.
    fn fill(&mut self, buffer: &mut [u8], share: &mut Share) -> io::Result<usize> {
        if self.offset == self.packed.archive.part_length(self.part) {
            self.part = self.packed.archive.next(self.part);
            self.offset = 0;
            return Ok(0);
        }
        let count = match self.part {
            Part::Content(index) => self.content(index, buffer, share)?,
            part => {
                self.render(part, share)?;
                copy(&self.bytes[self.offset as usize..], buffer)
            }
        };
        self.offset += count as u64;
        Ok(count)
    }

    fn render(&mut self, part: Part, share: &mut Share) -> io::Result<()> {
        if self.rendered == Some(part) {
            return Ok(());
        }
        let crc = match self.packed.archive.needs_sum(part) {
            Some(index) => self.sum_of(index, share)?,
            None => 0,
        };
        self.packed.archive.render(part, crc, &mut self.path, &mut self.bytes);
        self.rendered = Some(part);
        Ok(())
    }

    fn content(&mut self, index: usize, buffer: &mut [u8], share: &mut Share) -> io::Result<usize> {
        let (offset, length) = match self.packed.archive.step(index, self.offset) {
            Step::Frame(bytes, from) => return Ok(copy(&bytes[from..], buffer)),
            Step::Data { offset, length } => (offset, length),
        };
        let wanted =
            usize::try_from(length).map_or(buffer.len(), |length| length.min(buffer.len()));
        let buffer = &mut buffer[..wanted];
        let archive = Arc::clone(&self.packed.archive);
        let count = match archive.text(index) {
            Some(text) => copy(&text[offset as usize..], buffer),
            None => {
                // What this stream joins in its middle must be what was sent before.
                let is_joined = archive.content_start(index) < self.start;
                let since = if is_joined { Since::Nothing } else { Since::Grown };
                self.read_member(index, offset, buffer, since, share)?
            }
        };
        if archive.format() == Format::Zip {
            self.add_sent(index, offset, &buffer[..count])?;
        }
        Ok(count)
    }

    fn add_sent(&mut self, index: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let sent = self.sent.take().filter(|sent| sent.index == index && sent.at == offset);
        let mut sent = sent.unwrap_or_else(|| Running::new(index, offset));
        sent.add(bytes);
        let is_whole = sent.from == 0 && Some(sent.at) == self.packed.archive.file_size(index);
        if !is_whole {
            self.sent = Some(sent);
            return Ok(());
        }
        let crc = sent.joined(None);
        if self.packed.archive.sums.set(index, crc) != crc {
            self.own.insert(index, crc);
            if self.own.len() > MAX_OWN {
                return Err(io::Error::other("too much is not what others were sent"));
            }
        }
        Ok(())
    }

    /// Reads at least a byte of a member's file.
    pub(super) fn read_member(
        &mut self,
        index: usize,
        offset: u64,
        buffer: &mut [u8],
        since: Since,
        share: &mut Share,
    ) -> io::Result<usize> {
        let open = self.member(index, since, share)?;
        match open.file.read_at(buffer, offset) {
            Ok(count) if count > 0 => Ok(count),
            result => {
                let error = result.err().unwrap_or_else(open::changed);
                Err(named(self.packed.archive.member(index, &mut self.path).path, &error))
            }
        }
    }

    /// The file of a member, opened if another one is.
    pub(super) fn member(
        &mut self,
        index: usize,
        since: Since,
        share: &mut Share,
    ) -> io::Result<&mut Open> {
        let open = match self.open.take_if(|open| open.index == index) {
            Some(open) => open,
            None => {
                share.take(OPENING)?;
                self.finish();
                self.open(index, since)?
            }
        };
        Ok(self.open.insert(open))
    }

    fn open(&mut self, index: usize, since: Since) -> io::Result<Open> {
        let archive = &self.packed.archive;
        let size = archive.file_size(index).unwrap_or(0);
        let (dir, path) = archive.content(index, &self.packed.root, &mut self.path);
        let file = open::member(dir.as_fd(), path, archive.entry(index), since)
            .map_err(|error| named(path, &error))?;
        let worth = if archive.length() > LARGE { Worth::Any } else { Worth::Large };
        let file = match &self.readers {
            Some(readers) => DiskFile::spare(file, size, &(0..size), worth, readers),
            None => DiskFile::keep(file),
        };
        Ok(Open { index, file })
    }
}

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.before = (self.position, self.sent.clone());
        let mut share = Share { left: CALL.min(self.most_extra.saturating_sub(self.extra)) };
        let mut filled = 0;
        while filled < wanted {
            match self.fill(&mut buffer[filled..wanted], &mut share) {
                Ok(count) => {
                    filled += count;
                    self.position += count as u64;
                }
                // It will come again when what precedes it is gone.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// What one call may still read beyond what it returns.
pub(super) struct Share {
    left: u64,
}

impl Share {
    /// Takes up to `wanted` bytes.
    pub(super) fn take(&mut self, wanted: u64) -> io::Result<u64> {
        let granted = wanted.min(self.left);
        if granted == 0 {
            return Err(Pause::Worked.into());
        }
        self.left -= granted;
        Ok(granted)
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

fn named(path: &[u8], error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", one_line(path)))
}
