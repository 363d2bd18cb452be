//! Sends one piece of a download, without ever waiting for the client for long.
//!
//! To a plain TCP connection the pages of files are lent (`lend`), of a tar's members too, except for
//! what goes with the response head, short rests, and what has to be gone from the page cache at the
//! end. All else is read and written by `std::io::copy`: the source yields what is left of the response
//! head and then the content, so that a small answer is one write; it is buffered outermost, because
//! `std::io::copy` then uses that buffer as its own. What was read and does not fit into the socket is
//! dropped and read again later, so a read is no larger than what the socket is likely to take.

use std::io::{self, BufReader, Write};
use std::time::{Duration, Instant};

use super::Download;
use super::content::Content;
use super::end::Broken;
use super::job::{Crew, Step};
use super::source::{Source, Traffic, Turn};
use crate::control::downloads::Downloads;
use crate::disk::pipe::Pipe;
use crate::net::socket::Socket;
use crate::replay::Stream;
use crate::replay::live::Live;

/// Longest wait of a worker for a client that has never been slow, if nothing else is ready.
const PATIENCE: Duration = Duration::from_millis(20);
/// Size of the copy buffer in bytes. `std::io::copy` uses a reader's own from `MIN_BUFFER` on.
const BUFFER: usize = 128 * 1024;
const MIN_BUFFER: usize = 8 * 1024;

/// What a piece is sent with.
pub(super) struct Way<'a> {
    pub(super) socket: &'a mut Socket,
    /// Counts what is sent.
    pub(super) downloads: &'a Downloads,
    pub(super) crew: &'a Crew,
}

impl Download {
    /// Sends the next piece, of at most `bytes` content bytes. Returns how it ended, and how many bytes
    /// were read for it besides what was sent.
    pub(super) fn step(&mut self, way: &mut Way<'_>, bytes: u64) -> (Result<Step, Broken>, u64) {
        if way.socket.sent() > self.content_start {
            let now = Instant::now();
            self.pace.leave_out(self.live.resume(now));
            self.note_progress(way.socket, now);
            self.drop_behind(way.socket.sent());
        }
        let mut turn = Turn::new(bytes, way.crew);
        let result = self.send(way, &mut turn);
        let extra = self.content.take_extra();
        let paid = extra == 0 || self.stream.as_ref().is_none_or(|stream| stream.pay(extra));
        let result = match result {
            Ok(Step::TurnOver) if !paid => Err(Broken::Budget),
            // Nothing was written that could fail if the client is gone, and the reading may be long.
            Ok(Step::TurnOver) if extra > 0 && way.socket.has_hung_up() => {
                Err(Broken::Client("hung up".into()))
            }
            result => result,
        };
        (result, extra)
    }

    fn send(&mut self, way: &mut Way<'_>, turn: &mut Turn<'_>) -> Result<Step, Broken> {
        let lends = way.socket.tcp_stream().is_some() && Pipe::works();
        loop {
            if lends && self.lends_now(way.socket.sent()) {
                match self.lend(way, turn)? {
                    Some(step) => return Ok(step),
                    None if turn.is_over() => return Ok(Step::TurnOver),
                    None => {}
                }
            }
            let step = self.copy(way, turn, lends)?;
            let goes_on = step == Step::TurnOver && !turn.is_over();
            if !(lends && goes_on && self.lends_now(way.socket.sent())) {
                return Ok(step);
            }
        }
    }

