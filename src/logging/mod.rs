//! The log: env_logger in front, and behind it a thread of its own that writes.
//!
//! A log reader that stands still must not hold up a download or the acceptor. Lines go into a
//! bounded buffer, and those that do not fit are counted.

pub mod access;
pub mod throttle;

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Target};
use log::LevelFilter;

/// Bytes of log that may wait to be written.
const MAX_WAITING: usize = 1 << 20;
/// Lines are gathered for this long, so that a busy server does not wake a thread per line.
const GATHER: Duration = Duration::from_millis(5);
/// How long the end of the program waits for the last lines to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// The running log. Dropping it writes out what is left.
#[derive(Debug)]
pub struct Log {
    buffer: Arc<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    wake: Condvar,
    empty: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
}

/// Sends the program's log to standard error from here on.
///
/// # Errors
/// If the system has no thread left, or a log is running already.
pub fn start(debug: bool) -> io::Result<Log> {
    let buffer = Arc::new(Buffer::default());
    let writer = Arc::clone(&buffer);
    thread::Builder::new()
        .name("log".into())
        .stack_size(128 * 1024)
        .spawn(move || writer.write_out())?;
    Builder::new()
        .filter_level(LevelFilter::Trace)
        // All that it logs is that the private listener has closed.
        .filter_module("tiny_http", LevelFilter::Off)
        .filter_module("rustls", LevelFilter::Off)
        .format(|line, record| {
            let time = humantime::format_rfc3339_seconds(SystemTime::now());
            writeln!(line, "{time} {:<5} {}", record.level(), record.args())
        })
        .target(Target::Pipe(Box::new(Pipe(Arc::clone(&buffer)))))
        .try_init()
        .map_err(io::Error::other)?;
    set_debug(debug);
    // The text of a panic may contain what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("?");
        log::error!("thread {name}: {}", escape(&panic.to_string()));
    }));
    Ok(Log { buffer })
}

/// `text` with control and unprintable characters escaped, so that it stays on its line.
pub fn escape(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

/// Turns debug lines on or off.
pub fn set_debug(debug: bool) {
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
}

struct Pipe(Arc<Buffer>);

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.lost += 1;
        } else {
            let first = state.waiting.is_empty();
            state.waiting.extend_from_slice(line);
            if first && !state.writing {
                self.0.wake.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() {
                state.writing = false;
                self.empty.notify_all();
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.writing = true;
            drop(state);
            thread::sleep(GATHER);
            let mut state = self.lock();
            let mut lines = std::mem::take(&mut state.waiting);
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            if lost > 0 {
                let time = humantime::format_rfc3339_seconds(SystemTime::now());
                let _ = writeln!(
                    lines,
                    "{time} WARN  log: {lost} lines were lost: they came faster than they were read"
                );
            }
            // If standard error is gone, there is nobody to tell.
            let _ = io::stderr().write_all(&lines);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let state = self.buffer.lock();
        let _ = self
            .buffer
            .empty
            .wait_timeout_while(state, FAREWELL, |state| state.writing || !state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}
