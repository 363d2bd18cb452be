//! A grant: what one `resume` link has been used for so far.
//!
//! Pure bookkeeping without clocks, locks or I/O. What was delivered is kept as two sets of bytes:
//! `sure` for streams that the client itself ended after it had acknowledged everything, and `seen`
//! for what it acknowledged on all others. `sure` alone can spend a link at once; both together do
//! once the link has been quiet for `settle_time`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
pub struct FileVersion {
    /// Its entity tag.
    pub tag: EntityTag,
    /// Its length in bytes.
    pub length: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Content bytes handed to the kernel.
    pub sent: u64,
    /// Content bytes that the client's TCP acknowledged.
    pub acknowledged: u64,
    /// What ended it.
    pub by: EndedBy,
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

/// A running stream: what its sender and its grant share, without a lock.
#[derive(Debug)]
pub(super) struct Flow {
    /// What was asked for.
    span: Range<u64>,
    tag: EntityTag,
    /// Bytes that may be sent; more take another step of the budget.
    pub(super) reserved: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    /// The link is still its client's.
    pub(super) current: AtomicBool,
}

impl Flow {
    /// Bytes that were asked for.
    pub(super) fn length(&self) -> u64 {
        self.span.end - self.span.start
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// What `acknowledged` bytes come to, short of the last one that was asked for.
    fn short(&self, acknowledged: u64) -> Range<u64> {
        let end = self.span.start.saturating_add(acknowledged);
        self.span.start..end.min(self.span.end.saturating_sub(1))
    }
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
    pub(super) streams: Vec<Arc<Flow>>,
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
            let acknowledged = stream.acknowledged();
            if stream.sent.load(Ordering::Acquire) > acknowledged {
                return false;
            }
            total = total.saturating_add(acknowledged);
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
            stream.current.store(false, Ordering::Release);
        }
        self.client = client;
        self.acknowledged = 0;
        self.forget();
    }

    fn forget(&mut self) {
        (self.sure, self.seen) = (Spans::default(), Spans::default());
    }

    /// Starts a stream over `span` and reserves its first step. A changed file starts the delivery
    /// over, not the budget.
    pub(super) fn start(&mut self, file: &FileVersion, span: &Range<u64>) -> Arc<Flow> {
        if self.charged == 0 {
            self.base = file.length;
        }
        if self.file.tag != file.tag {
            self.forget();
        }
        self.file = *file;
        self.charged = self.charged.saturating_add(HEAD_CHARGE);
        let flow = Arc::new(Flow {
            span: span.clone(),
            tag: file.tag,
            reserved: AtomicU64::new(0),
            // Until its sender reports, it is sending: of two first requests at once, one wins.
            sent: AtomicU64::new(u64::MAX),
            acknowledged: AtomicU64::new(0),
            current: AtomicBool::new(true),
        });
        self.reserve(&flow);
        self.streams.push(Arc::clone(&flow));
        flow
    }

    /// Pays for the next step of `flow`; `None` if the budget has nothing left for it.
    pub(super) fn reserve(&mut self, flow: &Flow) -> Option<()> {
        let step = (flow.length() - flow.reserved()).min(STEP_BYTES).min(self.left());
        self.charged += step;
        flow.reserved.fetch_add(step, Ordering::Release);
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
    pub(super) fn finish(&mut self, flow: &Arc<Flow>, end: &StreamEnd, now: u64) -> bool {
        self.charged = self.charged.saturating_sub(flow.reserved().saturating_sub(end.sent));
        let index = self.streams.iter().position(|stream| Arc::ptr_eq(stream, flow));
        let Some(index) = index else { return false };
        self.streams.swap_remove(index);
        let acknowledged = end.acknowledged.min(flow.length());
        self.ended = now;
        self.acknowledged = self.acknowledged.saturating_add(acknowledged);
        if flow.tag != self.file.tag {
            return false;
        }
        let counted = match self.file.length {
            0 => 0..1,
            _ => flow.span.start..flow.span.start + acknowledged,
        };
        match end.by {
            EndedBy::Client if acknowledged == flow.length() => self.sure.insert(counted),
            EndedBy::Client | EndedBy::Other => self.seen.insert(counted),
            EndedBy::Reset => self.seen.insert(flow.short(acknowledged)),
        }
        self.sure.total() >= self.whole()
    }

    /// What a crash now would leave acknowledged: running streams with all that they may have sent,
    /// so that nobody takes the link from a client that was cut off.
    pub(super) fn acknowledged_by_now(&self) -> u64 {
        self.streams.iter().fold(self.acknowledged, |sum, flow| sum.saturating_add(flow.reserved()))
    }

    /// What a crash now would leave as seen: running streams with what they have acknowledged.
    pub(super) fn seen_by_now(&self) -> Spans {
        let mut seen = self.seen.clone();
        for stream in self.streams.iter().filter(|stream| stream.tag == self.file.tag) {
            seen.insert(stream.short(stream.acknowledged()));
        }
        seen
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
