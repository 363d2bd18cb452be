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
use crate::control::status::{Archives, Row, Status};
use crate::error::CommandError;
use crate::http::page::size_text;

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(1);
/// Columns of a terminal that does not say how wide it is.
const WIDTH: usize = 100;
/// Digits of a link that are shown, enough to revoke it by.
pub(super) const SHOWN: usize = 8;
/// Columns of a download's numbers, its state and its link, with the spaces before each.
const NUMBERS: usize = 2 + 4 + 2 + 10 + 2 + 9 + 2 + SHOWN;
/// Columns of its length and of the time left, likewise.
const TIMES: usize = 2 + 8 + 2 + 7;
/// Columns of its progress bar, likewise.
const BAR: usize = 20;

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
            // The last line stays empty, and none is broken in two: both would push out others.
            for line in table(&status, width, height.saturating_sub(1)).lines() {
                text += &format!("{line}\x1b[K\n");
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
///
/// # Errors
/// If the server cannot be asked.
pub(super) fn ask(config: &Config) -> Result<(String, Status), CommandError> {
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
    times: bool,
    bar: bool,
}

impl Columns {
    /// What `width` characters have room for: the progress bar goes first, then lengths and times.
    fn new(status: &Status, width: usize) -> Columns {
        let lengths = status.downloads.iter().filter_map(|row| Some(row.client.as_ref()?.len()));
        let client = lengths.max().unwrap_or(0).clamp(9, 39);
        let left = width.saturating_sub(client + NUMBERS);
        Columns { client, times: left >= TIMES, bar: left >= TIMES + 2 + BAR }
    }

    /// A line of these, left out where there is no room.
    fn line(&self, [client, bar, done, of, rate, left, state, link]: [&str; 8]) -> String {
        let mut line = format!("{client:<width$}", width = self.client);
        if self.bar {
            line += &format!("  {bar:<BAR$}");
        }
        line += &format!("  {done:>4}");
        if self.times {
            line += &format!("  {of:>8}");
        }
        line += &format!("  {rate:>10}");
        if self.times {
            line += &format!("  {left:>7}");
        }
        line + &format!("  {state:<9}  {link}")
    }

    fn heading(&self) -> String {
        self.line(["CLIENT", "PROGRESS", "DONE", "OF", "RATE", "LEFT", "STATE", "LINK"])
    }

    /// Two lines: how it goes, and what it is.
    fn lines(&self, row: &Row, width: usize) -> String {
        // An empty file is there as soon as it is begun.
        let done = (row.sent * 100).checked_div(row.length).unwrap_or(100);
        let filled = usize::try_from(done).unwrap_or(100) * (BAR - 2) / 100;
        let bar = format!("[{:-<inner$}]", "#".repeat(filled.min(BAR - 2)), inner = BAR - 2);
        let left = row.length.saturating_sub(row.sent);
        let left = match left.checked_div(row.rate) {
            _ if left == 0 => time(0),
            Some(seconds) => time(seconds),
            None => "-".to_owned(),
        };
        let first = self.line([
            row.client.as_deref().unwrap_or("-"),
            &bar,
            &format!("{done}%"),
            &size_text(row.length),
            &format!("{}/s", size_text(row.rate)),
            &left,
            &row.state,
            row.link.get(..SHOWN).unwrap_or(&row.link),
        ]);
        let server = &row.server;
        let room = width.saturating_sub(4 + server.len());
        let what = match &row.backup {
            // Its name says enough where there is no room for what it is.
            Some(backup) if room < row.what().len() => backup.clone(),
            _ => row.what(),
        };
        format!("{first}\n  {server}  {}\n", end_of(&what, room))
    }
}

/// The state as text of at most `height` lines, if they suffice for its head.
fn table(status: &Status, width: usize, height: usize) -> String {
    let downloads = status.downloads.len();
    let mut lines = head(status);
    // With the empty line, the heading and two lines each.
    if lines.len() + 2 + 2 * downloads > height {
        lines.retain(|line| line.starts_with("winglet") || line.starts_with("bandwidth"));
    }
    let room = height.saturating_sub(lines.len() + 2) / 2;
    let shown = match downloads <= room {
        true => downloads,
        false => height.saturating_sub(lines.len() + 3) / 2,
    };
    let mut text: String = lines.iter().map(|line| fit(line, width) + "\n").collect();
    text.push('\n');
    if downloads == 0 {
        return text + "no downloads are running\n";
    }
    let columns = Columns::new(status, width);
    text += &(columns.heading() + "\n");
    text.extend(status.downloads.iter().take(shown).map(|row| columns.lines(row, width)));
    if shown < downloads {
        let _ = writeln!(text, "and {} more", downloads - shown);
    }
    text
}

/// As many words of `line` as `width` characters hold.
fn fit(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let short: String = line.chars().take(width.saturating_sub(3)).collect();
    let words = short.rsplit_once(' ').map_or(&*short, |(words, _)| words);
    format!("{} ...", words.trim_end_matches([',', ';']))
}

fn head(status: &Status) -> Vec<String> {
    let (connections, workers, links) = (&status.connections, &status.workers, &status.links);
    // Those that a worker has at the moment are downloads too, but for an instant.
    let downloading = connections.downloads + connections.queued + connections.working;
    let stuck = if workers.stuck { "; disk stalled" } else { "" };
    let limit = match status.bandwidth.limit {
        0 => String::new(),
        limit => format!(" of {}/s", size_text(limit)),
    };
    let (rate, sent) = (size_text(status.bandwidth.rate), size_text(status.bandwidth.sent));
    let mut lines = vec![
        format!(
            "winglet {}, up {}{}",
            status.version,
            time(status.uptime),
            if status.draining { ", stopping" } else { "" }
        ),
        format!(
            "connections  {} of {}: {} idle, {} new, {downloading} downloading, {} finishing",
            connections.idle + connections.heads + downloading + connections.finishing,
            connections.limit,
            connections.idle,
            connections.heads,
            connections.finishing,
        ),
        format!(
            "workers      {} of {} busy, {} waiting{stuck}",
            workers.busy, workers.total, workers.waiting
        ),
        format!(
            "links        {} of {} tracked, {} spent; {} revocations",
            links.tracked, links.limit, links.spent, links.revocations
        ),
    ];
    lines.extend(parts(status));
    lines.push(format!("bandwidth    {rate}/s{limit}; {sent} since the start"));
    lines.extend(
        status.certificate_expires.map(|end| format!("certificate  until {}", clock::date(end))),
    );
    lines
}

/// The lines about what not every server has.
fn parts(status: &Status) -> Vec<String> {
    let journal = match &status.journal {
        None => "none: used links are remembered in memory only".to_owned(),
        Some(journal) if journal.behind => {
            format!("{}, and behind: it cannot be written", size_text(journal.bytes))
        }
        Some(journal) => size_text(journal.bytes),
    };
    let mut lines = vec![format!("journal      {journal}")];
    let Archives { kept, used, walks, bytes } = status.archives;
    if kept + walks > 0 {
        let memory = size_text(bytes as u64);
        lines.push(format!(
            "archives     {kept} listed, {used} in use, {walks} being listed; {memory} of memory"
        ));
    }
    if let Some(shared) = &status.shared_state {
        lines.push(format!(
            "shared state {}; this front end is {}; {} round trips, {} failures, {} links taken over",
            if shared.up { "answers" } else { "does not answer" },
            shared.front_end,
            shared.round_trips,
            shared.failures,
            shared.take_overs
        ));
    }
    lines
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
            "id": "a", "client": "2001:db8::1", "server": "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40", "file": "world/region/r.0.0.mca\n\u{1b}[2J",
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
        let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";
        for (width, client) in [80, 100, 120, 160].into_iter().flat_map(|width| {
            ["192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"].map(|client| (width, client))
        }) {
            let mut status = status(3);
            status.downloads.iter_mut().for_each(|row| row.client = Some(client.into()));
            status.connections.idle = 4095;
            let table = table(&status, width, 60);
            assert!(table.lines().all(|line| line.chars().count() <= width), "{width}: {table}");
            assert!(table.contains("4096 of 4096: 4095 idle, 0 new, 1 downloading"), "{table}");
            let row = table.lines().find(|line| line.starts_with(client)).unwrap();
            assert!(row.contains("50%") && row.contains("2.5 MB/s"), "{row}");
            assert!(row.ends_with("limited    01234567"), "{row}");
            let times = width > 80 || client.len() < 20;
            assert_eq!(row.contains("  3.0 GB    2.5 MB/s  10m 00s  limited"), times, "{row}");
            assert!(table.contains(&format!("\n  {server}  ")), "{table}");
            assert!(
                table.contains("r.0.0.mca\\n\\u{1b}[2J\n") && !table.contains('\u{1b}'),
                "{table}"
            );
        }
        let table = |rows, height| table(&status(rows), 80, height);
        for (rows, height, told) in [
            (3, 11, "01234567"),
            (500, 24, "and 491 more\n"),
            (500, 11, "more\n"),
            (500, 3, "and 500 more\n"),
            (3, 60, "journal "),
            (0, 3, "no downloads are running\n"),
        ] {
            let table = table(rows, height);
            assert!(table.lines().count() <= height.max(5) && table.contains(told), "{table}");
            assert!(rows != 3 || table.matches("01234567").count() == 3, "{table}");
        }
        assert_eq!(fit("connections  12 of 4096: 12 idle", 31), "connections  12 of 4096: 12 ...");
        assert_eq!(fit("connections  12 of 4096: 12 idle", 22), "connections  12 of ...");
    }

    #[test]
    fn times_have_two_units() {
        let told = [0, 59, 61, 3_600, 90_000, u64::MAX].map(time);
        assert_eq!(told, ["0s", "59s", "1m 01s", "1h 00m", "1d 01h", "years"]);
    }
}
