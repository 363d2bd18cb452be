//! The table of used links: who may use a link, and when it is spent.
//!
//! Check and claim are one atomic step on the map's entry. No I/O happens under a map guard: what
//! goes to the journal is formatted there and written after. The table is bounded, and nothing
//! live is ever evicted: if it is full, new links are turned away.

mod entry;
mod grant;
mod journal;
mod line;
pub mod live;
mod revoked;
pub mod shared;
pub mod spans;
mod stream;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use dashmap::mapref::one::RefMut;

use entry::Entry;
pub use entry::{ClaimError, ClaimRequest, LinkStatus, Rules, Seen};
use grant::HANDOVER;
pub use grant::{EndedBy, MAX_STREAMS, STEP_BYTES};
use journal::Journal;
pub use journal::{JournalState, make_directory};
use live::Live;
use revoked::Revocations;
pub use revoked::{MAX_REVOCATIONS, Revocation, Target, TooMany};
use shared::{Agreement, When};
pub use stream::{Finished, Progress, Stream};

use crate::config::Reuse;
use crate::error::StartError;
pub use crate::link::identity::{Key, LinkId, hash_of, key_of, user_key};

/// An entry, with the map's guard over it.
type Guarded<'a> = RefMut<'a, Key, Entry>;

/// Entries outlive their use by this much, against clocks that step back; seconds.
pub const AFTERLIFE: u64 = 3600;
/// If the clock moves by more than this between two looks, it has leapt; seconds.
const LEAP: u64 = 60;
/// The table is swept this often; seconds.
const SWEEP: u64 = 60;
/// One server's links take at most this part of the table.
const SHARE: usize = 4;

/// The table.
#[derive(Debug, Default)]
pub struct Replay {
    entries: DashMap<Key, Entry>,
    /// How many of them each server has. A node has hundreds of servers, so that adding up is cheap.
    servers: Mutex<HashMap<Key, usize>>,
    /// How many there may be.
    bound: usize,
    /// No entry that has left the table had a higher number, so that those which come begin here: of a
    /// link that comes again, what was written before must not hold.
    floor: AtomicU64,
    revocations: Revocations,
    journal: Option<Journal>,
    /// Who else may own a link; `None` if nobody.
    agreement: Option<Arc<dyn Agreement>>,
    /// The system's clock when it was last looked at; 0 before the first look.
    clock: AtomicU64,
    /// The table's own: that clock without its leaps.
    steady: AtomicU64,
}

impl Replay {
    /// An empty table for at most `bound` links, in memory.
    pub fn in_memory(bound: usize) -> Replay {
        Replay { bound, ..Replay::default() }
    }

    /// The table with what the journal in `directory` remembers, which it keeps up from here on. A
    /// disk that is full or cannot be written to costs an error in the log and what is not written.
    ///
    /// # Errors
    /// If another server holds the directory, or the journal is there and cannot be read.
    pub fn with_journal(
        bound: usize,
        directory: &Path,
        rules: &Rules,
        now: u64,
    ) -> Result<Replay, StartError> {
        let journal = Journal::open(directory)?;
        let mut replay = Replay::read_only(bound, directory, rules, now)?;
        for mut entry in replay.entries.iter_mut() {
            if let Some(grant) = entry.grant.as_mut().filter(|grant| grant.runs()) {
                // The server that had its streams is gone, and they with it.
                (grant.ended, grant.broke) = (now, true);
            }
        }
        replay.rewrite(&journal);
        replay.journal = Some(journal);
        Ok(replay)
    }

    /// The table as the journal in `directory` has it, for looking at: nothing is locked or written.
    ///
    /// # Errors
    /// If the journal is there and cannot be read.
    pub fn read_only(
        bound: usize,
        directory: &Path,
        rules: &Rules,
        now: u64,
    ) -> Result<Replay, StartError> {
        let (clock, steady) = (now.into(), now.into());
        let replay = Replay { bound, clock, steady, ..Replay::default() };
        let (links, revoked) = journal::read(directory)?;
        replay.recall(revoked, now);
        links.iter().for_each(|(_, entry)| replay.raise_floor(entry.sequence));
        let is_ours = |entry: &Entry| entry.spent || entry.grant.is_some();
        let links = links.into_iter().filter(|(_, entry)| is_ours(entry));
        let (live, over): (Vec<_>, Vec<_>) =
            links.partition(|(_, entry)| entry.end(rules.window) > now);
        // What seems to be over stays for an hour if there is room: the clock may be wrong yet.
        let room = (bound / 2).saturating_sub(live.len());
        for (key, mut entry) in live.into_iter().chain(over.into_iter().take(room)) {
            let last_use = entry.end(rules.window) - AFTERLIFE;
            entry.skew = last_use.min(now).wrapping_sub(now);
            if let Some(grant) = &mut entry.grant {
                let quiet = now.saturating_sub(grant.ended).min(HANDOVER.as_secs());
                grant.heard = Instant::now().checked_sub(Duration::from_secs(quiet));
                if !grant.runs() {
                    grant.ended = grant.ended.min(now);
                }
            }
            *replay.servers().entry(entry.server).or_default() += 1;
            replay.entries.insert(key, entry);
        }
        Ok(replay)
    }

