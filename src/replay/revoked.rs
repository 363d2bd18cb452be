//! Links that were revoked: one by one, or those of a server, of a user, or all that existed then.
//!
//! A revocation is remembered until no link that it is about could be used any more. Their number is
//! bounded: whoever revokes more of them one by one is told so, and revokes a server or everything.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use dashmap::DashMap;

use super::line::{hex, seal, unhex, unsealed};
use super::{AFTERLIFE, Key, LinkId, Replay};

/// Revocations at a time.
pub const MAX_REVOCATIONS: usize = 4096;

/// Which links are revoked: those that have all that is named here. If nothing is, every link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// One link.
    pub link: Option<Key>,
    /// The links of a server.
    pub server: Option<Key>,
    /// The links of a user.
    pub user: Option<Key>,
}

impl Target {
    /// Returns true if this applies to every link.
    pub fn is_all(&self) -> bool {
        *self == Target::default()
    }

    /// Returns true if this applies to the link of `id`. One that names no server may be any server's.
    pub fn names(&self, id: &LinkId) -> bool {
        self.link.is_none_or(|link| link == id.link)
            && (self.server.is_none() || id.server.is_none() || self.server == id.server)
            && (self.user.is_none() || self.user == id.user || self.user == id.jti)
    }

    /// Returns true if this applies to every link that `other` applies to.
    fn includes(&self, other: &Target) -> bool {
        let includes = |ours: Option<Key>, theirs| ours.is_none() || ours == theirs;
        includes(self.link, other.link)
            && includes(self.server, other.server)
            && includes(self.user, other.user)
    }
}

/// Until when which tokens are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Tokens with a later `iat` are not meant, in seconds since the epoch.
    pub issued: u64,
    /// No token that is meant can be used from here on, in seconds since the epoch.
    pub end: u64,
}

impl Revocation {
    /// Returns true if this applies to a token with this `iat`.
    pub fn covers(&self, issued: Option<u64>) -> bool {
        issued.is_none_or(|issued| issued <= self.issued)
    }
}

/// There are [`MAX_REVOCATIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// A revocation, and by how much the system's clock is ahead of the table's own, for all it knows.
type Known = (Revocation, u64);

/// All revocations in force.
#[derive(Debug, Default)]
pub(super) struct Revocations(DashMap<Target, Known>);

impl Revocations {
    /// Adds one. Those that it makes superfluous go; the later of two for one target holds.
    pub(super) fn add(&self, target: Target, new: Revocation, skew: u64) -> Result<(), TooMany> {
        let old = self.0.get(&target).map(|known| known.0);
        let stays = |other: &Target, (old, _): &Known| {
            !target.includes(other) || old.issued > new.issued || old.end > new.end
        };
        let count = self.0.iter().filter(|known| stays(known.key(), known)).count();
        // There is one for everything at most, so that it needs no place.
        if old.is_none() && !target.is_all() && count >= MAX_REVOCATIONS {
            return Err(TooMany);
        }
        let old = old.unwrap_or(new);
        let joined = Revocation { issued: old.issued.max(new.issued), end: old.end.max(new.end) };
        // In this order, so that no link is free in between.
        self.0.insert(target, (joined, skew));
        self.0.retain(|other, known| *other == target || stays(other, known));
        Ok(())
    }

    /// Returns true if the link of `id` is revoked.
    pub(super) fn has(&self, id: &LinkId) -> bool {
        if id.server.is_none() {
            let names =
                |known: &Known, target: &Target| target.names(id) && known.0.covers(id.issued);
            return self.0.iter().any(|known| names(&known, known.key()));
        }
        // What a link does not have is `None`, which makes one target another of the list.
        let link = Target { link: Some(id.link), ..Target::default() };
        let users = [None, id.user, id.jti];
        let others = users.iter().flat_map(|&user| {
            [None, id.server].map(|server| Target { user, server, ..Target::default() })
        });
        std::iter::once(link)
            .chain(others)
            .any(|target| self.0.get(&target).is_some_and(|known| known.0.covers(id.issued)))
    }

    /// Removes those that are over; `time` says what time it is for one with this skew.
    pub(super) fn sweep(&self, time: impl Fn(u64) -> u64) {
        self.0.retain(|_, (known, skew)| time(*skew) < known.end);
    }

    /// A line of the journal for each.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|known| format(known.key(), &known.0)).collect()
    }
}

impl Replay {
    /// Revokes at `now` what `target` names: in memory at once, and then in the journal. Returns true
    /// if the journal has it.
    ///
    /// # Errors
    /// If there are [`MAX_REVOCATIONS`].
    pub fn revoke(&self, target: Target, known: Revocation, now: u64) -> Result<bool, TooMany> {
        let skew = now.wrapping_sub(self.steady.load(Ordering::Relaxed));
        self.revocations.add(target, known, skew)?;
        Ok(self.write(&format(&target, &known)))
    }

    /// Returns true if the link of `id` is revoked: the one rule for all who ask.
    pub fn is_revoked(&self, id: &LinkId) -> bool {
        self.revocations.has(id)
    }

    /// Revocations in force.
    pub fn revocations(&self) -> usize {
        self.revocations.0.len()
    }

    /// Takes over what the journal remembers, at `now`.
    pub(super) fn recall(&self, mut remembered: Vec<(Target, Revocation)>, now: u64) {
        // If there are more than may be, those that are over make room.
        remembered.sort_by_key(|(_, known)| std::cmp::Reverse(known.end));
        let mut lost = 0;
        for (target, known) in remembered {
            // What seems to be over stays for an hour: the clock may be wrong yet.
            let skew = known.end.saturating_sub(AFTERLIFE).min(now).wrapping_sub(now);
            let added = self.revocations.add(target, known, skew);
            lost += usize::from(added.is_err() && known.end > now);
        }
        if lost > 0 {
            log::error!(
                "state_directory: the journal has {lost} revocations more than are remembered; the links that they are about work again"
            );
        }
    }
}

