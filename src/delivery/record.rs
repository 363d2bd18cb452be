//! The end of a delivery, on its way to the journal and the access log.
//!
//! The acceptor must not wait for a disk or a log reader. It ends a stream in memory, where that
//! counts at once, and sends the [`Record`] to the housekeeper.

use std::sync::Arc;
use std::time::Instant;

use super::running::Running;
use crate::logging::access::{Bytes, Entry, Outcome};
use crate::replay::live::Live;
use crate::replay::{EndedBy, Finished, Key, Stream};

/// A content answer from its first byte until it is recorded.
#[derive(Debug)]
pub struct Delivery {
    /// The link's stream; `None` if nothing is to be accounted for.
    pub stream: Option<Stream>,
    /// How far it has come.
    pub live: Arc<Live>,
    /// The link whose rate it keeps to.
    pub link: Option<Key>,
    /// The value of [`Socket::sent`](crate::net::socket::Socket::sent) at the first content byte.
    pub content_start: u64,
    /// Content bytes of the answer.
    pub content: u64,
    /// No proxy stands between this connection and the client.
    pub direct: bool,
    /// Its place among all that are under way.
    pub running: Arc<Running>,
    /// The line for the access log.
    pub entry: Entry,
}

impl Delivery {
    /// How many content bytes are among the first `bytes` of the connection.
    pub fn content_of(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.content_start).min(self.content)
    }

    /// Whether acknowledgements alone do not tell that the client has its bytes: on a direct
    /// connection they may lie unread. To a proxy they say all that can be known, and without a
    /// link nobody asks.
    pub fn needs_proof(&self) -> bool {
        self.direct && self.stream.is_some()
    }

    /// Notes how far this stream has come; both count bytes of the connection.
    pub fn note_progress(&self, sent: u64, acknowledged: u64) {
        self.live.note_sent(self.content_of(sent));
        self.live.note_acknowledged(self.content_of(acknowledged), Instant::now());
    }

    /// Ends the stream in memory at `now` (seconds since the epoch). `sent` and `acknowledged`
    /// count bytes of the connection.
    pub fn end(
        self,
        sent: u64,
        acknowledged: u64,
        by: EndedBy,
        outcome: Outcome,
        now: u64,
    ) -> Box<Record> {
        self.note_progress(sent, acknowledged);
        let acknowledged = self.live.acknowledged();
        self.running.count(&outcome, self.entry.part);
        Box::new(Record {
            finished: self.stream.map(|stream| stream.finish(by, now)),
            entry: self.entry,
            bytes: Bytes { sent: acknowledged, content: self.content, link: None },
            outcome,
        })
    }
}

/// A delivery that has ended in memory, and not yet in the journal and the log.
#[derive(Debug)]
pub struct Record {
    entry: Entry,
    bytes: Bytes,
    outcome: Outcome,
    finished: Option<Finished>,
}

impl Record {
    /// Writes to the journal, then to the log: what the log calls delivered, the journal knows.
    pub fn write(mut self: Box<Self>) {
        if let Some(progress) = self.finished.and_then(Finished::record) {
            self.bytes.link = Some((progress.delivered, progress.length));
        }
        self.entry.log(&self.bytes, &self.outcome);
    }
}
