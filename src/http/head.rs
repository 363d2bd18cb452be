//! Screens a request head: untrusted bytes become a [`Head`] or a refusal (RFC 9112), before any
//! other part of the program sees them.
//!
//! A [`Head`] that exists has a well-formed request line in printable ASCII, a valid `Host`, no body
//! and no expectation. Whatever could be read in two ways is refused, not repaired.

mod field;
mod survey;
mod target;
mod visitor;

use std::borrow::Cow;

pub use field::Field;
use survey::Survey;
#[cfg(feature = "tls")]
pub use target::secure_address;
pub use target::{format_of, token_of};
use target::{is_page, parameters};
pub use visitor::Visitor;

use crate::archive::Format;
use crate::http::refusal::Refusal;
use crate::link::Uuid;
use crate::link::token::Endpoint;

/// Longest head in bytes, request line included.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header fields in a head.
pub const MAX_FIELDS: usize = 100;

/// Longest body of a request to the control listener, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// `Allow` of whatever can be read.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The parameter that marks a redirected link.
const HOP: &str = "hop";
/// Most empty lines that are skipped before a request line.
const MAX_EMPTY_LINES: usize = 4;

/// The request method, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `POST`
    Post,
    /// A method of RFC 9110 §9 or RFC 5789 that these resources do not have.
    Other,
}

impl Method {
    /// The method's name, for the log.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Post => "POST",
            Method::Other => "-",
        }
    }
}

/// What the request's path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of the downloads.
    Download(Endpoint),
    /// `/health`
    Health,
    /// What the control listener answers, and no other.
    Control(Control),
    /// The server itself: the `*` of `OPTIONS`, and whatever `CONNECT` and `TRACE` name.
    Asterisk,
    /// Anything else.
    Unknown,
}

/// What can be asked on the control listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `GET /status`
    Status,
    /// `GET /metrics`
    Metrics,
    /// `POST /revoke`
    Revoke,
    /// `POST /api/deauthorize-user`, as the Panel asks it of Wings.
    Deauthorize,
    /// `POST /api/servers/UUID/ws/deny` for this server, as older Panels and Calagopus ask it.
    Deny(Uuid),
}

impl Control {
    /// Its path; without the server, where the path names one.
    pub fn path(self) -> &'static str {
        match self {
            Control::Status => "/status",
            Control::Metrics => "/metrics",
            Control::Revoke => "/revoke",
            Control::Deauthorize => "/api/deauthorize-user",
            Control::Deny(_) => "/api/servers/…/ws/deny",
        }
    }
}

/// Where a request arrives, and so what it can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where downloads are served.
    Public,
    /// The control listener.
    Control,
}

/// A valid request head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What the path names.
    pub route: Route,
    /// The request is HTTP/1.0.
    pub http10: bool,
    /// Whether the client wants the connection kept open (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Bytes of the body that follows: [`MAX_BODY_BYTES`] at most, and none where downloads are served.
    pub body: usize,
    /// Who asks, as far as it says so.
    pub visitor: Visitor,
    /// The target's query without its question mark: printable ASCII.
    query: Box<str>,
    fields: Vec<(Field, Box<[u8]>)>,
}

