//! Watching a delivery to its end without holding a worker.
//!
//! Handing the last byte to the kernel is not delivering it. The acceptor looks at what the
//! client's TCP has acknowledged, ever less often, until all of it is; then it waits for an orderly
//! end: the client's FIN, its next request, or a short grace. A reset within that time means that
//! the client threw away what it had not read.

use std::time::{Duration, Instant};

use crate::delivery::record::Record;
use crate::download::body::{Pace, Watch};
use crate::logging::access::Outcome;
use crate::net::socket::Socket;
use crate::pool::exchange::Delivery;

/// How long after the last acknowledgement a reset can still come from unread data.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// The first look comes this soon…
const FIRST_LOOK: Duration = Duration::from_millis(4);
/// …and later ones at most this far apart.
const MAX_LOOK: Duration = Duration::from_millis(250);

/// A delivery that is being watched.
#[derive(Debug)]
pub(crate) struct DeliveryWatch {
    delivery: Delivery,
    watch: Watch,
    pause: Duration,
    next: Instant,
    /// Everything was acknowledged by then.
    whole_since: Option<Instant>,
    /// The client has said that it sends nothing more.
    fin: bool,
    /// It said so before it had acknowledged everything.
    early_fin: bool,
}

/// What a look has shown.
#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    /// The client is still taking it.
    Pending,
    /// Everything is acknowledged; an orderly end has not been seen yet.
    Whole,
    /// It ended, this way.
    Ended(Outcome),
}

impl DeliveryWatch {
    pub(crate) fn new(delivery: Delivery, pace: &Pace, now: Instant) -> DeliveryWatch {
        DeliveryWatch {
            watch: Watch::new(pace.stall, pace.min_rate, now, delivery.content_start),
            delivery,
            pause: FIRST_LOOK,
            next: now + FIRST_LOOK,
            whole_since: None,
            fin: false,
            early_fin: false,
        }
    }

    pub(crate) fn next_look(&self) -> Instant {
        self.next
    }

    /// Whether the client has sent FIN.
    pub(crate) fn has_fin(&self) -> bool {
        self.fin
    }

    /// Whether a link accounts for this delivery.
    pub(crate) fn is_accounted(&self) -> bool {
        self.delivery.stream.is_some()
    }

    /// The client has sent FIN.
    pub(crate) fn saw_fin(&mut self) {
        self.fin = true;
    }

    /// Looks at what has been acknowledged on `socket`. `more_input`: the client has begun its
    /// next request.
    pub(crate) fn look(&mut self, socket: &mut Socket, now: Instant, more_input: bool) -> Look {
        if self.whole_since.is_some() {
            return self.look_at_end(socket, now, more_input);
        }
        let acknowledged = match socket.acknowledged() {
            Ok(acknowledged) => acknowledged,
            Err(error) => return Look::Ended(Outcome::Interrupted(error.kind().to_string())),
        };
        if let Some(stream) = &self.delivery.stream {
            let content = acknowledged.saturating_sub(self.delivery.content_start);
            stream.progress(self.delivery.content, content);
            if !stream.is_current() {
                return Look::Ended(Outcome::Interrupted("taken over by another client".into()));
            }
        }
        if acknowledged >= self.delivery.content_start + self.delivery.content {
            return self.look_at_end(socket, now, more_input);
        }
        if socket.died() {
            return Look::Ended(Outcome::Interrupted("client gone".into()));
        }
        if let Err(broken) = self.watch.judge(now, acknowledged) {
            return Look::Ended(Outcome::Interrupted(broken.to_string()));
        }
        self.early_fin = self.fin;
        self.pause = (self.pause * 2).min(MAX_LOOK);
        self.next = now + self.pause;
        Look::Pending
    }

    fn look_at_end(&mut self, socket: &Socket, now: Instant, more_input: bool) -> Look {
        let since = *self.whole_since.get_or_insert(now);
        // A FIN that came before the last acknowledgement says only that the client sends no more:
        // whether it reads everything, the grace tells.
        if !more_input && (!self.fin || self.early_fin) && now < since + GRACE {
            self.next = since + GRACE;
            return Look::Whole;
        }
        Look::Ended(if socket.died() {
            Outcome::Interrupted("client reset with unread data".into())
        } else {
            Outcome::Delivered
        })
    }

    /// Ends the stream: in memory at once, in the journal and log by the record.
    pub(crate) fn end(self, socket: Option<&mut Socket>, outcome: Outcome, now: u64) -> Record {
        let content = self.delivery.content;
        let start = self.delivery.content_start;
        let acknowledged = if outcome == Outcome::Delivered {
            content
        } else {
            let acknowledged = socket.and_then(|socket| socket.acknowledged().ok()).unwrap_or(0);
            acknowledged.saturating_sub(start).min(content)
        };
        self.delivery.end(content, acknowledged, outcome, now)
    }
}