/// The journal's line for a revocation, line break included.
pub(super) fn format(target: &Target, known: &Revocation) -> String {
    let key = |key: Option<Key>| key.map_or_else(|| "-".to_owned(), |key| hex(&key));
    let mut line = String::with_capacity(160);
    let (link, server, user) = (key(target.link), key(target.server), key(target.user));
    let _ = write!(line, "revoked {link} {server} {user} {} {}", known.issued, known.end);
    seal(line)
}

/// Reads a line without its line break; `None` if it is torn or none of these.
pub(super) fn parse(line: &str) -> Option<(Target, Revocation)> {
    let mut words = unsealed(line)?.strip_prefix("revoked ")?.split(' ');
    let mut key = || match words.next()? {
        "-" => Some(None),
        text => unhex(text).map(Some),
    };
    let target = Target { link: key()?, server: key()?, user: key()? };
    let known =
        Revocation { issued: words.next()?.parse().ok()?, end: words.next()?.parse().ok()? };
    Some((target, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const ID: LinkId = LinkId {
        link: [1; 16],
        server: Some([2; 16]),
        user: Some([3; 16]),
        jti: Some([4; 16]),
        issued: Some(NOW),
    };

    fn until(issued: u64) -> Revocation {
        Revocation { issued, end: issued.saturating_add(100) }
    }

    #[test]
    fn each_kind_is_about_its_own_links() {
        let none = Target::default();
        let targets = [
            (none, true),
            (Target { link: Some([1; 16]), ..none }, true),
            (Target { link: Some([9; 16]), ..none }, false),
            (Target { server: Some([2; 16]), ..none }, true),
            (Target { server: Some([9; 16]), ..none }, false),
            (Target { user: Some([3; 16]), ..none }, true),
            (Target { user: Some([9; 16]), ..none }, false),
            (Target { user: Some([3; 16]), server: Some([2; 16]), ..none }, true),
            (Target { user: Some([3; 16]), server: Some([9; 16]), ..none }, false),
            (Target { user: Some([4; 16]), ..none }, true),
            (Target { user: Some([4; 16]), server: Some([2; 16]), ..none }, true),
            (Target { user: Some([4; 16]), server: Some([9; 16]), ..none }, false),
        ];
        for (target, named) in targets {
            let all = Revocations::default();
            all.add(target, until(NOW), 0).unwrap();
            assert_eq!((all.has(&ID), target.names(&ID)), (named, named), "{target:?}");
            // Nobody is named by a token without a user.
            let anonymous = LinkId { user: None, jti: None, ..ID };
            assert_eq!(all.has(&anonymous), named && target.user.is_none(), "{target:?}");
            // A token without a server may be for any.
            let anywhere = LinkId { server: None, ..ID };
            let named = named || target.server.is_some();
            assert_eq!((all.has(&anywhere), target.names(&anywhere)), (named, named), "{target:?}");
        }
    }

    #[test]
    fn what_is_over_makes_room_for_what_is_in_force() {
        let replay = Replay::in_memory(10);
        let revoked = |number: u64, end| {
            let mut link = [0; 16];
            link[..8].copy_from_slice(&number.to_le_bytes());
            (Target { link: Some(link), ..Target::default() }, Revocation { issued: NOW, end })
        };
        let count = MAX_REVOCATIONS as u64;
        let over = (0..count).map(|number| revoked(number, NOW - 86_400));
        let remembered = over.chain((count..count + 100).map(|number| revoked(number, NOW + 100)));
        replay.recall(remembered.collect(), NOW);
        for number in count..count + 100 {
            let link = revoked(number, 0).0.link.unwrap();
            assert!(replay.is_revoked(&LinkId { link, ..ID }), "{number}");
        }
    }

    #[test]
    fn what_was_issued_later_is_not_meant() {
        let all = Revocations::default();
        all.add(Target::default(), until(NOW), 0).unwrap();
        for (issued, revoked) in [(None, true), (Some(NOW), true), (Some(NOW + 1), false)] {
            assert_eq!(all.has(&LinkId { issued, ..ID }), revoked, "{issued:?}");
        }
        all.add(Target::default(), until(NOW - 50), 0).unwrap();
        assert!(all.has(&ID), "an earlier one takes nothing back");
    }

    #[test]
    fn their_number_is_bounded_and_everything_is_always_possible() {
        let all = Revocations::default();
        let key = |number: usize| Some((number as u128).to_be_bytes());
        for number in 0..MAX_REVOCATIONS {
            let target = Target { server: key(number), ..Target::default() };
            all.add(target, until(NOW), 0).unwrap();
        }
        let more = Target { user: key(1), ..Target::default() };
        assert_eq!(all.add(more, until(NOW), 0), Err(TooMany));
        let known = Target { server: key(5), ..Target::default() };
        all.add(known, until(NOW + 1), 0).unwrap();
        all.add(Target::default(), until(NOW), 0).unwrap();
        assert_eq!(all.0.len(), 2, "the others say nothing more");
        all.sweep(|_| NOW + 100);
        assert_eq!(all.0.len(), 1);
    }

    #[test]
    fn a_line_is_read_back_and_a_torn_one_is_not() {
        let target = Target { server: Some([2; 16]), ..Target::default() };
        let line = format(&target, &until(NOW));
        let line = line.trim_end();
        assert_eq!(parse(line), Some((target, until(NOW))));
        for end in 0..line.len() {
            assert_eq!(parse(&line[..end]), None);
        }
    }
}