    /// Reads and writes, up to where pages can be lent if this connection `lends`. That, or the turn,
    /// being over is [`Step::TurnOver`].
    fn copy(
        &mut self,
        way: &mut Way<'_>,
        turn: &mut Turn<'_>,
        lends: bool,
    ) -> Result<Step, Broken> {
        let began = way.socket.sent();
        let span = self.rest(began);
        let head = std::mem::take(&mut self.head);
        let head_left = self.content_start.saturating_sub(began) as usize;
        let left = &head[head.len() - head_left.min(head.len())..];
        let length = span.end - span.start + left.len() as u64;
        let end = began + length;
        let traffic = Traffic::new(way.socket.room(length));
        let buffer = usize::try_from(length).unwrap_or(BUFFER).clamp(MIN_BUFFER, BUFFER);
        let (content, ledger) = self.split();
        let source =
            Source { head: left, content, span, turn, lends, has_read: false, traffic: &traffic };
        let mut source = BufReader::with_capacity(buffer, source);
        let mut sink = Sink { ledger, way, end, traffic: &traffic };
        let result = io::copy(&mut source, &mut sink);
        let flushed = result.is_ok() && sink.flush_all();
        drop(source);
        if way.socket.sent() < self.content_start {
            self.head = head;
        }
        if traffic.early_input.get() {
            self.finish.note_early_input();
        }
        match (result, traffic.fault.take()) {
            (_, Some(broken)) => Err(broken),
            (Ok(_), None) if way.socket.sent() < end && traffic.waits.get() => Ok(Step::Waits),
            (Ok(_), None) if way.socket.sent() < end => Ok(Step::TurnOver),
            (Ok(_), None) => Ok(if flushed { Step::Sent } else { Step::Full }),
            (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Full),
            (Err(error), None) => Err(Broken::Client(error.kind().to_string())),
        }
    }

    /// The content, and what has to be asked and told for each part of it that is sent.
    pub(super) fn split(&mut self) -> (&mut Content, Ledger<'_>) {
        let ledger = Ledger {
            live: &self.live,
            stream: self.stream.as_mut(),
            content_start: self.content_start,
            patient: !self.slow,
        };
        (&mut self.content, ledger)
    }
}

/// What a download may send, and what it has sent.
pub(super) struct Ledger<'a> {
    live: &'a Live,
    stream: Option<&'a mut Stream>,
    content_start: u64,
    /// True if a worker may wait for the client a little.
    patient: bool,
}

impl Ledger<'_> {
    /// How many of `wanted` bytes may follow the first `sent` of the connection.
    pub(super) fn allowed(&mut self, sent: u64, wanted: usize) -> Result<usize, Broken> {
        if let Some(stop) = self.live.stopped() {
            return Err(Broken::Stopped(stop));
        }
        let Some(stream) = &mut self.stream else { return Ok(wanted) };
        let done = sent.saturating_sub(self.content_start);
        let Some(limit) = stream.reserve(done) else {
            return Err(self.live.stopped().map_or(Broken::Budget, Broken::Stopped));
        };
        let room = (self.content_start + limit).saturating_sub(sent);
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wanted))
    }

    /// Waits for room in the socket, if nobody else needs this worker. Returns true if it is worth
    /// trying again.
    pub(super) fn waits(&self, way: &Way<'_>) -> bool {
        self.patient && way.crew.queue.waiting() == 0 && way.socket.wait_writable(PATIENCE)
    }

    /// Notes that `count` more bytes went to the kernel.
    pub(super) fn note_written(&self, way: &Way<'_>, count: u64) {
        way.downloads.note_sent(count);
        self.live.note_sent(way.socket.sent().saturating_sub(self.content_start));
    }
}

/// Writes to the socket what the link may have.
struct Sink<'a, 'b> {
    ledger: Ledger<'a>,
    way: &'a mut Way<'b>,
    /// The end of the answer, in bytes of the connection.
    end: u64,
    traffic: &'a Traffic,
}

impl Sink<'_, '_> {
    /// Hands over what TLS still holds. Returns false if the kernel does not take it now.
    fn flush_all(&mut self) -> bool {
        loop {
            match self.way.socket.flush() {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.ledger.waits(self.way) {
                        return false;
                    }
                }
                Err(error) => {
                    self.traffic.fault.set(Some(Broken::Client(error.kind().to_string())));
                    return false;
                }
            }
        }
    }

    /// Input that is there before the last byte of the answer leaves was sent before it was read.
    fn note_early_input(&self, count: usize) {
        let socket = &self.way.socket;
        if self.ledger.stream.is_some() && socket.sent() + count as u64 >= self.end {
            self.traffic.early_input.set(socket.has_unread_input());
        }
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.ledger.allowed(self.way.socket.sent(), bytes.len());
        let allowed = allowed.or_else(|broken| self.traffic.fail(broken))?;
        self.note_early_input(allowed);
        loop {
            match self.way.socket.write(&bytes[..allowed]) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && self.ledger.waits(self.way) => {
                }
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.ledger.note_written(self.way, count as u64);
                    let left = self.end - self.way.socket.sent();
                    self.traffic.room.set(self.way.socket.room(left));
                    return Ok(count);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
