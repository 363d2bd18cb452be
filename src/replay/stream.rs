//! A claimed link's stream, from its first reserved byte to its record in the journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::grant::EndedBy;
use super::live::Live;
use super::{Key, Replay};

/// One stream of a claimed link. Dropped without [`Stream::finish`], it counts as reset, and in the
/// journal as still running.
#[derive(Debug)]
pub struct Stream {
    pub(super) replay: Arc<Replay>,
    pub(super) key: Key,
    pub(super) live: Arc<Live>,
    pub(super) ended: bool,
}

/// How far a link has come at the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file delivered so far, for all the server could see.
    pub delivered: u64,
    /// The file's length.
    pub length: u64,
    /// The link is spent.
    pub spent: bool,
}

impl Stream {
    /// Makes sure that at least one byte beyond `sent` may be sent, and says up to where. `None`
    /// if the link's budget is used up, or the stream is no longer current.
    pub fn reserve(&mut self, sent: u64) -> Option<u64> {
        let reserved = self.live.reserved();
        if sent >= reserved && reserved < self.live.length() {
            let mut entry = self.replay.entries.get_mut(&self.key)?;
            entry.grant.as_mut()?.reserve(&self.live)?;
            self.replay.write(self.replay.line(entry));
        }
        Some(self.live.reserved())
    }

    /// Pays for `bytes` that were read and are not sent. Whether the budget had so many left.
    pub fn pay(&self, bytes: u64) -> bool {
        let Some(mut entry) = self.replay.entries.get_mut(&self.key) else { return false };
        let paid = entry.grant.as_mut().is_some_and(|grant| grant.pay(bytes));
        self.replay.write(self.replay.line(entry));
        paid
    }

    /// Ends the stream in memory at `now`, at once. What is returned still has to go to the journal.
    pub fn finish(mut self, by: EndedBy, now: u64) -> Finished {
        self.ended = true;
        self.replay.end(&self.live, by, now)
    }
}

impl Replay {
    /// Ends the stream of `live` at `now`, whoever holds it: its holder's own word changes nothing
    /// afterwards.
    pub fn cut(self: &Arc<Self>, live: &Live, now: u64) -> Finished {
        self.end(live, EndedBy::Other, now)
    }

    fn end(self: &Arc<Self>, live: &Live, by: EndedBy, now: u64) -> Finished {
        let key = live.link.link;
        let mut finished = Finished { replay: Arc::clone(self), line: None, progress: None };
        let mut newly_spent = false;
        if let Some(mut entry) = self.entries.get_mut(&key)
            && let time = self.time(&entry, now)
            && let Some(grant) = &mut entry.grant
        {
            let whole = grant.finish(live, by, time);
            let (delivered, length) = (grant.delivered(), grant.file.length);
            if whole {
                newly_spent = !entry.spent;
                entry.mark_spent();
            }
            finished.progress = Some(Progress { delivered, length, spent: entry.spent });
            finished.line = self.line(entry);
        }
        if newly_spent {
            self.tell_spent(key);
        }
        finished
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            // The journal is left as a crash would leave it: nobody saw how this ended.
            let now = self.replay.clock.load(Ordering::Relaxed);
            drop(self.replay.end(&self.live, EndedBy::Reset, now));
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
