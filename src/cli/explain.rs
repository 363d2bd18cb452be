//! `winglet explain`: why does this link not work?

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde_json::{Value, json};

use super::{IN_PROGRESS, Lines, bare, load, token_in};
use crate::archive::Format;
use crate::cli::args::Explain;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::error::CommandError;
use crate::http::head::format_of;
use crate::http::refusal::Refusal;
use crate::link::folder::Packing;
use crate::link::resource;
use crate::link::storage::backup_layouts;
use crate::link::token::{Claims, Endpoint, Resource, TokenFault, Used};
use crate::logging::escape;
use crate::net::address::ClientKey;
use crate::process::sandbox::{self, Allowed};
use crate::replay::{self, ClaimRequest, LinkId, LinkStatus, Replay};
use crate::server;
use crate::shared::Settings;

/// Says what a link means, and what the server would answer now. It spends nothing. The status is 1
/// if the link would be refused.
///
/// # Errors
/// If the configuration or the journal cannot be read.
pub(super) fn explain(options: &Explain, out: &mut String) -> Result<ExitCode, CommandError> {
    // Nothing is an error by now, so that there is a configuration.
    let Some(config) = load(&options.files)?.config else { return Ok(ExitCode::FAILURE) };
    let settings = Settings::new(config);
    let now = Clock::System.unix();
    let (link, token) = (bare(&options.link), token_in(&options.link));
    let payload = payload_of(&token);
    let endpoint = endpoint_of(link, payload.as_ref(), &settings, &token, now);
    let format = match link.split_once('?') {
        Some((_, query)) if endpoint.is_archive() => format_of(query),
        _ => Ok(Format::default()),
    };
    let mut lines = lines_of(payload.as_ref(), now);
    let refusal = match (format, settings.verifier.verify(&token, endpoint, now)) {
        (Err(refusal), _) => Some(refusal),
        (Ok(_), Err(fault)) => {
            lines.push(("token", fault.cause()));
            Some(Refusal::Token(fault))
        }
        (Ok(format), Ok(claims)) => {
            lines.push(("token", "correctly signed, for this endpoint".into()));
            let client = options.from.map(ClientKey::of);
            let link = judge_link(&settings, &claims, &token, client, now, &mut lines)?;
            #[cfg(feature = "shared-state")]
            let link =
                super::front_ends::judge(&settings.config, &claims, client, link, &mut lines);
            let file = judge_file(&settings, &claims, format, &mut lines);
            link.or(file)
        }
    };
    report(lines, refusal.as_ref(), options.json, out);
    Ok(if refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(mut lines: Lines, refusal: Option<&Refusal>, as_json: bool, out: &mut String) {
    let verdict = match refusal {
        None => "it would be served".to_owned(),
        Some(refusal) => {
            format!("it would be refused with {}: {}", refusal.status(), refusal.cause())
        }
    };
    if as_json {
        let details: Vec<_> =
            lines.iter().map(|(name, text)| json!({"name": name, "text": text})).collect();
        let value = json!({
            "served": refusal.is_none(),
            "status": refusal.map_or(200, Refusal::status),
            "cause": refusal.map(Refusal::cause),
            "details": details,
        });
        let _ = writeln!(out, "{value:#}");
    } else {
        lines.push(("verdict", verdict));
        for (name, text) in &lines {
            let _ = writeln!(out, "{name:<12} {text}");
        }
    }
}

fn payload_of(token: &str) -> Option<Value> {
    let encoded = token.split('.').nth(1)?;
    serde_json::from_slice(&Base64UrlSafeNoPadding::decode_to_vec(encoded, None).ok()?).ok()
}

/// The endpoint of a link; of a token alone, the one that serves what it opens.
fn endpoint_of(
    link: &str,
    payload: Option<&Value>,
    settings: &Settings,
    token: &str,
    now: u64,
) -> Endpoint {
    let has = |claim| payload.is_some_and(|payload| payload.get(claim).is_some());
    let is_directory = || match settings.verifier.verify(token, Endpoint::Directory, now) {
        Ok(Claims { resource: Resource::Directory { server, path }, .. }) => {
            settings.storage.open_directory(&server, &path, None).is_ok()
        }
        _ => false,
    };
    let named =
        |path: &str, endpoint: &Endpoint| path.ends_with(&format!("/download/{}", endpoint.name()));
    match link.split_once('?') {
        Some((path, _)) => Endpoint::ALL
            .into_iter()
            .find(|endpoint| named(path, endpoint))
            .unwrap_or(Endpoint::File),
        None if has("backup_uuid") => Endpoint::Backup,
        None if has("file_paths") => Endpoint::Files,
        None if is_directory() => Endpoint::Directory,
        None => Endpoint::File,
    }
}

/// What the token says of itself, valid or not.
fn lines_of(payload: Option<&Value>, now: u64) -> Lines {
    let Some(payload) = payload else { return vec![("content", "unreadable".into())] };
    let mut lines = Lines::new();
    for (claim, name) in [("iat", "issued"), ("nbf", "not before"), ("exp", "expires")] {
        let date = payload.get(claim).and_then(Value::as_f64);
        lines.push((name, date.map_or("not said".into(), |date| distance(date as u64, now))));
    }
    for (claim, name) in [
        ("scope", "scope"),
        ("server_uuid", "server"),
        ("file_path", "file"),
        ("backup_uuid", "backup"),
        ("iss", "issuer"),
    ] {
        let text = payload.get(claim).and_then(Value::as_str);
        lines.extend(text.map(|text| (name, escape(text))));
    }
    let files = payload.get("file_paths").and_then(Value::as_array).into_iter().flatten();
    lines.extend(files.filter_map(Value::as_str).map(|file| ("of it", escape(file))));
    let ignored = payload.get("ignored_files").and_then(Value::as_array).into_iter().flatten();
    lines.extend(ignored.filter_map(Value::as_str).map(|pattern| ("hides", escape(pattern))));
    lines
}

/// A date, and how far from now it is.
fn distance(date: u64, now: u64) -> String {
    let absolute = clock::date(date);
    let distance = humantime::format_duration(Duration::from_secs(date.abs_diff(now)));
    match date.cmp(&now) {
        std::cmp::Ordering::Greater => format!("{absolute} (in {distance})"),
        std::cmp::Ordering::Less => format!("{absolute} ({distance} ago)"),
        std::cmp::Ordering::Equal => format!("{absolute} (now)"),
    }
}

/// What the journal knows of the link, and what the server's own check says of `client`; without
/// one, of the client that the link is bound to.
///
/// # Errors
/// If there is a journal and it cannot be read.
fn judge_link(
    settings: &Settings,
    claims: &Claims,
    token: &str,
    client: Option<ClientKey>,
    now: u64,
    lines: &mut Lines,
) -> Result<Option<Refusal>, CommandError> {
    let (config, rules) = (&settings.config, &settings.rules);
    let expired = claims.expired.then_some(Refusal::Token(TokenFault::Expired));
    let id = LinkId::of(claims, token);
    let one_time = claims.unique_id.is_some();
    let Some(directory) = &config.state_directory else {
        let text = match one_time {
            true => "one-time; only the server knows its state, since state_directory is not set",
            false => "not one-time: it has no unique_id",
        };
        lines.push(("link", text.into()));
        return Ok(expired);
    };
    let replay = Replay::read_only(config.max_tracked_tokens, directory, rules, now)?;
    if replay.is_revoked(&id) {
        lines.push(("link", "revoked".into()));
        return Ok(Some(Refusal::Token(TokenFault::Used(Used::Revoked))));
    }
    if !one_time {
        lines.push(("link", "not one-time: it has no unique_id".into()));
        return Ok(expired);
    }
    let status = replay.status(&id.link, rules, now);
    lines.extend(lines_of_link(&status, config, now));
    let holder = match status {
        LinkStatus::Open { holders, .. } => holders.first().copied(),
        _ => None,
    };
    let request = ClaimRequest {
        key: id.link,
        resource: replay::hash_of(&claims.resource),
        server: id.server.unwrap_or_default(),
        client: client.or(holder),
        expires: claims.expires,
        expired: claims.expired,
        at: Instant::now(),
    };
    Ok(replay.check(&request, rules, now).err().map(Refusal::from))
}

fn lines_of_link(status: &LinkStatus, config: &Config, now: u64) -> Lines {
    let LinkStatus::Open { holders, opened, delivered, charged, ended, passes, settles } = status
    else {
        let spent = *status == LinkStatus::Spent;
        let text = if spent { "spent: its download is complete" } else { "never used" };
        return vec![("link", format!("one-time, {text}"))];
    };
    let (bytes, length) = delivered;
    let end = opened.saturating_add(config.resume_window.as_secs());
    let mut lines = vec![("link", format!("{IN_PROGRESS}: {bytes} of {length} bytes delivered"))];
    match &holders[..] {
        [] => lines.push(("held by", "nobody: it is bound to no address".into())),
        [holder, before @ ..] => {
            lines.push(("held by", holder.to_string()));
            lines.extend(before.iter().map(|client| ("before that", client.to_string())));
            lines.push(("passes on", passing(*passes, settles.is_some(), now)));
        }
    }
    let ended = ended.map_or("running".into(), |ended| format!("ended {}", distance(ended, now)));
    lines.push(("last stream", ended));
    lines.push(("resumable", format!("until {}", distance(end, now))));
    if let Some(settles) = settles {
        lines
            .push(("settles", format!("at {}, unless it is used before", distance(*settles, now))));
    }
    lines.push(("paid for", format!("{} of at most {} bytes", charged.0, charged.1)));
    lines
}

/// When another address may have a link.
fn passing(passes: Option<u64>, delivered: bool, now: u64) -> String {
    match passes {
        _ if delivered => "no more: it is delivered, and open to those who held it".into(),
        None => "once its holder has acknowledged nothing for ten seconds".into(),
        Some(passes) if passes <= now => "to the next address that asks".into(),
        Some(passes) => format!("at {}, unless its holder asks before", distance(passes, now)),
    }
}

/// Whether the file is there, and within the server's reach.
fn judge_file(
    settings: &Settings,
    claims: &Claims,
    format: Format,
    lines: &mut Lines,
) -> Option<Refusal> {
    let config = &settings.config;
    if let Resource::Backup { server, backup } = &claims.resource {
        for layout in backup_layouts(server.as_ref(), backup) {
            let there = config.backup_directory.join(&layout).exists();
            let text = format!("{layout}: {}", if there { "there" } else { "not there" });
            lines.push(("looked for", text));
        }
    }
    let open = || {
        let hidden = settings.hidden(claims);
        let packing = Packing { format, hidden, ..Packing::default() };
        resource::open(&settings.storage, &claims.resource, packing)?.finish()
    };
    let free = open();
    let confined = match &free {
        // As the server does: what it cannot reach from there, it cannot serve.
        Ok(_) if config.sandbox => {
            let allowed = Allowed::by(config, &server::private_base(config), None);
            sandbox::enter(&allowed).ok().map(|_| open())
        }
        _ => None,
    };
    let (text, error) = match (free, confined) {
        (Ok(_), Some(Err(error))) => (
            "out of reach: the sandbox keeps the server from where a symbolic link leads; see winglet.extra_read_paths".into(),
            Some(error),
        ),
        (Ok(found), _) => {
            (format!("{} bytes, offered as {}", found.length, escape(&found.name)), None)
        }
        (Err(error), _) => (error.cause(), Some(error)),
    };
    lines.push(("found", text));
    error.map(Refusal::from)
}
