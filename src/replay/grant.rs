//! A grant: what one `resume` link has been used for so far.
//!
//! Pure bookkeeping without clocks, locks or I/O. What was delivered is kept as two sets of bytes:
//! `sure` for streams that the client itself ended after it had acknowledged everything, and `seen`
//! for what it acknowledged on all others. `sure` alone can spend a link at once; both together do
//! once the link has been quiet for `settle_time`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::live::{Live, Stop};
use crate::link::storage::EntityTag;
use crate::net::address::ClientKey;
use crate::replay::spans::Spans;

/// One grant pays for this many times the file…
const BUDGET_FACTOR: u64 = 3;
/// …plus this many bytes, which carry small files through bad connections.
const BUDGET_SLACK: u64 = 64 << 20;
/// Charged for each answer besides its content: its head.
pub(super) const HEAD_CHARGE: u64 = 1024;
/// A client that has acknowledged fewer bytes than this has only peeked.
const PEEK_BYTES: u64 = 256 << 10;
/// Streams that one link may have at a time.
pub const MAX_STREAMS: usize = 16;
/// A stream announces this many bytes to the table and the journal before it sends them.
pub const STEP_BYTES: u64 = 8 << 20;

/// The file that a link is used for, as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileVersion {
    /// Its entity tag.
    pub(super) tag: EntityTag,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// What ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client itself, on a direct connection and after it had acknowledged everything: its FIN,
    /// its next request, or silence for the `idle` timeout.
    Client,
    /// Anything else.
    Other,
    /// A reset: the client may have thrown bytes away, so the last one that it asked for does not
    /// count.
    Reset,
}

/// What `acknowledged` bytes of `live` come to, short of the last one that was asked for.
fn short(live: &Live, acknowledged: u64) -> Range<u64> {
    let end = live.span.start.saturating_add(acknowledged);
    live.span.start..end.min(live.span.end.saturating_sub(1))
}

/// The state of one link in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Grant {
    /// First use, seconds since the epoch.
    pub(super) opened: u64,
    /// The client that it is bound to; `None` if binding is off or no address was known.
    pub(super) client: Option<ClientKey>,
    /// The file's length at first use, which the budget counts from.
    pub(super) base: u64,
    /// The file as of the last stream. All ranges lie within it.
    pub(super) file: FileVersion,
    /// Bytes paid for, running streams' reservations included.
    pub(super) charged: u64,
    /// Bytes that this client acknowledged on streams that have ended, repeated ones included.
    pub(super) acknowledged: u64,
    /// When the last stream ended, seconds since the epoch.
    pub(super) ended: u64,
    pub(super) sure: Spans,
    pub(super) seen: Spans,
    pub(super) streams: Vec<Arc<Live>>,
}

