//! A grant: what one `resume` link has been used for so far, and by whom.
//!
//! Bookkeeping without locks or I/O; the time is passed in. What was delivered is one set of bytes,
//! those that were acknowledged on any stream. One client holds the link at a time, and another one
//! gets it once the holder has stopped.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::live::{Live, Stop};
use super::shared::Mark;
use super::spans::Spans;
use crate::link::storage::EntityTag;
use crate::net::address::ClientKey;

/// One grant pays for this many times the file…
const BUDGET_FACTOR: u64 = 3;
/// …plus this many bytes, which carry small files through bad connections.
const BUDGET_SLACK: u64 = 64 << 20;
/// A file that grows counts with this many times its first length…
const GROWTH_FACTOR: u64 = 4;
/// …plus this many bytes, and no more.
const GROWTH_SLACK: u64 = 1 << 30;
/// Charged for each answer besides its content: its head.
pub(super) const HEAD_CHARGE: u64 = 1024;
/// A client that has acknowledged fewer bytes than this has only peeked.
pub(super) const PEEK_BYTES: u64 = 256 << 10;
/// The number of holders that are remembered, the present one included.
pub(super) const MAX_HOLDERS: usize = 4;
/// A holder that acknowledges nothing for this long gives the link up to whoever asks.
pub(super) const HANDOVER: Duration = Duration::from_secs(10);
/// Streams that one link may have at a time.
pub const MAX_STREAMS: usize = 16;
/// One more ends the stream that has acknowledged nothing for longest, if that is as long as this.
const DISPLACED_AFTER: Duration = Duration::from_secs(2);
/// A stream announces this many bytes to the table and the journal before it sends them.
pub const STEP_BYTES: u64 = 8 << 20;

/// Stands for the end of a link's last stream while that runs.
pub(super) const RUNNING: u64 = u64::MAX;

/// What ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client itself, on a direct connection and after it had acknowledged everything: its FIN,
    /// also one that answers ours, or a request sent after the last acknowledgement. Never silence.
    Client,
    /// Anything else.
    Other,
    /// A reset: the client may have thrown bytes away, so the last one that it asked for does not
    /// count.
    Reset,
}

/// The state of one link in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Grant {
    /// First use, seconds since the epoch.
    pub(super) opened: u64,
    /// The client that holds it, then those that held it before, the latest first. Empty if binding
    /// is off or no address was known.
    pub(super) holders: Vec<ClientKey>,
    /// Those that held it at other front ends before, the latest first, and have not asked here.
    pub(super) former: Vec<Mark>,
    /// The file's length at first use, and the greatest since: the budget counts from them.
    pub(super) first: u64,
    pub(super) greatest: u64,
    /// The file's version and length as of the last stream. All ranges lie within it.
    pub(super) tag: EntityTag,
    pub(super) length: u64,
    /// The link has been used for another version of the file, too.
    pub(super) mixed: bool,
    /// Bytes paid for, running streams' reservations included.
    pub(super) charged: u64,
    /// Bytes that the holder acknowledged on streams that have ended, repeated ones included.
    pub(super) acknowledged: u64,
    /// When the last stream ended, seconds since the epoch; [`RUNNING`] in a journal's line.
    pub(super) ended: u64,
    /// The last stream ended before everything was delivered that it was asked for.
    pub(super) broke: bool,
    /// When the holder acknowledged something last, on a stream that has ended.
    pub(super) heard: Option<Instant>,
    pub(super) delivered: Spans,
    pub(super) streams: Vec<Arc<Live>>,
}

