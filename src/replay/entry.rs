//! The table's entry for one link: who may use it now, and what is known about it.

use std::sync::Arc;
use std::time::Instant;

use super::grant::{Grant, HANDOVER, HEAD_CHARGE};
use super::live::Live;
use super::shared::Told;
use super::{AFTERLIFE, Key};
use crate::config::Reuse;
use crate::link::storage::EntityTag;
use crate::link::token::Used;
use crate::net::address::ClientKey;

/// The rules of the configuration that the table goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often a link may be used.
    pub reuse: Reuse,
    /// Seconds after its first use in which a link may be resumed.
    pub window: u64,
    /// Seconds after its last stream in which a delivered link stays open to those who held it.
    pub settle: u64,
    /// Bind a link to the client that uses it.
    pub bind: bool,
    /// Claim links alone while the shared state cannot be asked.
    pub alone: bool,
}

/// Somebody wants to use a link.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// Which link.
    pub key: Key,
    /// The hash of what it opens.
    pub resource: [u8; 16],
    /// The hash of the server that it belongs to: [`super::key_of`] its UUID.
    pub server: Key,
    /// Who asks, if that is known.
    pub client: Option<ClientKey>,
    /// The `exp` of the token that was presented.
    pub expires: u64,
    /// That `exp` has passed.
    pub expired: bool,
    /// When it was asked, by the steady clock.
    pub at: Instant,
}

/// Why a link cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It was used before, in this way.
    Used(Used),
    /// Its token has expired, and who asks never held it.
    Expired,
    /// Another address holds it, for this many seconds at least.
    InUse(u32),
    /// It has [`MAX_STREAMS`](super::MAX_STREAMS) streams, none of them dead.
    TooManyStreams,
    /// The table holds as many links as it may, in all or of this server.
    TableFull,
    /// The front end of this name has it.
    Elsewhere(Box<str>),
    /// Whether another front end has it cannot be found out now.
    Away,
    /// Nor can it be for this many seconds: the shared state has lost everything.
    Emptied(u32),
}

/// What a link that may be used has been used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The version of the file at its last stream; `None` if it was never used.
    pub version: Option<EntityTag>,
    /// There was another version before that.
    pub(super) mixed: bool,
}

impl Seen {
    /// Returns true if the link was ever used for another version of the file than `tag`.
    pub fn delivered_other(&self, tag: EntityTag) -> bool {
        self.mixed || self.version.is_some_and(|version| version != tag)
    }
}

/// What is known about a link, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// Never used.
    Unused,
    /// Used, and not spent.
    Open {
        /// The client that holds it and those that held it before, the latest first.
        holders: Vec<ClientKey>,
        /// First use, seconds since the epoch.
        opened: u64,
        /// Bytes that were delivered, and the file's length.
        delivered: (u64, u64),
        /// Bytes paid for, and how many may be.
        charged: (u64, u64),
        /// When its last stream ended, in seconds since the epoch; `None` while one runs.
        ended: Option<u64>,
        /// When another address may have it, in seconds since the epoch; `None` if that depends on
        /// a running stream.
        passes: Option<u64>,
        /// When it will count as spent if nobody asks before, in seconds since the epoch.
        settles: Option<u64>,
    },
    /// Its download is complete.
    Spent,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The number of this state.
    pub(super) sequence: u64,
    /// The number of the last state that the journal has.
    pub(super) written: u64,
    /// The number that it came into the table with, which no other entry of its link has.
    pub(super) origin: u64,
    /// The latest `exp` of its tokens.
    pub(super) expires: u64,
    pub(super) resource: [u8; 16],
    pub(super) server: Key,
    pub(super) spent: bool,
    /// The other front ends know that it is this one's. Not so after a restart, until they are asked.
    pub(super) owned: bool,
    /// What the other front ends were told of it; `None` if nothing is certain.
    pub(super) told: Option<Told>,
    /// What there is to account for; of a spent link, until its last stream has ended.
    pub(super) grant: Option<Box<Grant>>,
    /// By how much the system's clock is ahead of the table's own, for all this entry knows, in
    /// seconds (wrapping).
    pub(super) skew: u64,
}

impl Entry {
    pub(super) fn new(
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        skew: u64,
        origin: u64,
    ) -> Entry {
        let ClaimRequest { expires, resource, server, client, .. } = *request;
        let holders = client.filter(|_| rules.bind).into_iter().collect();
        let spent = rules.reuse != Reuse::Resume;
        let grant = Box::new(Grant { opened: now, holders, ..Grant::default() });
        let grant = Some(grant).filter(|_| !spent);
        Entry {
            sequence: origin,
            written: origin,
            origin,
            expires,
            resource,
            server,
            spent,
            owned: true,
            told: None,
            grant,
            skew,
        }
    }

