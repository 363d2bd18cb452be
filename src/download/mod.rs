//! One request to one answer: verify the token, find the file, claim the link, respond; and later
//! pieces of what that began.
//!
//! The claim comes last before the content, so that a request which ends in an error spends and
//! binds nothing.

pub mod body;
mod source;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::archive::Format;
use crate::config::{PageCache, Reuse};
use crate::delivery::content::Content;
use crate::delivery::pace::Broken;
use crate::delivery::record::Delivery;
use crate::delivery::running::Running;
use crate::delivery::transfer::{Piece, Transfer};
use crate::disk::file::{DiskFile, Worth};
use crate::http::head::{Field, Method};
use crate::http::page::Landing;
use crate::http::range::{Conditions, Selection, Validators, select};
use crate::http::refusal::Refusal;
use crate::http::response::{self, ResponseContext};
use crate::link::folder::Packing;
use crate::link::resource::{self, Source};
use crate::link::storage::{Found, OpenError};
use crate::link::token::{Claims, Endpoint, Resource, TokenFault, Used};
use crate::logging::access::{Entry, Outcome};
use crate::logging::throttle::Kind;
use crate::net::address::ClientKey;
use crate::pool::exchange::{Exchange, Next, Request, Task, Work};
use crate::replay::live::Live;
use crate::replay::{self, ClaimError, ClaimRequest, EndedBy, LinkId, Seen, Stream};
use crate::shared::{Settings, Shared};

/// Does what `exchange` asks for, and gives its connection back.
pub fn serve(shared: &Shared, exchange: Exchange) {
    match exchange.open() {
        Some((work, Task::Answer(request))) => {
            let settings = shared.settings();
            let entry = Entry {
                client: request.client,
                method: request.head.method.name(),
                endpoint: request.head.endpoint().map_or("-", Endpoint::name),
                status: 0,
                part: false,
                resource: None,
                began: Instant::now(),
                id: shared.next_id(),
            };
            Serving { shared, settings: &settings, work, request: *request, entry }.run();
        }
        Some((work, Task::Piece(transfer))) => send(shared, work, transfer),
        _ => {}
    }
}

/// Sends the next piece of `transfer`.
fn send(shared: &Shared, mut work: Work, mut transfer: Box<Transfer>) {
    let Some(socket) = work.socket() else { return };
    let result = body::send_piece(&mut transfer, socket, &shared.waiting);
    if matches!(result, Ok(Piece::Sent) | Err(_)) {
        transfer.finish(socket.sent());
    }
    match result {
        Ok(piece) => work.finish(Next::Piece(transfer, piece)),
        Err(broken) => {
            let (sent, acknowledged) = (socket.sent(), socket.acknowledged().unwrap_or(0));
            let by = if socket.died() { EndedBy::Reset } else { EndedBy::Other };
            if matches!(broken, Broken::LinkGone | Broken::Revoked) {
                socket.reset_at_close();
            }
            let outcome = Outcome::Interrupted(broken.to_string());
            let now = shared.clock.unix();
            // A worker may wait for the disk: it records on the spot.
            transfer.delivery.end(sent, acknowledged, by, outcome, now).write();
            work.finish(Next::Abort);
        }
    }
}

/// A request that is being answered.
struct Serving<'a> {
    shared: &'a Shared,
    settings: &'a Settings,
    work: Work,
    request: Request,
    entry: Entry,
}

/// A request that may be answered with content or about it.
struct Granted {
    found: Found<Source>,
    selection: Selection,
    /// How its link is claimed; `None` if its token is not one-time.
    claim: Option<ClaimRequest>,
    /// What tells it from others.
    id: LinkId,
    /// When the token expires, unless it has and only a grant keeps the link alive.
    until: Option<u64>,
}

