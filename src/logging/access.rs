//! The access log: one line per request, in which nothing that a client controls can pass for
//! something else.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::config::LogFormat;
use crate::link::token::Resource;
use crate::logging::throttle::{Kind, LogThrottle};
use crate::logging::{self, escape};
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
    /// The answer's content is less than the whole file.
    pub part: bool,
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
        // What is not written is not left out either.
        if logging::access().is_some()
            && throttle.allows(kind, self.client.map(ClientKey::of), Instant::now())
        {
            self.log(&Bytes::default(), outcome);
        }
    }

    /// Writes the line, if there is an access log.
    pub fn log(&self, bytes: &Bytes, outcome: &Outcome) {
        let line = Line { entry: self, bytes, outcome };
        match logging::access() {
            None => {}
            Some(LogFormat::Text) => log::info!(target: TARGET, "{line}"),
            Some(LogFormat::Json) => log::info!(target: TARGET, "{}", Value::Object(line.fields())),
        }
    }
}

struct Line<'a> {
    entry: &'a Entry,
    bytes: &'a Bytes,
    outcome: &'a Outcome,
}

impl Line<'_> {
    /// The same as fields of a JSON object; what is not known is left out.
    fn fields(&self) -> Map<String, Value> {
        let Entry { client, method, endpoint, status, resource, began, id, part } = self.entry;
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        if let Some(client) = client {
            set("client", client.to_string().into());
        }
        set("method", (*method).into());
        set("endpoint", (*endpoint).into());
        set("status", (*status).into());
        match resource {
            Some(Resource::File { server, path }) => {
                set("server", server.to_string().into());
                set("file", path.as_str().into());
            }
            Some(Resource::Backup { server, backup }) => {
                if let Some(server) = server {
                    set("server", server.to_string().into());
                }
                set("backup", backup.to_string().into());
            }
            Some(Resource::Directory { server, path }) => {
                set("server", server.to_string().into());
                set("directory", path.as_str().into());
            }
            Some(Resource::Files { server, path, files }) => {
                set("server", server.to_string().into());
                set("directory", path.as_str().into());
                set("files", files.len().into());
            }
            None => {}
        }
        if self.outcome.has_content() {
            set("bytes", self.bytes.sent.into());
            set("length", self.bytes.content.into());
            if let Some((delivered, length)) = self.bytes.link {
                set("link", json!({"delivered": delivered, "length": length}));
            }
        }
        set("seconds", ((began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0).into());
        set("id", id.as_str().into());
        set("outcome", self.outcome.name(*part).into());
        if let Outcome::Interrupted(why) | Outcome::Refused(why) = self.outcome {
            set("cause", why.as_str().into());
        }
        fields
    }
}

impl Outcome {
    /// Whether the answer had content.
    fn has_content(&self) -> bool {
        matches!(self, Outcome::Delivered | Outcome::Interrupted(_))
    }

    /// What the log calls it; `part`: of an answer that was not the whole file.
    fn name(&self, part: bool) -> &'static str {
        match self {
            Outcome::Delivered if part => "part delivered",
            Outcome::Delivered => "delivered",
            Outcome::Interrupted(_) => "interrupted",
            Outcome::Refused(_) => "refused",
            Outcome::Answered => "answered",
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { client, method, endpoint, status, part, resource, began, id } = self.entry;
        match client {
            Some(client) => write!(f, "{client}")?,
            None => f.write_str("-")?,
        }
        write!(f, " {method} {endpoint} {status}")?;
        match resource {
            // `{:?}` escapes controls, line breaks, quotes and what is not printable.
            Some(Resource::File { server, path }) => write!(f, " server={server} file={path:?}")?,
            Some(Resource::Backup { server, backup }) => {
                if let Some(server) = server {
                    write!(f, " server={server}")?;
                }
                write!(f, " backup={backup}")?;
            }
            Some(Resource::Directory { server, path }) => {
                write!(f, " server={server} directory={path:?}")?;
            }
            Some(Resource::Files { server, path, files }) => {
                write!(f, " server={server} directory={path:?} files={}", files.len())?;
            }
            None => {}
        }
        if self.outcome.has_content() {
            write!(f, " bytes={}/{}", self.bytes.sent, self.bytes.content)?;
            if let Some((delivered, length)) = self.bytes.link {
                write!(f, " link={delivered}/{length}")?;
            }
        }
        let outcome = self.outcome.name(*part);
        write!(f, " seconds={:.3} id={id} {outcome}", began.elapsed().as_secs_f64())?;
        match self.outcome {
            Outcome::Interrupted(why) | Outcome::Refused(why) => write!(f, ": {}", escape(why)),
            _ => Ok(()),
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
            part: false,
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
