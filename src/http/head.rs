//! Screens a request head: decides from untrusted bytes whether there is a sound request
//! (RFC 9112), before anything else of the program sees it.
//!
//! A [`Head`] that exists has a well-formed request line in printable ASCII, one `Host`, no body
//! and no expectation. Whatever could be read in two ways is refused, not repaired.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::http::refusal::Refusal;
use crate::link::token::Endpoint;

/// A head, request line included, may have this many bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// A head may have this many header fields.
pub const MAX_FIELDS: usize = 100;

/// Empty lines before a request line that are skipped.
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
    /// A method of RFC 9110 §9 or RFC 5789 that these resources do not have.
    Other,
}

impl Method {
    /// The method's name, for the log and the private socket.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Other => "-",
        }
    }
}

/// What the request's path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of the two downloads.
    Download(Endpoint),
    /// `/health`
    Health,
    /// `*`, of `OPTIONS` only.
    Asterisk,
    /// Anything else.
    Unknown,
}

/// The header fields that the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Accept`
    Accept,
    /// `If-Match`
    IfMatch,
    /// `If-Modified-Since`
    IfModifiedSince,
    /// `If-None-Match`
    IfNoneMatch,
    /// `If-Range`
    IfRange,
    /// `If-Unmodified-Since`
    IfUnmodifiedSince,
    /// `Origin`
    Origin,
    /// `Range`
    Range,
    /// `X-Forwarded-For`
    XForwardedFor,
}

impl Field {
    fn named(name: &str) -> Option<Field> {
        const NAMES: [(&str, Field); 9] = [
            ("accept", Field::Accept),
            ("if-match", Field::IfMatch),
            ("if-modified-since", Field::IfModifiedSince),
            ("if-none-match", Field::IfNoneMatch),
            ("if-range", Field::IfRange),
            ("if-unmodified-since", Field::IfUnmodifiedSince),
            ("origin", Field::Origin),
            ("range", Field::Range),
            ("x-forwarded-for", Field::XForwardedFor),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, field)| *field)
    }
}

/// A sound request head without a body.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What the path names.
    pub route: Route,
    /// The target in origin-form (RFC 9112 §3.2.1): printable ASCII without spaces.
    pub target: String,
    /// Spoken in HTTP/1.0.
    pub http10: bool,
    /// Whether the client wants the connection kept (RFC 9112 §9.3).
    pub keep_alive: bool,
    fields: Vec<(Field, String)>,
}

impl Head {
    /// The field's value; `None` where it is absent or stands there more than once.
    pub fn field(&self, field: Field) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(name, _)| *name == field);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// All values of a list-based field, joined with commas (RFC 9110 §5.3).
    pub fn list(&self, field: Field) -> Option<Cow<'_, str>> {
        let mut values = self.fields.iter().filter(|(name, _)| *name == field);
        let (_, first) = values.next()?;
        let mut joined = Cow::Borrowed(first.as_str());
        for (_, value) in values {
            joined.to_mut().push_str(", ");
            joined.to_mut().push_str(value);
        }
        Some(joined)
    }

    /// Whether an error is better shown as a page than as JSON: a browser asks for `text/html`.
    pub fn prefers_html(&self) -> bool {
        self.list(Field::Accept).is_some_and(|accept| {
            accept.split(',').any(|media| {
                let media = media.split(';').next().unwrap_or("").trim();
                media.eq_ignore_ascii_case("text/html")
            })
        })
    }
}

/// The outcome of screening.
#[derive(Debug)]
pub enum Screened {
    /// Sound so far; more bytes are needed.
    Incomplete,
    /// A sound head of this many bytes; what follows belongs to the next request.
    Ready(Box<Head>, usize),
    /// Refused, and the connection with it, since nobody knows where a next request would begin.
    /// The head is there where it could be read.
    Refused(Option<Box<Head>>, Refusal),
}

impl From<Refusal> for Screened {
    fn from(refusal: Refusal) -> Screened {
        Screened::Refused(None, refusal)
    }
}

