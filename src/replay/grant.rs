//! A grant: what one `resume` link has been used for so far.
//!
//! Pure bookkeeping without clocks, locks or I/O. Three kinds of bytes are told apart:
//!
//! - *delivered*: a stream that ended in order carried them;
//! - *doubtful*: a broken stream sent them, and the client may have thrown them away unread, or
//!   never got them. They count once the client shows that it has them, by resuming behind them;
//! - *in flight*: a stream that still runs may carry them. To the journal they are doubtful
//!   already, since a crash leaves no time to say more.

use std::ops::Range;

use crate::link::storage::EntityTag;
use crate::net::address::ClientKey;
use crate::replay::spans::{Doubts, Spans};

/// One grant pays for this many times the file…
const BUDGET_FACTOR: u64 = 3;
/// …plus this many bytes, which carry small files through bad connections.
const BUDGET_SLACK: u64 = 64 << 20;
/// Charged for each answer beside its content: its head.
pub(super) const HEAD_CHARGE: u64 = 1024;
/// Streams that one link may have at a time.
pub const MAX_STREAMS: usize = 16;

/// The state of one link in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// First use, seconds since the epoch.
    pub(super) opened: u64,
    /// The client that it is bound to; `None` where binding is off or nothing was known.
    pub(super) client: Option<ClientKey>,
    /// The file's length at first use, which the budget counts from.
    pub(super) base: u64,
    /// The file as of now.
    pub(super) tag: EntityTag,
    /// Its length.
    pub(super) length: u64,
    /// Bytes paid for, running streams' reservations included.
    pub(super) charged: u64,
    pub(super) delivered: Spans,
    pub(super) doubtful: Doubts,
    in_flight: Vec<InFlight>,
    next_stream: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct InFlight {
    number: u32,
    /// From the stream's first byte to the end of what it may have sent.
    span: Range<u64>,
    tag: EntityTag,
    /// Where what was asked for ends.
    wanted_end: u64,
    /// Where the part of the file that it goes on with begins: before `span`, if what lies there
    /// has been delivered.
    part: u64,
    /// Where the part of another stream of its time begins, the nearest behind its own start.
    successor: Option<u64>,
}

impl InFlight {
    /// Where the doubt about `sent` bytes ends: before the end of what was asked for. Who goes on
    /// from exactly there may well be fetching the next segment, and says nothing about this one.
    fn doubt_end(&self, sent: u64) -> u64 {
        let reserved = self.span.end - self.span.start;
        let end = self.span.start.saturating_add(sent.min(reserved));
        end.min(self.wanted_end.saturating_sub(1)).max(self.span.start)
    }

    /// Learns of another stream at the same time, over the part of the file from `part` on, of
    /// which it fetches what lies behind `start`.
    fn see(&mut self, part: u64, start: u64) {
        let place = if part > self.span.start { part } else { start };
        // At its very end there is nothing left to take over.
        if self.span.start < place && place < self.wanted_end {
            self.successor = Some(self.successor.map_or(place, |nearest| nearest.min(place)));
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Content bytes handed to the kernel.
    pub sent: u64,
    /// Content bytes that the client's TCP acknowledged.
    pub acknowledged: u64,
    /// How.
    pub by: EndedBy,
}

/// Who or what ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client, with everything acknowledged.
    Client,
    /// Anything else.
    Other,
    /// A reset.
    Reset,
}

impl Grant {
    pub(super) fn open(
        opened: u64,
        client: Option<ClientKey>,
        tag: EntityTag,
        length: u64,
    ) -> Grant {
        Grant {
            opened,
            client,
            base: length,
            tag,
            length,
            charged: 0,
            delivered: Spans::default(),
            doubtful: Doubts::default(),
            in_flight: Vec::new(),
            next_stream: 0,
        }
    }

    /// Bytes that this grant pays for in all. It follows the file's length at first use, so that
    /// changing the file does not raise it.
    pub(super) fn budget(&self) -> u64 {
        self.base.saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_SLACK)
    }

