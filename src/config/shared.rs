//! Several front ends over one storage: the Redis in which they agree on who owns a link, and where
//! each of them is reached.
//!
//! The URL is taken apart here; its host is resolved once, when the server starts. No message and no
//! `Debug` shows the password.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::file::reason;
use super::token::Secret;
use super::urls::parse_base_url;
use super::written::Written;
use super::yaml::Value;

const EXAMPLE: &str = "redis://HOST:6379/0 or rediss://HOST:6379/0";
const DEFAULT_PORT: u16 = 6379;
/// Longest name of a front end.
const MAX_NAME: usize = 64;

/// What becomes of new links while the shared state cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// They are turned away for the moment.
    #[default]
    Refuse,
    /// They are served: two front ends may then serve the same one.
    Serve,
}

/// The Redis that front ends share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedState {
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The number of the database.
    pub database: u32,
    /// The user of its access list, if it has one.
    pub user: Option<String>,
    /// The password, if it wants one.
    pub password: Option<Secret>,
    /// Where the password was read from, if it has a file of its own.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities that vouch for its certificate; `None` for the system's.
    pub authorities: Option<PathBuf>,
    /// What this front end is called; `None` for a name that the server makes for itself.
    pub node: Option<String>,
    /// A front end that was silent for this long loses its links to whoever is asked for them.
    pub take_over_after: Duration,
}

impl fmt::Display for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, user) = (if self.tls { "rediss" } else { "redis" }, self.user.as_deref());
        let secret = if self.password.is_some() { ":***" } else { "" };
        let at = if self.user.is_some() || self.password.is_some() { "@" } else { "" };
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let (user, port, database) = (user.unwrap_or_default(), self.port, self.database);
        write!(f, "{scheme}://{user}{secret}{at}{host}:{port}/{database}")
    }
}

/// Returns true if `name` can be a front end's: letters, digits, `.`, `-` and `_`.
pub fn is_node_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(fits)
}

/// The shared state, if there is one.
pub(super) fn read(written: &Written<'_>) -> Option<SharedState> {
    let password = written.at("winglet.shared_state_password_file");
    let (password_file, node) = (password.path(), node(&written.at("winglet.node")));
    let authorities = written.at("winglet.shared_state_ca").path();
    let take_over_after = written.at("winglet.take_over_after").time("1s", "10m");
    let url = written.text()?;
    written.set(Some("(not shown)".into()), &written.origin());
    let shared = parse(&url).ok_or_else(|| format!("is no address of a Redis; write {EXAMPLE}"));
    let mut shared = written.ok(shared)?;
    written.set(Some(shared.to_string()), &written.origin());
    if cfg!(not(feature = "shared-state")) {
        written.error("is not supported by this binary; build it with the feature shared-state");
    } else if shared.tls && cfg!(not(feature = "shared-state-tls")) {
        written.error(
            "asks for TLS, which this binary lacks; build it with the feature shared-state-tls",
        );
    }
    if let Some(path) = &password_file {
        match std::fs::read_to_string(path) {
            _ if shared.password.is_some() => {
                password.error("is not needed: the URL has one as well")
            }
            Ok(text) => shared.password = Some(Secret(text.trim().to_owned())),
            Err(error) => {
                password.error(format!("{} cannot be read: {}", path.display(), reason(&error)));
            }
        }
    }
    Some(SharedState { password_file, authorities, node, take_over_after, ..shared })
}

fn node(written: &Written<'_>) -> Option<String> {
    let node = written.text()?;
    if !is_node_name(&node) {
        written.error(format!(
            "is {node:?}; write a name of letters, digits, \".\", \"-\" and \"_\", {MAX_NAME} at most"
        ));
    }
    Some(node)
}

/// Where front ends are reached.
pub(super) fn front_ends(written: &Written<'_>) -> Vec<(String, String)> {
    const FITS: &str = "a section of names and URLs, such as {a: https://a.example.com}";
    let entries = written.get(FITS, |value| match value {
        Value::Section(entries) => Some(entries.clone()),
        _ => None,
    });
    let mut found = Vec::new();
    for (name, value) in entries {
        match &value {
            Value::Text(url) if is_node_name(&name) && parse_base_url(url).is_ok() => {
                found.extend(parse_base_url(url).map(|url| (name, url)));
            }
            _ => written.error(format!("has {name:?} among its names; write {FITS}")),
        }
    }
    let shown: Vec<_> = found.iter().map(|(name, url)| format!("{name}: {url}")).collect();
    written.set(Some(format!("{{{}}}", shown.join(", "))), &written.origin());
    if !found.is_empty() && written.at("winglet.node").value().is_none() {
        written
            .warning("needs winglet.node on each front end: this one has no name for the others");
    }
    found
}

fn parse(url: &str) -> Option<SharedState> {
    let (tls, rest) = match url.split_once("://")? {
        ("redis", rest) => (false, rest),
        ("rediss", rest) => (true, rest),
        _ => return None,
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok())?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let host = Some(host.to_owned()).filter(|host| !host.is_empty() && host.bytes().all(named))?;
    let database = if database.is_empty() { 0 } else { database.parse().ok()? };
    let (user, password) = (decode(user)?, decode(password)?.map(Secret));
    Some(SharedState { host, port, tls, database, user, password, ..SharedState::default() })
}

/// A part of the URL without its escapes. The outer `None` is one that is not text.
fn decode(part: &str) -> Option<Option<String>> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    Some(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let table = [
            ("redis://h", "redis://h:6379/0"),
            ("redis://h:1/", "redis://h:1/0"),
            ("rediss://10.0.0.1:6380/3", "rediss://10.0.0.1:6380/3"),
            ("redis://:secret@h", "redis://:***@h:6379/0"),
            ("redis://me:p%40ss@[::1]:7/1", "redis://me:***@[::1]:7/1"),
            ("redis://me@h", "redis://me@h:6379/0"),
        ];
        for (url, shown) in table {
            let shared = parse(url).unwrap();
            assert_eq!(shared.to_string(), shown, "{url}");
            assert!(!format!("{shared:?}").contains("secret"));
        }
        let password = parse("redis://me:p%40ss@h").unwrap().password.unwrap();
        assert_eq!(password.as_bytes(), b"p@ss");
        for url in [
            "",
            "redis:",
            "redis://",
            "http://h",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://[::1",
            "redis://[h]",
            "redis://a b",
            "redis://h:1:2",
            "redis://%ff:a@h",
        ] {
            assert!(parse(url).is_none(), "{url}");
        }
    }

    #[test]
    fn names() {
        for name in ["a", "front-1.example", "A_b"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "a b", "a\n", "ä", &"a".repeat(65)] {
            assert!(!is_node_name(name), "{name}");
        }
    }
}
