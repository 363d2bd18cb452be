//! The log: env_logger in front, and behind it a thread of its own that writes.
//!
//! A log reader that stands still must not hold up a download or the acceptor. Lines go through a
//! bounded channel, and those that do not fit are counted.

pub mod access;
pub mod throttle;

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

use crate::config::{Config, LogFormat};

/// Lines that may wait to be written.
const MAX_WAITING: usize = 2048;
/// Lines are gathered for this long, so that a busy server does not wake a thread per line.
const GATHER: Duration = Duration::from_millis(5);
/// How long the end of the program waits for the last lines to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// What goes to the thread that writes.
enum Message {
    Line(Vec<u8>),
    /// Everything before this is to be written, and then said so.
    Flush(SyncSender<()>),
}

/// The running log. Dropping it writes out what is left.
#[derive(Debug)]
pub struct Log {
    messages: SyncSender<Message>,
}

/// Sends the program's log to standard error from here on.
///
/// # Errors
/// If the system has no thread left, or a log is running already.
pub fn start(config: &Config) -> io::Result<Log> {
    let (messages, receiver) = sync_channel(MAX_WAITING);
    let pipe = Pipe { messages: messages.clone(), lost: Arc::default() };
    let lost = Arc::clone(&pipe.lost);
    thread::Builder::new()
        .name("log".into())
        .stack_size(128 * 1024)
        .spawn(move || write_out(&receiver, &lost))?;
    Builder::new()
        .filter_level(LevelFilter::Trace)
        // All that it logs is that the private listener has closed.
        .filter_module("tiny_http", LevelFilter::Off)
        .filter_module("rustls", LevelFilter::Off)
        .format(|line, record| {
            let is_access = record.target() == access::TARGET;
            writeln!(line, "{}", formatted(record.level(), record.args(), is_access))
        })
        .target(Target::Pipe(Box::new(pipe)))
        .try_init()
        .map_err(io::Error::other)?;
    configure(config);
    // The text of a panic may contain what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("?");
        log::error!("thread {name}: {}", escape(&panic.to_string()));
    }));
    Ok(Log { messages })
}

/// `text` with control and unprintable characters escaped, so that it stays on its line.
pub fn escape(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

/// As global as the log itself, and private to it.
static JSON: AtomicBool = AtomicBool::new(false);
/// Standard error is systemd's journal, which has a time and a priority of its own for each line.
static JOURNAL: LazyLock<bool> = LazyLock::new(|| is_journal().unwrap_or(false));
static ACCESS: AtomicBool = AtomicBool::new(true);

/// Logs as `config` says from here on.
pub fn configure(config: &Config) {
    log::set_max_level(if config.debug { LevelFilter::Debug } else { LevelFilter::Info });
    JSON.store(config.log_format == LogFormat::Json, Ordering::Relaxed);
    ACCESS.store(config.access_log, Ordering::Relaxed);
}

/// What a line of the access log looks like; `None` if there is none.
fn access() -> Option<LogFormat> {
    ACCESS.load(Ordering::Relaxed).then(|| match JSON.load(Ordering::Relaxed) {
        true => LogFormat::Json,
        false => LogFormat::Text,
    })
}

/// Returns true if `JOURNAL_STREAM` names standard error (systemd.exec(5)).
fn is_journal() -> Option<bool> {
    let named = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = rustix::fs::fstat(io::stderr()).ok()?;
    Some(named == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// What the journal takes a line's priority from (sd-daemon(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// One line without its line break. `object`: the text is a JSON object already.
fn formatted(level: Level, text: &fmt::Arguments<'_>, object: bool) -> String {
    let line = line(level, text, object);
    if *JOURNAL { format!("{}{line}", priority(level)) } else { line }
}

fn line(level: Level, text: &fmt::Arguments<'_>, object: bool) -> String {
    let json = JSON.load(Ordering::Relaxed);
    if *JOURNAL && !json {
        return format!("{level:<5} {text}");
    }
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    if !json {
        return format!("{time} {level:<5} {text}");
    }
    let text = text.to_string();
    match text.strip_prefix('{').filter(|_| object) {
        Some(fields) => format!(r#"{{"time":"{time}","level":"{level}",{fields}"#),
        None => {
            let text = serde_json::Value::from(text);
            format!(r#"{{"time":"{time}","level":"{level}","message":{text}}}"#)
        }
    }
}

struct Pipe {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.messages.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_out(messages: &Receiver<Message>, lost: &AtomicU64) {
    while let Ok(first) = messages.recv() {
        if matches!(first, Message::Line(_)) {
            thread::sleep(GATHER);
        }
        let (mut lines, mut flushed) = (Vec::new(), Vec::new());
        for message in std::iter::once(first).chain(messages.try_iter().take(MAX_WAITING)) {
            match message {
                Message::Line(line) => lines.extend(line),
                Message::Flush(done) => flushed.push(done),
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text =
                format_args!("log: {lost} lines were lost: they came faster than they were read");
            let _ = writeln!(lines, "{}", formatted(Level::Warn, &text, false));
        }
        // If standard error is gone, there is nobody to tell.
        let _ = io::stderr().write_all(&lines);
        // Whoever asked may have stopped waiting.
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

impl Log {
    /// Waits until all lines up to here are written, but not for long.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        // A reader that stands still does not take this either.
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FAREWELL);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}
