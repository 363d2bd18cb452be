//! Response heads and error bodies (RFC 9110, RFC 6266, RFC 8187).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::head::{Head, Method};
use crate::http::range::{Selection, format_tag};
use crate::http::refusal::{Busy, Refusal};
use crate::link::storage::Found;

/// Seconds after which a client may try again.
const RETRY_AFTER: u32 = 5;

/// `Allow` of every resource here.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// What an answer needs to know of the request and the server beside its own content.
#[derive(Clone, Debug)]
pub struct ResponseContext<'a> {
    /// `X-Request-Id`, always our own.
    pub id: &'a str,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
    /// The request was HTTP/1.0, where keeping the connection has to be said.
    pub http10: bool,
    /// A `HEAD` request: the answer has no body.
    pub bodiless: bool,
    /// A person's browser asks for a page.
    pub html: bool,
    /// The Panel, to link to from a page.
    pub panel: Option<&'a str>,
    /// Lines to add for cross-origin requests, each with its CR LF.
    pub cors: &'a str,
    /// `Date`
    pub date: SystemTime,
}

impl<'a> ResponseContext<'a> {
    /// The frame of an answer to `head`, or to a request whose head could not be read.
    pub fn of(head: Option<&Head>, id: &'a str, panel: Option<&'a str>) -> ResponseContext<'a> {
        ResponseContext {
            id,
            keep_alive: head.is_some_and(|head| head.keep_alive),
            http10: head.is_some_and(|head| head.http10),
            bodiless: head.is_some_and(|head| head.method == Method::Head),
            html: head.is_some_and(Head::prefers_html),
            panel,
            cors: "",
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
        head.push_str(self.cors);
        head
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

/// The head of a download's answer with content: 200, or 206 for a part.
pub fn content_head(
    frame: &ResponseContext<'_>,
    found: &Found,
    selection: &Selection,
    ranges: bool,
) -> Vec<u8> {
    let length = found.length;
    let mut head = match selection {
        Selection::Part(part) => {
            let mut head = frame.start(206);
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
            let mut head = frame.start(200);
            let _ = write!(head, "Content-Length: {length}\r\n");
            head
        }
    };
    let _ = write!(head, "Accept-Ranges: {}\r\n", if ranges { "bytes" } else { "none" });
    push_validators(&mut head, frame, found);
    head.push_str("Content-Type: application/octet-stream\r\nCache-Control: private, no-store\r\n");
    head.push_str("X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    head.push_str("X-Accel-Buffering: no\r\n");
    let _ = write!(head, "Content-Disposition: {}\r\n\r\n", disposition(&found.name));
    head.into_bytes()
}

/// The answer to a request whose preconditions say that the client has the file: 304.
pub fn not_modified(frame: &ResponseContext<'_>, found: &Found) -> Vec<u8> {
    let mut head = frame.start(304);
    push_validators(&mut head, frame, found);
    head.push_str("Cache-Control: private, no-store\r\n\r\n");
    head.into_bytes()
}

/// `200 {"status":"ok"}`; 503 if no worker moves because the disk stands still.
pub fn health(frame: &ResponseContext<'_>, moving: bool) -> Vec<u8> {
    if moving {
        return frame.with_body(frame.start(200), "application/json", r#"{"status":"ok"}"#);
    }
    let mut head = frame.start(503);
    let _ = write!(head, "Retry-After: {RETRY_AFTER}\r\n");
    frame.with_body(head, "application/json", r#"{"status":"disk stalled"}"#)
}

/// The answer to `OPTIONS`: 204 with `Allow`.
pub fn options(frame: &ResponseContext<'_>) -> Vec<u8> {
    let mut head = frame.start(204);
    let _ = write!(head, "Allow: {ALLOW}\r\nCache-Control: no-store\r\n\r\n");
    head.into_bytes()
}

/// The answer to a refused request: JSON, or a page for a person.
pub fn refusal(frame: &ResponseContext<'_>, refusal: &Refusal) -> Vec<u8> {
    let mut head = frame.start(refusal.status());
    match refusal {
        Refusal::Token(_) => {
            head.push_str("WWW-Authenticate: Bearer error=\"invalid_token\"\r\n");
        }
        Refusal::Method => {
            let _ = write!(head, "Allow: {ALLOW}\r\n");
        }
        Refusal::Range { length } => {
            let _ = write!(head, "Content-Range: bytes */{length}\r\n");
        }
        Refusal::Busy(Busy::Tracked) => head.push_str("Retry-After: 60\r\n"),
        Refusal::Busy(_) => {
            let _ = write!(head, "Retry-After: {RETRY_AFTER}\r\n");
        }
        _ => {}
    }
    if frame.html {
        head.push_str("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\r\n");
        let body = page(refusal, frame);
        frame.with_body(head, "text/html; charset=utf-8", &body)
    } else {
        // Public texts and ids hold nothing that JSON would have to escape.
        let body =
            format!(r#"{{"error":"{}","request_id":"{}"}}"#, refusal.client_message(), frame.id);
        frame.with_body(head, "application/json", &body)
    }
}

fn push_validators(head: &mut String, frame: &ResponseContext<'_>, found: &Found) {
    let _ = write!(head, "ETag: {}\r\n", format_tag(found.tag));
    let modified = UNIX_EPOCH + Duration::from_secs(found.modified.min(LAST_HTTP_DATE));
    // A file from the future was modified now (RFC 9110 §8.8.2.1).
    let modified = modified.min(frame.date);
    let _ = write!(head, "Last-Modified: {}\r\n", httpdate::fmt_http_date(modified));
}

/// The end of the year 9999: HTTP dates have four digits for the year.
const LAST_HTTP_DATE: u64 = 253_402_300_799;

fn page(refusal: &Refusal, frame: &ResponseContext<'_>) -> String {
    let (title, advice) = refusal.advice();
    let link = frame.panel.map_or_else(String::new, |panel| {
        format!("<p><a href=\"{}\">Go to the panel</a></p>", escape_html(panel))
    });
    include_str!("page.html")
        .replace("{title}", &escape_html(title))
        .replace("{advice}", &escape_html(advice))
        .replace("{link}", &link)
        .replace("{status}", &refusal.status().to_string())
        .replace("{id}", frame.id)
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// What RFC 8187 §3.2.1 calls attr-char stays; everything else is percent-encoded.
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

/// `Content-Disposition` (RFC 6266 §4): a plain name for everybody, and the exact one where the
/// plain one could not hold it. No name can leave its quotes or its line.
fn disposition(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 2);
    let mut exact = true;
    for character in name.chars() {
        match character {
            '"' | '\\' => {
                plain.push('\\');
                plain.push(character);
            }
            ' '..='~' => plain.push(character),
            _ => {
                exact = false;
                plain.push('_');
            }
        }
    }
    if exact {
        return format!("attachment; filename=\"{plain}\"");
    }
    let extended = utf8_percent_encode(name, ATTR_CHAR);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
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
            (r#"a"b\c"#, r#"attachment; filename="a\"b\\c""#),
            ("é.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
            (
                "日本語",
                "attachment; filename=\"___\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E",
            ),
            ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
            ("\u{7f}'%", "attachment; filename=\"_'%\"; filename*=UTF-8''%7F%27%25"),
        ];
        for (name, expected) in table {
            assert_eq!(disposition(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_panel_url_cannot_leave_its_attribute() {
        let mut frame = ResponseContext::of(None, "id", Some("https://x/\"><script>"));
        frame.html = true;
        let answer = String::from_utf8(refusal(&frame, &Refusal::UnknownPath)).unwrap();
        assert!(!answer.contains("<script>"));
    }

    proptest! {
        #[test]
        fn no_name_splits_the_header(name in any::<String>()) {
            let value = disposition(&name);
            prop_assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        }
    }
}
