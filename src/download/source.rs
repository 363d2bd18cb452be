//! What is read for a piece: what is left of the response head, then the content, for as long as the
//! download's turn lasts.

use std::cell::Cell;
use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::content::Content;
use super::end::Broken;
use super::job::Crew;
use crate::archive::Pause;

/// A piece is this long at most while others wait for a worker.
const PIECE_BYTES: u64 = 4 << 20;
/// So is the time for it.
const PIECE_TIME: Duration = Duration::from_millis(10);
/// A piece ends after this time in any case: a reload, and all that ends downloads, must reach one
/// that has the server to itself.
const LONGEST_PIECE: Duration = Duration::from_millis(250);

/// What source and sink tell each other.
pub(super) struct Traffic {
    /// Bytes that the socket is likely to take now.
    pub(super) room: Cell<usize>,
    /// Why the download has to end.
    pub(super) fault: Cell<Option<Broken>>,
    /// True if the client had sent more before the last byte left.
    pub(super) early_input: Cell<bool>,
    /// True if another download has to be waited for.
    pub(super) waits: Cell<bool>,
}

impl Traffic {
    pub(super) fn new(room: usize) -> Traffic {
        Traffic {
            room: Cell::new(room),
            fault: Cell::new(None),
            early_input: Cell::new(false),
            waits: Cell::new(false),
        }
    }

    pub(super) fn fail<T>(&self, broken: Broken) -> io::Result<T> {
        self.fault.set(Some(broken));
        Err(io::ErrorKind::Other.into())
    }
}

/// What bounds one piece.
pub(super) struct Turn<'a> {
    /// Bytes that may still be read.
    left: u64,
    crew: &'a Crew,
    /// Bytes read so far.
    bytes: u64,
    since: Instant,
}

impl<'a> Turn<'a> {
    pub(super) fn new(bytes: u64, crew: &'a Crew) -> Turn<'a> {
        Turn { left: bytes, crew, bytes: 0, since: Instant::now() }
    }

    /// Returns true if the piece has to end.
    pub(super) fn is_over(&self) -> bool {
        let time = self.since.elapsed();
        let is_long = self.bytes >= PIECE_BYTES || time >= PIECE_TIME;
        let others_wait = is_long && self.crew.queue.waiting() > 0;
        self.left == 0 || (self.bytes > 0 && (time >= LONGEST_PIECE || others_wait))
    }

    /// How many of `wanted` bytes may be read now; 0 ends the piece.
    pub(super) fn take(&self, wanted: usize) -> usize {
        match self.is_over() {
            true => 0,
            false => usize::try_from(self.left).unwrap_or(usize::MAX).min(wanted),
        }
    }

    pub(super) fn note(&mut self, count: usize) {
        self.bytes += count as u64;
        self.left -= count as u64;
    }
}

/// Yields the rest of an answer.
pub(super) struct Source<'a, 'b> {
    pub(super) head: &'a [u8],
    pub(super) content: &'a mut Content,
    /// What of the content is left.
    pub(super) span: Range<u64>,
    pub(super) turn: &'a mut Turn<'b>,
    /// True if it ends where pages can be lent, once something of the content was read.
    pub(super) lends: bool,
    pub(super) has_read: bool,
    pub(super) traffic: &'a Traffic,
}

impl Read for Source<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from_head = self.head.len().min(buffer.len());
        buffer[..from_head].copy_from_slice(&self.head[..from_head]);
        self.head = &self.head[from_head..];
        let space = buffer.len() - from_head;
        let left = usize::try_from(self.span.end - self.span.start).unwrap_or(usize::MAX);
        let wanted = self.turn.take(self.traffic.room.get().min(space).min(left));
        let lends = self.lends && self.has_read && self.content.lendable(&self.span).is_some();
        if wanted == 0 || lends {
            return Ok(from_head);
        }
        let into = &mut buffer[from_head..from_head + wanted];
        let count = match self.content.read_at(into, self.span.start, self.turn.left) {
            Ok(0) => return self.traffic.fail(Broken::FileShrank),
            Ok(count) => count,
            Err(error) => match Pause::of(&error) {
                // Others have their turn before it is tried again.
                Some(pause) => {
                    self.traffic.waits.set(pause == Pause::Busy);
                    return Ok(from_head);
                }
                None => return self.traffic.fail(Broken::File(error.to_string())),
            },
        };
        self.span.start += count as u64;
        self.turn.note(count);
        self.has_read = true;
        Ok(from_head + count)
    }
}
