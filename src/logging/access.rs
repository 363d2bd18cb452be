//! The access log: one line per request, in which nothing that a client controls can pass for
//! something else.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use crate::link::token::Resource;
use crate::logging::escape;
use crate::logging::throttle::{Kind, LogThrottle};
use crate::net::address::ClientKey;

/// The log target of access lines.
pub const TARGET: &str = "winglet::access";

/// What is known about a request when its line is written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The method's name.
    pub method: &'static str,
    /// The name of the endpoint: `file`, `backup`, `directory`, `files`, or `-`.
    pub endpoint: &'static str,
    /// The status that was answered.
    pub status: u16,
    /// What was asked for, if a valid token said so.
    pub resource: Option<Resource>,
    /// When the request was complete.
    pub began: Instant,
    /// `X-Request-Id`
    pub id: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte of the answer was acknowledged, and the connection was closed cleanly or lives on.
    Delivered,
    /// The answer did not arrive in full.
    Interrupted(String),
    /// The request was refused.
    Refused(String),
    /// Answered without content: `HEAD`, 304, a landing page.
    Answered,
}

/// Bytes of one answer and of its link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    /// Acknowledged in this answer.
    pub sent: u64,
    /// Content of this answer.
    pub content: u64,
    /// Delivered by all answers of this link, if that is tracked, and the length of the file.
    pub link: Option<(u64, u64)>,
}

impl Entry {
    /// Writes the line of a request without content, unless `throttle` has seen too many of them:
    /// a stranger can cause any number.
    pub fn log_bounded(&self, outcome: &Outcome, throttle: &LogThrottle) {
        let kind = match outcome {
            Outcome::Refused(_) => Kind::Refused,
            _ => Kind::Answered,
        };
        if throttle.allows(kind, self.client.map(ClientKey::of), Instant::now()) {
            self.log(&Bytes::default(), outcome);
        }
    }

    /// Writes the line.
    pub fn log(&self, bytes: &Bytes, outcome: &Outcome) {
        log::info!(target: TARGET, "{}", Line { entry: self, bytes, outcome });
    }
}

struct Line<'a> {
    entry: &'a Entry,
    bytes: &'a Bytes,
    outcome: &'a Outcome,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { client, method, endpoint, status, resource, began, id } = self.entry;
        match client {
            Some(client) => write!(f, "{client}")?,
            None => f.write_str("-")?,
        }
        write!(f, " {method} {endpoint} {status}")?;
        match resource {
            // `{:?}` escapes controls, line breaks, quotes and what is not printable.
            Some(Resource::File { server, path }) => write!(f, " server={server} file={path:?}")?,
            Some(Resource::Backup { server, backup }) => {
                write!(f, " server={server} backup={backup}")?;
            }
            Some(Resource::Directory { server, path }) => {
                write!(f, " server={server} directory={path:?}")?;
            }
            Some(Resource::Files { server, path, files }) => {
                write!(f, " server={server} directory={path:?} files={}", files.len())?;
            }
            None => {}
        }
        if matches!(self.outcome, Outcome::Delivered | Outcome::Interrupted(_)) {
            write!(f, " bytes={}/{}", self.bytes.sent, self.bytes.content)?;
            if let Some((delivered, length)) = self.bytes.link {
                write!(f, " link={delivered}/{length}")?;
            }
        }
        write!(f, " seconds={:.3} id={id} ", began.elapsed().as_secs_f64())?;
        match self.outcome {
            Outcome::Delivered => f.write_str("delivered"),
            Outcome::Interrupted(why) => write!(f, "interrupted: {}", escape(why)),
            Outcome::Refused(why) => write!(f, "refused: {}", escape(why)),
            Outcome::Answered => f.write_str("answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_forge_a_line() {
        let entry = Entry {
            client: None,
            method: "GET",
            endpoint: "file",
            status: 404,
            resource: Some(Resource::File {
                server: "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap(),
                path: "a\n2026 INFO 1.2.3.4 GET\x1b[2J\u{202e}\"x".into(),
            }),
            began: Instant::now(),
            id: "1".into(),
        };
        let bytes = Bytes::default();
        let outcome = Outcome::Refused("no\r\nsuch".into());
        let line = Line { entry: &entry, bytes: &bytes, outcome: &outcome }.to_string();
        assert!(!line.contains(['\n', '\r', '\x1b', '\u{202e}']), "{line}");
        assert!(line.contains("\\\"x"), "{line}");
    }
}
