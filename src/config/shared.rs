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

use super::defaults;
use super::file::reason;
use super::token::Secret;
use super::values::Section;
use super::yaml::Value;

const KEY: &str = "shared_state";
const EXAMPLE: &str = "redis://HOST:6379/0 or rediss://HOST:6379/0";
const DEFAULT_PORT: u16 = 6379;
const SECOND: Duration = Duration::from_secs(1);
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Longest name of a front end.
const MAX_NAME: usize = 64;
/// What stands in place of an owner's name once a link is spent.
const SPENT: &str = "spent";

/// What becomes of new links while the shared state cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// They are turned away for the moment.
    Refuse,
    /// They are served: two front ends may then serve the same one.
    Serve,
}

pub(super) const WHEN_DOWN: &[(&str, WhenDown)] =
    &[("refuse", WhenDown::Refuse), ("serve", WhenDown::Serve)];

/// The Redis that front ends share.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.user.as_deref().unwrap_or_default();
        write!(f, "{scheme}://{user}")?;
        if self.password.is_some() {
            f.write_str(":***")?;
        }
        if self.user.is_some() || self.password.is_some() {
            f.write_str("@")?;
        }
        match self.host.parse::<Ipv6Addr>() {
            Ok(_) => write!(f, "[{}]", self.host)?,
            Err(_) => f.write_str(&self.host)?,
        }
        write!(f, ":{}/{}", self.port, self.database)
    }
}

/// Whether `name` can be a front end's: letters, digits, `.`, `-`, `_`, and none of our own words.
pub fn is_node_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name != SPENT && name.bytes().all(fits)
}

/// The shared state, if there is one.
pub(super) fn read(w: &Section<'_>) -> Option<SharedState> {
    let password_file = w.path("shared_state_password_file");
    let authorities = w.path("shared_state_ca");
    let node = node(w);
    let silence = SECOND..=TEN_MINUTES;
    let take_over_after = w.duration("take_over_after", defaults::TAKE_OVER_AFTER, silence);
    let url = w.string(KEY)?;
    let refuse = |message: &str| {
        w.notes.error(w.name_of(KEY), message);
        w.notes.replace(&w.name_of(KEY), "(not shown)".into(), w.origin(KEY));
    };
    let Some(mut shared) = parse(&url) else {
        refuse(&format!("is no address of a Redis; write {EXAMPLE}"));
        return None;
    };
    if cfg!(not(feature = "shared-state")) {
        refuse("is not supported by this binary; build it with the feature shared-state");
    } else if shared.tls && cfg!(not(feature = "shared-state-tls")) {
        refuse(
            "asks for TLS (rediss://), which this binary lacks: build it with the feature shared-state-tls, or lead redis:// through a tunnel",
        );
    }
    if let Some(path) = &password_file {
        let key = w.name_of("shared_state_password_file");
        match std::fs::read_to_string(path) {
            _ if shared.password.is_some() => {
                w.notes.error(key, "the URL has a password as well; write it in one of the two")
            }
            Ok(text) => shared.password = Some(Secret(text.trim().to_owned())),
            Err(error) => {
                let (path, reason) = (path.display(), reason(&error));
                w.notes.error(key, format!("{path} cannot be read: {reason}"));
            }
        }
    }
    let shared = SharedState { password_file, authorities, node, take_over_after, ..shared };
    w.notes.replace(&w.name_of(KEY), shared.to_string(), w.origin(KEY));
    Some(shared)
}

fn node(w: &Section<'_>) -> Option<String> {
    let node = w.string("node")?;
    if !is_node_name(&node) {
        let message = format!(
            "is {node:?}; write a name of letters, digits, \".\", \"-\" and \"_\", {MAX_NAME} at most, and not {SPENT:?}"
        );
        w.notes.error(w.name_of("node"), message);
    }
    Some(node)
}

/// Where front ends are reached.
pub(super) fn front_ends(w: &Section<'_>) -> Vec<(String, String)> {
    const KEY: &str = "front_ends";
    const RIGHT: &str = "write a section of names and URLs, such as {a: https://a.example.com}";
    let entries = match w.node(KEY).map(|node| &node.value) {
        None => &[],
        Some(Value::Section(entries)) => entries.as_slice(),
        Some(_) => {
            w.notes.error(w.name_of(KEY), RIGHT);
            &[]
        }
    };
    let mut found = Vec::new();
    for (name, node) in entries {
        match &node.value {
            Value::Text(url) if is_node_name(name) && is_base(url) => {
                found.push((name.clone(), url.trim_end_matches('/').to_owned()));
            }
            _ => w.notes.error(format!("{}.{name}", w.name_of(KEY)), RIGHT),
        }
    }
    let shown: Vec<_> = found.iter().map(|(name, url)| format!("{name}: {url}")).collect();
    w.note(KEY, Some(format!("{{{}}}", shown.join(", "))));
    if !found.is_empty() && w.node("node").is_none() {
        let message = "names front ends, and this one has no name that the others could know; set winglet.node on each";
        w.notes.warning(w.name_of(KEY), message);
    }
    found
}

/// Whether `url` can stand before a path: it goes into a header as it is.
fn is_base(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\@".contains(&byte);
    rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty() && rest.bytes().all(plain))
}

fn parse(url: &str) -> Option<SharedState> {
    let (scheme, rest) = url.split_once("://")?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, authority),
    };
    let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((user, password)) => (decode(user)?, decode(password)?),
        None => (None, None),
    };
    let (host, port) = match place.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port))) if host.parse::<Ipv6Addr>().is_ok() => (host, port),
        Some(_) => return None,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    let database = if path.is_empty() { 0 } else { path.parse().ok()? };
    Some(SharedState {
        host: host.to_owned(),
        port,
        tls,
        database,
        user,
        password: password.map(Secret),
        password_file: None,
        authorities: None,
        node: None,
        take_over_after: defaults::TAKE_OVER_AFTER,
    })
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
    fn names_and_bases() {
        for name in ["a", "front-1.example", "A_b"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "spent", "a b", "a\n", "ä", &"a".repeat(65)] {
            assert!(!is_node_name(name), "{name}");
        }
        for url in ["https://a", "http://a:8080", "https://a/prefix/"] {
            assert!(is_base(url), "{url}");
        }
        for url in ["", "a", "ftp://a", "https://", "https://a\r\nX: y", "https://a?b", "https:///"]
        {
            assert!(!is_base(url), "{url}");
        }
    }
}
