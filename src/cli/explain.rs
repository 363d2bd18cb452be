//! `winglet explain`: why does this link not work?

use std::time::{Duration, UNIX_EPOCH};

use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde_json::Value;

use super::load;
use crate::cli::args::Explain;
use crate::clock::Clock;
use crate::config::Config;
use crate::download::token_of;
use crate::error::StartError;
use crate::http::refusal::Refusal;
use crate::link::storage::backup_layouts;
use crate::link::token::{Claims, Endpoint, Resource, TokenFault};
use crate::logging::access::escape;
use crate::replay::{self, ClaimRequest, LinkStatus, Replay};
use crate::shared::Settings;

/// Prints what a link says, and whether it would be served now. It spends nothing. `false` where
/// it would be refused.
///
/// # Errors
/// Where the configuration or the journal cannot be read.
pub fn explain(options: &Explain) -> Result<bool, StartError> {
    let settings = Settings::new(load(&options.config)?);
    let now = Clock::System.unix();
    let token = match options.link.split_once('?') {
        Some(_) => token_of(&options.link).unwrap_or_default(),
        None => options.link.clone(),
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

/// Judges rightly signed claims: the state of the link, then the file. `None` if it would be served.
fn judge(settings: &Settings, claims: &Claims, now: u64) -> Result<Option<String>, StartError> {
    let refusal = judge_link(settings, claims, now)?;
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
        Err(refusal) => line("found", &refusal.cause()),
    }
    Ok(refusal.or_else(|| found.err().map(|refusal| refusal.cause())))
}

/// Prints what the journal knows of the link, and asks the server's own check about it.
fn judge_link(
    settings: &Settings,
    claims: &Claims,
    now: u64,
) -> Result<Option<String>, StartError> {
    let (config, rules) = (&settings.config, &settings.rules);
    let expired = claims.expired.then(|| TokenFault::Expired.cause());
    let Some(unique_id) = &claims.unique_id else {
        line("link", "not one-time: it has no unique_id");
        return Ok(expired);
    };
    let Some(directory) = &config.state_directory else {
        line("link", "one-time; only the server knows its state, since state_directory is not set");
        return Ok(expired);
    };
    let replay = Replay::read_only(config.max_tracked_tokens, directory, rules, now)?;
    let key = replay::key_of(unique_id);
    let status = replay.status(&key, rules, now);
    print_status(&status, config, now);
    // Asked as the client that it is bound to.
    let client = match status {
        LinkStatus::Open { client, .. } => client,
        _ => None,
    };
    let request = ClaimRequest {
        key,
        resource: replay::hash_of(&claims.resource),
        server: replay::key_of(claims.resource.server().as_str()),
        client,
        expires: claims.expires,
        expired: claims.expired,
    };
    Ok(replay.check(&request, rules, now).err().map(|error| Refusal::from(error).cause()))
}

fn print_status(status: &LinkStatus, config: &Config, now: u64) {
    let LinkStatus::Open { client, opened, sure, delivered, charged, settles } = status else {
        let spent = *status == LinkStatus::Spent;
        let text = if spent { "spent: its download is complete" } else { "never used" };
        return line("link", &format!("one-time, {text}"));
    };
    line(
        "link",
        &format!(
            "in progress: {} of {} bytes delivered, {sure} of them for sure",
            delivered.0, delivered.1
        ),
    );
    match client {
        Some(client) => line("bound to", &client.to_string()),
        None => line("bound to", "no address"),
    }
    let end = opened.saturating_add(config.resume_window.as_secs());
    line("resumable", &format!("until {}", date_beside(end, now)));
    if let Some(settles) = settles {
        line("settles", &format!("at {}, if nobody uses it before", date_beside(*settles, now)));
    }
    line("paid for", &format!("{} of at most {} bytes", charged.0, charged.1));
}
