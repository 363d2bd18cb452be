//! The table's entry for one link: whether somebody may use it, and what is known about it.

use std::ops::Range;

use super::grant::{Grant, HEAD_CHARGE, MAX_STREAMS};
use super::{AFTERLIFE, Key, STEP_BYTES};
use crate::config::Reuse;
use crate::http::refusal::{Busy, Refusal};
use crate::link::storage::EntityTag;
use crate::link::token::{TokenFault, Used};
use crate::net::address::ClientKey;

/// The rules of the configuration that the table goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often a link may be used.
    pub reuse: Reuse,
    /// Seconds after its first use in which a link may be resumed.
    pub window: u64,
    /// Bind a link to the client that used it first.
    pub bind: bool,
}

/// Somebody wants to use a link.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// Which link.
    pub key: Key,
    /// The hash of what it opens.
    pub resource: [u8; 16],
    /// Who asks, where that is known.
    pub client: Option<ClientKey>,
    /// The token's `exp`.
    pub expires: u64,
    /// `exp` has passed.
    pub expired: bool,
}

/// The file that a link is used for, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct FileVersion {
    /// Its entity tag.
    pub tag: EntityTag,
    /// Its length in bytes.
    pub length: u64,
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
        /// Bytes known to be delivered, and the file's length.
        delivered: (u64, u64),
        /// Bytes paid for, and how many may be.
        charged: (u64, u64),
    },
    /// Its download is complete.
    Spent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    /// The token's `exp`.
    pub(super) expires: u64,
    pub(super) resource: [u8; 16],
    pub(super) spent: bool,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing more to account for.
    Closed,
    /// In use, or spent with streams that still run.
    Open(Box<Grant>),
}

impl Entry {
    /// When the entry can go, in seconds since the epoch.
    pub(super) fn removable_at(&self, window: u64) -> u64 {
        let last_use = match &self.state {
            State::Open(grant) if !self.spent => {
                self.expires.max(grant.opened.saturating_add(window))
            }
            _ => self.expires,
        };
        last_use.saturating_add(AFTERLIFE)
    }

    /// Whether streams of this link are running.
    pub(super) fn is_running(&self) -> bool {
        matches!(&self.state, State::Open(grant) if grant.streams() > 0)
    }

    /// Whether `request` may go on with this link at `now`.
    pub(super) fn admits(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<(), Used> {
        if self.resource != request.resource {
            return Err(Used::OtherResource);
        }
        match &self.state {
            State::Open(grant) if !self.spent && rules.reuse == Reuse::Resume => {
                if rules.bind && grant.client.is_some() && grant.client != request.client {
                    return Err(Used::OtherAddress);
                }
                if now >= grant.opened.saturating_add(rules.window) {
                    return Err(Used::WindowOver);
                }
                Ok(())
            }
            _ => Err(Used::Spent),
        }
    }

    pub(super) fn fresh(
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        subject: &FileVersion,
    ) -> Entry {
        let client = request.client.filter(|_| rules.bind);
        let state = match rules.reuse {
            Reuse::Resume => {
                State::Open(Box::new(Grant::open(now, client, subject.tag, subject.length)))
            }
            _ => State::Closed,
        };
        Entry {
            sequence: 1,
            expires: request.expires,
            resource: request.resource,
            spent: matches!(state, State::Closed),
            state,
        }
    }

    /// Starts a stream over `span` and reserves its first step: its number and the bytes reserved.
    pub(super) fn start_stream(
        &mut self,
        subject: &FileVersion,
        span: &Range<u64>,
    ) -> Result<(u32, u64), Refusal> {
        let State::Open(grant) = &mut self.state else {
            return Err(Refusal::Token(TokenFault::Used(Used::Spent)));
        };
        let length = span.end - span.start;
        if grant.streams() >= MAX_STREAMS {
            return Err(Refusal::Busy(Busy::LinkShare));
        }
        if !grant.can_pay(length.saturating_add(HEAD_CHARGE)) {
            return Err(Refusal::Token(TokenFault::Used(Used::BudgetSpent)));
        }
        grant.see_file(subject.tag, subject.length);
        let number = grant.start(span);
        let first = length.min(STEP_BYTES);
        // Cannot fail: `can_pay` covered it.
        grant.reserve(number, first);
        self.sequence += 1;
        Ok((number, first))
    }

    pub(super) fn standing(&self) -> LinkStatus {
        match &self.state {
            State::Open(grant) if !self.spent => LinkStatus::Open {
                client: grant.client,
                opened: grant.opened,
                delivered: (grant.delivered.total(), grant.length),
                charged: (grant.charged, grant.budget()),
            },
            _ => LinkStatus::Spent,
        }
    }
}
