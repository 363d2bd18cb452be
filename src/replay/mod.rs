//! The table of used links: who may use a link, and when it is spent.
//!
//! Check and claim are one atomic step on the map's entry. No I/O happens under a map guard: what
//! goes to the journal is formatted there and written after. The table is bounded, and nothing
//! live is ever evicted: full, it turns new links away.

mod entry;
mod grant;
mod journal;
mod record;
pub mod spans;
mod stream;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;

use entry::Entry;
pub use entry::{ClaimRequest, FileVersion, LinkStatus, Rules};
pub use grant::{EndedBy, MAX_STREAMS, StreamEnd};
use journal::Journal;
pub use stream::{Finished, Progress, Stream};

use crate::config::Reuse;
use crate::error::StartError;
use crate::http::refusal::{Busy, Refusal};
use crate::link::token::{Resource, TokenFault};

/// The hash of a link's `unique_id`.
pub type Key = [u8; 16];

/// A stream announces this many bytes to the table and the journal before it sends them.
pub const STEP_BYTES: u64 = 8 << 20;
/// Entries outlive their use by this much, against clocks that step back; seconds.
const AFTERLIFE: u64 = 3600;
/// An entry with running streams is looked at again after this much; seconds.
const RUNNING_KEPT: u64 = 60;
/// Expired entries removed in one go, so that no one waits long for a shard.
const EXPIRE_AT_ONCE: usize = 512;
/// Entries copied between two writes of a compaction.
const COPY_AT_ONCE: usize = 1024;

/// The table.
#[derive(Debug)]
pub struct Replay {
    entries: DashMap<Key, Entry>,
    tracked: AtomicUsize,
    bound: usize,
    expiries: Mutex<BinaryHeap<Reverse<(u64, Key)>>>,
    journal: Option<Journal>,
    compacting: AtomicBool,
}

impl Replay {
    /// An empty table for at most `bound` links, in memory.
    pub fn in_memory(bound: usize) -> Replay {
        Replay {
            entries: DashMap::new(),
            tracked: AtomicUsize::new(0),
            bound,
            expiries: Mutex::default(),
            journal: None,
            compacting: AtomicBool::new(false),
        }
    }

    /// The table with what the journal in `directory` remembers.
    ///
    /// # Errors
    /// Where the journal cannot be read or written; see [`StartError`]'s text.
    pub fn with_journal(
        bound: usize,
        directory: &Path,
        rules: &Rules,
        now: u64,
    ) -> Result<Replay, StartError> {
        let (journal, loaded) = Journal::open(directory)?;
        if loaded.skipped > 0 {
            log::warn!(
                "state_directory: {} unreadable lines of the journal were skipped",
                loaded.skipped
            );
        }
        let mut replay = Replay::in_memory(bound);
        for (key, entry) in loaded.entries {
            let removable = entry.removable_at(rules.window);
            if removable > now {
                replay.tracked.fetch_add(1, Ordering::Relaxed);
                replay.schedule(removable, key);
                replay.entries.insert(key, entry);
            }
        }
        replay.journal = Some(journal);
        Ok(replay)
    }

    /// Makes the state directory where it is missing, for the server alone (mode 0700).
    ///
    /// # Errors
    /// Whatever mkdir(2) returns.
    pub fn make_directory(directory: &Path) -> std::io::Result<()> {
        journal::make_directory(directory)
    }

    /// Links that are tracked now.
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// Whether `request` could be claimed now, changing nothing.
    ///
    /// # Errors
    /// As [`Replay::claim`].
    pub fn check(&self, request: &ClaimRequest, rules: &Rules, now: u64) -> Result<(), Refusal> {
        let fault = match self.entries.get(&request.key) {
            Some(entry) if rules.reuse != Reuse::Unlimited => {
                entry.admits(request, rules, now).err().map(TokenFault::Used)
            }
            _ => request.expired.then_some(TokenFault::Expired),
        };
        fault.map_or(Ok(()), |fault| Err(Refusal::Token(fault)))
    }

