//! What a header section says about framing and the connection (RFC 9112 §6 and §9).
//!
//! Request smuggling lives on two recipients that frame a request differently (RFC 9112 §11.2), so
//! only one spelling of each field is understood.

use super::target::is_host;
use super::{Head, MAX_BODY_BYTES, Method, Route};
use crate::http::refusal::Refusal;

#[derive(Default)]
pub(super) struct Survey {
    hosts: usize,
    content_length: Option<u128>,
    chunked: bool,
    unknown_coding: bool,
    unknown_expectation: bool,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
}

impl Survey {
    pub(super) fn add(&mut self, header: &httparse::Header<'_>) -> Result<(), Refusal> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("host") {
            self.hosts += 1;
            if !std::str::from_utf8(header.value).is_ok_and(is_host) {
                return Err(Refusal::Malformed("the Host header is malformed"));
            }
        } else if is("content-length") {
            self.add_content_length(header.value)?;
        } else if is("transfer-encoding") {
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
        // More digits than 2^64 has: nobody means such a length.
        if significant.len() > 20 {
            return Err(MALFORMED);
        }
        self.content_length = Some(significant.parse().unwrap_or(0));
        Ok(())
    }

    /// Refuses what could be framed in two ways.
    pub(super) fn check_framing(&self, http10: bool) -> Result<(), Refusal> {
        let coded = self.chunked || self.unknown_coding;
        if coded && (self.content_length.is_some() || http10) {
            return Err(Refusal::Malformed("the length of the request's body is ambiguous"));
        }
        if self.hosts > 1 || (self.hosts == 0 && !http10) {
            return Err(Refusal::Malformed("the request needs exactly one Host header"));
        }
        Ok(())
    }

    /// Bytes of the body of a request that may have one.
    pub(super) fn body(&self, route: Route, method: Method) -> usize {
        let length = usize::try_from(self.content_length.unwrap_or(0)).unwrap_or(usize::MAX);
        match (route, method) {
            (Route::Control(_), Method::Post) if length <= MAX_BODY_BYTES => length,
            _ => 0,
        }
    }

    /// Why `head` is refused although it is well-formed: a body or an expectation.
    pub(super) fn refusal(&self, head: &Head) -> Option<Refusal> {
        if self.unknown_coding {
            return Some(Refusal::NotImplemented);
        }
        if self.chunked || self.content_length.is_some_and(|length| length > head.body as u128) {
            return Some(match (head.route, head.method) {
                (Route::Unknown, _) => Refusal::UnknownPath,
                (Route::Control(_), Method::Post) => Refusal::BodyTooLong,
                (_, Method::Get | Method::Head) => Refusal::Body,
                _ => Refusal::Method,
            });
        }
        self.unknown_expectation.then_some(Refusal::Expectation)
    }
}
