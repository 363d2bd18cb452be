//! Response heads, and the bodies that are not a file (RFC 9110, RFC 6266, RFC 8187).
//!
//! Each function returns bytes that are ready to be written: the head of a download, or a whole
//! answer.

use std::fmt::Write as _;
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::clock;
use crate::config::Config;
use crate::http::cors;
use crate::http::head::{ALLOW, Head, Method};
use crate::http::page::{self, Landing};
use crate::http::range::{Selection, format_tag};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::link::storage::Found;
use crate::link::token::TokenFault;

/// What an answer needs to know about the request and the server, besides its own content.
#[derive(Clone, Debug)]
pub struct ResponseContext<'a> {
    /// `X-Request-Id`, always our own.
    pub id: &'a str,
    /// Whether the connection stays open after this answer.
    pub keep_alive: bool,
    /// The request is HTTP/1.0: the connection closes unless the answer says otherwise.
    pub http10: bool,
    /// `Allow` of what was asked for.
    pub allow: &'static str,
    /// A `HEAD` request: the answer has no body.
    pub bodiless: bool,
    /// Errors are shown as a page, because a browser is asking.
    pub html: bool,
    /// The Panel, which error pages link to.
    pub panel: Option<&'a str>,
    /// The lines of [`cors::lines`].
    pub cors: String,
    /// `Date`
    pub date: SystemTime,
}

impl<'a> ResponseContext<'a> {
    /// The context of an answer to `head`, or to a request whose head could not be read.
    pub fn of(head: Option<&Head>, id: &'a str, config: &'a Config) -> ResponseContext<'a> {
        ResponseContext {
            id,
            keep_alive: head.is_some_and(|head| head.keep_alive),
            http10: head.is_some_and(|head| head.http10),
            allow: head.map_or(ALLOW, Head::allow),
            bodiless: head.is_some_and(|head| head.method == Method::Head),
            html: head.is_some_and(Head::prefers_html),
            panel: config.remote.as_deref(),
            cors: head.map(|head| cors::lines(head, config)).unwrap_or_default(),
            date: SystemTime::now(),
        }
    }

    fn start(&self, status: u16) -> String {
        let mut head = String::with_capacity(640);
        let _ = write!(head, "HTTP/1.1 {status} {}\r\n", reason(status));
        let _ = write!(head, "Date: {}\r\n", httpdate::fmt_http_date(self.date));
        let _ = write!(head, "X-Request-Id: {}\r\n", self.id);
        if !self.keep_alive {
            head.push_str("Connection: close\r\n");
        } else if self.http10 {
            head.push_str("Connection: keep-alive\r\n");
        }
        head.push_str(&self.cors);
        head
    }

    fn with_page(&self, mut head: String, page: &str) -> Vec<u8> {
        head.push_str(page::HEADERS);
        self.with_body(head, "text/html; charset=utf-8", page)
    }

    fn with_body(&self, mut head: String, media_type: &str, body: &str) -> Vec<u8> {
        let _ = write!(head, "Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len());
        head.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        head.push_str("Referrer-Policy: no-referrer\r\n\r\n");
        if !self.bodiless {
            head.push_str(body);
        }
        head.into_bytes()
    }
}

