//! Sends one piece of a transfer with `std::io::copy`, without ever waiting for the client for long.
//!
//! The source yields what is left of the response head and then the file, so that a small answer is
//! one write; it is buffered outermost, because `std::io::copy` then uses that buffer as its own.
//! What was read and does not fit into the socket is dropped and read again later, so a read is no
//! larger than what the socket is likely to take.

use std::io::{self, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::source::{Source, State, Turn};
use crate::delivery::pace::Broken;
use crate::delivery::running::Running;
use crate::delivery::transfer::{Piece, Rest, Transfer};
use crate::disk::file::STEP;
use crate::net::socket::Socket;
use crate::replay::Stream;
use crate::replay::live::Live;

/// How long a worker waits for a client that has never been slow, if it has nothing else to do.
const PATIENCE: Duration = Duration::from_millis(20);
/// Size of the copy buffer in bytes. `std::io::copy` uses a reader's own from `MIN_BUFFER` on.
const BUFFER: usize = 128 * 1024;
/// Its size for a stream that runs past the page cache.
const STEP_BUFFER: usize = STEP as usize;
const MIN_BUFFER: usize = 8 * 1024;

/// Sends the next piece of `transfer`; `others` is how many are ready and wait for a worker.
///
/// # Errors
/// Why the transfer has to end. The connection is then of no more use.
pub fn send_piece(
    transfer: &mut Transfer,
    socket: &mut Socket,
    others: &AtomicUsize,
) -> Result<Piece, Broken> {
    let began = socket.sent();
    let mut stream = transfer.delivery.stream.take();
    let running = &*Arc::clone(&transfer.delivery.running);
    let content_start = transfer.delivery.content_start;
    let (was_parked, allowance) = (transfer.was_parked, transfer.allowance);
    transfer.resume(Instant::now());
    transfer.delivery.note_progress(began, socket.acknowledged().unwrap_or(0));
    let live = &*Arc::clone(&transfer.delivery.live);
    let mut rest = transfer.rest(began);
    let length = rest.length();
    let state = State::default();
    state.room.set(socket.room(length));
    let runs = !was_parked && allowance >= STEP;
    let buffer = buffer_for(&mut rest, runs);
    let source = Source { rest, turn: Turn::new(allowance, others), state: &state, runs };
    let mut source = BufReader::with_capacity(buffer, source);
    let mut sink = Sink {
        socket,
        running,
        live,
        stream: stream.as_mut(),
        content_start,
        end: began + length,
        patient: !was_parked,
        others,
        state: &state,
    };
    let result = io::copy(&mut source, &mut sink);
    let flushed = result.is_ok() && sink.flush_all();
    let sent = sink.socket.sent();
    drop(source);
    let extra = transfer.rest_content();
    let paid = stream.as_ref().is_none_or(|stream| extra == 0 || stream.pay(extra));
    let current = live.stopped().is_none();
    transfer.delivery.stream = stream;
    transfer.early_input |= state.early_input.get();
    match (result, state.fault.take()) {
        (_, Some(broken)) => Err(broken),
        // What is only read, and not sent, does not come by where these are looked at.
        (Ok(_), None) if sent < began + length => match (current, paid) {
            (false, _) => Err(Broken::LinkGone),
            (_, false) => Err(Broken::Budget),
            // Nothing is written that could fail if the client is gone, and the reading may be long.
            _ if extra > 0 && socket.has_hung_up() => Err(Broken::Client("hung up".into())),
            _ => Ok(Piece::TurnOver),
        },
        (Ok(_), None) => Ok(if flushed { Piece::Sent } else { Piece::Full }),
        (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => Ok(Piece::Full),
        (Err(error), None) => Err(Broken::Client(error.kind().to_string())),
    }
}

/// How many bytes of buffer the rest of an answer is worth; `runs`: in one go.
fn buffer_for(rest: &mut Rest<'_>, runs: bool) -> usize {
    let steps = runs && rest.content.step_from(rest.span.start).is_some();
    let most = if steps { STEP_BUFFER } else { BUFFER };
    usize::try_from(rest.length()).unwrap_or(usize::MAX).clamp(MIN_BUFFER, most)
}

struct Sink<'a> {
    socket: &'a mut Socket,
    running: &'a Running,
    live: &'a Live,
    stream: Option<&'a mut Stream>,
    content_start: u64,
    /// The end of the answer, in bytes of the connection.
    end: u64,
    /// Wait for the client a little before giving up the worker.
    patient: bool,
    others: &'a AtomicUsize,
    state: &'a State,
}

impl Sink<'_> {
    /// How many of `wanted` bytes the link's budget allows now.
    fn allowed(&mut self, wanted: usize) -> io::Result<usize> {
        if self.running.is_revoked() {
            return self.state.fail(Broken::Revoked);
        }
        let Some(stream) = &mut self.stream else { return Ok(wanted) };
        if self.live.stopped().is_some() {
            return self.state.fail(Broken::LinkGone);
        }
        let sent = self.socket.sent();
        let Some(limit) = stream.reserve(sent.saturating_sub(self.content_start)) else {
            return self.state.fail(Broken::Budget);
        };
        let room = (self.content_start + limit).saturating_sub(sent);
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wanted))
    }

    /// Waits for room, if nobody else needs this worker. Whether it is worth trying again.
    fn wait(&mut self) -> bool {
        self.patient
            && self.others.load(Ordering::Relaxed) == 0
            && self.socket.wait_writable(PATIENCE)
    }

    /// Hands over what TLS still holds. `false` if the kernel does not take it now.
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
                    self.state.fault.set(Some(Broken::Client(error.kind().to_string())));
                    return false;
                }
            }
        }
    }

    /// What is in the kernel before the last byte of the answer leaves was sent before it was read.
    fn note_early_input(&self, count: usize) {
        if self.stream.is_some() && self.socket.sent() + count as u64 >= self.end {
            self.state.early_input.set(self.socket.has_unread_input());
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
                    self.running.note(count as u64, sent.saturating_sub(self.content_start));
                    let left = self.end - sent;
                    self.state.room.set(self.socket.room(left));
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
