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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use dashmap::mapref::one::RefMut;

use entry::Entry;
pub use entry::{ClaimError, ClaimRequest, LinkStatus, Rules};
pub use grant::{EndedBy, MAX_STREAMS, STEP_BYTES};
use journal::{Journal, Remembered};
pub use journal::{JournalState, make_directory};
use live::Live;
use revoked::Revocations;
pub use revoked::{LinkId, MAX_REVOCATIONS, Revocation, Target, TooMany, user_key};
use shared::Agreement;
pub use stream::{Finished, Progress, Stream};

use crate::config::Reuse;
use crate::error::StartError;
use crate::link::storage::EntityTag;
use crate::link::token::Resource;

/// A hash of what must not be kept in the clear: a link's `unique_id`, a server.
pub type Key = [u8; 16];

/// An entry that may be used, with the map's guard over it.
type Admitted<'a> = Result<RefMut<'a, Key, Entry>, ClaimError>;

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
    /// How many of them are spent.
    spent: AtomicUsize,
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
        let Remembered { links, revoked } = journal::read(directory)?;
        replay.recall(revoked, now);
        let links = links.into_iter();
        let (live, over): (Vec<_>, Vec<_>) =
            links.partition(|(_, entry)| entry.end(rules.window) > now);
        // What seems to be over stays for an hour if there is room: the clock may be wrong yet.
        let room = (bound / 2).saturating_sub(live.len());
        for (key, mut entry) in live.into_iter().chain(over.into_iter().take(room)) {
            let last_use = entry.end(rules.window) - AFTERLIFE;
            entry.skew = last_use.min(now).wrapping_sub(now);
            if let Some(grant) = &mut entry.grant {
                grant.ended = grant.ended.min(now);
            }
            *replay.servers().entry(entry.server).or_default() += 1;
            replay.count(&mut entry);
            replay.entries.insert(key, entry);
        }
        Ok(replay)
    }

    /// Links that are tracked now.
    pub fn tracked(&self) -> usize {
        self.servers().values().sum()
    }

    /// Whether `request` could be claimed now, binding and spending nothing. Returns the version of
    /// the file at the link's last stream, if it was used before and is accounted for.
    ///
    /// # Errors
    /// As [`Replay::claim`].
    pub fn check(
        &self,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
    ) -> Result<Option<EntityTag>, ClaimError> {
        if rules.reuse == Reuse::Unlimited {
            return if request.expired { Err(ClaimError::Expired) } else { Ok(None) };
        }
        let Some(mut entry) = self.entries.get_mut(&request.key) else {
            return self.has_place(request, &self.servers()).map(|()| None);
        };
        let (spent, time) = (entry.spent, self.time(&entry, now));
        let admitted = entry.admits(request, rules, time).map(Some);
        if entry.spent != spent {
            self.write(self.line(entry));
            self.tell_spent(request.key);
        }
        admitted
    }

    /// Claims the bytes that `live` asks for, of a file of `length` bytes, for `request`. The stream that comes back has its first
    /// [`STEP_BYTES`] reserved; `None` means that nothing is to be accounted for.
    ///
    /// # Errors
    /// [`ClaimError`] if the link is used up, bound to another client or expired, has too many
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
        self.own(request, rules, now)?;
        let mut entry = self.entry(request, rules, now)?;
        entry.owned = true;
        let started = entry.grant.as_mut().map(|grant| {
            grant.hold(request.client, rules.bind);
            grant.start(live, length);
            Arc::clone(live)
        });
        self.write(self.line(entry));
        let (replay, key) = (Arc::clone(self), request.key);
        Ok(started.map(|live| Stream { replay, key, live, ended: false }))
    }

    /// The entry for a request that may use it; a new one takes its place in the table.
    fn entry(&self, request: &ClaimRequest, rules: &Rules, now: u64) -> Admitted<'_> {
        match self.entries.entry(request.key) {
            Slot::Occupied(mut slot) => {
                let time = self.time(slot.get(), now);
                slot.get_mut().admits(request, rules, time)?;
                Ok(slot.into_ref())
            }
            Slot::Vacant(slot) => {
                let mut servers = self.servers();
                self.has_place(request, &servers)?;
                *servers.entry(request.server).or_default() += 1;
                let skew = now.wrapping_sub(self.steady.load(Ordering::Relaxed));
                Ok(slot.insert(Entry::new(request, rules, now, skew)))
            }
        }
    }

    /// Whether a link that was never used may come in.
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
            Some(links) if *links >= share => Err(ClaimError::ServerShare),
            _ => Ok(()),
        }
    }

    /// What is known about a link.
    pub fn status(&self, key: &Key, rules: &Rules, now: u64) -> LinkStatus {
        self.entries.get_mut(key).map_or(LinkStatus::Unused, |mut entry| {
            let time = self.time(&entry, now);
            entry.settle(rules, time);
            entry.status(rules)
        })
    }

    /// Whether a link was begun and is not spent yet. Settles nothing.
    pub fn is_open(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| !entry.spent)
    }

    /// Looks at the clock, removes what has expired, and rewrites the journal if that is due.
    /// Called about once a second.
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
            let over = self.time(entry, now) >= entry.end(rules.window);
            if over {
                self.spent.fetch_sub(usize::from(entry.counted), Ordering::Relaxed);
                self.servers().entry(entry.server).and_modify(|links| *links -= 1);
            }
            !over
        });
        self.servers().retain(|_, links| *links > 0);
        self.revocations.sweep(|skew| self.time_with(skew, now));
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

    /// The time for `entry`: what the system's clock says, without any leap ahead that it has made
    /// since the entry came.
    fn time(&self, entry: &Entry, now: u64) -> u64 {
        self.time_with(entry.skew, now)
    }

    fn time_with(&self, skew: u64, now: u64) -> u64 {
        now.min(self.steady.load(Ordering::Relaxed).wrapping_add(skew))
    }

    /// Counts an entry that is spent, once.
    fn count(&self, entry: &mut Entry) {
        if entry.spent && !std::mem::replace(&mut entry.counted, true) {
            self.spent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of an entry that has changed, and returns what the journal must learn of it.
    fn line(&self, mut entry: RefMut<'_, Key, Entry>) -> Option<String> {
        entry.sequence += 1;
        self.count(&mut entry);
        self.journal.as_ref().map(|_| line::format(entry.key(), &entry))
    }

    /// Tracked links that are spent.
    pub fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }

    /// How the journal is, if there is one.
    pub fn journal(&self) -> Option<JournalState> {
        self.journal.as_ref().map(Journal::state)
    }

    /// Whether the journal has it.
    fn write(&self, line: Option<String>) -> bool {
        match (&self.journal, line) {
            (Some(journal), Some(line)) => journal.append(&line),
            _ => false,
        }
    }
}

