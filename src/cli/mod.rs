//! The commands behind the command line.
//!
//! A command writes what it has to say into a text, which is printed here in one go: whoever reads
//! only the first line of it, or has no room for it, gets what a shell user expects.

pub mod args;
mod check;
mod client;
mod explain;
#[cfg(feature = "shared-state")]
mod front_ends;
mod preflight;
mod revoke;
mod serve;
mod sign;
mod status;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::args::{Cli, Command, Files};
use crate::config::{self, Finding, Loaded};
use crate::error::CommandError;
use crate::http::head::token_of;
use crate::process;
use crate::process::signals::Signals;

/// What is known about a link, as pairs of a name and a text.
type Lines = Vec<(&'static str, String)>;

/// How the line about a link begins that is in use.
const IN_PROGRESS: &str = "in progress";

/// Runs the command that `arguments` (the program's name first) ask for. The status is 0 for
/// success, 1 for a failure, and 2 for a command line that is not understood.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    // Before anything that takes time: a service manager may ask for a reload at once. Other commands
    // end by a signal.
    let serves = arguments.get(1).is_some_and(|word| word == "serve");
    let signals = serves.then(Signals::catch);
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command,
        Err(usage) => {
            let code = ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
            return printed(usage.print(), code);
        }
    };
    if !matches!(command, Command::Serve(_)) {
        process::forbid_core_dumps();
    }
    let mut out = String::new();
    let result = match &command {
        Command::Serve(options) => serve::serve(options, signals.unwrap_or_else(Signals::catch)),
        Command::Check(options) => Ok(check::check(options, &mut out)),
        Command::Sign(what) => sign::sign(what, &mut out),
        Command::Explain(options) => explain::explain(options, &mut out),
        Command::Status(options) => status::status(options, &mut out),
        Command::Revoke(options) => revoke::revoke(options, &mut out),
        Command::Version => {
            out = format!("winglet {}\n", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    let written = io::stdout().write_all(out.as_bytes()).and_then(|()| io::stdout().flush());
    let code = result.unwrap_or_else(|error| {
        say(&error);
        ExitCode::FAILURE
    });
    printed(written, code)
}

/// `code`, unless the output was lost. A reader who has seen enough loses nothing.
fn printed(written: io::Result<()>, code: ExitCode) -> ExitCode {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format_args!("standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// Writes a line to standard error. If that is closed, there is nobody left to tell.
fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "winglet: {text}");
}

/// A variable of the environment, if it is text.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads a configuration for a command that needs a valid one, and says from which files; warnings
/// are left to `check`.
fn load(files: &Files) -> Result<Loaded, CommandError> {
    let files = config::files(&files.config);
    say(&format_args!("reading {}", names(&files)));
    let loaded = config::load(&files, &[], &environment, &[]);
    let errors = loaded.findings.iter().filter(|finding| finding.is_error);
    let errors: Vec<String> = errors.map(Finding::to_string).collect();
    if errors.is_empty() { Ok(loaded) } else { Err(CommandError(errors.join("\nwinglet: "))) }
}

/// The token in a link, or the text itself if it is no link.
fn token_in(link: &str) -> Cow<'_, str> {
    let link = bare(link).split('#').next().unwrap_or_default();
    match link.split_once('?') {
        Some((_, query)) => token_of(query).unwrap_or_default(),
        None => link.into(),
    }
}

/// A link without what stands around it where it was copied from: spaces, quotes, brackets.
fn bare(link: &str) -> &str {
    let around = |c: char| c.is_whitespace() || "<>()[]\"'`,;".contains(c);
    link.trim_matches(around).trim_end_matches('.')
}

/// The files of a configuration, for a message.
fn names(files: &[std::path::PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(", ")
}
