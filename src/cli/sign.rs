//! `winglet sign`

use std::fmt::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::claims::Claims;
use serde::Serialize;
use serde_json::json;

use super::{load, say};
use crate::archive::Format;
use crate::cli::args::{Sign, SignOptions};
use crate::clock::{self, Clock};
use crate::config::{Config, Listen, Setting};
use crate::error::CommandError;
use crate::link::Uuid;
use crate::link::folder::{Opened, Packing};
use crate::link::resource;
use crate::link::storage::Storage;
use crate::link::token::{Endpoint, Verifier};

/// Prints one signed URL.
///
/// # Errors
/// If the configuration is not valid, or would refuse the link.
pub(super) fn sign(what: &Sign, out: &mut String) -> Result<ExitCode, CommandError> {
    let (endpoint, payload, format, options) = parts_of(what);
    let loaded = load(&options.files)?;
    // Nothing is an error by now, so that there is a configuration.
    let Some(config) = &loaded.config else { return Ok(ExitCode::FAILURE) };
    if options.expires > config.max_token_lifetime {
        return Err(CommandError(format!(
            "--expires: {} is longer than winglet.max_token_lifetime lets a link live ({}); raise that key, or ask for less",
            humantime::format_duration(options.expires),
            humantime::format_duration(config.max_token_lifetime)
        )));
    }
    let now = Clock::System.unix();
    let token = token(config, payload, options.expires)?;
    // A link that this very configuration refuses is no help to anybody.
    let claims = Verifier::new(config)
        .verify(&token, endpoint, now)
        .map_err(|fault| CommandError(format!("the link would be refused: {}", fault.cause())))?;
    let packing = Packing { format, ..Packing::default() };
    let opened = resource::open(&Storage::new(config), &claims.resource, packing);
    if let Err(refusal) = opened.and_then(Opened::finish) {
        say(&format_args!("warning: the link would be refused now: {}", refusal.cause()));
    }
    let base = match options.base_url.as_ref().or(config.base_url.as_ref()) {
        Some(base) => base.clone(),
        None => default_base(config, &loaded.settings),
    };
    let page = if options.page { "&page" } else { "" };
    let format = match format {
        Format::Zip => String::new(),
        Format::Tar => format!("&archive_format={}", format.extension()),
    };
    let url = format!("{base}/download/{}?token={token}{format}{page}", endpoint.name());
    let _ = match options.json {
        true => writeln!(out, "{:#}", json!({"url": url, "expires": clock::date(claims.expires)})),
        false => writeln!(out, "{url}"),
    };
    Ok(ExitCode::SUCCESS)
}

/// What a link of this kind is signed for.
fn parts_of(what: &Sign) -> (Endpoint, Payload<'_>, Format, &SignOptions) {
    match what {
        Sign::File { server, path, options } => (
            Endpoint::File,
            Payload { file_path: Some(path), ..Payload::new(*server, "file-download", options) },
            Format::default(),
            options,
        ),
        Sign::Backup { server, backup, options } => (
            Endpoint::Backup,
            Payload {
                backup_uuid: Some(*backup),
                ..Payload::new(*server, "backup-download", options)
            },
            Format::default(),
            options,
        ),
        Sign::Directory { server, path, format, options } => (
            Endpoint::Directory,
            Payload { file_path: Some(path), ..Payload::new(*server, "file-download", options) },
            *format,
            options,
        ),
        Sign::Files { server, path, files, format, options } => (
            Endpoint::Files,
            Payload {
                file_path: Some(path),
                file_paths: Some(files),
                ..Payload::new(*server, "file-download", options)
            },
            *format,
            options,
        ),
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    server_uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_paths: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    scope: &'static str,
}

impl Payload<'_> {
    fn new(server_uuid: Uuid, scope: &'static str, options: &SignOptions) -> Self {
        let unique_id = (!options.no_unique_id).then(unique_id);
        let (file_path, file_paths, backup_uuid) = (None, None, None);
        Payload { server_uuid, file_path, file_paths, backup_uuid, unique_id, scope }
    }
}

/// As long as the Panel's own, and as hard to guess as the key that it comes from.
fn unique_id() -> String {
    let random = HS256Key::generate().to_bytes();
    random.iter().take(16).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";

fn token(config: &Config, payload: Payload<'_>, expires: Duration) -> Result<String, CommandError> {
    let claims = Claims::with_custom_claims(payload, expires.into());
    HS256Key::from_bytes(config.token.as_bytes())
        .authenticate(claims)
        .map_err(|error| CommandError(format!("token: cannot sign: {error}")))
}

/// The address that people reach this machine at, as far as the configuration and the system tell.
/// Says so if it is a guess, or certainly wrong for others.
fn default_base(config: &Config, settings: &[Setting]) -> String {
    let tcp = config.listen.iter().filter(|listen| matches!(listen, Listen::Tcp { .. }));
    // What others reach comes before what only this machine does.
    let listen = tcp.clone().find(|listen| !listen.is_local()).or(tcp.clone().next());
    let Some(Listen::Tcp { address, tls, name }) = listen else {
        say(
            &"warning: the configuration names no address that people can reach; set winglet.base_url",
        );
        return "http://localhost".into();
    };
    let (scheme, usual) = if *tls { ("https", 443) } else { ("http", 80) };
    let port = match address.port() {
        port if port == usual => String::new(),
        port => format!(":{port}"),
    };
    let host = match name {
        Some(name) => name.clone(),
        None if address.ip().is_unspecified() => public_host(settings),
        None => bracketed(address.ip()),
    };
    if address.ip().is_loopback() {
        say(&format_args!("warning: {host} is this machine only to itself; set winglet.base_url"));
    }
    format!("{scheme}://{host}{port}")
}

/// What to call a machine that listens everywhere: `api.host`, if that is a name or an address of
/// its own, else the host's name.
fn public_host(settings: &[Setting]) -> String {
    let written = settings.iter().find(|setting| setting.key == "api.host");
    let written = written.and_then(|setting| setting.value.as_deref()).unwrap_or_default();
    match written.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_loopback() => bracketed(address),
        Err(_) if !written.is_empty() => written.to_owned(),
        _ => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if !name.contains('.') {
                say(&format_args!(
                    "warning: {name} is what this machine calls itself, and others may not know it; set winglet.base_url"
                ));
            }
            name
        }
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
