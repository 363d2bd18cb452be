//! `winglet revoke`

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{client, load, say, token_in};
use crate::cli::args::Revoke;
use crate::error::CommandError;

/// Has the running server revoke links, and says what came of it.
///
/// # Errors
/// If the configuration is not valid, or the server cannot be asked or refuses.
pub(super) fn revoke(options: &Revoke, out: &mut String) -> Result<ExitCode, CommandError> {
    // Nothing is an error by now, so that there is a configuration.
    let Some(config) = load(&options.files)?.config else { return Ok(ExitCode::FAILURE) };
    let order = match options {
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