impl Grant {
    /// Bytes that this grant pays for in all. They follow the file's length at first use, so that
    /// changing the file does not raise them.
    pub(super) fn budget(&self) -> u64 {
        self.base.saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_SLACK)
    }

    /// Bytes that it still pays for.
    pub(super) fn left(&self) -> u64 {
        self.budget().saturating_sub(self.charged)
    }

    /// An empty file counts as one byte, so that one finished GET covers it.
    fn whole(&self) -> u64 {
        self.file.length.max(1)
    }

    /// Bytes of the file that were delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.sure.total_with(&self.seen).min(self.file.length)
    }

    /// Whether both sets cover the file, and no stream runs that could change anything.
    pub(super) fn is_covered(&self) -> bool {
        self.streams.is_empty() && self.sure.total_with(&self.seen) >= self.whole()
    }

    /// Whether the link has been covered and quiet for `settle` seconds.
    pub(super) fn is_settled(&self, settle: u64, now: u64) -> bool {
        now.saturating_sub(self.ended) >= settle && self.is_covered()
    }

    /// Whether its client has done no more than peek, so that another may take the link over.
    pub(super) fn is_a_peek(&self) -> bool {
        let mut total = self.acknowledged;
        for stream in &self.streams {
            if stream.is_sending() {
                return false;
            }
            total = total.saturating_add(stream.acknowledged());
        }
        total < PEEK_BYTES.min(self.file.length)
    }

    /// Whether it is bound, and to another client than `client`.
    pub(super) fn is_strange_to(&self, client: Option<ClientKey>, bind: bool) -> bool {
        bind && self.client.is_some() && self.client != client
    }

    /// Lets `client` take the link over if it is another's, whose streams then stop. The budget
    /// stays as it is.
    pub(super) fn hold(&mut self, client: Option<ClientKey>, bind: bool) {
        if !self.is_strange_to(client, bind) {
            return;
        }
        for stream in self.streams.drain(..) {
            stream.stop(Stop::HandedOver);
        }
        self.client = client;
        self.acknowledged = 0;
        self.forget();
    }

    fn forget(&mut self) {
        (self.sure, self.seen) = (Spans::default(), Spans::default());
    }

    /// Starts the stream of `live` and reserves its first step. A changed file starts the delivery
    /// over, not the budget.
    pub(super) fn start(&mut self, live: &Arc<Live>, length: u64) {
        if self.charged == 0 {
            self.base = length;
        }
        if self.file.tag != live.tag {
            self.forget();
        }
        self.file = FileVersion { tag: live.tag, length };
        self.charged = self.charged.saturating_add(HEAD_CHARGE);
        self.reserve(live);
        self.streams.push(Arc::clone(live));
    }

    /// Pays for the next step of `flow`; `None` if the budget has nothing left for it.
    pub(super) fn reserve(&mut self, live: &Live) -> Option<()> {
        let step = (live.length() - live.reserved()).min(STEP_BYTES).min(self.left());
        self.charged += step;
        live.reserved.fetch_add(step, Ordering::Release);
        (step > 0).then_some(())
    }

    /// Pays for `bytes` besides what is sent. Whether the budget had so many left.
    pub(super) fn pay(&mut self, bytes: u64) -> bool {
        let had = bytes <= self.left();
        self.charged = self.charged.saturating_add(bytes);
        had
    }

    /// Ends the stream of `flow`, unless another client has taken the link over. Returns whether the
    /// file has now surely been delivered whole.
    pub(super) fn finish(&mut self, live: &Live, by: EndedBy, now: u64) -> bool {
        self.charged = self.charged.saturating_sub(live.reserved().saturating_sub(live.sent()));
        let index = self.streams.iter().position(|stream| std::ptr::eq(&raw const **stream, live));
        let Some(index) = index else { return false };
        self.streams.swap_remove(index);
        let acknowledged = live.acknowledged();
        self.ended = now;
        self.acknowledged = self.acknowledged.saturating_add(acknowledged);
        if live.tag != self.file.tag {
            return false;
        }
        let counted = match self.file.length {
            0 => 0..1,
            _ => live.span.start..live.span.start + acknowledged,
        };
        match by {
            EndedBy::Client if acknowledged == live.length() => self.sure.insert(counted),
            EndedBy::Client | EndedBy::Other => self.seen.insert(counted),
            EndedBy::Reset => self.seen.insert(short(live, acknowledged)),
        }
        self.sure.total() >= self.whole()
    }

    /// What a crash now would leave acknowledged: running streams with all that they may have sent,
    /// so that nobody takes the link from a client that was cut off.
    pub(super) fn acknowledged_by_now(&self) -> u64 {
        self.streams.iter().fold(self.acknowledged, |sum, live| sum.saturating_add(live.reserved()))
    }

    /// What a crash now would leave as seen: running streams with what they have acknowledged.
    pub(super) fn seen_by_now(&self) -> Spans {
        let mut seen = self.seen.clone();
        for stream in self.streams.iter().filter(|stream| stream.tag == self.file.tag) {
            seen.insert(short(stream, stream.acknowledged()));
        }
        seen
    }
}