/// The head of an answer with content: 200, or 206 for a part.
pub fn content_head<S>(
    context: &ResponseContext<'_>,
    found: &Found<S>,
    selection: &Selection,
    ranges: bool,
) -> Vec<u8> {
    let length = found.length;
    let mut head = match selection {
        Selection::Part(part) => {
            let mut head = context.start(206);
            let _ = write!(
                head,
                "Content-Length: {}\r\nContent-Range: bytes {}-{}/{length}\r\n",
                part.end - part.start,
                part.start,
                part.end - 1,
            );
            head
        }
        _ => {
            let mut head = context.start(200);
            let _ = write!(head, "Content-Length: {length}\r\n");
            head
        }
    };
    let _ = write!(head, "Accept-Ranges: {}\r\n", if ranges { "bytes" } else { "none" });
    push_validators(&mut head, context, found);
    head.push_str("Content-Type: application/octet-stream\r\nCache-Control: private, no-store\r\n");
    head.push_str("X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    head.push_str("X-Accel-Buffering: no\r\n");
    let _ = write!(head, "Content-Disposition: {}\r\n\r\n", disposition(&found.name));
    head.into_bytes()
}

/// The answer to a client that has the file already: 304.
pub fn not_modified<S>(context: &ResponseContext<'_>, found: &Found<S>) -> Vec<u8> {
    let mut head = context.start(304);
    push_validators(&mut head, context, found);
    head.push_str("Cache-Control: private, no-store\r\n\r\n");
    head.into_bytes()
}

/// `200 {"status":"ok"}`; 503 if no worker moves because the disk stands still.
pub fn health(context: &ResponseContext<'_>, moving: bool) -> Vec<u8> {
    if moving {
        return context.with_body(context.start(200), "application/json", r#"{"status":"ok"}"#);
    }
    let mut head = context.start(503);
    let _ = write!(head, "Retry-After: {RETRY_AFTER}\r\n");
    context.with_body(head, "application/json", r#"{"status":"disk stalled"}"#)
}

/// An answer of the control listener: 200 with `body`.
pub fn report(context: &ResponseContext<'_>, media_type: &str, body: &str) -> Vec<u8> {
    context.with_body(context.start(200), media_type, body)
}

/// An order of the control listener was carried out, and there is nothing to say: 204.
pub fn done(context: &ResponseContext<'_>) -> Vec<u8> {
    let mut head = context.start(204);
    head.push_str("Cache-Control: no-store\r\n\r\n");
    head.into_bytes()
}

/// The answer to `OPTIONS`: 204 with `Allow`.
pub fn options(context: &ResponseContext<'_>) -> Vec<u8> {
    let mut head = context.start(204);
    let _ = write!(head, "Allow: {}\r\nCache-Control: no-store\r\n\r\n", context.allow);
    head.into_bytes()
}

/// The landing page of a link: what it opens, and a button that leads to `landing.link`.
pub fn landing(context: &ResponseContext<'_>, landing: &Landing<'_>) -> Vec<u8> {
    context.with_page(context.start(200), &page::landing(landing, context.date))
}

/// The answer to a refused request: JSON, or a page for a person.
pub fn refusal(context: &ResponseContext<'_>, refusal: &Refusal) -> Vec<u8> {
    let mut head = context.start(refusal.status());
    match refusal {
        // RFC 6750 §3.1: no error code if the request carries no token at all.
        Refusal::Token(TokenFault::Missing) | Refusal::Unauthorized => {
            head.push_str("WWW-Authenticate: Bearer\r\n");
        }
        Refusal::Elsewhere { location: Some(location), .. } => {
            let _ = write!(head, "Location: {location}\r\n");
        }
        Refusal::Token(TokenFault::TooLong) => {}
        Refusal::Token(_) => {
            head.push_str("WWW-Authenticate: Bearer error=\"invalid_token\"\r\n");
        }
        Refusal::Method => {
            let _ = write!(head, "Allow: {}\r\n", context.allow);
        }
        Refusal::Range { length } => {
            let _ = write!(head, "Content-Range: bytes */{length}\r\n");
        }
        _ => {}
    }
    if let Some(seconds) = refusal.retry_after() {
        let _ = write!(head, "Retry-After: {seconds}\r\n");
    }
    head.push_str("Vary: Accept\r\n");
    if context.html {
        return context.with_page(head, &page::error(refusal, context.id, context.panel));
    }
    // Client messages and ids contain nothing that JSON would have to escape.
    let body =
        format!(r#"{{"error":"{}","request_id":"{}"}}"#, refusal.client_message(), context.id);
    context.with_body(head, "application/json", &body)
}

/// The answer to a browser that speaks plain HTTP to a TLS port: 400, with a page that leads to
/// `link`.
#[cfg(feature = "tls")]
pub fn plain_http(context: &ResponseContext<'_>, link: &str) -> Vec<u8> {
    context.with_page(context.start(400), &page::plain_http(link, context.id))
}

fn push_validators<S>(head: &mut String, context: &ResponseContext<'_>, found: &Found<S>) {
    let _ = write!(head, "ETag: {}\r\n", format_tag(found.tag));
    // A file from the future was modified now (RFC 9110 §8.8.2.1).
    let modified = clock::time(found.modified).min(context.date);
    let _ = write!(head, "Last-Modified: {}\r\n", httpdate::fmt_http_date(modified));
}

/// Everything is percent-encoded but what RFC 8187 §3.2.1 calls attr-char.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `Content-Disposition` (RFC 6266 §4): a plain name for everybody, and the exact one if they
/// differ, but for what turns text around: `exe.png` must not look like another kind of file than
/// it is. Clients disagree about percent signs and escapes in the plain form (wget decodes them,
/// curl does not), so it has neither. No name can leave its quotes or its line.
fn disposition(name: &str) -> String {
    let name = name.replace(is_bidi_control, "_");
    let is_plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '%' | '\\');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let extended = utf8_percent_encode(&name, ATTR_CHAR);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

/// Returns true if `char` changes the direction of the text around it (Unicode's `Bidi_Control`).
fn is_bidi_control(char: char) -> bool {
    matches!(char, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_in_both_forms() {
        let table = [
            ("a.txt", r#"attachment; filename="a.txt""#),
            ("a b.txt", r#"attachment; filename="a b.txt""#),
            (r#"a"b\c"#, "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b%5Cc"),
            ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
            ("é.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
            (
                "日本語",
                "attachment; filename=\"___\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E",
            ),
            ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
            ("a\u{202e}gpj.exe", "attachment; filename=\"a_gpj.exe\""),
            ("é\u{2066}", "attachment; filename=\"__\"; filename*=UTF-8''%C3%A9_"),
            ("\u{7f}'%", "attachment; filename=\"_'_\"; filename*=UTF-8''%7F%27%25"),
        ];
        for (name, expected) in table {
            assert_eq!(disposition(name), expected, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_splits_the_header(name in any::<String>()) {
            let value = disposition(&name);
            prop_assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'\\'));
            prop_assert!(value.matches('"').count() == 2, "{value}");
        }
    }
}
