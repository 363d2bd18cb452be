//! A claimed link's stream, from its first reserved byte to its record in the journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::grant::EndedBy;
use super::live::Live;
use super::{Guarded, Replay, Update};

/// One stream of a claimed link. Dropped without [`Stream::finish`], it counts as reset, and in the
/// journal as still running.
#[derive(Debug)]
pub struct Stream {
    replay: Arc<Replay>,
    live: Arc<Live>,
    ended: bool,
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
    pub(super) fn new(replay: &Arc<Replay>, live: &Arc<Live>) -> Stream {
        Stream { replay: Arc::clone(replay), live: Arc::clone(live), ended: false }
    }

    /// Makes sure that at least one byte beyond `sent` may be sent, and says up to where. `None` if
    /// the link's budget is used up, or [`Live::stopped`] says why the stream has to end.
    pub fn reserve(&mut self, sent: u64) -> Option<u64> {
        let live = &*self.live;
        if live.stopped().is_none() && sent >= live.reserved() && sent < live.length() {
            let mut entry = self.replay.entries.get_mut(&live.link.link)?;
            if !entry.grant.as_mut()?.reserve(live) {
                return None;
            }
            self.replay.change(entry);
        }
        live.stopped().is_none().then(|| live.reserved())
    }

    /// Pays for `bytes` that were read and are not sent. Returns false if the budget had fewer left.
    pub fn pay(&self, bytes: u64) -> bool {
        let Some(mut entry) = self.replay.entries.get_mut(&self.live.link.link) else {
            return false;
        };
        let paid = entry.grant.as_mut().is_some_and(|grant| grant.pay(bytes));
        self.replay.change(entry);
        paid
    }

    /// Ends the stream in memory at `now`, at once, with what its [`Live`] says. What is returned
    /// still has to go to the journal.
    pub fn finish(mut self, by: EndedBy, now: u64) -> Finished {
        self.ended = true;
        self.replay.end(&self.live, by, now)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            // Nobody saw how this ended: it is as a crash would leave it, in the journal, too.
            self.live.note_sent(self.live.reserved());
            let now = self.replay.clock.load(Ordering::Relaxed);
            drop(self.replay.end(&self.live, EndedBy::Reset, now));
        }
    }
}

impl Replay {
    /// Ends the stream of `live` at `now`, whoever has it: when its holder ends it later, that
    /// changes nothing.
    pub fn cut(self: &Arc<Self>, live: &Live, now: u64) -> Finished {
        self.end(live, EndedBy::Other, now)
    }

    fn end(self: &Arc<Self>, live: &Live, by: EndedBy, now: u64) -> Finished {
        let end = |mut entry: Guarded<'_>| {
            let time = self.time(entry.skew, now);
            let grant = entry.grant.as_mut()?;
            let whole = grant.finish(live, by, time);
            let length = grant.length;
            let delivered = grant.delivered.total().min(length);
            if whole || entry.spent {
                entry.spend();
            }
            entry.sequence += 1;
            let progress = Progress { delivered, length, spent: entry.spent };
            Some((self.update(entry), progress))
        };
        let ended = self.entries.get_mut(&live.link.link).and_then(end);
        Finished { replay: Arc::clone(self), ended }
    }
}

/// A stream that has ended in memory and not yet in the journal.
#[derive(Debug)]
#[must_use = "the journal does not know of it yet"]
pub struct Finished {
    replay: Arc<Replay>,
    ended: Option<(Update, Progress)>,
}

impl Finished {
    /// Writes the end to the journal. Until this has returned, nothing may be reported delivered.
    pub fn record(self) -> Option<Progress> {
        let (update, progress) = self.ended?;
        self.replay.publish(update);
        Some(progress)
    }
}
