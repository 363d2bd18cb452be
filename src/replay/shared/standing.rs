//! What the other front ends know of a link: how far it is, who held it, and what it has paid for.
//!
//! An entry remembers what they were told last, so that nothing is told twice. A link that another
//! front end had begins here with an empty set, its holders by their marks, and what is left of its
//! budget.

use std::sync::atomic::Ordering;

use super::super::entry::{ClaimError, ClaimRequest, Entry, Rules};
use super::super::grant::{Grant, MAX_HOLDERS, PEEK_BYTES};
use super::super::live::Live;
use super::{Owned, Replay};
use crate::config::Reuse;
use crate::net::address::ClientKey;

/// A hash of an address. Only who knows the node's token can tell whose.
pub type Mark = [u8; 16];

/// The others learn what a link has paid for in steps of this many bytes, and whenever they are told
/// anything else of it. So a front end that dies forgets that much at most, and what was paid for
/// since its last beat.
const CHARGE_STEP: u64 = 64 << 20;

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is in use.
    Open,
    /// It has delivered every byte, and its last stream ended at this time, in seconds since the
    /// epoch.
    Covered(u64),
    /// It is used up.
    Spent,
}

/// When the others are to be told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as can be.
    Now,
    /// With the next beat.
    WithBeat,
}

/// What the others were told of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) struct Told {
    stage: Stage,
    /// The present holder.
    holder: Option<ClientKey>,
    /// Bytes paid for.
    charged: u64,
}

/// All that the others may know of a link.
#[cfg(feature = "shared-state")]
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Tells its entry from others of the link.
    pub(super) origin: u64,
    pub(super) stage: Stage,
    /// Those that held it here, the latest first.
    pub(super) holders: Vec<ClientKey>,
    /// Those that held it elsewhere before, the latest first.
    pub(super) former: Vec<Mark>,
    /// Bytes paid for.
    pub(super) charged: u64,
    /// First use, seconds since the epoch.
    pub(super) opened: u64,
    /// The holder has no more than peeked.
    pub(super) is_peek: bool,
    /// When it can be forgotten, in seconds since the epoch.
    pub(super) end: u64,
}

/// A link as another front end left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// How far it is.
    pub stage: Stage,
    /// Who held it, the latest first.
    pub holders: Vec<Mark>,
    /// Who asks for it is the first of them.
    pub by_holder: bool,
    /// Bytes paid for.
    pub charged: u64,
    /// First use, seconds since the epoch.
    pub opened: u64,
}

impl Replay {
    /// The entry of a link that comes into the table for the stream of `live`.
    pub(in crate::replay) fn begin(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        owned: Owned,
        (live, length): (&Live, u64),
    ) -> Result<Entry, ClaimError> {
        let skew = now.wrapping_sub(self.steady.load(Ordering::Relaxed));
        let mut entry = Entry::new(request, rules, now, skew, self.floor.load(Ordering::Acquire));
        let Some(inherited) = owned.inherited.filter(|_| rules.reuse == Reuse::Resume) else {
            entry.told_by_claim();
            return Ok(entry);
        };
        let mut entry = entry.inherited(inherited, (live, length), now);
        entry.admits(request, rules, self.time(skew, now)).map(|_| entry)
    }
}

impl Entry {
    /// Makes the entry of a link that begins here at `now` as another front end left it, with the
    /// stream of `live` over a file of `length` bytes.
    fn inherited(mut self, inherited: Inherited, (live, length): (&Live, u64), now: u64) -> Entry {
        let Inherited { stage, holders, by_holder, charged, opened } = inherited;
        let Some(grant) = self.grant.as_mut() else { return self };
        let held = std::mem::take(&mut grant.holders);
        **grant = Grant {
            opened: opened.min(now),
            former: holders,
            holders: held,
            first: length,
            greatest: length,
            tag: live.tag,
            length,
            charged,
            // How far the holder came is not known. Nobody takes the link from one that has most.
            acknowledged: if by_holder { PEEK_BYTES } else { 0 },
            ended: now,
            ..Grant::default()
        };
        if let Stage::Covered(ended) = stage {
            grant.ended = ended.min(now);
            grant.delivered.insert(0..length.max(1));
        }
        self.told_by_claim();
        self
    }

    /// The others know it as it is: they have learned it by its claim.
    fn told_by_claim(&mut self) {
        self.told = Some(self.known());
    }

    /// Returns when the others have to be told of what has changed, if they have. It counts as told
    /// from here on.
    pub(in crate::replay) fn news(&mut self) -> Option<When> {
        let known = self.known();
        let when = match self.told {
            Some(told) if (told.stage, told.holder) == (known.stage, known.holder) => {
                let more = known.charged.saturating_sub(told.charged);
                (more >= CHARGE_STEP).then_some(When::WithBeat)?
            }
            _ => When::Now,
        };
        self.told = Some(known);
        Some(when)
    }

    fn known(&self) -> Told {
        let grant = self.grant.as_deref().filter(|_| !self.spent);
        let stage = match grant {
            None => Stage::Spent,
            Some(grant) if grant.is_covered() => Stage::Covered(grant.ended),
            Some(_) => Stage::Open,
        };
        let holder = grant.and_then(|grant| grant.holders.first().copied());
        Told { stage, holder, charged: grant.map_or(0, |grant| grant.charged) }
    }

    /// All that the others may know, told from here on.
    #[cfg(feature = "shared-state")]
    pub(super) fn standing(&mut self, window: u64, now: u64) -> Standing {
        let known = self.known();
        self.told = Some(known);
        let grant = self.grant.as_deref();
        // One with a stream has no end yet.
        let end = match self.end(window) {
            u64::MAX => now.saturating_add(window).saturating_add(crate::replay::AFTERLIFE),
            end => end,
        };
        Standing {
            origin: self.origin,
            stage: known.stage,
            holders: grant.map(|grant| grant.holders.clone()).unwrap_or_default(),
            former: grant.map(|grant| grant.former.clone()).unwrap_or_default(),
            charged: known.charged,
            opened: grant.map_or(now, |grant| grant.opened),
            is_peek: grant.is_some_and(Grant::is_a_peek),
            end,
        }
    }
}

impl Grant {
    /// If `client` held the link at another front end, it counts among those that held it here.
    pub(in crate::replay) fn recognise(
        &mut self,
        client: Option<ClientKey>,
        mark: impl Fn(ClientKey) -> Mark,
    ) {
        let Some(client) = client.filter(|_| !self.former.is_empty()) else { return };
        let mark = mark(client);
        let before = self.former.len();
        self.former.retain(|former| *former != mark);
        if self.former.len() < before && !self.holders.contains(&client) {
            self.holders.push(client);
        }
        self.former.truncate(MAX_HOLDERS.saturating_sub(self.holders.len()));
    }
}