    /// Links that are tracked now.
    pub fn tracked(&self) -> usize {
        self.servers().values().sum()
    }

    /// Judges whether `request` could be claimed now, binding and spending nothing. Returns what its
    /// link has been used for.
    ///
    /// # Errors
    /// As [`Replay::claim`].
    pub fn check(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<Seen, ClaimError> {
        if rules.reuse == Reuse::Unlimited {
            return if request.expired { Err(ClaimError::Expired) } else { Ok(Seen::default()) };
        }
        let Some(entry) = self.entries.get_mut(&request.key) else {
            return self.has_place(request, &self.servers()).map(|()| Seen::default());
        };
        self.admit(entry, request, rules, now).map(|(_, seen)| seen)
    }

    /// Claims the bytes of `live` in a file of `length` bytes for `request`. The stream that comes
    /// back has its first [`STEP_BYTES`] reserved; `None` means that nothing is to be accounted for.
    ///
    /// # Errors
    /// [`ClaimError`] if the link is used up, held by another client or expired, has too many
    /// streams, does not fit into the table, or is another front end's.
    pub fn claim(
        self: &Arc<Self>,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        length: u64,
        live: &Arc<Live>,
    ) -> Result<Option<Stream>, ClaimError> {
        if rules.reuse == Reuse::Unlimited {
            return self.check(request, rules, now).map(|_| None);
        }
        debug_assert_eq!(request.key, live.link.link);
        let owned = self.own(request, rules, now)?;
        let slot = self.entries.entry(request.key);
        // It may have been lost since. From here on, whoever finds that out finds this entry.
        if self.term() != owned.term {
            return Err(ClaimError::Away);
        }
        let mut entry = match slot {
            Slot::Occupied(slot) => self.admit(slot.into_ref(), request, rules, now)?.0,
            Slot::Vacant(slot) => {
                let mut servers = self.servers();
                self.has_place(request, &servers)?;
                let entry = self.begin(request, rules, now, owned, (live, length))?;
                *servers.entry(request.server).or_default() += 1;
                slot.insert(entry)
            }
        };
        entry.owned = true;
        let stream = entry.grant.as_mut().map(|grant| {
            grant.claim(request, rules.bind, live, length);
            Stream::new(self, live)
        });
        self.change(entry);
        Ok(stream)
    }

    /// Judges `request`. Nobody is told that a link is used up before the journal has it.
    fn admit<'a>(
        &self,
        mut entry: Guarded<'a>,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<(Guarded<'a>, Seen), ClaimError> {
        let time = self.time(entry.skew, now);
        if let (Some(agreement), Some(grant)) = (&self.agreement, &mut entry.grant) {
            grant.recognise(request.client, |client| agreement.mark(client));
        }
        match entry.admits(request, rules, time) {
            Ok(seen) => Ok((entry, seen)),
            Err(error) => {
                if matches!(error, ClaimError::Used(_)) && entry.written < entry.sequence {
                    self.publish(self.update(entry));
                }
                Err(error)
            }
        }
    }

    /// Judges whether a link that was never used may come in.
    fn has_place(
        &self,
        request: &ClaimRequest,
        servers: &HashMap<Key, usize>,
    ) -> Result<(), ClaimError> {
        let share = (self.bound / SHARE).max(1);
        match servers.get(&request.server) {
            // If it was used at another front end, it is good beyond its `exp`: `own` finds out.
            _ if request.expired && self.agreement.is_none() => Err(ClaimError::Expired),
            _ if servers.values().sum::<usize>() >= self.bound => Err(ClaimError::TableFull),
            Some(links) if *links >= share => Err(ClaimError::TableFull),
            _ => Ok(()),
        }
    }

    /// What is known about a link.
    pub fn status(&self, key: &Key, rules: &Rules, now: u64) -> LinkStatus {
        let status = |entry: &Entry| entry.status(rules, self.time(entry.skew, now));
        self.entries.get(key).map_or(LinkStatus::Unused, |entry| status(&entry))
    }