impl Head {
    /// The methods of what the path names: `Allow`.
    pub fn allow(&self) -> &'static str {
        match self.route {
            Route::Control(Control::Revoke | Control::Deauthorize | Control::Deny(_)) => {
                "POST, OPTIONS"
            }
            _ => ALLOW,
        }
    }

    /// The download that the path names.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self.route {
            Route::Download(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// The first `token` parameter, as [`token_of`] gives it.
    pub fn token(&self) -> Option<Cow<'_, str>> {
        token_of(&self.query)
    }

    /// The format of an archive that the link asks for.
    ///
    /// # Errors
    /// [`Refusal::ArchiveFormat`] if it is not offered.
    pub fn archive_format(&self) -> Result<Format, Refusal> {
        format_of(&self.query)
    }

    /// Returns true if the link is answered with its landing page instead of the file: it has a `page`
    /// parameter, whatever its value, or a preview asks.
    pub fn wants_page(&self) -> bool {
        self.visitor == Visitor::Preview || parameters(&self.query).any(is_page)
    }

    /// The same link without `page`, as a relative reference: `?` and the rest of the query as it
    /// was.
    pub fn download_link(&self) -> String {
        let rest: Vec<&str> = parameters(&self.query).filter(|pair| !is_page(pair)).collect();
        format!("?{}", rest.join("&"))
    }

    /// The same link at the server `base`, marked as sent there by another one.
    pub fn at(&self, base: &str) -> Option<String> {
        Some(format!("{base}/download/{}?{}&{HOP}", self.endpoint()?.name(), self.query))
    }

    /// Whether another server has sent the client here. Anybody may say so, and gains nothing: it is
    /// not sent on.
    pub fn is_redirected(&self) -> bool {
        parameters(&self.query).any(|parameter| parameter == HOP)
    }

    /// The field's value; `None` if it is absent, repeated or not UTF-8.
    pub fn field(&self, field: Field) -> Option<&str> {
        let mut values = self.values(field);
        match (values.next(), values.next()) {
            (Some(value), None) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// Returns true if the request has the field, whatever its value.
    pub fn has(&self, field: Field) -> bool {
        self.values(field).next().is_some()
    }

    /// Returns true if the field is there, and what it says could be read in two ways.
    pub fn is_ambiguous(&self, field: Field) -> bool {
        self.values(field).next().is_some() && self.field(field).is_none()
    }

    /// The entries of `X-Forwarded-For`, nearest proxy first: from the last line to the first, each
    /// from right to left.
    pub fn forwarded(&self) -> impl Iterator<Item = &[u8]> {
        self.values(Field::XForwardedFor).rev().flat_map(|line| line.rsplit(|byte| *byte == b','))
    }

    /// Returns true if a proxy has added a field other than `X-Forwarded-For`.
    pub fn is_relayed(&self) -> bool {
        use Field::{Forwarded, Via, XForwardedProto, XRealIp};
        [Forwarded, Via, XForwardedProto, XRealIp].into_iter().any(|field| self.has(field))
    }

    /// Whether an error is better shown as a page than as JSON: a browser asks for `text/html`.
    pub fn prefers_html(&self) -> bool {
        let mut entries = self.values(Field::Accept).flat_map(|line| line.split(|b| *b == b','));
        entries.any(|entry| {
            let media = entry.split(|byte| *byte == b';').next().unwrap_or_default();
            media.trim_ascii().eq_ignore_ascii_case(b"text/html")
        })
    }

    fn values(&self, field: Field) -> impl DoubleEndedIterator<Item = &[u8]> {
        let lines = self.fields.iter().filter(move |(name, _)| *name == field);
        lines.map(|(_, value)| &**value)
    }
}

/// The outcome of screening.
#[derive(Debug)]
pub enum Screened {
    /// Well-formed so far; more bytes are needed.
    Incomplete,
    /// A valid head of this many bytes; what follows belongs to the next request.
    Ready(Box<Head>, usize),
    /// Refused. The connection must close, since nobody knows where a next request would begin.
    /// The head is there if it could be read.
    Refused(Option<Box<Head>>, Refusal),
}

impl From<Refusal> for Screened {
    fn from(refusal: Refusal) -> Screened {
        Screened::Refused(None, refusal)
    }
}

/// Screens `bytes`, of which the first `seen` were screened before and found incomplete. Each byte
/// is looked at once, however slowly the bytes arrive.
pub fn screen(bytes: &[u8], seen: usize, place: Place) -> Screened {
    // RFC 9112 §2.2: empty lines before the request line are skipped. Only a few: a client that
    // drips nothing else must not have them counted again and again.
    let empty_lines = bytes.chunks_exact(2).take(MAX_EMPTY_LINES);
    let start = empty_lines.take_while(|pair| *pair == b"\r\n").count() * 2;
    let head = &bytes[start..];
    let seen = seen.saturating_sub(start);
    let end = match find_end(head, seen.saturating_sub(3)) {
        Ok(end) => end,
        Err(refusal) => return refusal.into(),
    };
    match end {
        Some(end) if start + end <= MAX_HEAD_BYTES => match parse(&head[..end], place) {
            Ok((head, None)) => Screened::Ready(head, start + end),
            Ok((head, Some(refusal))) => Screened::Refused(Some(head), refusal),
            Err(refusal) => refusal.into(),
        },
        _ => screen_part(head, seen, bytes.len()),
    }
}

/// Screens a head that is not complete, or too long. `total` counts skipped empty lines too.
fn screen_part(head: &[u8], seen: usize, total: usize) -> Screened {
    // A client that does not speak HTTP/1 is told as soon as its first line is complete.
    if head[seen..].contains(&b'\n')
        && let Err(refusal) = split_request_line(head)
    {
        return refusal.into();
    }
    if total < MAX_HEAD_BYTES {
        return Screened::Incomplete;
    }
    // Whichever of the two takes most of the room is the one that is too long.
    match head.iter().take(MAX_HEAD_BYTES / 2).any(|byte| *byte == b'\n') {
        true => Refusal::HeadersTooLarge.into(),
        false => Refusal::TargetTooLong.into(),
    }
}

/// Looks for the empty line that ends a head, from `from` on, and for bytes that no head has: a
/// line break that is not CR LF, NUL and other controls.
fn find_end(head: &[u8], from: usize) -> Result<Option<usize>, Refusal> {
    let mut position = from;
    while position < head.len() {
        match head[position] {
            b'\n' if position == 0 || head[position - 1] != b'\r' => {
                return Err(Refusal::Malformed("a line of the request does not end in CR LF"));
            }
            b'\n' if position >= 3 && head[position - 3..position] == *b"\r\n\r" => {
                return Ok(Some(position + 1));
            }
            b'\r' if head.get(position + 1).is_some_and(|next| *next != b'\n') => {
                return Err(Refusal::Malformed("a line of the request does not end in CR LF"));
            }
            b'\n' | b'\r' | b'\t' => {}
            0..=31 | 127 => {
                return Err(Refusal::Malformed("the request contains a control character"));
            }
            _ => {}
        }
        position += 1;
    }
    Ok(None)
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    http10: bool,
}

/// Splits a head into its request line, which must be complete, and the header section.
fn split_request_line(head: &[u8]) -> Result<(RequestLine<'_>, &[u8]), Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("the request line is malformed");
    let end = head.iter().position(|byte| *byte == b'\n').ok_or(MALFORMED)?;
    let line = head[..end].strip_suffix(b"\r").ok_or(MALFORMED)?;
    if !line.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Err(Refusal::Malformed("the request line has a character that is not ASCII"));
    }
    let line = std::str::from_utf8(line).map_err(|_| MALFORMED)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() {
        return Err(MALFORMED);
    }
    let http10 = match version.as_bytes() {
        b"HTTP/1.0" => true,
        // RFC 9110 §2.5: a later minor version is read as the latest one that is known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => false,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Refusal::Version);
        }
        _ => return Err(MALFORMED),
    };
    Ok((RequestLine { method, target, http10 }, &head[end + 1..]))
}

