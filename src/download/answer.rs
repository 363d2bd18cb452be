//! One request to one answer: verify the token, find the file, claim the link, respond.
//!
//! The claim comes last before the content, so that a request which ends in an error spends and
//! binds nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::content::Content;
use super::job::{Admitted, Connection, Crew, Next, Request, Step, Walk};
use super::{Answer, Download, after_step, way};

use crate::archive::{ArchiveReader, Format};
use crate::config::{PageCache, Reuse};
use crate::disk::file::{DiskFile, Worth};
use crate::http::head::{Field, Method, Visitor};
use crate::http::page::Landing;
use crate::http::range::{Conditions, Selection, Validators, select};
use crate::http::refusal::{Busy, Refusal};
use crate::http::response::{self, ResponseContext};
use crate::link::folder::{Opened, Packing, Walking};
use crate::link::resource;
use crate::link::storage::{Found, OpenError, Source};
use crate::link::token::{Claims, Endpoint, Resource, TokenFault, Used};
use crate::logging::access::{Entry, Outcome};
use crate::logging::throttle::Kind;
use crate::net::address::ClientKey;
use crate::pool::walks::Permit;
use crate::replay::live::Live;
use crate::replay::{self, ClaimError, ClaimRequest, LinkId, Seen};
use crate::shared::{Settings, Shared};

/// A walk may take this long right away: most folders are small.
const SHORT_WALK: Duration = Duration::from_millis(5);
/// After this time a walk lets others have its worker.
const LONG_WALK: Duration = Duration::from_millis(250);

/// A request that may be answered with content or about it.
struct Granted {
    admitted: Admitted,
    found: Found<Source>,
    selection: Selection,
}

/// Answers `request`.
pub(super) fn answer(
    shared: &Shared,
    crew: &Crew,
    connection: &mut Connection,
    request: Box<Request>,
) -> Next {
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
    let settings = shared.settings();
    let mut serving = Serving { shared, crew, settings: &settings, connection, request, entry };
    match serving.open() {
        Ok((admitted, Opened::Ready(found))) => serving.respond(admitted, found),
        Ok((admitted, Opened::Walking(walking))) => {
            serving.walk(admitted, walking, None, SHORT_WALK)
        }
        Err(refusal) => serving.refuse(&refusal),
    }
}

/// Carries `walk` on, and answers its request when it is at its end.
pub(super) fn walk_on(
    shared: &Shared,
    crew: &Crew,
    connection: &mut Connection,
    walk: Box<Walk>,
) -> Next {
    let Walk { request, entry, admitted, walking, permit } = *walk;
    let settings = shared.settings();
    let serving = Serving { shared, crew, settings: &settings, connection, request, entry };
    serving.walk(admitted, walking, permit, LONG_WALK)
}

/// A request that is being answered.
struct Serving<'a> {
    shared: &'a Shared,
    crew: &'a Crew,
    settings: &'a Settings,
    connection: &'a mut Connection,
    request: Box<Request>,
    entry: Entry,
}

