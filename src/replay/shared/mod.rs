//! One link is one link on all front ends over one storage: who of them owns it.
//!
//! The table asks an [`Agreement`] before it lets in a link that it does not own, and tells it of each
//! new holder and of what is covered or spent; progress stays with the owner. Without one, every link
//! is its own. No question is asked under a guard of the table.

#[cfg(feature = "shared-state")]
mod connection;
#[cfg(feature = "shared-state")]
mod keeper;
#[cfg(feature = "shared-state")]
mod name;
#[cfg(feature = "shared-state")]
mod pulse;
#[cfg(feature = "shared-state")]
mod redis;
#[cfg(feature = "shared-state")]
mod scripts;
mod standing;
#[cfg(feature = "shared-state")]
mod tasks;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "shared-state")]
pub use keeper::Membership;
#[cfg(feature = "shared-state")]
pub use redis::Redis;
#[cfg(feature = "shared-state")]
pub use scripts::Place;
pub(super) use standing::Told;
pub use standing::{Inherited, Mark, Stage, When};

use super::{AFTERLIFE, ClaimError, ClaimRequest, Key, Replay, Rules};
use crate::config::Reuse;
use crate::link::token::Used;
use crate::net::address::ClientKey;

/// What front ends agree on.
pub trait Agreement: fmt::Debug + Send + Sync {
    /// Makes a link this front end's, if it is nobody's, or its owner is gone.
    ///
    /// # Errors
    /// Why the link cannot be used here, or that this cannot be found out now.
    fn claim(&self, wish: &Wish) -> Result<Claimed, ClaimError>;

    /// Asks what [`Agreement::claim`] would say, changing nothing.
    ///
    /// # Errors
    /// As there.
    fn look(&self, wish: &Wish) -> Result<(), ClaimError>;

    /// The number of the present term. While it stays the same, nobody has taken a link from this
    /// front end. `None` if it was silent for so long that somebody may have.
    fn term(&self) -> Option<u64>;

    /// Passes on that a link of this front end has changed, without waiting.
    fn changed(&self, key: Key, when: When);

    /// A link was claimed without the others, who are to know of it as soon as can be.
    fn claimed_alone(&self);

    /// The mark that the others know `client` by.
    fn mark(&self, client: ClientKey) -> Mark;

    /// What this front end is called.
    fn name(&self) -> &str;

    /// What has happened so far.
    fn counts(&self) -> Counts;
}

/// A link that somebody wants to use.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Which link.
    pub key: Key,
    /// For how many seconds the claim is remembered.
    pub seconds: u64,
    /// The time, in seconds since the epoch.
    pub now: u64,
    /// The claim spends it.
    pub once: bool,
    /// The token that was presented has expired: only for those that held the link it is still good.
    pub expired: bool,
    /// Who asks, if that is known.
    pub client: Option<ClientKey>,
    /// The link is bound to whoever holds it.
    pub bind: bool,
    /// The table has the link, in an entry that came with this number.
    pub known: Option<u64>,
}

impl Wish {
    /// Returns true if the link may be used without asking the others.
    fn goes_alone(&self, rules: &Rules) -> bool {
        rules.alone && (self.known.is_some() || !self.expired)
    }
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The link was nobody's.
    New,
    /// It was this front end's, whose table has it.
    Kept,
    /// It begins here as another front end has left it.
    Inherited(Inherited),
}

/// Numbers for whoever watches the server, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that were sent and answered.
    pub round_trips: u64,
    /// Questions that could not be sent, or were answered with an error or not at all.
    pub failures: u64,
    /// Links taken over from front ends that are gone.
    pub take_overs: u64,
    /// Whether the last question was answered.
    pub up: bool,
}

/// What makes a link this front end's.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// The term in which that was found out.
    pub(super) term: Option<u64>,
    /// What it begins with, if it was another's before.
    pub(super) inherited: Option<Inherited>,
}

impl Replay {
    /// From here on, links belong to whom `agreement` says. To be called before the first claim.
    pub fn share(&mut self, agreement: Arc<dyn Agreement>) {
        self.agreement = Some(agreement);
    }

    /// What is agreed with others; `None` if there are none.
    pub fn agreement(&self) -> Option<&dyn Agreement> {
        self.agreement.as_deref()
    }

    /// The present term of this front end.
    pub(super) fn term(&self) -> Option<u64> {
        self.agreement.as_ref().and_then(|agreement| agreement.term())
    }