/// Screens `bytes`, of which the first `seen` were screened before and found incomplete. Each byte
/// is looked at once however slowly it comes.
pub fn screen(bytes: &[u8], seen: usize) -> Screened {
    // RFC 9112 §2.2: empty lines before the request line are skipped.
    // Only a few: somebody who drips nothing else must not have them counted again and again.
    let empty_lines = bytes.chunks_exact(2).take(MAX_EMPTY_LINES);
    let start = empty_lines.take_while(|pair| *pair == b"\r\n").count() * 2;
    let head = &bytes[start..];
    let seen = seen.saturating_sub(start);
    let end = match find_end(head, seen.saturating_sub(3)) {
        Ok(end) => end,
        Err(refusal) => return refusal.into(),
    };
    if head[seen..].contains(&b'\n')
        && let Some(line_end) = head.iter().position(|byte| *byte == b'\n')
        && let Err(refusal) = check_request_line(&head[..line_end + 1])
    {
        return refusal.into();
    }
    match end {
        Some(end) if start + end <= MAX_HEAD_BYTES => match parse(&head[..end]) {
            Ok(Ok(head)) => Screened::Ready(head, start + end),
            Ok(Err((head, refusal))) => Screened::Refused(Some(head), refusal),
            Err(refusal) => refusal.into(),
        },
        None if bytes.len() < MAX_HEAD_BYTES => Screened::Incomplete,
        _ if !head[..head.len().min(MAX_HEAD_BYTES)].contains(&b'\n') => {
            Refusal::TargetTooLong.into()
        }
        _ => Refusal::HeadersTooLarge.into(),
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
                return Err(Refusal::Malformed("the request holds a control character"));
            }
            _ => {}
        }
        position += 1;
    }
    Ok(None)
}

/// Judges a request line as soon as it is complete, so that what is no HTTP/1 is told at once.
fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("the request line is malformed");
    let line = line.strip_suffix(b"\r\n").ok_or(MALFORMED)?;
    if !line.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Err(Refusal::Malformed("the request line holds a character that is not ASCII"));
    }
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err(MALFORMED) };
    if method.is_empty() || target.is_empty() {
        return Err(MALFORMED);
    }
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(MALFORMED),
    }
}

type Parsed = Result<Result<Box<Head>, (Box<Head>, Refusal)>, Refusal>;

fn parse(bytes: &[u8]) -> Parsed {
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut storage);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => {
            return Err(Refusal::Malformed("the request is malformed"));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadersTooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed("a header of the request is malformed")),
    }
    let method_name = request.method.unwrap_or("");
    let http10 = request.version == Some(0);
    let target = request.path.unwrap_or("");
    let (method, implemented) = parse_method(method_name);
    let (route, target) = parse_target(method_name, target)?;
    let mut survey = Survey::default();
    let mut fields = Vec::new();
    for header in request.headers.iter() {
        survey.add(header)?;
        if let Some(field) = Field::named(header.name) {
            // Values that are no text select nothing that this program has.
            if let Ok(value) = std::str::from_utf8(header.value) {
                fields.push((field, value.trim_matches([' ', '\t']).to_owned()));
            }
        }
    }
    survey.check_framing(http10)?;
    let keep_alive = if http10 { survey.keep_alive } else { !survey.close };
    let head = Box::new(Head { method, route, target, http10, keep_alive, fields });
    let refusal = if !implemented { Some(Refusal::NotImplemented) } else { survey.refusal(&head) };
    Ok(match refusal {
        None => Ok(head),
        Some(refusal) => Err((head, refusal)),
    })
}

fn parse_method(name: &str) -> (Method, bool) {
    match name {
        "GET" => (Method::Get, true),
        "HEAD" => (Method::Head, true),
        "OPTIONS" => (Method::Options, true),
        "POST" | "PUT" | "DELETE" | "PATCH" | "CONNECT" | "TRACE" => (Method::Other, true),
        _ => (Method::Other, false),
    }
}