/// Whether the journal in `directory` can be read, if there is one.
///
/// # Errors
/// What is wrong with it, and the remedy.
pub fn check_directory(directory: &Path) -> Result<(), StartError> {
    journal::read(directory).map(drop)
}

/// The key of `text`: a `unique_id`, or a server's UUID.
pub fn key_of(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&hmac_sha256::Hash::hash(text.as_bytes())[..16]);
    key
}

/// The hash that tells resources apart without naming them.
pub fn hash_of(resource: &Resource) -> [u8; 16] {
    // A server's UUID has one length, so that nothing needs to stand between it and the rest.
    let (kind, name) = match resource {
        Resource::File { path, .. } => ("file", path.clone()),
        Resource::Backup { backup, .. } => ("backup", backup.to_string()),
        // Each path with its length: no two lists are spelt alike. The format of an archive is left
        // out, as the token does not say it: another one is another version of the same thing.
        Resource::Directory { path, .. } => ("directory", measured(path)),
        Resource::Files { path, files, .. } => {
            let files: String = files.iter().map(|file| measured(file)).collect();
            ("files", measured(path) + &files)
        }
    };
    let server = resource.server().map(|server| server.to_string()).unwrap_or_default();
    key_of(&format!("{kind}\0{server}{name}"))
}

fn measured(path: &str) -> String {
    format!("{}:{path}", path.len())
}