    /// Returns true if a link was begun and is not spent yet.
    pub fn is_open(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| !entry.spent)
    }

    /// Looks at the clock, removes what has expired, and rewrites the journal if that is due: called
    /// about once a second.
    pub fn maintain(&self, rules: &Rules, now: u64) {
        let before = self.clock.swap(now, Ordering::Relaxed);
        // What its ticking does not explain is no time that has passed.
        let passed = if before == 0 { 0 } else { now.saturating_sub(before).min(LEAP) };
        let steady = self.steady.fetch_add(passed, Ordering::Relaxed) + passed;
        if steady % SWEEP < passed {
            self.sweep(rules, now);
        }
        if let Some(journal) = self.journal.as_ref().filter(|j| j.wants_rewrite(steady)) {
            self.rewrite(journal);
        }
    }

    /// Removes what is over.
    fn sweep(&self, rules: &Rules, now: u64) {
        self.entries.retain(|_, entry| {
            let over = self.time(entry.skew, now) >= entry.end(rules.window);
            if over {
                self.forget(entry);
            }
            !over
        });
        self.servers().retain(|_, links| *links > 0);
        self.revocations.sweep(|skew| self.time(skew, now));
    }

    /// Accounts for an entry that is about to leave the table.
    fn forget(&self, entry: &Entry) {
        self.servers().entry(entry.server).and_modify(|links| *links -= 1);
        self.raise_floor(entry.sequence);
    }

    fn raise_floor(&self, sequence: u64) {
        self.floor.fetch_max(sequence, Ordering::AcqRel);
    }

    fn rewrite(&self, journal: &Journal) {
        // Not before the first one is asked for: from then on, new lines go to the new file as well.
        let keys = std::iter::once_with(|| {
            self.entries.iter().map(|entry| *entry.key()).collect::<Vec<Key>>()
        });
        let lines =
            keys.flatten().filter_map(|key| Some(line::format(&key, &*self.entries.get(&key)?)));
        let revoked = std::iter::once_with(|| self.revocations.lines()).flatten();
        let count = self.tracked() + self.revocations();
        let time = self.steady.load(Ordering::Relaxed);
        journal.rewrite(time, count as u64, lines.chain(revoked));
    }

    /// The time for an entry with this skew: what the system's clock says, without any leap ahead that
    /// it has made since the entry came.
    fn time(&self, skew: u64, now: u64) -> u64 {
        now.min(self.steady.load(Ordering::Relaxed).wrapping_add(skew))
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers the new state of an entry that has changed, and tells all who have to know.
    fn change(&self, mut entry: Guarded<'_>) {
        entry.sequence += 1;
        self.publish(self.update(entry));
    }

    /// Lets go of an entry that has changed, and returns what has to become known of it: the one
    /// place where that is found out, as [`Replay::publish`] is where it is told.
    fn update(&self, mut entry: Guarded<'_>) -> Update {
        let (key, sequence) = (*entry.key(), entry.sequence);
        let line = self.journal.as_ref().map(|_| line::format(&key, &entry));
        let news = self.agreement.as_ref().and_then(|_| entry.news());
        Update { key, sequence, line, news }
    }

    /// Tells the journal, then the other front ends.
    fn publish(&self, update: Update) {
        let Update { key, sequence, line, news } = update;
        if let Some(line) = line {
            self.write(&line);
            // Also if it could not be written: the next rewrite does.
            if let Some(mut entry) = self.entries.get_mut(&key) {
                entry.written = entry.written.max(sequence);
            }
        }
        if let (Some(agreement), Some(when)) = (&self.agreement, news) {
            agreement.changed(key, when);
        }
    }

    /// Tracked links that are spent, counted by looking at all.
    pub fn spent(&self) -> usize {
        self.entries.iter().filter(|entry| entry.spent).count()
    }

    /// How the journal is, if there is one.
    pub fn journal(&self) -> Option<JournalState> {
        self.journal.as_ref().map(Journal::state)
    }

    /// Appends `line` to the journal. Returns true once it is in the file.
    fn write(&self, line: &str) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.append(line))
    }
}

/// What has become known of a link by a change of its entry.
#[derive(Debug)]
#[must_use = "nobody knows of it yet"]
struct Update {
    key: Key,
    /// The number of the state that `line` has.
    sequence: u64,
    /// The line for the journal, if there is one.
    line: Option<String>,
    /// When the other front ends have to know of it, if they have.
    news: Option<When>,
}

/// Checks that the journal in `directory` can be read, if there is one.
///
/// # Errors
/// What is wrong with it, and the remedy.
pub fn check_directory(directory: &Path) -> Result<(), StartError> {
    journal::read(directory).map(drop)
}

#[cfg(test)]
pub(crate) mod tests;
