//! Sends a file's bytes to a client with `std::io::copy`, and watches that they arrive.
//!
//! The source yields the response head and then the file, so that a small answer is one write; it
//! is buffered outermost, because that is the buffer which `std::io::copy` then uses as its own.
//! The sink waits for the socket, judges the client by what it acknowledges, keeps to the rate
//! limit, and asks the link's budget before each step.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::socket::Socket;
use crate::replay::Stream;

/// Why a stream ended before its last byte was handed to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client is gone.
    Client(String),
    /// No byte was acknowledged for the `stall` timeout.
    Stalled,
    /// The client took less than `min_rate`.
    TooSlow,
    /// The file is shorter than it was when it was opened.
    FileShrank,
    /// The file could not be read.
    File(String),
    /// The link has paid for as many bytes as it may.
    Budget,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Client(error) => write!(f, "client gone ({error})"),
            Broken::Stalled => f.write_str("stall: nothing acknowledged in time"),
            Broken::TooSlow => f.write_str("stall: slower than min_rate"),
            Broken::FileShrank => f.write_str("the file was truncated meanwhile"),
            Broken::File(error) => write!(f, "read: {error}"),
            Broken::Budget => f.write_str("the link has paid for three times the file"),
        }
    }
}

/// How fast a client must and may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest time without an acknowledged byte.
    pub stall: Duration,
    /// Bytes a second, averaged over three times `stall`; 0 is none.
    pub min_rate: u64,
    /// Bytes a second at most; 0 is none.
    pub rate_limit: u64,
    /// Size of the copy buffer in bytes.
    pub buffer: usize,
}

impl Pace {
    /// The pace that `config` describes.
    pub fn of(config: &Config) -> Pace {
        Pace {
            stall: config.timeouts.stall,
            min_rate: config.min_rate,
            rate_limit: config.rate_limit,
            buffer: config.copy_buffer,
        }
    }
}

/// Sends `head`, then `span` of `file`. Returns when everything is in the kernel's hands, which is
/// not yet delivered.
///
/// # Errors
/// Why it ended early. The connection is then of no more use.
pub fn send(
    socket: &mut Socket,
    head: &[u8],
    file: &File,
    span: Range<u64>,
    pace: &Pace,
    stream: Option<&mut Stream>,
) -> Result<(), Broken> {
    let length = span.end - span.start;
    let answer = length.saturating_add(head.len() as u64);
    let buffer = usize::try_from(answer).unwrap_or(usize::MAX).min(pace.buffer).max(MIN_BUFFER);
    let source = Source { head, file, span, fault: None };
    let mut source = BufReader::with_capacity(buffer, source);
    let mut sink = Sink::new(socket, head.len() as u64, pace, stream);
    match io::copy(&mut source, &mut sink) {
        Ok(_) if sink.written == answer => sink.drain().map_err(|error| sink.broken(&error)),
        // The source ends early only where the file does.
        Ok(_) => Err(Broken::FileShrank),
        Err(error) => Err(source.into_inner().fault.unwrap_or_else(|| sink.broken(&error))),
    }
}

/// `std::io::copy` uses a reader's own buffer from this size on.
const MIN_BUFFER: usize = 8 * 1024;

struct Source<'a> {
    head: &'a [u8],
    file: &'a File,
    span: Range<u64>,
    fault: Option<Broken>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from_head = self.head.len().min(buffer.len());
        buffer[..from_head].copy_from_slice(&self.head[..from_head]);
        self.head = &self.head[from_head..];
        let room = &mut buffer[from_head..];
        let wanted = usize::try_from(self.span.end - self.span.start).unwrap_or(usize::MAX);
        let wanted = wanted.min(room.len());
        if wanted == 0 {
            return Ok(from_head);
        }
        let from_file = loop {
            match self.file.read_at(&mut room[..wanted], self.span.start) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fault = Some(Broken::File(error.to_string()));
                    return Err(error);
                }
                Ok(count) => break count,
            }
        };
        self.span.start += from_file as u64;
        Ok(from_head + from_file)
    }
}

struct Sink<'a> {
    socket: &'a mut Socket,
    stream: Option<&'a mut Stream>,
    /// Bytes of the answer before its content.
    head: u64,
    /// The value of [`Socket::sent`] at the first content byte.
    start: u64,
    /// Bytes of the answer written so far.
    written: u64,
    fault: Option<Broken>,
    pace: &'a Pace,
    /// From the first wait on: most answers never wait.
    watch: Option<Watch>,
    throttle: Throttle,
}

