//! `winglet revoke`

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::status::SHOWN;
use super::{client, load, say, status, token_in};
use crate::cli::args::Revoke;
use crate::config::Config;
use crate::error::CommandError;

/// Digits of a link's name.
const WHOLE: usize = 32;

/// Has the running server revoke links, and says what came of it.
///
/// # Errors
/// If the configuration is not valid, or the server cannot be asked or refuses.
pub(super) fn revoke(options: &Revoke, out: &mut String) -> Result<ExitCode, CommandError> {
    // Nothing is an error by now, so that there is a configuration.
    let Some(config) = load(&options.files)?.config else { return Ok(ExitCode::FAILURE) };
    let order = match options {
        Revoke { link: Some(link), .. } if is_name(link) => json!({"link": named(&config, link)?}),
        Revoke { link: Some(link), .. } => json!({"token": token_in(link)}),
        Revoke { all: true, .. } => json!({"all": true}),
        Revoke { server, user, .. } => json!({"server": server, "user": user}),
    };
    let answer = client::post(&config, "/revoke", &order.to_string())?;
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let text = said["error"].as_str().unwrap_or("the answer cannot be read");
        return Err(CommandError(format!("the server answers {}: {text}", answer.status)));
    }
    let _ = match said["ended"].as_u64() {
        Some(1) => writeln!(out, "revoked; 1 running download ends"),
        ended => writeln!(out, "revoked; {} running downloads end", ended.unwrap_or(0)),
    };
    if said["remembered"] != "journal" {
        say(
            &"warning: the server remembers it in memory only; a restart of it forgets (see winglet.state_directory)",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns true if `link` is what `status` calls a link, in whole or its beginning.
fn is_name(link: &str) -> bool {
    (SHOWN..=WHOLE).contains(&link.len()) && link.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The whole name of the link that is downloaded now and whose name begins with `start`.
///
/// # Errors
/// If there is none, or more than one.
fn named(config: &Config, start: &str) -> Result<String, CommandError> {
    let start = start.to_ascii_lowercase();
    if start.len() == WHOLE {
        return Ok(start);
    }
    let downloads = status::ask(config)?.1.downloads;
    let links = downloads.into_iter().map(|row| row.link).filter(|link| link.starts_with(&start));
    let mut links: Vec<_> = links.collect();
    links.sort();
    links.dedup();
    match links.len() {
        1 => Ok(links.remove(0)),
        0 => Err(CommandError(format!(
            "no link that begins with {start} is downloaded now; give its URL, or all {WHOLE} digits"
        ))),
        _ => Err(CommandError(format!("several links begin with {start}; give more digits"))),
    }
}
