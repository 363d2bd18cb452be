//! A claimed link's stream, from its first reserved byte to its record in the journal.

use std::sync::Arc;

use super::entry::State;
use super::grant::StreamEnd;
use super::{AFTERLIFE, Key, Replay, STEP_BYTES};

/// One stream of a claimed link. Dropped without [`Stream::finish`], it counts as broken with
/// nothing acknowledged.
#[derive(Debug)]
pub struct Stream {
    pub(super) replay: Arc<Replay>,
    pub(super) key: Key,
    pub(super) number: u32,
    /// Bytes that may be sent; more take another [`STEP_BYTES`].
    pub(super) reserved: u64,
    pub(super) length: u64,
    pub(super) ended: bool,
}

/// How far a link has come at the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file delivered so far.
    pub delivered: u64,
    /// The file's length.
    pub length: u64,
    /// The link is spent.
    pub spent: bool,
}

impl Stream {
    /// Makes sure that at least one byte beyond `sent` may be sent, and says up to where. `None`
    /// where the link's budget is used up.
    pub fn reserve(&mut self, sent: u64) -> Option<u64> {
        if sent < self.reserved || self.reserved >= self.length {
            return Some(self.reserved);
        }
        let step = (self.length - self.reserved).min(STEP_BYTES);
        let line = {
            let mut entry = self.replay.entries.get_mut(&self.key)?;
            let State::Open(grant) = &mut entry.state else { return None };
            if !grant.reserve(self.number, step) {
                return None;
            }
            entry.sequence += 1;
            self.replay.line(&self.key, &entry)
        };
        self.replay.write(line);
        self.reserved += step;
        Some(self.reserved)
    }

    /// The link.
    pub fn key(&self) -> Key {
        self.key
    }

    /// How far.
    pub fn progress(&self, _sent: u64, _acknowledged: u64) {}

    /// Whether.
    pub fn is_current(&self) -> bool {
        true
    }

    /// Ends the stream in memory, at once. What is returned still has to go to the journal.
    pub fn finish(mut self, ending: &StreamEnd, _now: u64) -> Finished {
        self.ended = true;
        let (progress, line) = self.end(ending);
        Finished { replay: Arc::clone(&self.replay), line, progress }
    }

    fn end(&self, ending: &StreamEnd) -> (Option<Progress>, Option<String>) {
        let Some(mut entry) = self.replay.entries.get_mut(&self.key) else { return (None, None) };
        let State::Open(grant) = &mut entry.state else { return (None, None) };
        let whole = grant.finish(self.number, ending);
        let progress = Progress {
            delivered: grant.delivered.total(),
            length: grant.length,
            spent: whole || entry.spent,
        };
        let State::Open(grant) = &entry.state else { return (None, None) };
        let idle = grant.streams() == 0;
        let newly_spent = progress.spent && !entry.spent;
        entry.spent = progress.spent;
        if entry.spent && idle {
            entry.state = State::Closed;
        }
        entry.sequence += 1;
        let line = self.replay.line(&self.key, &entry);
        let expires = entry.expires;
        drop(entry);
        if newly_spent {
            self.replay.schedule(expires.saturating_add(AFTERLIFE), self.key);
        }
        (Some(progress), line)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            let ending = StreamEnd {
                sent: self.reserved,
                acknowledged: 0,
                by: super::grant::EndedBy::Other,
            };
            let (_, line) = self.end(&ending);
            self.replay.write(line);
        }
    }
}

/// A stream that has ended in memory and not yet in the journal.
#[derive(Debug)]
#[must_use = "the journal does not know of it yet"]
pub struct Finished {
    replay: Arc<Replay>,
    line: Option<String>,
    progress: Option<Progress>,
}

impl Finished {
    /// Writes the end to the journal. Until this has returned, nothing may be reported delivered.
    pub fn record(self) -> Option<Progress> {
        self.replay.write(self.line);
        self.progress
    }
}
