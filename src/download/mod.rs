//! One request to one answer: verify the token, find the file, claim the link, respond.
//!
//! The claim comes last before the content, so that a request which ends in an error spends and
//! binds nothing.

pub mod body;

use std::ops::Range;
use std::time::Instant;

use crate::config::Reuse;
use crate::download::body::Broken;
use crate::http::head::{Field, Method};
use crate::http::page::Landing;
use crate::http::range::{Conditions, Selection, Validators, select};
use crate::http::refusal::Refusal;
use crate::http::response::{self, ResponseContext};
use crate::link::storage::{Found, OpenError};
use crate::link::token::{Claims, Endpoint, TokenFault};
use crate::logging::access::{Bytes, Entry, Outcome};
use crate::net::address::ClientKey;
use crate::pool::exchange::{After, Delivery, Exchange};
use crate::replay::{self, FileVersion, Stream};
use crate::shared::{Settings, Shared};

/// Answers `exchange` and gives its connection back.
pub fn serve(shared: &Shared, exchange: Exchange) {
    let settings = shared.settings();
    let entry = Entry {
        client: exchange.client,
        method: exchange.head.method.name(),
        endpoint: exchange.head.endpoint().map_or("-", Endpoint::name),
        status: 0,
        resource: None,
        began: Instant::now(),
        id: shared.next_id(),
    };
    Serving { shared, settings: &settings, exchange, entry }.run();
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
    /// When the token expires, unless it has and only a grant keeps the link alive.
    until: Option<u64>,
}

impl Serving<'_> {
    fn run(mut self) {
        match self.prepare() {
            Err(refusal) => self.refuse(&refusal),
            Ok(granted) if self.exchange.head.wants_page() => self.show_page(&granted),
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
    fn prepare(&mut self) -> Result<Granted, Refusal> {
        let endpoint = self.exchange.head.endpoint().ok_or(Refusal::UnknownPath)?;
        let now = self.shared.clock.unix();
        let token = self.exchange.head.token().unwrap_or_default();
        let claims = self.settings.verifier.verify(&token, endpoint, now)?;
        self.entry.resource = Some(claims.resource.clone());
        let claim = self.link(&claims);
        match &claim {
            Some(claim) => self.shared.replay.check(claim, &self.settings.rules, now)?,
            None if claims.expired => return Err(Refusal::Token(TokenFault::Expired)),
            None => {}
        }
        let found = self.settings.storage.open(&claims.resource)?;
        let conditions = self.conditions();
        let file = Validators { tag: found.tag, modified: found.modified, length: found.length };
        let until = (!claims.expired).then_some(claims.expires);
        Ok(Granted { selection: select(&conditions, &file), found, claim, until })
    }

    fn link(&self, claims: &Claims) -> Option<replay::ClaimRequest> {
        let unique_id = claims.unique_id.as_deref()?;
        Some(replay::ClaimRequest {
            key: replay::key_of(unique_id),
            resource: replay::hash_of(&claims.resource),
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
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn send(mut self, granted: &Granted, span: Range<u64>, mut stream: Option<Stream>) {
        self.entry.status = if matches!(granted.selection, Selection::Part(_)) { 206 } else { 200 };
        let frame = self.frame();
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
                let record = delivery.end(sent, acknowledged, outcome);
                // A worker may wait for the disk: it records on the spot.
                record.write();
                self.exchange.finish(After::Abort, None);
            }
        }
    }

    /// Answers without content: a `HEAD`, or 304.
    fn answer(mut self, granted: &Granted, status: u16) {
        self.entry.status = status;
        let frame = self.frame();
        let answer = if status == 304 {
            response::not_modified(&frame, &granted.found)
        } else {
            // The same head as a plain GET: Range means nothing to HEAD (RFC 9110 §14.2).
            response::content_head(&frame, &granted.found, &Selection::Whole, self.offers_ranges())
        };
        self.finish(&answer, &Outcome::Answered);
    }

    /// Answers with the landing page, which uses no link.
    fn show_page(mut self, granted: &Granted) {
        self.entry.status = 200;
        let link = self.exchange.head.download_link();
        let Granted { found, until, .. } = granted;
        let landing =
            Landing { name: &found.name, length: found.length, until: *until, link: &link };
        let answer = response::landing(&self.frame(), &landing);
        self.finish(&answer, &Outcome::Answered);
    }

    fn refuse(mut self, refusal: &Refusal) {
        self.entry.status = refusal.status();
        let answer = response::refusal(&self.frame(), refusal);
        if let Refusal::Open(OpenError::Failed(cause)) = refusal {
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

    fn frame(&self) -> ResponseContext<'_> {
        let (head, config) = (&self.exchange.head, &self.settings.config);
        let mut frame = ResponseContext::of(Some(head), &self.entry.id, config);
        frame.keep_alive = frame.keep_alive && !self.exchange.last;
        frame
    }
}

fn after(exchange: &Exchange) -> After {
    if exchange.head.keep_alive && !exchange.last { After::KeepAlive } else { After::Close }
}