    pub(super) fn streams(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether the budget has room for `bytes` more.
    pub(super) fn can_pay(&self, bytes: u64) -> bool {
        self.charged.saturating_add(bytes) <= self.budget()
    }

    /// Notes the file as it is now: a changed one starts the delivery over, not the budget.
    pub(super) fn see_file(&mut self, tag: EntityTag, length: u64) {
        if self.tag != tag {
            self.tag = tag;
            self.length = length;
            self.delivered.clear();
            self.doubtful.clear();
        }
    }

    /// Starts a stream over `wanted` and returns its number. Where it starts says what the client
    /// holds of a broken stream: all before it, and nothing behind.
    pub(super) fn start(&mut self, wanted: &Range<u64>) -> u32 {
        let start = wanted.start;
        if let Some(doubtful) = self.doubtful.take_at(start) {
            self.delivered.insert(doubtful.start..start);
        }
        self.charged = self.charged.saturating_add(HEAD_CHARGE);
        let number = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(1);
        let held = self.delivered.iter().find(|span| span.start <= start && start <= span.end);
        let part = held.map_or(start, |span| span.start);
        let mut stream = InFlight {
            number,
            span: start..start,
            tag: self.tag,
            wanted_end: wanted.end,
            part,
            successor: None,
        };
        // Parts of which the client holds a beginning: it will go on with them, and leave this
        // stream where they begin.
        self.doubtful.iter().for_each(|doubt| stream.see(doubt.start, doubt.start));
        for other in self.in_flight.iter_mut().filter(|other| other.tag == self.tag) {
            other.see(part, start);
            stream.see(other.part, other.span.start);
        }
        self.in_flight.push(stream);
        number
    }

    /// Lets stream `number` send `bytes` more, if the budget has them.
    pub(super) fn reserve(&mut self, number: u32, bytes: u64) -> bool {
        if !self.can_pay(bytes) {
            return false;
        }
        let Some(stream) = self.in_flight.iter_mut().find(|stream| stream.number == number) else {
            return false;
        };
        stream.span.end = stream.span.end.saturating_add(bytes);
        self.charged += bytes;
        true
    }

    /// Ends stream `number`. Returns whether the file has now been delivered whole.
    pub(super) fn finish(&mut self, number: u32, ending: &StreamEnd) -> bool {
        let Some(index) = self.in_flight.iter().position(|stream| stream.number == number) else {
            return false;
        };
        let stream = self.in_flight.swap_remove(index);
        let reserved = stream.span.end - stream.span.start;
        self.charged = self.charged.saturating_sub(reserved.saturating_sub(ending.sent));
        if stream.tag != self.tag {
            return false;
        }
        let start = stream.span.start;
        let end = start.saturating_add(ending.acknowledged.min(reserved));
        if (ending.by == EndedBy::Client) {
            self.delivered.insert(start..end);
        } else {
            // A parallel downloader asks for the rest on other connections, reads this one as far
            // as the next of them, and then closes it, unread bytes and all. What lies before that
            // place it has kept. What lies behind the place is the other stream's to deliver, and
            // streams of other times say nothing about this one.
            let taken_over = stream.successor.filter(|place| *place <= end).unwrap_or(start);
            self.delivered.insert(start..taken_over);
            // As far as it was sent, not only acknowledged: a reset that overtakes the last
            // acknowledgements, or a TLS record that is acknowledged in part, must not leave a gap
            // before the place that the client goes on from.
            self.doubtful.insert(taken_over..stream.doubt_end(ending.sent));
        }
        // An empty file is covered from the start: only an orderly end delivers it.
        self.delivered.covers(self.length) && ((ending.by == EndedBy::Client) || self.length > 0)
    }

    /// Doubtful bytes as a crash would leave them: running streams may have sent all they reserved.
    pub(super) fn doubtful_after_a_crash(&self) -> Doubts {
        let mut doubtful = self.doubtful.clone();
        for stream in self.in_flight.iter().filter(|stream| stream.tag == self.tag) {
            let reserved = stream.span.end - stream.span.start;
            doubtful.insert(stream.span.start..stream.doubt_end(reserved));
        }
        doubtful
    }
}

#[cfg(test)]
mod tests;
