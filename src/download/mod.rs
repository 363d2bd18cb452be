//! One request to one answer: verify the token, find the file, claim the link, respond.
//!
//! The claim comes last before the content, so that a request which ends in an error spends and
//! binds nothing.

pub mod body;

use std::ops::Range;
use std::time::Instant;

use percent_encoding::percent_decode_str;

use crate::config::Reuse;
use crate::download::body::Broken;
use crate::http::cors;
use crate::http::head::{Field, Head, Method, Route};
use crate::http::range::{Conditions, Selection, Validators, select};
use crate::http::refusal::Refusal;
use crate::http::response::{self, ResponseContext};
use crate::link::storage::Found;
use crate::link::token::{Claims, Endpoint, TokenFault};
use crate::logging::access::{Bytes, Entry, Outcome};
use crate::net::address::ClientKey;
use crate::pool::exchange::{After, Delivery, Exchange};
use crate::replay::{self, FileVersion, Stream};
use crate::shared::{Settings, Shared};

/// Answers `exchange`, whose target arrived as `url`, and gives its connection back.
pub fn serve(shared: &Shared, exchange: Exchange, url: &str) {
    let settings = shared.settings();
    let entry = Entry {
        client: exchange.client,
        method: exchange.head.method.name(),
        endpoint: endpoint_of(&exchange.head).map_or("-", Endpoint::name),
        status: 0,
        resource: None,
        began: Instant::now(),
        id: shared.next_id(),
    };
    Serving { shared, settings: &settings, exchange, entry }.run(url);
}

struct Serving<'a> {
    shared: &'a Shared,
    settings: &'a Settings,
    exchange: Exchange,
    entry: Entry,
}

/// A request that may be answered with content or about it.
struct Granted {
    found: Found,
    selection: Selection,
    /// How its link is claimed; `None` where its token is not one-time.
    claim: Option<replay::ClaimRequest>,
}

