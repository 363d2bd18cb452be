//! Where a piece's bytes come from: what is left of the response head, then the content, for as
//! long as the transfer's turn lasts.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::archive::is_pause;
use crate::delivery::pace::Broken;
use crate::delivery::transfer::Rest;

/// A piece is this long at most while others wait for a worker.
const PIECE_BYTES: u64 = 4 << 20;
/// So is the time for it.
const PIECE_TIME: Duration = Duration::from_millis(10);

/// What source and sink tell each other.
#[derive(Default)]
pub(super) struct State {
    /// Bytes that the socket is likely to take now.
    pub room: Cell<usize>,
    pub fault: Cell<Option<Broken>>,
    pub early_input: Cell<bool>,
}

impl State {
    pub(super) fn fail<T>(&self, broken: Broken) -> io::Result<T> {
        self.fault.set(Some(broken));
        Err(io::ErrorKind::Other.into())
    }
}

/// What bounds one piece.
pub(super) struct Turn<'a> {
    /// Bytes that may be sent whether others wait or not.
    allowance: u64,
    others: &'a AtomicUsize,
    /// Bytes read so far.
    bytes: u64,
    since: Instant,
}

impl<'a> Turn<'a> {
    pub(super) fn new(allowance: u64, others: &'a AtomicUsize) -> Turn<'a> {
        Turn { allowance, others, bytes: 0, since: Instant::now() }
    }

    /// How many of `wanted` bytes may be sent now; 0 ends the piece.
    fn take(&mut self, wanted: usize) -> usize {
        let left = self.allowance.saturating_sub(self.bytes);
        let long = self.bytes >= PIECE_BYTES || self.since.elapsed() >= PIECE_TIME;
        if self.bytes > 0 && long && self.others.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

pub(super) struct Source<'a> {
    pub rest: Rest<'a>,
    pub turn: Turn<'a>,
    pub state: &'a State,
    /// The stream has never been parked, and may be sent a step at once.
    pub runs: bool,
}

/// What a read comes to.
enum Wanted {
    /// So many bytes.
    Plain(usize),
    /// So many bytes past the page cache.
    Step(usize),
    /// The piece ends here.
    Nothing,
}

impl Source<'_> {
    /// What to read next into a buffer with `space` bytes left.
    fn wanted(&mut self, space: usize) -> Wanted {
        let span = &self.rest.span;
        let left = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        if let Some(end) = self.rest.content.step_from(span.start).filter(|_| self.runs) {
            let step = usize::try_from(end - span.start).unwrap_or(usize::MAX).min(left);
            if step > space && self.turn.bytes > 0 {
                // The next piece has a larger buffer.
                return Wanted::Nothing;
            }
            if step <= space && step > 0 && self.turn.take(step) == step {
                return Wanted::Step(step);
            }
        }
        match self.turn.take(self.state.room.get().min(space).min(left)) {
            0 => Wanted::Nothing,
            count => Wanted::Plain(count),
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.rest.head;
        let from_head = head.len().min(buffer.len());
        buffer[..from_head].copy_from_slice(&head[..from_head]);
        self.rest.head = &head[from_head..];
        let into = &mut buffer[from_head..];
        let start = self.rest.span.start;
        let result = match self.wanted(into.len()) {
            Wanted::Nothing => return Ok(from_head),
            Wanted::Plain(count) => self.rest.content.read_at(&mut into[..count], start),
            Wanted::Step(count) => self.rest.content.read_step(&mut into[..count], start),
        };
        let count = match result {
            Ok(0) => return self.state.fail(Broken::FileShrank),
            Ok(count) => count,
            // Others have their turn before it is tried again.
            Err(error) if is_pause(&error) => return Ok(from_head),
            Err(error) => return self.state.fail(Broken::File(error.to_string())),
        };
        self.rest.span.start += count as u64;
        self.turn.bytes += count as u64;
        Ok(from_head + count)
    }
}