/// The route and the origin-form of a target (RFC 9112 §3.2).
fn parse_target(method: &str, target: &str) -> Result<(Route, String), Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("the request's target is malformed");
    if !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(MALFORMED);
    }
    if method == "CONNECT" || (method == "OPTIONS" && target == "*") {
        return Ok((Route::Asterisk, "*".into()));
    }
    let origin = if target.starts_with('/') {
        Cow::Borrowed(target)
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(MALFORMED)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(MALFORMED);
        }
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if authority == 0 {
            return Err(MALFORMED);
        }
        match rest.get(authority..) {
            Some(path) if path.starts_with('/') => Cow::Borrowed(path),
            path => Cow::Owned(format!("/{}", path.unwrap_or(""))),
        }
    };
    let path = origin.split(['?', '#']).next().unwrap_or("");
    let decoded = percent_decode_str(path).decode_utf8().unwrap_or_default();
    let route = match decoded.as_ref() {
        "/download/file" => Route::Download(Endpoint::File),
        "/download/backup" => Route::Download(Endpoint::Backup),
        "/health" => Route::Health,
        _ => Route::Unknown,
    };
    Ok((route, origin.into_owned()))
}

/// What the header section says about framing and the connection.
#[derive(Default)]
struct Survey {
    hosts: usize,
    content_length: Option<u128>,
    chunked: bool,
    unknown_coding: bool,
    unknown_expectation: bool,
    close: bool,
    keep_alive: bool,
}

impl Survey {
    fn add(&mut self, header: &httparse::Header<'_>) -> Result<(), Refusal> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("host") {
            self.hosts += 1;
            let sound = |byte: &u8| matches!(byte, 0x21..=0x7e) && !b"/\\@?#,<>\"".contains(byte);
            if !header.value.iter().all(sound) {
                return Err(Refusal::Malformed("the Host header is malformed"));
            }
        } else if is("content-length") {
            self.add_content_length(header.value)?;
        } else if is("transfer-encoding") {
            // A recipient that reads this list differently from a proxy in front is what request
            // smuggling lives on (RFC 9112 §11.2): only the one exact spelling is understood.
            match header.value {
                value if value.eq_ignore_ascii_case(b"chunked") && !self.chunked => {
                    self.chunked = true;
                }
                _ => self.unknown_coding = true,
            }
        } else if is("expect") {
            self.unknown_expectation |= !header.value.eq_ignore_ascii_case(b"100-continue");
        } else if is("connection") {
            for option in header.value.split(|byte| *byte == b',') {
                self.close |= option.trim_ascii().eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    fn add_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        const MALFORMED: Refusal = Refusal::Malformed("the Content-Length header is malformed");
        if value.is_empty()
            || !value.iter().all(u8::is_ascii_digit)
            || self.content_length.is_some()
        {
            return Err(MALFORMED);
        }
        let digits = std::str::from_utf8(value).map_err(|_| MALFORMED)?;
        let significant = digits.trim_start_matches('0');
        // More digits than 2^64 has: no length that anybody means.
        if significant.len() > 20 {
            return Err(MALFORMED);
        }
        self.content_length = Some(significant.parse().unwrap_or(0));
        Ok(())
    }

    /// Refuses what could be framed in two ways.
    fn check_framing(&self, http10: bool) -> Result<(), Refusal> {
        let coded = self.chunked || self.unknown_coding;
        if coded && (self.content_length.is_some() || http10) {
            return Err(Refusal::Malformed("the request's body has an ambiguous length"));
        }
        if self.hosts > 1 || (self.hosts == 0 && !http10) {
            return Err(Refusal::Malformed("the request needs exactly one Host header"));
        }
        Ok(())
    }

    fn refusal(&self, head: &Head) -> Option<Refusal> {
        if self.unknown_coding {
            return Some(Refusal::NotImplemented);
        }
        if self.chunked || self.content_length.is_some_and(|length| length > 0) {
            return Some(match (head.route, head.method) {
                (Route::Unknown, _) => Refusal::UnknownPath,
                (_, Method::Get | Method::Head) => Refusal::Body,
                _ => Refusal::Method,
            });
        }
        self.unknown_expectation.then_some(Refusal::Expectation)
    }
}

#[cfg(test)]
mod tests;
