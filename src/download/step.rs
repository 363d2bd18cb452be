//! Sends one piece of a download with `std::io::copy`, without ever waiting for the client for long.
//!
//! The source yields what is left of the response head and then the file, so that a small answer is
//! one write; it is buffered outermost, because `std::io::copy` then uses that buffer as its own.
//! What was read and does not fit into the socket is dropped and read again later, so a read is no
//! larger than what the socket is likely to take.

use std::io::{self, BufReader, Write};
use std::time::{Duration, Instant};

use super::Download;
use super::end::Broken;
use super::job::Crew;
use super::source::{Source, Traffic, Turn};
use crate::control::downloads::Downloads;
use crate::net::socket::Socket;
use crate::replay::Stream;
use crate::replay::live::Live;

/// Longest wait of a worker for a client that has never been slow, if nothing else is ready.
const PATIENCE: Duration = Duration::from_millis(20);
/// Size of the copy buffer in bytes. `std::io::copy` uses a reader's own from `MIN_BUFFER` on.
const BUFFER: u64 = 128 * 1024;
const MIN_BUFFER: u64 = 8 * 1024;

/// How a piece ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything is in the kernel's hands.
    Sent,
    /// The socket is full.
    Full,
    /// It has had its turn.
    TurnOver,
}

impl Download {
    /// Sends the next piece, of at most `bytes` content bytes. Returns how it ended, and how many bytes
    /// were read for it besides what was sent.
    pub(super) fn step(
        &mut self,
        socket: &mut Socket,
        bytes: u64,
        downloads: &Downloads,
        crew: &Crew,
    ) -> (Result<Step, Broken>, u64) {
        if let Some(stop) = self.live.stopped() {
            return (Err(Broken::Stopped(stop)), 0);
        }
        let began = socket.sent();
        if began > self.content_start {
            let now = Instant::now();
            self.pace.leave_out(self.live.resume(now));
            self.note_progress(socket, now);
        }
        let head_left = self.content_start.saturating_sub(began) as usize;
        let head = &self.head[self.head.len() - head_left.min(self.head.len())..];
        let span = self.rest(began);
        let length = span.end - span.start + head.len() as u64;
        let traffic = Traffic::new(socket.room(length));
        let turn = Turn::new(bytes, crew);
        let source = Source { head, content: &mut self.content, span, turn, traffic: &traffic };
        let buffer = length.clamp(MIN_BUFFER, BUFFER) as usize;
        let mut source = BufReader::with_capacity(buffer, source);
        let mut sink = Sink {
            socket,
            live: &self.live,
            stream: self.stream.as_mut(),
            content_start: self.content_start,
            end: began + length,
            patient: !self.slow,
            downloads,
            crew,
            traffic: &traffic,
        };
        let result = io::copy(&mut source, &mut sink);
        let flushed = result.is_ok() && sink.flush_all();
        drop(source);
        if socket.sent() >= self.content_start {
            self.head = Vec::new();
        }
        if traffic.early_input.get() {
            self.finish.note_early_input();
        }
        let extra = self.content.take_extra();
        let paid = extra == 0 || self.stream.as_ref().is_none_or(|stream| stream.pay(extra));
        let ended = match (result, traffic.fault.take()) {
            (_, Some(broken)) => Err(broken),
            (Ok(_), None) if socket.sent() < began + length => match extra {
                _ if !paid => Err(Broken::Budget),
                // Nothing was written that could fail if the client is gone, and the reading may be
                // long.
                1.. if socket.has_hung_up() => Err(Broken::Client("hung up".into())),
                _ => Ok(Step::TurnOver),
            },
            (Ok(_), None) => Ok(if flushed { Step::Sent } else { Step::Full }),
            (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Full),
            (Err(error), None) => Err(Broken::Client(error.kind().to_string())),
        };
        (ended, extra)
    }
}

/// Writes to the socket what the link may have.
struct Sink<'a> {
    socket: &'a mut Socket,
    live: &'a Live,
    stream: Option<&'a mut Stream>,
    content_start: u64,
    /// The end of the answer, in bytes of the connection.
    end: u64,
    /// Wait for the client a little before giving up the worker.
    patient: bool,
    downloads: &'a Downloads,
    crew: &'a Crew,
    traffic: &'a Traffic,
}

impl Sink<'_> {
    /// How many of `wanted` bytes the link may have now.
    fn allowed(&mut self, wanted: usize) -> io::Result<usize> {
        if let Some(stop) = self.live.stopped() {
            return self.traffic.fail(Broken::Stopped(stop));
        }
        let Some(stream) = &mut self.stream else { return Ok(wanted) };
        let sent = self.socket.sent();
        let Some(limit) = stream.reserve(sent.saturating_sub(self.content_start)) else {
            return self.traffic.fail(Broken::Budget);
        };
        let room = (self.content_start + limit).saturating_sub(sent);
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wanted))
    }

    /// Waits for room, if nobody else needs this worker. Returns true if it is worth trying again.
    fn wait(&mut self) -> bool {
        self.patient && self.crew.queue.waiting() == 0 && self.socket.wait_writable(PATIENCE)
    }

    /// Hands over what TLS still holds. Returns false if the kernel does not take it now.
    fn flush_all(&mut self) -> bool {
        loop {
            match self.socket.flush() {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait() {
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
        if self.stream.is_some() && self.socket.sent() + count as u64 >= self.end {
            self.traffic.early_input.set(self.socket.has_unread_input());
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.allowed(bytes.len())?;
        self.note_early_input(allowed);
        loop {
            match self.socket.write(&bytes[..allowed]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.wait() => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let sent = self.socket.sent();
                    self.downloads.note_sent(count as u64);
                    self.live.note_sent(sent.saturating_sub(self.content_start));
                    self.traffic.room.set(self.socket.room(self.end - sent));
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