impl Grant {
    /// Bytes that this grant pays for in all. A file that changes raises them within bounds only.
    pub(super) fn budget(&self) -> u64 {
        let most = self.first.saturating_mul(GROWTH_FACTOR).saturating_add(GROWTH_SLACK);
        let length = self.greatest.min(most);
        length.saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_SLACK)
    }

    /// Bytes that it still pays for.
    pub(super) fn left(&self) -> u64 {
        self.budget().saturating_sub(self.charged)
    }

    /// Returns true if every byte of the file was acknowledged.
    pub(super) fn is_covered(&self) -> bool {
        self.covers(&self.delivered)
    }

    /// An empty file counts as one byte, so that one finished GET covers it.
    fn covers(&self, delivered: &Spans) -> bool {
        delivered.total() >= self.length.max(1)
    }

    /// Returns true if a stream runs, or ran when the journal was written that this comes from.
    pub(super) fn runs(&self) -> bool {
        !self.streams.is_empty() || self.ended == RUNNING
    }

    /// Returns true if the link has been covered and quiet for `settle` seconds.
    pub(super) fn is_settled(&self, settle: u64, now: u64) -> bool {
        !self.runs() && now.saturating_sub(self.ended) >= settle && self.is_covered()
    }

    /// Returns true if the holder has done no more than peek.
    pub(super) fn is_a_peek(&self) -> bool {
        let running = self.streams.iter().map(|live| live.acknowledged());
        let total = running.fold(self.acknowledged, u64::saturating_add);
        total < PEEK_BYTES.min(self.length) && !self.streams.iter().any(|live| live.is_sending())
    }

    /// Returns true if somebody holds it, and not `client`.
    pub(super) fn is_strange_to(&self, client: Option<ClientKey>, bind: bool) -> bool {
        bind && self.holders.first().is_some_and(|holder| Some(*holder) != client)
    }

    /// Returns true if `client` is among the last holders.
    pub(super) fn was_held_by(&self, client: Option<ClientKey>) -> bool {
        client.is_some_and(|client| self.holders.contains(&client))
    }

    /// How long another client has to wait for the link, as of `now`.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.is_a_peek() || (self.streams.is_empty() && self.broke) {
            return Duration::ZERO;
        }
        let ended = self.heard.map(|heard| now.saturating_duration_since(heard));
        let running = self.streams.iter().map(|live| live.silence(now));
        let silence = running.chain(ended).min().unwrap_or(HANDOVER);
        if silence < HANDOVER {
            return HANDOVER - silence;
        }
        // Covered but for the end of a stream, and so nobody else's before that has come.
        let mut delivered = self.delivered.clone();
        self.current().for_each(|live| delivered.insert(acknowledged(live)));
        Duration::from_secs(u64::from(self.covers(&delivered)))
    }

    /// Returns true if one more stream may run as of `now`.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let silence = |live: &Arc<Live>| live.silence(now) >= DISPLACED_AFTER;
        self.streams.len() < MAX_STREAMS || self.streams.iter().any(silence)
    }

    /// Makes `client` the holder for a stream over `span`. Streams of the one before end. What the
    /// new one asks for it lacks, so that it leaves the set. One that only peeked is forgotten.
    pub(super) fn hand_over(&mut self, client: ClientKey, span: &Range<u64>) {
        if self.is_a_peek() {
            self.holders.remove(0);
        }
        for live in std::mem::take(&mut self.streams) {
            self.stop(&live, Stop::HandedOver);
        }
        self.holders.retain(|holder| *holder != client);
        self.holders.insert(0, client);
        self.holders.truncate(MAX_HOLDERS);
        self.former.truncate(MAX_HOLDERS - self.holders.len());
        (self.acknowledged, self.heard, self.broke) = (0, None, false);
        self.delivered.remove(span);
    }

    /// Starts the stream of `live` over a file of `length` bytes at `now`, and reserves its first
    /// step. A changed file starts the delivery over, not the budget.
    pub(super) fn start(&mut self, live: &Arc<Live>, length: u64, now: Instant) {
        if self.charged == 0 {
            self.first = length;
        } else if self.tag != live.tag {
            (self.mixed, self.delivered) = (true, Spans::default());
        }
        self.greatest = self.greatest.max(length);
        (self.tag, self.length) = (live.tag, length);
        let longest = (0..self.streams.len()).max_by_key(|index| self.streams[*index].silence(now));
        if let Some(index) = longest.filter(|_| self.streams.len() >= MAX_STREAMS) {
            let longest = self.streams.swap_remove(index);
            self.stop(&longest, Stop::Displaced);
        }
        self.charged = self.charged.saturating_add(HEAD_CHARGE);
        self.streams.push(Arc::clone(live));
        self.reserve(live);
    }

    /// Stops all streams: the link is another front end's.
    pub(super) fn give_up(&mut self) -> usize {
        for live in &self.streams {
            live.stop(Stop::TakenOver);
            // What it does not send any more is nobody's to be refunded.
            live.reserved.store(live.sent(), Ordering::Release);
        }
        std::mem::take(&mut self.streams).len()
    }

    /// Stops a stream that is no longer among ours. What it has acknowledged by now counts.
    fn stop(&mut self, live: &Live, why: Stop) {
        live.stop(why);
        self.count(live, acknowledged(live));
    }

    fn count(&mut self, live: &Live, range: Range<u64>) {
        if live.tag == self.tag {
            self.delivered.insert(range);
        }
    }

    fn index(&self, live: &Live) -> Option<usize> {
        self.streams.iter().position(|stream| std::ptr::eq(Arc::as_ptr(stream), live))
    }

    /// Pays for the next step of `live`. Returns false if the budget has nothing left for it, or its
    /// stream has ended.
    pub(super) fn reserve(&mut self, live: &Live) -> bool {
        let step = (live.length() - live.reserved()).min(STEP_BYTES).min(self.left());
        if step == 0 || self.index(live).is_none() {
            return false;
        }
        self.charged += step;
        live.reserved.fetch_add(step, Ordering::Release);
        true
    }

    /// Pays for `bytes` besides what is sent. Returns false if the budget had fewer left.
    pub(super) fn pay(&mut self, bytes: u64) -> bool {
        let had = bytes <= self.left();
        self.charged = self.charged.saturating_add(bytes);
        had
    }

    /// Ends the stream of `live` at `now`, unless that was done before. Returns true if it proves
    /// that the client has the whole file.
    pub(super) fn finish(&mut self, live: &Live, by: EndedBy, now: u64) -> bool {
        let sent = live.sent();
        let reserved = live.reserved.swap(sent, Ordering::AcqRel);
        self.charged = self.charged.saturating_sub(reserved.saturating_sub(sent));
        let Some(index) = self.index(live) else { return false };
        self.streams.swap_remove(index);
        let all = live.acknowledged() == live.length();
        self.acknowledged = self.acknowledged.saturating_add(live.acknowledged());
        self.heard = self.heard.max(Some(live.heard()));
        (self.ended, self.broke) = (now, !all || by == EndedBy::Reset);
        match by {
            EndedBy::Reset => self.count(live, short(live)),
            _ if self.length == 0 => self.count(live, 0..1),
            _ => self.count(live, acknowledged(live)),
        }
        let whole = live.tag == self.tag && live.span == (0..self.length);
        whole && all && by == EndedBy::Client
    }

    /// Running streams of the file as it is.
    fn current(&self) -> impl Iterator<Item = &Live> {
        self.streams.iter().map(|live| &**live).filter(|live| live.tag == self.tag)
    }

    /// What a crash now would leave acknowledged: running streams with all that they may have sent,
    /// so that a holder which was cut off has not only peeked.
    pub(super) fn acknowledged_by_now(&self) -> u64 {
        self.streams.iter().fold(self.acknowledged, |sum, live| sum.saturating_add(live.reserved()))
    }

    /// What a crash now would leave delivered: running streams with what they have acknowledged.
    pub(super) fn delivered_by_now(&self) -> Spans {
        let mut delivered = self.delivered.clone();
        self.current().for_each(|live| delivered.insert(short(live)));
        delivered
    }
}

/// What `live` has acknowledged.
fn acknowledged(live: &Live) -> Range<u64> {
    live.span.start..live.span.start.saturating_add(live.acknowledged())
}

/// The same, short of the last byte that was asked for.
fn short(live: &Live) -> Range<u64> {
    let range = acknowledged(live);
    range.start..range.end.min(live.span.end.saturating_sub(1))
}

#[cfg(test)]
mod tests;
