//! Streams that have ended, on their way to the journal and the access log.
//!
//! The acceptor must not wait for a disk or a log reader. It ends a stream in memory, where that
//! counts at once, and leaves the record to the housekeeper through a bounded list.

use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::logging::access::{Bytes, Entry, Outcome};
use crate::pool::exchange::Delivery;
use crate::replay::{EndedBy, Finished, StreamEnd};

/// At most this many ended streams wait for the housekeeper; the next one is recorded on the spot.
const MAX_WAITING: usize = 4096;
/// Records are gathered for this long, so that a busy server does not wake a thread a request.
const GATHER: Duration = Duration::from_millis(2);

/// An ended stream.
#[derive(Debug)]
pub struct Record {
    entry: Entry,
    bytes: Bytes,
    outcome: Outcome,
    finished: Option<Finished>,
}

impl Delivery {
    /// Ends the stream in memory. `acknowledged` counts the answer's content.
    pub fn end(self, sent: u64, acknowledged: u64, outcome: Outcome, now: u64) -> Record {
        let by = if outcome == Outcome::Delivered { EndedBy::Client } else { EndedBy::Reset };
        let end = StreamEnd { sent, acknowledged, by };
        Record {
            finished: self.stream.map(|stream| stream.finish(&end, now)),
            entry: self.entry,
            bytes: Bytes { sent: acknowledged, content: self.content, link: None },
            outcome,
        }
    }
}

impl Record {
    /// Writes to the journal, then to the log: what the log calls delivered, the journal knows.
    pub fn write(mut self) {
        if let Some(progress) = self.finished.and_then(Finished::record) {
            self.bytes.link = Some((progress.delivered, progress.length));
        }
        self.entry.log(&self.bytes, &self.outcome);
    }
}

/// The list of ended streams.
#[derive(Debug, Default)]
pub struct Records {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Record>,
    closed: bool,
    called: bool,
}

impl Records {
    /// Leaves `record` to the housekeeper.
    pub fn push(&self, record: Record) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed || waiting.records.len() >= MAX_WAITING {
            drop(waiting);
            record.write();
            return;
        }
        waiting.records.push(record);
        if waiting.records.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Wakes the housekeeper for another reason.
    pub fn call(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).called = true;
        self.wake.notify_one();
    }

    /// From here on, records are written on the spot.
    pub fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.wake.notify_one();
    }

    /// Whether [`Records::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Waits up to `timeout` for records, and takes them all.
    pub fn take(&self, timeout: Duration) -> Vec<Record> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |waiting: &mut Waiting| {
            waiting.records.is_empty() && !waiting.closed && !waiting.called
        };
        if idle(&mut waiting) {
            waiting = self
                .wake
                .wait_timeout_while(waiting, timeout, idle)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if !waiting.closed && !waiting.called && !waiting.records.is_empty() {
                drop(waiting);
                std::thread::sleep(GATHER);
                waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        waiting.called = false;
        mem::take(&mut waiting.records)
    }
}
