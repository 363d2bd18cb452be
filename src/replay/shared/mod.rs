//! One link is one link on all front ends over one storage: who of them owns it.
//!
//! The table asks an [`Agreement`] before it lets in a link that it does not own, and tells it what
//! is spent; progress stays with the owner. Without one, every link is its own. No question is asked
//! under a guard of the table.

#[cfg(feature = "shared-state")]
mod connection;
#[cfg(feature = "shared-state")]
mod keeper;
#[cfg(feature = "shared-state")]
mod redis;
#[cfg(feature = "shared-state")]
mod tasks;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "shared-state")]
pub use keeper::Membership;
#[cfg(feature = "shared-state")]
pub use redis::{Owner, Redis};

use super::{AFTERLIFE, ClaimError, ClaimRequest, Key, Replay, Rules};
use crate::config::Reuse;
#[cfg(feature = "shared-state")]
use crate::link::token::Used;

/// What front ends agree on.
pub trait Agreement: fmt::Debug + Send + Sync {
    /// Makes a link this front end's, if it is nobody's, or its owner is gone.
    ///
    /// # Errors
    /// [`ClaimError::Elsewhere`], [`ClaimError::Away`], or that it is spent or expired.
    fn claim(&self, wish: &Wish) -> Result<(), ClaimError>;

    /// Whether [`Agreement::claim`] would make the link this front end's, changing nothing.
    ///
    /// # Errors
    /// As there.
    fn look(&self, wish: &Wish) -> Result<(), ClaimError>;

    /// Passes on that a link is spent, without waiting.
    fn spent(&self, key: Key);

    /// A link was claimed without the others, who are to know of it as soon as can be.
    fn claimed_alone(&self);

    /// What this front end is called.
    fn name(&self) -> &str;

    /// What has happened so far.
    fn counts(&self) -> Counts;
}

/// A link that somebody wants to own.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Which link.
    pub key: Key,
    /// For how many seconds the claim is remembered.
    pub seconds: u64,
    /// The claim spends it.
    pub once: bool,
    /// Its token has expired: only a link that was claimed before is still good.
    pub expired: bool,
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

impl Replay {
    /// From here on, links belong to whom `agreement` says. To be called before the first claim.
    pub fn share(&mut self, agreement: Arc<dyn Agreement>) {
        self.agreement = Some(agreement);
    }

    /// What is agreed with others; `None` if there are none.
    pub fn agreement(&self) -> Option<&dyn Agreement> {
        self.agreement.as_deref()
    }

    /// Makes sure that the link of `request` is this front end's.
    pub(super) fn own(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<(), ClaimError> {
        let agreed = |agreement: &dyn Agreement, wish: &Wish| agreement.claim(wish);
        self.agree(request, rules, now, agreed)
    }

    /// Whether the link of `request` is this front end's or could become it. A claim finds out by
    /// itself: this is for requests that claim nothing.
    ///
    /// # Errors
    /// As [`Replay::claim`].
    pub fn look(&self, request: &ClaimRequest, rules: &Rules, now: u64) -> Result<(), ClaimError> {
        let agreed = |agreement: &dyn Agreement, wish: &Wish| agreement.look(wish);
        self.agree(request, rules, now, agreed)
    }

    fn agree(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        agreed: impl Fn(&dyn Agreement, &Wish) -> Result<(), ClaimError>,
    ) -> Result<(), ClaimError> {
        let Some(agreement) = self.agreement.as_deref() else { return Ok(()) };
        // What is spent is refused without a question.
        let known = |key| self.entries.get(key).is_some_and(|entry| entry.owned || entry.spent);
        if rules.reuse == Reuse::Unlimited || known(&request.key) {
            return Ok(());
        }
        let once = rules.reuse == Reuse::Once;
        let window = if once { 0 } else { rules.window };
        let end = request.expires.max(now.saturating_add(window)).saturating_add(AFTERLIFE);
        let seconds = end.saturating_sub(now);
        let wish = Wish { key: request.key, seconds, once, expired: request.expired };
        match agreed(agreement, &wish) {
            Err(ClaimError::Away) if rules.alone && request.expired => Err(ClaimError::Expired),
            Err(ClaimError::Away) if rules.alone => {
                agreement.claimed_alone();
                Ok(())
            }
            result => result,
        }
    }

    /// Tells the others that a link is spent.
    pub(super) fn tell_spent(&self, key: Key) {
        if let Some(agreement) = &self.agreement {
            agreement.spent(key);
        }
    }
}

/// What only the keeper asks of the table.
#[cfg(feature = "shared-state")]
impl Replay {
    /// The links of the table.
    pub(super) fn links(&self) -> Vec<Key> {
        self.entries.iter().map(|entry| *entry.key()).collect()
    }

    /// Whether a link is spent, and for how many seconds from `now` it is remembered. `None` if the
    /// table does not know it.
    pub(super) fn standing(&self, key: &Key, window: u64, now: u64) -> Option<(bool, u64)> {
        let entry = self.entries.get(key)?;
        let end = entry.end(window);
        // One with a stream has no end yet.
        let end = if end == u64::MAX { now + window + AFTERLIFE } else { end };
        Some((entry.spent, end.saturating_sub(now).max(1)))
    }

    /// Notes that the link is this front end's.
    pub(super) fn keep(&self, key: &Key) {
        if let Some(mut entry) = self.entries.get_mut(key) {
            entry.owned = true;
        }
    }

    /// Notes that another front end has taken the link over: who asks for it next is sent there.
    /// Running streams go on.
    pub(super) fn lose(&self, key: &Key) {
        if let Some(mut entry) = self.entries.get_mut(key) {
            entry.owned = false;
        }
        let idle = |entry: &super::Entry| {
            !entry.spent && entry.grant.as_ref().is_none_or(|grant| grant.streams.is_empty())
        };
        if let Some((_, entry)) = self.entries.remove_if(key, |_, entry| idle(entry)) {
            self.servers().entry(entry.server).and_modify(|links| *links -= 1);
        }
    }
}

/// What the shared state's word for a link means to a front end that is called `node`.
#[cfg(feature = "shared-state")]
fn verdict(owner: &str, node: &str) -> Result<(), ClaimError> {
    match owner {
        SPENT => Err(ClaimError::Used(Used::Spent)),
        _ if owner == node => Ok(()),
        _ => Err(ClaimError::Elsewhere(owner.into())),
    }
}

/// What stands in place of an owner's name once a link is spent.
#[cfg(feature = "shared-state")]
const SPENT: &str = "spent";

#[cfg(test)]
mod tests;
