//! `winglet sign`

use std::time::Duration;

use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::claims::Claims;
use serde::Serialize;

use super::load;
use crate::cli::args::{Sign, SignOptions};
use crate::clock::Clock;
use crate::config::{Config, Listen};
use crate::error::StartError;
use crate::link::token::{Endpoint, Verifier};
use crate::link::uuid::Uuid;

/// Prints one signed URL.
///
/// # Errors
/// Where the configuration is not sound or would refuse the link.
pub fn sign(what: &Sign) -> Result<bool, StartError> {
    let (endpoint, payload, options) = match what {
        Sign::File { server, path, options } => (
            Endpoint::File,
            Payload { file_path: Some(path), ..Payload::new(*server, "file-download", options) },
            options,
        ),
        Sign::Backup { server, backup, options } => (
            Endpoint::Backup,
            Payload {
                backup_uuid: Some(*backup),
                ..Payload::new(*server, "backup-download", options)
            },
            options,
        ),
    };
    let config = load(&options.config)?;
    if options.expires > config.max_token_lifetime {
        return Err(StartError::new(format!(
            "--expires: {} is longer than winglet.max_token_lifetime ({}), and the link would be refused",
            humantime::format_duration(options.expires),
            humantime::format_duration(config.max_token_lifetime)
        )));
    }
    let token = token(&config, payload, options.expires)?;
    // A link that this very configuration refuses is no help to anybody.
    if let Err(fault) = Verifier::new(&config).verify(&token, endpoint, Clock::System.unix()) {
        return Err(StartError::new(format!("the link would be refused: {}", fault.cause())));
    }
    let base = options.base_url.clone().unwrap_or_else(|| default_base(&config));
    let page = if options.page { "&page" } else { "" };
    println!("{}/download/{}?token={token}{page}", base.trim_end_matches('/'), endpoint.name());
    Ok(true)
}

#[derive(Serialize)]
struct Payload<'a> {
    server_uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    scope: &'static str,
}

impl Payload<'_> {
    fn new(server_uuid: Uuid, scope: &'static str, options: &SignOptions) -> Self {
        let unique_id = (!options.no_unique_id).then(unique_id);
        Payload { server_uuid, file_path: None, backup_uuid: None, unique_id, scope }
    }
}

/// As long as the Panel's own, and as hard to guess as the key that it comes from.
fn unique_id() -> String {
    let random = HS256Key::generate().to_bytes();
    random.iter().take(16).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";

fn token(config: &Config, payload: Payload<'_>, expires: Duration) -> Result<String, StartError> {
    let claims = Claims::with_custom_claims(payload, expires.into());
    HS256Key::from_bytes(config.token.as_bytes())
        .authenticate(claims)
        .map_err(|error| StartError::new(format!("token: cannot sign: {error}")))
}

fn default_base(config: &Config) -> String {
    let tcp = config.listen.iter().find_map(|listen| match listen {
        Listen::Tcp { address, tls } => Some((*address, *tls)),
        Listen::Unix { .. } => None,
    });
    let Some((mut address, tls)) = tcp else { return "http://localhost".into() };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if tls { "https" } else { "http" })
}