impl<'a> Sink<'a> {
    fn new(
        socket: &'a mut Socket,
        head: u64,
        pace: &'a Pace,
        stream: Option<&'a mut Stream>,
    ) -> Sink<'a> {
        Sink {
            start: socket.sent() + head,
            socket,
            stream,
            head,
            written: 0,
            fault: None,
            pace,
            watch: None,
            throttle: Throttle::new(pace.rate_limit, Instant::now()),
        }
    }

    /// How many of `wanted` bytes the link's budget allows now.
    fn allowed(&mut self, wanted: usize) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Ok(wanted) };
        let content = self.written.saturating_sub(self.head);
        let Some(limit) = stream.reserve(content) else {
            self.fault = Some(Broken::Budget);
            return Err(io::Error::other("budget"));
        };
        let room = (limit + self.head).saturating_sub(self.written);
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wanted))
    }

    /// Waits for room in the socket, judging the client meanwhile.
    fn wait(&mut self) -> io::Result<()> {
        if self.watch.is_none() {
            let acknowledged = self.socket.acknowledged()?;
            let Pace { stall, min_rate, .. } = *self.pace;
            self.watch = Some(Watch::new(stall, min_rate, Instant::now(), acknowledged));
        }
        let Some(watch) = &mut self.watch else { return Ok(()) };
        self.socket.wait_writable(watch.tick());
        let acknowledged = self.socket.acknowledged()?;
        if let Some(stream) = &self.stream {
            let sent = self.written.saturating_sub(self.head);
            stream.progress(sent, acknowledged.saturating_sub(self.start));
        }
        watch.judge(Instant::now(), acknowledged).map_err(|broken| {
            self.fault = Some(broken);
            io::ErrorKind::TimedOut.into()
        })
    }

    /// Waits until TLS has handed everything to the kernel.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.socket.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                result => return result,
            }
        }
    }

    fn broken(&self, error: &io::Error) -> Broken {
        self.fault.clone().unwrap_or_else(|| Broken::Client(error.kind().to_string()))
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.allowed(bytes.len())?;
        let allowed = self.throttle.wait(allowed);
        loop {
            match self.socket.write(&bytes[..allowed]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    self.throttle.spend(count);
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Judges a client by the bytes it acknowledges: how long one write takes says nothing, since with
/// a grown send buffer a healthy slow reader keeps one waiting for a minute.
#[derive(Debug)]
pub struct Watch {
    stall: Duration,
    min_rate: u64,
    moved: Instant,
    acknowledged: u64,
    window_start: Instant,
    window_base: u64,
}

/// Windows of `min_rate`, in `stall` times.
const WINDOW: u32 = 3;

impl Watch {
    /// Starts watching at `now`, with `acknowledged` bytes so far.
    pub fn new(stall: Duration, min_rate: u64, now: Instant, acknowledged: u64) -> Watch {
        Watch {
            stall,
            min_rate,
            moved: now,
            acknowledged,
            window_start: now,
            window_base: acknowledged,
        }
    }

    /// How long to wait at most before judging again.
    pub fn tick(&self) -> Duration {
        (self.stall / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Takes note that `acknowledged` bytes have arrived by `now`.
    ///
    /// # Errors
    /// [`Broken::Stalled`] or [`Broken::TooSlow`].
    pub fn judge(&mut self, now: Instant, acknowledged: u64) -> Result<(), Broken> {
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved = now;
        } else if now.duration_since(self.moved) >= self.stall {
            return Err(Broken::Stalled);
        }
        let window = now.duration_since(self.window_start);
        if window >= self.stall * WINDOW {
            let moved = u128::from(acknowledged.saturating_sub(self.window_base)) * 1000;
            if moved < u128::from(self.min_rate) * window.as_millis() {
                return Err(Broken::TooSlow);
            }
            self.window_start = now;
            self.window_base = acknowledged;
        }
        Ok(())
    }
}

/// Keeps a download below `rate_limit` by sleeping between writes.
struct Throttle {
    rate: u64,
    /// When the next byte is due.
    due: Instant,
}

/// The rate is kept over slices of this length.
const SLICE: Duration = Duration::from_millis(50);

impl Throttle {
    fn new(rate: u64, now: Instant) -> Throttle {
        Throttle { rate, due: now }
    }

    /// Sleeps until bytes are due, and says how many of `wanted` may go in one slice.
    fn wait(&mut self, wanted: usize) -> usize {
        if self.rate == 0 {
            return wanted;
        }
        let now = Instant::now();
        if self.due > now {
            std::thread::sleep(self.due - now);
        }
        // Idle time is not saved up for a burst.
        self.due = self.due.max(now);
        let slice = (u128::from(self.rate) * SLICE.as_millis() / 1000).max(1);
        usize::try_from(slice).unwrap_or(usize::MAX).min(wanted)
    }

    fn spend(&mut self, bytes: usize) {
        if self.rate > 0 {
            self.due += Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_that_acknowledges_nothing_is_stalled() {
        let start = Instant::now();
        let mut watch = Watch::new(SECOND * 60, 1024, start, 0);
        assert_eq!(watch.judge(start + SECOND * 59, 0), Ok(()));
        assert_eq!(watch.judge(start + SECOND * 59, 1), Ok(()));
        assert_eq!(watch.judge(start + SECOND * 118, 1), Ok(()));
        assert_eq!(watch.judge(start + SECOND * 119, 1), Err(Broken::Stalled));
    }

    #[test]
    fn the_rate_is_an_average_over_three_stall_times() {
        let start = Instant::now();
        let run = |rate: u64| {
            let mut watch = Watch::new(SECOND * 10, 1024, start, 0);
            (1..=120).try_for_each(|s| watch.judge(start + SECOND * s, rate * u64::from(s)))
        };
        assert_eq!(run(1000), Err(Broken::TooSlow));
        assert_eq!(run(1024), Ok(()));
        assert_eq!(run(2048), Ok(()));
    }

    #[test]
    fn without_a_minimum_only_a_standstill_counts() {
        let start = Instant::now();
        let mut watch = Watch::new(SECOND, 0, start, 0);
        for s in 1..100u32 {
            assert_eq!(watch.judge(start + SECOND * s / 2, s.into()), Ok(()));
        }
    }
}
