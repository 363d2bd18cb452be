//! A claimed link's stream, from its first reserved byte to its record in the journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::grant::{EndedBy, Flow, StreamEnd};
use super::{Key, Replay};

/// One stream of a claimed link. Dropped without [`Stream::finish`], it counts as reset, and in the
/// journal as still running.
#[derive(Debug)]
pub struct Stream {
    pub(super) replay: Arc<Replay>,
    pub(super) key: Key,
    pub(super) flow: Arc<Flow>,
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
        let reserved = self.flow.reserved();
        if self.is_current() && sent >= reserved && reserved < self.flow.length() {
            let mut entry = self.replay.entries.get_mut(&self.key)?;
            entry.grant.as_mut()?.reserve(&self.flow)?;
            self.replay.write(self.replay.line(entry));
        }
        self.is_current().then(|| self.flow.reserved())
    }

    /// Pays for `bytes` that were read and are not sent. Whether the budget had so many left.
    pub fn pay(&self, bytes: u64) -> bool {
        let Some(mut entry) = self.replay.entries.get_mut(&self.key) else { return false };
        let paid = entry.grant.as_mut().is_some_and(|grant| grant.pay(bytes));
        self.replay.write(self.replay.line(entry));
        paid
    }

    /// Reports how many content bytes were handed to the kernel and how many of them the client has
    /// acknowledged. Takes no lock. Until the first report, the stream counts as sending; a sender
    /// that holds bytes back for its turn reports them as handed over, or another client could take
    /// the link meanwhile.
    pub fn progress(&self, sent: u64, acknowledged: u64) {
        // In this order: who sees the second value sees the first, and no byte looks acknowledged
        // that is not.
        self.flow.sent.store(sent, Ordering::Release);
        self.flow.acknowledged.store(acknowledged, Ordering::Release);
    }

    /// Whether the link is still this client's. If not, the sender must stop. Takes no lock.
    pub fn is_current(&self) -> bool {
        self.flow.current.load(Ordering::Acquire)
    }

    /// Ends the stream in memory at `now`, at once. What is returned still has to go to the journal.
    pub fn finish(mut self, end: &StreamEnd, now: u64) -> Finished {
        self.ended = true;
        self.end(end, now)
    }

    fn end(&self, end: &StreamEnd, now: u64) -> Finished {
        let mut finished =
            Finished { replay: Arc::clone(&self.replay), line: None, progress: None };
        let mut newly_spent = false;
        if let Some(mut entry) = self.replay.entries.get_mut(&self.key)
            && let time = self.replay.time(&entry, now)
            && let Some(grant) = &mut entry.grant
        {
            let whole = grant.finish(&self.flow, end, time);
            let (delivered, length) = (grant.delivered(), grant.file.length);
            if whole {
                newly_spent = !entry.spent;
                entry.mark_spent();
            }
            finished.progress = Some(Progress { delivered, length, spent: entry.spent });
            finished.line = self.replay.line(entry);
        }
        if newly_spent {
            self.replay.tell_spent(self.key);
        }
        finished
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            let acknowledged = self.flow.acknowledged();
            let sent = self.flow.reserved();
            let end = StreamEnd { sent, acknowledged, by: EndedBy::Reset };
            // The journal is left as a crash would leave it: nobody saw how this ended.
            drop(self.end(&end, self.replay.clock.load(Ordering::Relaxed)));
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