    /// When the entry can go, in seconds since the epoch.
    pub(super) fn end(&self, window: u64) -> u64 {
        let last_use = match &self.grant {
            // Its streams may run on, and ask it for leave with every step.
            Some(grant) if !grant.streams.is_empty() => return u64::MAX,
            Some(grant) if !self.spent => self.expires.max(grant.opened.saturating_add(window)),
            _ => self.expires,
        };
        last_use.saturating_add(AFTERLIFE)
    }

    /// Judges `request` at `time`: the one rule for all who ask. It binds and spends nothing, but a
    /// link that has settled is spent from here on, and a token that is valid for longer than those
    /// before keeps the entry for longer.
    pub(super) fn admits(
        &mut self,
        request: &ClaimRequest,
        rules: &Rules,
        time: u64,
    ) -> Result<Seen, ClaimError> {
        if request.expires > self.expires {
            self.expires = request.expires;
            self.sequence += 1;
        }
        if self.open_grant().is_some_and(|grant| grant.is_settled(rules.settle, time)) {
            // For good: a clock that steps back must not revive it.
            self.spend();
            self.sequence += 1;
        }
        let used = |used| Err(ClaimError::Used(used));
        match self.open_grant().filter(|_| rules.reuse == Reuse::Resume) {
            _ if self.resource != request.resource => used(Used::OtherResource),
            None => used(Used::Spent),
            Some(grant) if time >= grant.opened.saturating_add(rules.window) => {
                used(Used::WindowOver)
            }
            Some(grant) if grant.left() <= HEAD_CHARGE => used(Used::BudgetSpent),
            Some(grant) => grant
                .admits(request, rules.bind)
                .map(|()| Seen { version: Some(grant.tag), mixed: grant.mixed }),
        }
    }

    /// Makes the link spent; running streams may go on.
    pub(super) fn spend(&mut self) {
        self.spent = true;
        self.grant = self.grant.take().filter(|grant| !grant.streams.is_empty());
    }

    pub(super) fn status(&self, rules: &Rules, time: u64) -> LinkStatus {
        let grant = self.open_grant().filter(|grant| !grant.is_settled(rules.settle, time));
        grant.map_or(LinkStatus::Spent, |grant| {
            let ended = Some(grant.ended).filter(|_| !grant.runs());
            let free = grant.broke || grant.is_a_peek();
            let quiet = if free { 0 } else { HANDOVER.as_secs() };
            let covered = grant.is_covered();
            LinkStatus::Open {
                holders: grant.holders.clone(),
                opened: grant.opened,
                delivered: (grant.delivered.total().min(grant.length), grant.length),
                charged: (grant.charged, grant.budget()),
                ended,
                passes: ended.map(|ended| ended.saturating_add(quiet)).filter(|_| !covered),
                settles: ended.map(|ended| ended.saturating_add(rules.settle)).filter(|_| covered),
            }
        })
    }

    fn open_grant(&self) -> Option<&Grant> {
        self.grant.as_deref().filter(|_| !self.spent)
    }
}

impl Grant {
    /// Judges who asks for a link that is open.
    fn admits(&self, request: &ClaimRequest, bind: bool) -> Result<(), ClaimError> {
        let held = self.was_held_by(request.client);
        match self.is_strange_to(request.client, bind) {
            true if self.is_covered() && !held => Err(ClaimError::Used(Used::OtherAddress)),
            true if request.expired && !held => Err(ClaimError::Expired),
            // It could not be told from others that are unknown.
            true if request.client.is_none() => Err(ClaimError::Used(Used::OtherAddress)),
            true if !self.is_covered() => match self.wait(request.at) {
                wait if wait.is_zero() => Ok(()),
                wait => Err(ClaimError::InUse(wait.as_secs_f32().ceil() as u32)),
            },
            _ if self.has_room(request.at) => Ok(()),
            _ => Err(ClaimError::TooManyStreams),
        }
    }

    /// Begins the stream of `live` for `request`, which was admitted. A covered link is open to all
    /// that held it; any other is handed over to a client that does not hold it.
    pub(super) fn claim(
        &mut self,
        request: &ClaimRequest,
        bind: bool,
        live: &Arc<Live>,
        length: u64,
    ) {
        let stays = self.is_covered() && self.tag == live.tag;
        if let Some(client) = request.client
            && self.is_strange_to(Some(client), bind)
            && !stays
        {
            self.hand_over(client, &live.span);
        }
        self.start(live, length, request.at);
    }
}