impl Serving<'_> {
    fn run(mut self, url: &str) {
        match self.prepare(url) {
            Err(refusal) => self.refuse(&refusal),
            Ok(granted) => match &granted.selection {
                Selection::NotModified => self.answer(&granted, 304),
                Selection::PreconditionFailed => self.refuse(&Refusal::Precondition),
                Selection::NotSatisfiable => {
                    self.refuse(&Refusal::Range { length: granted.found.length });
                }
                Selection::Whole | Selection::Part(_)
                    if self.exchange.head.method == Method::Head =>
                {
                    self.answer(&granted, 200);
                }
                Selection::Whole => {
                    let span = 0..granted.found.length;
                    self.claim_and_send(granted, span);
                }
                Selection::Part(part) => {
                    let span = part.clone();
                    self.claim_and_send(granted, span);
                }
            },
        }
    }

    /// Everything up to the claim, which changes nothing.
    fn prepare(&mut self, url: &str) -> Result<Granted, Refusal> {
        let endpoint = endpoint_of(&self.exchange.head).ok_or(Refusal::UnknownPath)?;
        let now = self.shared.clock.unix();
        let token = token_of(url).unwrap_or_default();
        let claims =
            self.settings.verifier.verify(&token, endpoint, now).map_err(Refusal::Token)?;
        self.entry.resource = Some(claims.resource.clone());
        let claim = self.link(&claims);
        match &claim {
            Some(claim) => {
                self.shared.replay.check(claim, &self.settings.rules, now)?;
            }
            None if claims.expired => return Err(Refusal::Token(TokenFault::Expired)),
            None => {}
        }
        let found = self.settings.storage.open(&claims.resource)?;
        let conditions = self.conditions();
        let file = Validators { tag: found.tag, modified: found.modified, length: found.length };
        Ok(Granted { selection: select(&conditions, &file), found, claim })
    }

    fn link(&self, claims: &Claims) -> Option<replay::ClaimRequest> {
        let unique_id = claims.unique_id.as_deref()?;
        Some(replay::ClaimRequest {
            key: replay::key_of(unique_id),
            resource: replay::hash_of(&claims.resource),
            server: replay::key_of(claims.resource.server().as_str()),
            client: self.exchange.client.map(ClientKey::of),
            expires: claims.expires,
            expired: claims.expired,
        })
    }

    fn offers_ranges(&self) -> bool {
        self.settings.rules.reuse != Reuse::Once
    }

    fn conditions(&self) -> Conditions<'_> {
        let head = &self.exchange.head;
        let ranges = self.offers_ranges() && head.method == Method::Get;
        Conditions {
            range: head.field(Field::Range).filter(|_| ranges),
            if_range: head.field(Field::IfRange),
            if_match: head.field(Field::IfMatch),
            if_none_match: head.field(Field::IfNoneMatch),
            if_modified_since: head.field(Field::IfModifiedSince),
            if_unmodified_since: head.field(Field::IfUnmodifiedSince),
        }
    }

    fn claim_and_send(self, granted: Granted, span: Range<u64>) {
        let now = self.shared.clock.unix();
        let subject = FileVersion { tag: granted.found.tag, length: granted.found.length };
        let claimed = granted.claim.as_ref().map_or(Ok(None), |claim| {
            self.shared.replay.claim(claim, &self.settings.rules, now, &subject, &span)
        });
        match claimed {
            Ok(stream) => self.send(&granted, span, stream),
            Err(error) => self.refuse(&error.into()),
        }
    }

    fn send(mut self, granted: &Granted, span: Range<u64>, mut stream: Option<Stream>) {
        self.entry.status = if matches!(granted.selection, Selection::Part(_)) { 206 } else { 200 };
        let cors = cors::lines(&self.exchange.head, &self.settings.config);
        let frame = self.frame(&cors);
        let head = response::content_head(
            &frame,
            &granted.found,
            &granted.selection,
            self.offers_ranges(),
        );
        let content = span.end - span.start;
        let Some(socket) = self.exchange.socket() else { return };
        let content_start = socket.sent() + head.len() as u64;
        let result = body::send(
            socket,
            &head,
            &granted.found.file,
            span,
            &self.settings.pace,
            stream.as_mut(),
        );
        let delivery = Delivery { stream, content_start, content, entry: self.entry };
        match result {
            Ok(()) => {
                let after = after(&self.exchange);
                self.exchange.finish(after, Some(Box::new(delivery)));
            }
            Err(broken) => {
                let stuck = matches!(broken, Broken::Stalled | Broken::TooSlow);
                let (sent, acknowledged) = self.exchange.socket().map_or((0, 0), |socket| {
                    if stuck {
                        socket.reset_at_close();
                    }
                    (socket.sent(), socket.acknowledged().unwrap_or(0))
                });
                let sent = sent.saturating_sub(content_start);
                let acknowledged = acknowledged.saturating_sub(content_start);
                let outcome = Outcome::Interrupted(broken.to_string());
                let record = delivery.end(sent, acknowledged, outcome, self.shared.clock.unix());
                // A worker may wait for the disk: it records on the spot.
                record.write();
                self.exchange.finish(After::Abort, None);
            }
        }
    }

    /// Answers without content: a `HEAD`, or 304.
    fn answer(mut self, granted: &Granted, status: u16) {
        self.entry.status = status;
        let cors = cors::lines(&self.exchange.head, &self.settings.config);
        let frame = self.frame(&cors);
        let answer = if status == 304 {
            response::not_modified(&frame, &granted.found)
        } else {
            // The same head as a plain GET: Range means nothing to HEAD (RFC 9110 §14.2).
            response::content_head(&frame, &granted.found, &Selection::Whole, self.offers_ranges())
        };
        self.finish(&answer, &Outcome::Answered);
    }

    fn refuse(mut self, refusal: &Refusal) {
        self.entry.status = refusal.status();
        let cors = cors::lines(&self.exchange.head, &self.settings.config);
        let answer = response::refusal(&self.frame(&cors), refusal);
        if let Refusal::Storage(cause) = refusal {
            log::warn!("request {}: {cause}", self.entry.id);
        }
        let unsigned = matches!(refusal, Refusal::Token(fault) if fault.is_unsigned());
        if unsigned && !self.shared.logs_unsigned() {
            self.send_off(&answer);
        } else {
            self.finish(&answer, &Outcome::Refused(refusal.cause()));
        }
    }

    fn finish(self, answer: &[u8], outcome: &Outcome) {
        self.entry.log(&Bytes::default(), outcome);
        self.send_off(answer);
    }

    /// Writes an answer without content, which a client takes at once or not at all.
    fn send_off(mut self, answer: &[u8]) {
        let taken = self.exchange.socket().is_some_and(|socket| socket.write_at_once(answer));
        let after = if taken { after(&self.exchange) } else { After::Abort };
        self.exchange.finish(after, None);
    }

    fn frame<'b>(&'b self, cors: &'b str) -> ResponseContext<'b> {
        let panel = self.settings.config.remote.as_deref();
        let mut frame = ResponseContext::of(Some(&self.exchange.head), &self.entry.id, panel);
        frame.keep_alive = frame.keep_alive && !self.exchange.last;
        frame.cors = cors;
        frame
    }
}

fn after(exchange: &Exchange) -> After {
    if exchange.head.keep_alive && !exchange.last { After::KeepAlive } else { After::Close }
}

fn endpoint_of(head: &Head) -> Option<Endpoint> {
    match head.route {
        Route::Download(endpoint) => Some(endpoint),
        _ => None,
    }
}

/// The first `token` parameter of a target's query, decoded. One that is not text is no token.
pub fn token_of(target: &str) -> Option<String> {
    let query = target.split_once('?')?.1.split('#').next().unwrap_or("");
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8().ok()?;
        if name != "token" {
            return None;
        }
        Some(percent_decode_str(value).decode_utf8().map_or_else(|_| "?".into(), Into::into))
    })
}

#[cfg(test)]
mod tests {
    use super::token_of;

    #[test]
    fn the_first_token_parameter_counts() {
        let table = [
            ("/x", None),
            ("/x?", None),
            ("/x?token", Some("")),
            ("/x?token=", Some("")),
            ("/x?token=a", Some("a")),
            ("/x?a=b&token=c&token=d", Some("c")),
            ("/x?tokens=a", None),
            ("/x?%74oken=a%2Eb", Some("a.b")),
            ("/x?token=%ff", Some("?")),
            ("/x?token=a#token=b", Some("a")),
            ("/x?token=a=b", Some("a=b")),
        ];
        for (target, expected) in table {
            assert_eq!(token_of(target).as_deref(), expected, "{target}");
        }
    }
}