/// Parses a complete head. The refusal that comes with a head is for what the head asks, not for
/// how it is written.
fn parse(bytes: &[u8], place: Place) -> Result<(Box<Head>, Option<Refusal>), Refusal> {
    let (line, section) = split_request_line(bytes)?;
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let headers = match httparse::parse_headers(section, &mut storage) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadersTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => {
            return Err(Refusal::Malformed("a header of the request is malformed"));
        }
    };
    let (route, query) = target::parse(line.method, line.target, place)?;
    let (mut survey, mut visitor) = (Survey::default(), Visitor::default());
    let mut fields = Vec::new();
    for header in headers {
        survey.add(header)?;
        visitor.note(header.name, header.value);
        // Where nobody asks for it, a secret is not kept.
        let field = Field::named(header.name)
            .filter(|field| place == Place::Control || !field.is_for_control());
        fields.extend(field.map(|field| (field, header.value.into())));
    }
    survey.check_framing(line.http10)?;
    let (method, implemented) = match line.method {
        "GET" => (Method::Get, true),
        "HEAD" => (Method::Head, true),
        "OPTIONS" => (Method::Options, true),
        "POST" => (Method::Post, true),
        "PUT" | "DELETE" | "PATCH" | "CONNECT" | "TRACE" => (Method::Other, true),
        _ => (Method::Other, false),
    };
    let keep_alive = if line.http10 { survey.keep_alive } else { !survey.close };
    let body = survey.body(route, method);
    let (http10, query) = (line.http10, query.into());
    let head = Box::new(Head { method, route, http10, keep_alive, body, visitor, query, fields });
    let refusal = if implemented { survey.refusal(&head) } else { Some(Refusal::NotImplemented) };
    Ok((head, refusal))
}

#[cfg(test)]
mod tests;
