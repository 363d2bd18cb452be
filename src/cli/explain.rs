//! `winglet explain`: why does this link not work?

use std::time::{Duration, UNIX_EPOCH};

use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde_json::Value;

use super::load;
use crate::cli::args::Explain;
use crate::clock::Clock;
use crate::config::{Config, Reuse};
use crate::error::StartError;
use crate::http::head::token_of;
use crate::link::storage::backup_layouts;
use crate::link::token::{Claims, Endpoint, Resource, TokenFault, Used};
use crate::logging::escape;
use crate::replay::{self, LinkStatus, Replay};
use crate::shared::Settings;

/// Prints what a link says, and whether it would be served now. It spends nothing. `false` where
/// it would be refused.
///
/// # Errors
/// Where the configuration or the journal cannot be read.
pub fn explain(options: &Explain) -> Result<bool, StartError> {
    let settings = Settings::new(load(&options.config)?);
    let now = Clock::System.unix();
    let link = options.link.split('#').next().unwrap_or_default();
    let token = match link.split_once('?') {
        Some((_, query)) => token_of(query).unwrap_or_default(),
        None => link.into(),
    };
    let payload = payload_of(&token);
    let endpoint = endpoint_of(&options.link, payload.as_ref());
    print_payload(payload.as_ref(), now);
    let refusal = match settings.verifier.verify(&token, endpoint, now) {
        Err(fault) => {
            line("token", &fault.cause());
            Some(fault.cause())
        }
        Ok(claims) => {
            line("token", "rightly signed, for this endpoint");
            judge(&settings, &claims, now)?
        }
    };
    match &refusal {
        None => line("verdict", "it would be served"),
        Some(cause) => line("verdict", &format!("it would be refused: {cause}")),
    }
    Ok(refusal.is_none())
}

fn line(name: &str, value: &str) {
    println!("{name:<12} {value}");
}

fn payload_of(token: &str) -> Option<Value> {
    let encoded = token.split('.').nth(1)?;
    serde_json::from_slice(&Base64UrlSafeNoPadding::decode_to_vec(encoded, None).ok()?).ok()
}

fn endpoint_of(link: &str, payload: Option<&Value>) -> Endpoint {
    let backup = match link.split_once('?') {
        Some((path, _)) => path.ends_with("/download/backup"),
        None => payload.is_some_and(|payload| payload.get("backup_uuid").is_some()),
    };
    if backup { Endpoint::Backup } else { Endpoint::File }
}

fn print_payload(payload: Option<&Value>, now: u64) {
    let Some(payload) = payload else { return line("content", "unreadable") };
    for (claim, name) in [("iat", "issued"), ("nbf", "not before"), ("exp", "expires")] {
        match payload.get(claim).and_then(Value::as_f64) {
            Some(date) => line(name, &date_beside(date as u64, now)),
            None => line(name, "not said"),
        }
    }
    for (claim, name) in [
        ("scope", "scope"),
        ("server_uuid", "server"),
        ("file_path", "file"),
        ("backup_uuid", "backup"),
        ("iss", "issuer"),
    ] {
        if let Some(value) = payload.get(claim).and_then(Value::as_str) {
            line(name, &escape(value));
        }
    }
}

fn date_beside(date: u64, now: u64) -> String {
    /// The year 9999 ends here.
    const LAST: u64 = 253_402_300_799;
    let absolute =
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(date.min(LAST)));
    let distance = humantime::format_duration(Duration::from_secs(date.abs_diff(now)));
    match date.cmp(&now) {
        std::cmp::Ordering::Greater => format!("{absolute} (in {distance})"),
        std::cmp::Ordering::Less => format!("{absolute} ({distance} ago)"),
        std::cmp::Ordering::Equal => format!("{absolute} (now)"),
    }
}

/// Judges rightly signed claims: the state of the link, then the file. `None` where it would be
/// served.
fn judge(settings: &Settings, claims: &Claims, now: u64) -> Result<Option<String>, StartError> {
    let standing = print_standing(&settings.config, claims)?;
    let refusal = link_refusal(settings, claims, standing.as_ref(), now);
    if let Resource::Backup { server, backup } = &claims.resource {
        for layout in backup_layouts(server, backup) {
            let there = settings.config.backup_directory.join(&layout).exists();
            line("looked for", &format!("{layout}: {}", if there { "there" } else { "not there" }));
        }
    }
    let found = settings.storage.open(&claims.resource);
    match &found {
        Ok(found) => {
            line("found", &format!("{} bytes, offered as {}", found.length, escape(&found.name)))
        }
        Err(error) => line("found", &error.cause()),
    }
    Ok(refusal.or_else(|| found.err().map(|error| error.cause())))
}

/// What the journal knows of the link; `None` where nobody but the server itself can know.
fn print_standing(config: &Config, claims: &Claims) -> Result<Option<LinkStatus>, StartError> {
    let Some(unique_id) = &claims.unique_id else {
        line("link", "not one-time: it has no unique_id");
        return Ok(None);
    };
    let Some(directory) = &config.state_directory else {
        line("link", "one-time; only the server knows its state, since state_directory is not set");
        return Ok(None);
    };
    let standing = Replay::status_on_disk(directory, &replay::key_of(unique_id))?;
    match &standing {
        LinkStatus::Unused => line("link", "one-time, never used"),
        LinkStatus::Spent => line("link", "one-time, spent: its download is complete"),
        LinkStatus::Open { client, opened, delivered, charged } => {
            line(
                "link",
                &format!("in progress: {} of {} bytes delivered", delivered.0, delivered.1),
            );
            match client {
                Some(client) => line("bound to", &client.to_string()),
                None => line("bound to", "no address"),
            }
            let end = opened.saturating_add(config.resume_window.as_secs());
            line("resumable", &format!("until {}", date_beside(end, Clock::System.unix())));
            line("paid for", &format!("{} of at most {} bytes", charged.0, charged.1));
        }
    }
    Ok(Some(standing))
}

fn link_refusal(
    settings: &Settings,
    claims: &Claims,
    standing: Option<&LinkStatus>,
    now: u64,
) -> Option<String> {
    let used = |used| Some(TokenFault::Used(used).cause());
    match (standing, settings.rules.reuse) {
        (Some(LinkStatus::Spent), Reuse::Once | Reuse::Resume) => used(Used::Spent),
        (Some(LinkStatus::Open { .. }), Reuse::Once) => used(Used::Spent),
        (Some(LinkStatus::Open { opened, .. }), Reuse::Resume) => {
            let over = now >= opened.saturating_add(settings.rules.window);
            if over { used(Used::WindowOver) } else { None }
        }
        _ => claims.expired.then(|| TokenFault::Expired.cause()),
    }
}