impl Serving<'_> {
    fn run(mut self) {
        match self.prepare() {
            Err(refusal) => self.refuse(&refusal),
            Ok(granted) if self.request.head.wants_page() => self.show_page(&granted),
            Ok(granted) => match &granted.selection {
                Selection::NotModified => self.answer(&granted, 304),
                Selection::PreconditionFailed => self.refuse(&Refusal::Precondition),
                Selection::NotSatisfiable => {
                    self.refuse(&Refusal::Range { length: granted.found.length });
                }
                Selection::Whole | Selection::Part(_)
                    if self.request.head.method == Method::Head =>
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
        let endpoint = self.request.head.endpoint().ok_or(Refusal::UnknownPath)?;
        let format = match endpoint.is_archive() {
            true => self.request.head.archive_format()?,
            false => Format::default(),
        };
        let now = self.shared.clock.unix();
        let token = self.request.head.token().unwrap_or_default();
        let claims = self.settings.verifier.verify(&token, endpoint, now)?;
        self.entry.resource = Some(claims.resource.clone());
        let id = LinkId::of(&claims, &token);
        self.may_pass(&id)?;
        let claim = self.link(&claims, &id);
        let seen = match &claim {
            Some(claim) => self.may_use(claim, now).map_err(|error| self.refusal_of(error))?,
            None if claims.expired => return Err(Refusal::Token(TokenFault::Expired)),
            None => Seen::default(),
        };
        let link = claim.as_ref().map_or_else(|| replay::key_of(&token), |claim| claim.key);
        let resource = replay::hash_of(&claims.resource);
        let packing = Packing { format, link, resource, shelf: Arc::clone(&self.shared.shelf) };
        let found = resource::open(&self.settings.storage, &claims.resource, packing)?;
        let mut conditions = self.conditions();
        conditions.changed = seen.delivered_other(found.tag);
        let Found { tag, modified, length, .. } = found;
        let file = Validators { tag, modified, length, now };
        let until = (!claims.expired).then_some(claims.expires);
        Ok(Granted { selection: select(&conditions, &file), found, claim, id, until })
    }

    fn may_pass(&self, id: &LinkId) -> Result<(), Refusal> {
        match self.shared.replay.is_revoked(id) {
            true => Err(Refusal::Token(TokenFault::Used(Used::Revoked))),
            false => Ok(()),
        }
    }

    fn link(&self, claims: &Claims, id: &LinkId) -> Option<ClaimRequest> {
        claims.unique_id.as_ref()?;
        Some(ClaimRequest {
            key: id.link,
            resource: replay::hash_of(&claims.resource),
            server: id.server,
            client: self.request.client.map(ClientKey::of),
            expires: claims.expires,
            expired: claims.expired,
            at: Instant::now(),
        })
    }

    /// Whether `claim` could be made, as far as that can be told without making it.
    fn may_use(&self, claim: &ClaimRequest, now: u64) -> Result<Seen, ClaimError> {
        let (replay, rules) = (&self.shared.replay, &self.settings.rules);
        let seen = replay.check(claim, rules, now)?;
        // What claims the link asks the other front ends anyway.
        if self.request.head.method == Method::Head || self.request.head.wants_page() {
            replay.look(claim, rules, now)?;
        }
        Ok(seen)
    }

    /// The refusal for `error`. A link of another front end is looked for there, once.
    fn refusal_of(&self, error: ClaimError) -> Refusal {
        let head = &self.request.head;
        match error {
            ClaimError::Elsewhere(owner) if !head.is_redirected() => {
                let base = self.settings.config.front_end(&owner);
                Refusal::Elsewhere { location: base.and_then(|base| head.at(base)), owner }
            }
            error => error.into(),
        }
    }

    fn offers_ranges(&self) -> bool {
        self.settings.rules.reuse != Reuse::Once
    }

    fn conditions(&self) -> Conditions<'_> {
        let head = &self.request.head;
        let ranges = self.offers_ranges()
            && head.method == Method::Get
            && !head.is_ambiguous(Field::IfRange);
        Conditions {
            changed: false,
            range: head.field(Field::Range).filter(|_| ranges),
            if_range: head.field(Field::IfRange),
            if_match: head.field(Field::IfMatch),
            if_none_match: head.field(Field::IfNoneMatch),
            if_modified_since: head.field(Field::IfModifiedSince),
            if_unmodified_since: head.field(Field::IfUnmodifiedSince),
        }
    }

    fn claim_and_send(mut self, granted: Granted, span: Range<u64>) {
        let now = self.shared.clock.unix();
        let Found { tag, length, .. } = granted.found;
        self.entry.status = if matches!(granted.selection, Selection::Part(_)) { 206 } else { 200 };
        self.entry.part = span.end - span.start < length;
        let live = Arc::new(Live::new(self.entry.clone(), granted.id, tag, span));
        let running = self.shared.downloads.begin(&live);
        // Asked once more: whoever revokes it from here on finds it among those that run.
        if let Err(refusal) = self.may_pass(&granted.id) {
            return self.refuse(&refusal);
        }
        let claimed = granted.claim.as_ref().map_or(Ok(None), |claim| {
            self.shared.replay.claim(claim, &self.settings.rules, now, length, &live)
        });
        match claimed {
            Ok(stream) => self.send(granted, live, stream, running),
            Err(error) => {
                let refusal = self.refusal_of(error);
                self.refuse(&refusal);
            }
        }
    }

    fn send(mut self, granted: Granted, live: Arc<Live>, stream: Option<Stream>, running: Running) {
        self.shared.counters.answered(self.entry.status);
        let Granted { found, selection, id, .. } = granted;
        let context = self.context();
        let head = response::content_head(&context, &found, &selection, self.offers_ranges());
        let keep_alive = self.may_keep();
        let early_input = self.work.has_input();
        let span = live.span.clone();
        let content = self.content(found.source, &span);
        let Some(socket) = self.work.socket() else { return };
        let delivery = Delivery {
            stream,
            live,
            link: Some(id.link),
            running: Arc::new(running),
            content_start: socket.sent() + head.len() as u64,
            content: span.end - span.start,
            direct: self.request.direct,
            entry: self.entry,
        };
        let mut transfer = Transfer::new(delivery, head, content, span, keep_alive);
        transfer.early_input = early_input;
        if self.request.head_only {
            transfer.allowance = 0;
        }
        send(self.shared, self.work, Box::new(transfer));
    }

    /// `span` of `source`, to be read as `page_cache` says.
    fn content(&self, source: Source, span: &Range<u64>) -> Content {
        let spare = self.settings.config.page_cache == PageCache::Spare;
        let readers = spare.then_some(&self.shared.readers);
        match (source, readers) {
            (Source::File(file), None) => Content::File(DiskFile::keep(file)),
            (Source::File(file), Some(readers)) => {
                let backup = matches!(self.entry.resource, Some(Resource::Backup { .. }));
                let worth = if backup { Worth::Unused } else { Worth::Large };
                Content::File(DiskFile::spare(file, span, worth, readers))
            }
            (Source::Folder(folder), readers) => {
                Content::archive(folder, span.start, span.end, readers.cloned())
            }
        }
    }

    /// Answers without content: a `HEAD`, or 304.
    fn answer(mut self, granted: &Granted, status: u16) {
        self.entry.status = status;
        let context = self.context();
        let answer = if status == 304 {
            response::not_modified(&context, &granted.found)
        } else {
            // The same head as a plain GET: Range means nothing to HEAD (RFC 9110 §14.2).
            response::content_head(
                &context,
                &granted.found,
                &Selection::Whole,
                self.offers_ranges(),
            )
        };
        self.finish(&answer, &Outcome::Answered);
    }

    /// Answers with the landing page, which uses no link.
    fn show_page(mut self, granted: &Granted) {
        self.entry.status = 200;
        let link = self.request.head.download_link();
        let Granted { found, until, .. } = granted;
        let landing =
            Landing { name: &found.name, length: found.length, until: *until, link: &link };
        let answer = response::landing(&self.context(), &landing);
        self.finish(&answer, &Outcome::Answered);
    }

    fn refuse(mut self, refusal: &Refusal) {
        self.entry.part = false;
        self.entry.status = refusal.status();
        let answer = response::refusal(&self.context(), refusal);
        if let Refusal::Open(OpenError::Failed(cause)) = refusal {
            let client = self.entry.client.map(ClientKey::of);
            let message = || format!("request {}: {cause}", self.entry.id);
            self.shared.throttle.warn(Kind::Storage, client, Instant::now(), message);
        }
        self.finish(&answer, &Outcome::Refused(refusal.cause()));
    }

    /// Writes an answer without content, which a client takes at once or not at all.
    fn finish(mut self, answer: &[u8], outcome: &Outcome) {
        self.shared.counters.answered(self.entry.status);
        self.entry.log_bounded(outcome, &self.shared.throttle);
        let taken = self.work.socket().is_some_and(|socket| socket.write_at_once(answer));
        let next = if taken { Next::Answered(self.may_keep()) } else { Next::Abort };
        self.work.finish(next);
    }

    fn context(&self) -> ResponseContext<'_> {
        let (head, config) = (&self.request.head, &self.settings.config);
        let mut context = ResponseContext::of(Some(head), &self.entry.id, config);
        context.keep_alive = self.may_keep();
        context
    }

    fn may_keep(&self) -> bool {
        self.request.head.keep_alive && !self.request.last
    }
}