impl Serving<'_> {
    /// Everything up to the file, which changes nothing.
    fn open(&mut self) -> Result<(Admitted, Opened), Refusal> {
        let endpoint = self.request.head.endpoint().ok_or(Refusal::UnknownPath)?;
        if self.request.head.visitor == Visitor::Prefetch {
            return Err(Refusal::Busy(Busy::Prefetch));
        }
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
        let claim = self.claim_request(&claims, &id);
        let seen = match &claim {
            Some(claim) => self.may_use(claim, now).map_err(|error| self.refusal_of(error))?,
            None if claims.expired => return Err(Refusal::Token(TokenFault::Expired)),
            None => Seen::default(),
        };
        let link = claim.as_ref().map_or_else(|| replay::key_of(&token), |claim| claim.key);
        let resource = replay::hash_of(&claims.resource);
        // Without an account of its use, any request may be one that resumes.
        let is_first = match (&claim, self.settings.rules.reuse) {
            (None, _) | (_, Reuse::Unlimited) => false,
            (Some(_), _) => seen.version.is_none(),
        };
        let may_reuse = is_first || self.claims_nothing();
        let shelf = Arc::clone(&self.shared.shelf);
        let hidden = self.settings.hidden(&claims);
        let packing = Packing { format, link, resource, may_reuse, hidden, shelf };
        let opened = resource::open(&self.settings.storage, &claims.resource, packing)?;
        let until = (!claims.expired).then_some(claims.expires);
        Ok((Admitted { claim, id, until, seen }, opened))
    }

    fn may_pass(&self, id: &LinkId) -> Result<(), Refusal> {
        match self.shared.replay.is_revoked(id) {
            true => Err(Refusal::Token(TokenFault::Used(Used::Revoked))),
            false => Ok(()),
        }
    }

    fn claim_request(&self, claims: &Claims, id: &LinkId) -> Option<ClaimRequest> {
        claims.unique_id.as_ref()?;
        Some(ClaimRequest {
            key: id.link,
            resource: replay::hash_of(&claims.resource),
            server: id.server.unwrap_or_default(),
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
        if self.claims_nothing() {
            replay.look(claim, rules, now)?;
        }
        Ok(seen)
    }

    /// Returns true if the request asks about the file, and not for it.
    fn claims_nothing(&self) -> bool {
        self.request.head.method == Method::Head || self.request.head.wants_page()
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

    /// Walks through the folder for `time`, and answers if that is its end.
    fn walk(
        self,
        admitted: Admitted,
        mut walking: Box<Walking>,
        permit: Option<Permit>,
        time: Duration,
    ) -> Next {
        let (id, client) = (self.connection.id, self.request.client.map(ClientKey::of));
        let begin = || self.crew.queue.walks.begin(id, walking.server(), client);
        let Some(permit) = permit.or_else(begin) else {
            return self.walk_later(admitted, walking, None);
        };
        match walking.step(Instant::now() + time) {
            Ok(Some(found)) => {
                drop(permit);
                self.respond(admitted, found)
            }
            Ok(None) => self.walk_later(admitted, walking, Some(permit)),
            Err(error) => self.refuse(&error.into()),
        }
    }

    fn walk_later(self, admitted: Admitted, walking: Box<Walking>, permit: Option<Permit>) -> Next {
        let Serving { request, entry, .. } = self;
        Next::Walk(Box::new(Walk { request, entry, admitted, walking, permit }))
    }

    /// Answers with `found`, or about it.
    fn respond(self, admitted: Admitted, found: Found<Source>) -> Next {
        let mut conditions = self.conditions();
        conditions.changed = admitted.seen.delivered_other(found.tag);
        let Found { tag, modified, length, .. } = found;
        let now = self.shared.clock.unix();
        let file = Validators { tag, modified, length, now };
        let selection = select(&conditions, &file);
        let granted = Granted { admitted, found, selection };
        if self.request.head.wants_page() {
            return self.show_page(&granted);
        }
        let span = match &granted.selection {
            Selection::NotModified => return self.answer(&granted, 304),
            Selection::PreconditionFailed => return self.refuse(&Refusal::Precondition),
            Selection::NotSatisfiable => return self.refuse(&Refusal::Range { length }),
            Selection::Whole => 0..length,
            Selection::Part(part) => part.clone(),
        };
        match self.request.head.method {
            Method::Head => self.answer(&granted, 200),
            _ => self.claim_and_send(granted, span),
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

    fn claim_and_send(mut self, granted: Granted, span: Range<u64>) -> Next {
        let Granted { admitted: Admitted { claim, id, .. }, found, selection } = granted;
        self.entry.status = if matches!(selection, Selection::Part(_)) { 206 } else { 200 };
        self.entry.part = span.end - span.start < found.length;
        let live = Arc::new(Live::new(self.entry.clone(), id, found.tag, span, Instant::now()));
        self.shared.downloads.add(&live);
        // Asked once more: whoever revokes it from here on finds it among those that run.
        if let Err(refusal) = self.may_pass(&id) {
            return self.refuse(&refusal);
        }
        let now = self.shared.clock.unix();
        let claimed = claim.as_ref().map_or(Ok(None), |claim| {
            self.shared.replay.claim(claim, &self.settings.rules, now, found.length, &live)
        });
        let stream = match claimed {
            Ok(stream) => stream,
            Err(error) => {
                let refusal = self.refusal_of(error);
                return self.refuse(&refusal);
            }
        };
        self.shared.counters.answered(self.entry.status);
        let head =
            response::content_head(&self.context(), &found, &selection, self.offers_ranges());
        let answer = Answer {
            head,
            content: self.content(found.source, found.length, &live.span),
            direct: self.request.direct,
            keep_alive: self.may_keep(),
        };
        let mut download = Box::new(Download::new(live, stream, answer, &self.connection.socket));
        if !self.connection.input.is_empty() {
            download.finish.note_early_input();
        }
        if self.request.limited {
            // It waits for its share of the bandwidth.
            return Next::Step(download, Step::TurnOver);
        }
        let mut way = way(&mut self.connection.socket, self.shared, self.crew);
        let (step, _) = download.step(&mut way, u64::MAX);
        after_step(self.shared, self.connection, download, step)
    }

    /// `span` of `source`, which has `length` bytes, to be read as `page_cache` says.
    fn content(&self, source: Source, length: u64, span: &Range<u64>) -> Content {
        let spare = self.settings.config.page_cache == PageCache::Spare;
        let readers = spare.then_some(&self.shared.readers);
        match (source, readers) {
            (Source::File(file), None) => Content::File(DiskFile::keep(file)),
            (Source::File(file), Some(readers)) => {
                let backup = matches!(self.entry.resource, Some(Resource::Backup { .. }));
                let worth = if backup { Worth::Unused } else { Worth::Large };
                Content::File(DiskFile::spare(file, length, span, worth, readers))
            }
            (Source::Archive(packed), readers) => {
                Content::Archive(Box::new(ArchiveReader::new(packed, span, readers.cloned())))
            }
        }
    }

    /// Answers without content: a `HEAD`, or 304.
    fn answer(mut self, granted: &Granted, status: u16) -> Next {
        self.entry.status = status;
        let (context, found) = (self.context(), &granted.found);
        let answer = match status {
            304 => response::not_modified(&context, found),
            // The same head as a plain GET: Range means nothing to HEAD (RFC 9110 §14.2).
            _ => response::content_head(&context, found, &Selection::Whole, self.offers_ranges()),
        };
        self.finish(&answer, &Outcome::Answered)
    }

    /// Answers with the landing page, which uses no link.
    fn show_page(mut self, granted: &Granted) -> Next {
        self.entry.status = 200;
        let link = self.request.head.download_link();
        let Granted { found, admitted, .. } = granted;
        let (name, length, until) = (&found.name, found.length, admitted.until);
        let landing = Landing { name, length, until, link: &link };
        let answer = response::landing(&self.context(), &landing);
        self.finish(&answer, &Outcome::Answered)
    }

    fn refuse(mut self, refusal: &Refusal) -> Next {
        self.entry.status = refusal.status();
        let answer = response::refusal(&self.context(), refusal);
        if let Refusal::Open(OpenError::Failed(cause)) = refusal {
            let client = self.entry.client.map(ClientKey::of);
            let message = || format!("request {}: {cause}", self.entry.id);
            self.shared.throttle.warn(Kind::Storage, client, Instant::now(), message);
        }
        self.finish(&answer, &Outcome::Refused(refusal.cause()))
    }

    /// Writes an answer without content, which a client takes at once or not at all.
    fn finish(self, answer: &[u8], outcome: &Outcome) -> Next {
        self.shared.counters.answered(self.entry.status);
        self.entry.log_bounded(outcome, &self.shared.throttle);
        match self.connection.socket.write_at_once(answer) {
            true => Next::Answered(self.may_keep()),
            false => Next::Abort,
        }
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