    /// Claims `span` of `subject` for `request`. The stream that comes back has its first
    /// [`STEP_BYTES`] reserved; `None` means that nothing is to be accounted for.
    ///
    /// # Errors
    /// [`Refusal::Token`] where the link is used up, bound to another client or expired, and
    /// [`Refusal::Busy`] where the table is full or the link has [`MAX_STREAMS`] streams.
    pub fn claim(
        self: &Arc<Self>,
        request: &ClaimRequest,
        rules: &Rules,
        now: u64,
        subject: &FileVersion,
        span: &Range<u64>,
    ) -> Result<Option<Stream>, Refusal> {
        if rules.reuse == Reuse::Unlimited {
            return self.check(request, rules, now).map(|()| None);
        }
        let (line, number, first) = match self.entries.entry(request.key) {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                entry
                    .admits(request, rules, now)
                    .map_err(|u| Refusal::Token(TokenFault::Used(u)))?;
                let (number, first) = entry.start_stream(subject, span)?;
                (self.line(&request.key, entry), Some(number), first)
            }
            Slot::Vacant(slot) => {
                if request.expired {
                    return Err(Refusal::Token(TokenFault::Expired));
                }
                self.take_place()?;
                let mut entry = Entry::fresh(request, rules, now, subject);
                let started = match rules.reuse {
                    Reuse::Resume => entry.start_stream(subject, span).inspect_err(|_| {
                        self.tracked.fetch_sub(1, Ordering::Relaxed);
                    })?,
                    _ => (0, 0),
                };
                let line = self.line(&request.key, &entry);
                self.schedule(entry.removable_at(rules.window), request.key);
                slot.insert(entry);
                (line, (rules.reuse == Reuse::Resume).then_some(started.0), started.1)
            }
        };
        self.write(line);
        Ok(number.map(|number| Stream {
            replay: Arc::clone(self),
            key: request.key,
            number,
            reserved: first,
            length: span.end - span.start,
            ended: false,
        }))
    }

    /// What is known about a link.
    pub fn standing(&self, key: &Key) -> LinkStatus {
        self.entries.get(key).map_or(LinkStatus::Unused, |entry| entry.standing())
    }

    /// Reads the standing of a link from the journal in `directory`, without the server's help.
    ///
    /// # Errors
    /// Where there is a journal and it cannot be read.
    pub fn status_on_disk(directory: &Path, key: &Key) -> Result<LinkStatus, StartError> {
        let loaded = journal::read(directory)?;
        let entry = loaded.entries.iter().find(|(found, _)| found == key);
        Ok(entry.map_or(LinkStatus::Unused, |(_, entry)| entry.standing()))
    }

    /// Removes what has expired, a bounded number at a time, and compacts the journal if that is
    /// due. Called about once a second.
    pub fn maintain(&self, rules: &Rules, now: u64) {
        while self.expire(rules, now) == EXPIRE_AT_ONCE {}
        if self.journal.as_ref().is_some_and(Journal::wants_compaction)
            && let Err(error) = self.compact()
        {
            log::debug!("state_directory: cannot compact the journal: {error}");
        }
    }

    fn expire(&self, rules: &Rules, now: u64) -> usize {
        let mut due = Vec::new();
        {
            let mut expiries = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
            while due.len() < EXPIRE_AT_ONCE
                && expiries.peek().is_some_and(|Reverse((when, _))| *when <= now)
            {
                due.extend(expiries.pop().map(|Reverse((_, key))| key));
            }
        }
        for key in &due {
            // An entry may have moved its own end since it was scheduled.
            let end = self.entries.get(key).map(|entry| match entry.is_running() {
                // Its streams may run on, and ask it for leave with every step.
                true => now.saturating_add(RUNNING_KEPT),
                false => entry.removable_at(rules.window),
            });
            match end {
                Some(end) if end > now => self.schedule(end, *key),
                Some(_) if self.entries.remove(key).is_some() => {
                    self.tracked.fetch_sub(1, Ordering::Relaxed);
                }
                Some(_) | None => {}
            }
        }
        due.len()
    }

    fn compact(&self) -> std::io::Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        if self.compacting.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        let copied = journal.begin_compaction().and_then(|()| {
            let keys: Vec<Key> = self.entries.iter().map(|entry| *entry.key()).collect();
            for keys in keys.chunks(COPY_AT_ONCE) {
                let lines: String = keys
                    .iter()
                    .filter_map(|key| self.entries.get(key).map(|e| record::format(key, &e)))
                    .collect();
                journal.append(&lines);
            }
            journal.end_compaction()
        });
        self.compacting.store(false, Ordering::Release);
        copied
    }

    fn take_place(&self) -> Result<(), Refusal> {
        let taken = self.tracked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tracked| {
            (tracked < self.bound).then_some(tracked + 1)
        });
        taken.map(|_| ()).map_err(|_| Refusal::Busy(Busy::Tracked))
    }

    fn schedule(&self, when: u64, key: Key) {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner).push(Reverse((when, key)));
    }

    fn line(&self, key: &Key, entry: &Entry) -> Option<String> {
        self.journal.as_ref().map(|_| record::format(key, entry))
    }

    fn write(&self, line: Option<String>) {
        if let (Some(journal), Some(line)) = (&self.journal, line) {
            journal.append(&line);
        }
    }
}

/// The key of `unique_id`.
pub fn key_of(unique_id: &str) -> Key {
    truncate(hmac_sha256::Hash::hash(unique_id.as_bytes()))
}

/// The hash that tells resources apart without naming them.
pub fn hash_of(resource: &Resource) -> [u8; 16] {
    let mut hash = hmac_sha256::Hash::new();
    match resource {
        Resource::File { server, path } => {
            hash.update(b"file\0");
            hash.update(server.to_string());
            hash.update(path);
        }
        Resource::Backup { server, backup } => {
            hash.update(b"backup\0");
            hash.update(server.to_string());
            hash.update(backup.to_string());
        }
    }
    truncate(hash.finalize())
}

fn truncate(hash: [u8; 32]) -> [u8; 16] {
    let mut truncated = [0; 16];
    truncated.copy_from_slice(&hash[..16]);
    truncated
}

#[cfg(test)]
mod tests;
