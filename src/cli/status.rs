//! `winglet status`: what the running server is doing, as a table.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::{client, load, printed};
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
/// Characters of the table's numbers and states, with what stands between.
const NUMBERS: usize = 2 + 2 + 4 + 2 + 8 + 2 + 10 + 2 + 7 + 2 + 9;
/// Characters of a link, with what stands before it.
const LINK: usize = 2 + 8;
/// Characters of a progress bar, less its brackets and what stands after them.
const BAR: usize = 20;
/// Characters of what is downloaded.
const SHORTEST: usize = 12;
const LONGEST: usize = 60;

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
            text += "\x1b[H";
            for line in table(&status, width, height.saturating_sub(1)).lines() {
                // One that is broken in two would push the last ones out.
                text.extend(line.chars().take(width));
                text += "\x1b[K\n";
            }
            text += "\x1b[J";
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
    let answer = client::get(config, "/status")?;
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

/// What the table has room for.
struct Columns {
    client: usize,
    name: usize,
    bar: bool,
    link: bool,
}

impl Columns {
    /// What `width` characters have room for. The progress bar goes first, then the link.
    fn new(status: &Status, width: usize) -> Columns {
        let lengths = status.downloads.iter().filter_map(|row| Some(row.client.as_ref()?.len()));
        let client = lengths.max().unwrap_or(0).clamp(9, 39);
        let left = width.saturating_sub(client + NUMBERS);
        let link = left >= SHORTEST + LINK;
        let left = left.saturating_sub(if link { LINK } else { 0 });
        let bar = left >= SHORTEST + BAR + 4;
        let left = left.saturating_sub(if bar { BAR + 4 } else { 0 });
        Columns { client, name: left.clamp(SHORTEST, LONGEST), bar, link }
    }

    fn heading(&self) -> String {
        let Columns { client, name, .. } = self;
        let bar = if self.bar {
            format!("{:<width$}", "PROGRESS", width = BAR + 4)
        } else {
            String::new()
        };
        let link = if self.link { "  LINK" } else { "" };
        format!(
            "{:<client$}  {:<name$}  {bar}SENT  {:>8}  {:>10}  {:>7}  {:<9}{link}",
            "CLIENT", "WHAT", "OF", "RATE", "LEFT", "STATE"
        )
    }

    fn line(&self, row: &Row) -> String {
        let Columns { client, name, .. } = self;
        // An empty file is there as soon as it is begun.
        let done = (row.sent * 100).checked_div(row.length).unwrap_or(100);
        let filled = usize::try_from(done).unwrap_or(BAR) * BAR / 100;
        let bar = match self.bar {
            true => format!("[{:-<BAR$}]  ", "#".repeat(filled.min(BAR))),
            false => String::new(),
        };
        let left = row.length.saturating_sub(row.sent);
        let left = match left.checked_div(row.rate) {
            _ if left == 0 => time(0),
            Some(seconds) => time(seconds),
            None => "-".to_owned(),
        };
        let link = match self.link {
            true => format!("  {}", row.link.get(..8).unwrap_or(&row.link)),
            false => String::new(),
        };
        format!(
            "{:<client$}  {:<name$}  {bar}{done:>3}%  {:>8}  {:>8}/s  {left:>7}  {:<9}{link}",
            row.client.as_deref().unwrap_or("-"),
            end_of(&row.what(), *name),
            size_text(row.length),
            size_text(row.rate),
            row.state,
        )
    }
}

/// The state as text of at most `height` lines, if they suffice for its head.
fn table(status: &Status, width: usize, height: usize) -> String {
    let mut text = head(status);
    let room = height.saturating_sub(text.lines().count() + 2);
    let shown = match status.downloads.len() {
        count if count <= room => count,
        _ => room.saturating_sub(1),
    };
    text.push('\n');
    if status.downloads.is_empty() {
        text += "no downloads are running\n";
        return text;
    }
    let columns = Columns::new(status, width);
    let _ = writeln!(text, "{}", columns.heading());
    for row in status.downloads.iter().take(shown) {
        let _ = writeln!(text, "{}", columns.line(row).trim_end());
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
        "links        {} tracked, {} spent, of {}; revocations: {}",
        links.tracked, links.spent, links.limit, links.revocations
    );
    text += &parts(status);
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

/// The lines about what not every server has.
fn parts(status: &Status) -> String {
    let journal = match &status.journal {
        None => "none: used links are remembered in memory only".to_owned(),
        Some(journal) if journal.behind => {
            format!("{}, and behind: it cannot be written", size_text(journal.bytes))
        }
        Some(journal) => size_text(journal.bytes),
    };
    let mut text = format!("journal      {journal}\n");
    if status.archives.kept > 0 {
        let memory = size_text(status.archives.bytes as u64);
        let _ = writeln!(text, "archives     {} listed, {memory} of memory", status.archives.kept);
    }
    if let Some(shared) = &status.shared_state {
        let _ = writeln!(
            text,
            "shared state {}; this front end is {}; {} round trips, {} failures, {} links taken over",
            if shared.up { "answers" } else { "does not answer" },
            shared.front_end,
            shared.round_trips,
            shared.failures,
            shared.take_overs
        );
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rows: usize) -> Status {
        let row = serde_json::json!({
            "id": "a", "client": "2001:db8::1", "server": "s", "file": "world/region/r.0.0.mca\n\u{1b}[2J",
            "start": 0, "length": 3_000_000_000u64, "sent": 1_500_000_000u64, "rate": 2_500_000,
            "seconds": 600, "state": "limited", "link": "0123456789abcdef",
        });
        serde_json::from_value(serde_json::json!({
            "version": "1", "started": 0, "uptime": 90_000, "draining": false,
            "connections": {"limit": 4096, "heads": 0, "idle": 0, "queued": 0, "working": 0,
                "downloads": 1, "finishing": 0, "control": 1},
            "workers": {"total": 8, "busy": 0, "waiting": 0, "stuck": false},
            "links": {"tracked": 1, "spent": 0, "limit": 9, "revocations": 0},
            "journal": null, "certificate_expires": null,
            "bandwidth": {"rate": 1, "limit": 0, "sent": 1},
            "phases": {"sending": 0, "limited": 1, "parked": 0, "finishing": 0},
            "ended": {"delivered": 0, "parts": 0, "interrupted": 0},
            "downloads": vec![row; rows],
        }))
        .unwrap()
    }

    #[test]
    fn the_table_fits_the_terminal() {
        for width in [80, 100, 120, 160] {
            let table = table(&status(3), width, 60);
            let row = table.lines().find(|line| line.starts_with("2001:db8::1")).unwrap();
            assert!(row.chars().count() <= width, "{width}: {row}");
            assert!(row.contains("50%    3.0 GB    2.5 MB/s  10m 00s  limited"), "{row}");
            assert_eq!(
                (row.contains("[####"), row.contains("01234567")),
                (width > 110, width > 80)
            );
            assert!(!table.contains('\u{1b}'), "{table}");
        }
        let table = table(&status(500), 100, 24);
        assert!(table.lines().count() <= 24 && table.ends_with("more\n"), "{table}");
    }

    #[test]
    fn times_have_two_units() {
        let told = [0, 59, 61, 3_600, 90_000, u64::MAX].map(time);
        assert_eq!(told, ["0s", "59s", "1m 01s", "1h 00m", "1d 01h", "years"]);
    }
}