    /// Makes sure that the link of `request` is this front end's.
    pub(super) fn own(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<Owned, ClaimError> {
        let term = self.term();
        let owned = |inherited| Owned { term, inherited };
        let Some((agreement, wish)) = self.question(request, rules, now) else {
            return Ok(owned(None));
        };
        match agreement.claim(&wish) {
            Ok(Claimed::Inherited(inherited)) => {
                // What the table had of it was from before somebody else had it.
                self.lose_known(&wish, false);
                Ok(owned(Some(inherited)))
            }
            Ok(claimed) => {
                if claimed == Claimed::New && wish.known.is_some() {
                    agreement.changed(wish.key, When::Now);
                }
                Ok(owned(None))
            }
            Err(ClaimError::Away | ClaimError::Emptied(_)) if wish.goes_alone(rules) => {
                agreement.claimed_alone();
                Ok(owned(None))
            }
            Err(error) => Err(self.not_ours(&wish, rules, error)),
        }
    }

    /// Returns an error if the link of `request` is not this front end's and could not become it. A
    /// claim finds out by itself: this is for requests that claim nothing.
    ///
    /// # Errors
    /// As [`Replay::claim`].
    pub fn look(&self, request: &ClaimRequest, rules: &Rules, now: u64) -> Result<(), ClaimError> {
        let Some((agreement, wish)) = self.question(request, rules, now) else { return Ok(()) };
        match agreement.look(&wish) {
            Err(ClaimError::Away | ClaimError::Emptied(_)) if wish.goes_alone(rules) => Ok(()),
            result => result.map_err(|error| self.not_ours(&wish, rules, error)),
        }
    }

    /// What has to be asked before `request` is served, and of whom.
    fn question(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Option<(&dyn Agreement, Wish)> {
        let agreement = self.agreement.as_deref().filter(|_| rules.reuse != Reuse::Unlimited)?;
        let known = match self.entries.get(&request.key) {
            // What is spent is refused without a question.
            Some(entry) if entry.spent => return None,
            Some(entry) if entry.owned && agreement.term().is_some() => return None,
            entry => entry.map(|entry| entry.origin),
        };
        let once = rules.reuse == Reuse::Once;
        let window = if once { 0 } else { rules.window };
        let end = request.expires.max(now.saturating_add(window)).saturating_add(AFTERLIFE);
        let ClaimRequest { key, expired, client, .. } = *request;
        let (seconds, bind) = (end.saturating_sub(now), rules.bind);
        Some((agreement, Wish { key, seconds, now, once, expired, client, bind, known }))
    }

    /// Makes what an answer means of the table: a link that it has is another's.
    fn not_ours(&self, wish: &Wish, rules: &Rules, error: ClaimError) -> ClaimError {
        match error {
            // What nobody knows is not good for an expired token.
            ClaimError::Away | ClaimError::Emptied(_) if rules.alone => ClaimError::Expired,
            ClaimError::Away | ClaimError::Emptied(_) => error,
            _ => {
                self.lose_known(wish, error == ClaimError::Used(Used::Spent));
                error
            }
        }
    }

    /// Gives up the entry that was in the table when `wish` was made: the link was another's since.
    fn lose_known(&self, wish: &Wish, spent: bool) {
        if let Some(origin) = wish.known {
            self.lose(&wish.key, origin, spent);
        }
    }

    /// Gives up a link of the table that is another front end's, or is `spent` there, unless its entry
    /// is a newer one than that of `origin`. Its streams end. Returns how many those are.
    fn lose(&self, key: &Key, origin: u64, spent: bool) -> usize {
        let super::Slot::Occupied(mut slot) = self.entries.entry(*key) else { return 0 };
        let entry = slot.get_mut();
        if entry.origin != origin || (spent && entry.spent) {
            return 0;
        }
        let streams = entry.grant.as_mut().map_or(0, |grant| grant.give_up());
        entry.sequence += 1;
        if spent {
            entry.spend();
            // The others know.
            let _ = entry.news();
            self.publish(self.update(slot.into_ref()));
        } else {
            (entry.grant, entry.spent) = (None, false);
            let line = super::line::format(key, entry);
            // First, so that the link comes again above it, if it does.
            self.forget(slot.get());
            slot.remove();
            self.write(&line);
        }
        streams
    }
}

/// What only the keeper asks of the table.
#[cfg(feature = "shared-state")]
impl Replay {
    /// The links of the table.
    pub(super) fn links(&self) -> Vec<Key> {
        self.entries.iter().map(|entry| *entry.key()).collect()
    }

    /// What the others are told of a link; `None` if the table does not know it.
    fn standing(&self, key: &Key, window: u64, now: u64) -> Option<standing::Standing> {
        self.entries.get_mut(key).map(|mut entry| entry.standing(window, now))
    }

    /// Notes that the link is this front end's.
    pub(super) fn keep(&self, key: &Key) {
        if let Some(mut entry) = self.entries.get_mut(key) {
            entry.owned = true;
        }
    }

    /// Lets go of the links that are neither spent nor in use. They are asked for before they are used
    /// again.
    pub(super) fn let_go(&self) -> Vec<Key> {
        let idle = |entry: &super::Entry| {
            entry.owned && entry.grant.as_ref().is_some_and(|grant| grant.streams.is_empty())
        };
        let idle = self.entries.iter_mut().filter(|entry| idle(entry));
        idle.map(|mut entry| {
            entry.owned = false;
            *entry.key()
        })
        .collect()
    }

    /// Returns true if the link is this front end's.
    pub(super) fn owns(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.owned)
    }

    /// Running streams of all links.
    pub(super) fn streams(&self) -> usize {
        let grants = |entry: &super::Entry| entry.grant.as_ref().map_or(0, |g| g.streams.len());
        self.entries.iter().map(|entry| grants(&entry)).sum()
    }
}

#[cfg(test)]
mod tests;
