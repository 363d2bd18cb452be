//! `winglet status`: what the running server is doing, as a table.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::{control, load, printed};
use crate::cli::args::Status as Options;
use crate::clock;
use crate::config::Config;
use crate::control::status::{Row, Status};
use crate::error::CommandError;
use crate::http::page::size_text;

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(1);
/// Columns of a terminal that does not say how wide it is.
const WIDTH: usize = 100;
/// Columns of the table besides what is downloaded.
const OTHERS: usize = 92;
/// Characters of a progress bar.
const BAR: u64 = 14;

/// Prints the state of the running server.
///
/// # Errors
/// If the configuration is not valid, or the server cannot be asked.
pub(super) fn status(options: &Options, out: &mut String) -> Result<ExitCode, CommandError> {
    // Nothing is an error by now, so that there is a configuration.
    let Some(config) = load(&options.files)?.config else { return Ok(ExitCode::FAILURE) };
    if options.watch {
        return watch(&config, options.json);
    }
    let (text, status) = ask(&config)?;
    let _ = match options.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&status).unwrap_or(text)),
        false => write!(out, "{}", table(&status, size().0, usize::MAX)),
    };
    Ok(ExitCode::SUCCESS)
}

/// Says it again and again, until the reader or the server goes.
fn watch(config: &Config, json: bool) -> Result<ExitCode, CommandError> {
    let screen = io::stdout().is_terminal() && !json;
    let mut text = if screen { "\x1b[2J".to_owned() } else { String::new() };
    loop {
        let (answer, status) = ask(config)?;
        let (width, height) = size();
        if json {
            text += &answer;
        } else if screen {
            // Over what was there, line by line: nothing flickers.
            let table = table(&status, width, height.saturating_sub(1));
            text += &format!("\x1b[H{}\x1b[J", table.replace('\n', "\x1b[K\n"));
        } else {
            text += &format!("{}\n", table(&status, width, usize::MAX));
        }
        let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
        if written.is_err() {
            return Ok(printed(written, ExitCode::SUCCESS));
        }
        text.clear();
        thread::sleep(EVERY);
    }
}

/// The server's state, as it says it and as it is meant.
fn ask(config: &Config) -> Result<(String, Status), CommandError> {
    let answer = control::get(config, "/status")?;
    match serde_json::from_str(&answer.body) {
        Ok(status) if answer.status == 200 => Ok((answer.body, status)),
        _ => Err(CommandError(format!(
            "the server answers {} to /status, which this version does not understand",
            answer.status
        ))),
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (WIDTH, usize::MAX),
    }
}

/// The state as text of at most `height` lines of `width` characters, if they suffice for its head.
fn table(status: &Status, width: usize, height: usize) -> String {
    let mut text = head(status);
    let room = height.saturating_sub(text.lines().count() + 3);
    let shown = match status.downloads.len() {
        count if count <= room => count,
        _ => room.saturating_sub(1),
    };
    text.push('\n');
    if status.downloads.is_empty() {
        text += "no downloads are running\n";
        return text;
    }
    let name = width.saturating_sub(OTHERS).clamp(12, 60);
    let _ = writeln!(
        text,
        "{:<15}  {:<name$}  {:^16}  {:>4}  {:>9}  {:>11}  {:>9}  {:<9}  LINK",
        "CLIENT", "WHAT", "PROGRESS", "", "OF", "RATE", "LEFT", "STATE"
    );
    for row in status.downloads.iter().take(shown) {
        let _ = writeln!(text, "{}", line(row, name));
    }
    if shown < status.downloads.len() {
        let _ = writeln!(text, "and {} more", status.downloads.len() - shown);
    }
    text
}

fn head(status: &Status) -> String {
    let (connections, workers, links) = (&status.connections, &status.workers, &status.links);
    let mut text = String::new();
    let draining = if status.draining { ", stopping" } else { "" };
    let _ = writeln!(text, "winglet {}, up {}{draining}", status.version, time(status.uptime));
    let _ = writeln!(
        text,
        "connections  {} idle, {} with a request to come, {} downloading, {} finishing, of {}",
        connections.idle,
        connections.heads,
        // Those that a worker has at the moment are downloads too, but for an instant.
        connections.downloads + connections.queued + connections.working,
        connections.finishing,
        connections.limit
    );
    let stuck = if workers.stuck { "; the disk stands still" } else { "" };
    let _ = writeln!(
        text,
        "workers      {} of {} busy, {} waiting{stuck}",
        workers.busy, workers.total, workers.waiting
    );
    let _ = writeln!(
        text,
        "links        {} tracked, {} spent, of {}; {} revocations",
        links.tracked, links.spent, links.limit, links.revocations
    );
    let journal = match &status.journal {
        None => "none: used links are remembered in memory only".to_owned(),
        Some(journal) if journal.behind => {
            format!("{}, and behind: it cannot be written", size_text(journal.bytes))
        }
        Some(journal) => size_text(journal.bytes),
    };
    let _ = writeln!(text, "journal      {journal}");
    let limit = match status.bandwidth.limit {
        0 => String::new(),
        limit => format!(" of {}/s", size_text(limit)),
    };
    let (rate, sent) = (size_text(status.bandwidth.rate), size_text(status.bandwidth.sent));
    let _ = writeln!(text, "bandwidth    {rate}/s{limit}; {sent} since the start");
    if let Some(expires) = status.certificate_expires {
        let _ = writeln!(text, "certificate  until {}", clock::date(expires));
    }
    text
}

fn line(row: &Row, name: usize) -> String {
    // An empty file is there as soon as it is begun.
    let done = (row.sent * 100).checked_div(row.length).unwrap_or(100);
    let filled = (done * BAR / 100).min(BAR) as usize;
    let bar = format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR as usize - filled));
    let left = row.length.saturating_sub(row.sent);
    let left = match left.checked_div(row.rate) {
        _ if left == 0 => time(0),
        Some(seconds) => time(seconds),
        None => "-".to_owned(),
    };
    format!(
        "{:<15}  {:<name$}  {bar}  {done:>3}%  {:>9}  {:>9}/s  {left:>9}  {:<9}  {}",
        row.client.as_deref().unwrap_or("-"),
        end_of(&row.what(), name),
        size_text(row.length),
        size_text(row.rate),
        row.state,
        row.link.get(..8).unwrap_or(&row.link),
    )
}

/// The last `length` characters of `text`: of a path, its name.
fn end_of(text: &str, length: usize) -> String {
    let count = text.chars().count();
    if count <= length {
        return text.to_owned();
    }
    let end: String = text.chars().skip(count - length + 2).collect();
    format!("..{end}")
}

/// Seconds in two units at most.
fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        86_400..31_536_000 => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
        _ => "years".to_owned(),
    }
}
