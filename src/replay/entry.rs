//! The table's entry for one link: whether somebody may use it, and what is known about it.

use super::grant::{Grant, HEAD_CHARGE, MAX_STREAMS};
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
    /// Seconds after its last stream in which a link that may have delivered everything stays open.
    pub settle: u64,
    /// Bind a link to the client that used it first.
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
    /// The token's `exp`.
    pub expires: u64,
    /// `exp` has passed.
    pub expired: bool,
}

/// Why a link cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It was used before, in this way.
    Used(Used),
    /// Its token expired before it was ever used.
    Expired,
    /// It has [`MAX_STREAMS`] streams.
    TooManyStreams,
    /// The table holds as many links as it may.
    TableFull,
    /// The table holds as many links of this server as it may.
    ServerShare,
    /// The front end of this name has it.
    Elsewhere(Box<str>),
    /// Whether another front end has it cannot be found out now.
    Away,
}

/// What is known about a link, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// Never used.
    Unused,
    /// Used, and not spent.
    Open {
        /// The client that it is bound to.
        client: Option<ClientKey>,
        /// First use, seconds since the epoch.
        opened: u64,
        /// Bytes that were surely delivered.
        sure: u64,
        /// Bytes that were delivered, for all the server could see, and the file's length.
        delivered: (u64, u64),
        /// Bytes paid for, and how many may be.
        charged: (u64, u64),
        /// When it will count as spent if nobody asks before, in seconds since the epoch.
        settles: Option<u64>,
    },
    /// Its download is complete.
    Spent,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    /// The token's `exp`.
    pub(super) expires: u64,
    pub(super) resource: [u8; 16],
    pub(super) server: Key,
    pub(super) spent: bool,
    /// It is among those that the table counts as spent.
    pub(super) counted: bool,
    /// The other front ends know that it is this one's. Not so after a restart, until they are asked.
    pub(super) owned: bool,
    /// What there is to account for; of a spent link, until its last stream has ended.
    pub(super) grant: Option<Box<Grant>>,
    /// By how much the system's clock is ahead of the table's own, for all this entry knows, in
    /// seconds (wrapping).
    pub(super) skew: u64,
}

impl Entry {
    pub(super) fn new(request: &ClaimRequest, rules: &Rules, now: u64, skew: u64) -> Entry {
        let ClaimRequest { expires, resource, server, .. } = *request;
        let client = request.client.filter(|_| rules.bind);
        let spent = rules.reuse != Reuse::Resume;
        let grant = Grant { opened: now, client, ..Grant::default() };
        let grant = (!spent).then(|| Box::new(grant));
        Entry {
            sequence: 0,
            expires,
            resource,
            server,
            spent,
            counted: false,
            owned: true,
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

    /// Notes that a link which has settled is spent, and for good: a clock that steps back must not
    /// revive it.
    pub(super) fn settle(&mut self, rules: &Rules, time: u64) {
        if self.open_grant().is_some_and(|grant| grant.is_settled(rules.settle, time)) {
            self.mark_spent();
        }
    }

    /// Whether `request` may use this link: the one rule for all who ask. Returns the version of
    /// the file at the link's last stream. A link that has settled becomes spent by it.
    pub(super) fn admits(
        &mut self,
        request: &ClaimRequest,
        rules: &Rules,
        time: u64,
    ) -> Result<EntityTag, ClaimError> {
        self.settle(rules, time);
        let used = |used| Err(ClaimError::Used(used));
        match self.open_grant().filter(|_| rules.reuse == Reuse::Resume) {
            _ if self.resource != request.resource => used(Used::OtherResource),
            None => used(Used::Spent),
            Some(grant) if time >= grant.opened.saturating_add(rules.window) => {
                used(Used::WindowOver)
            }
            Some(grant) if grant.left() <= HEAD_CHARGE => used(Used::BudgetSpent),
            Some(grant) if grant.is_strange_to(request.client, rules.bind) => {
                if grant.is_a_peek() {
                    Ok(grant.file.tag)
                } else {
                    used(Used::OtherAddress)
                }
            }
            Some(grant) if grant.streams.len() >= MAX_STREAMS => Err(ClaimError::TooManyStreams),
            Some(grant) => Ok(grant.file.tag),
        }
    }

    /// The link is spent; running streams may go on.
    pub(super) fn mark_spent(&mut self) {
        self.spent = true;
        self.grant = self.grant.take().filter(|grant| !grant.streams.is_empty());
    }

    pub(super) fn status(&self, rules: &Rules) -> LinkStatus {
        self.open_grant().map_or(LinkStatus::Spent, |grant| LinkStatus::Open {
            client: grant.client,
            opened: grant.opened,
            sure: grant.sure.total().min(grant.file.length),
            delivered: (grant.delivered(), grant.file.length),
            charged: (grant.charged, grant.budget()),
            settles: grant.is_covered().then(|| grant.ended.saturating_add(rules.settle)),
        })
    }

    fn open_grant(&self) -> Option<&Grant> {
        self.grant.as_deref().filter(|_| !self.spent)
    }
}
