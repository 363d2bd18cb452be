//! Downloads that are under way, for whoever wants to look at them or end them, whichever thread has
//! them at the moment.
//!
//! A delivery and this list share a few counters. Nobody waits for another: the list's lock is held to
//! put in, take out and copy, and there are no more entries than connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::logging::access::Outcome;
pub use crate::replay::live::Phase;
use crate::replay::live::{Live, Stop, per_second};
use crate::replay::{Revocation, Target};

/// A download's place in the list, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Running {
    number: u64,
    live: Arc<Live>,
    downloads: Arc<Downloads>,
}

impl Running {
    /// `count` more bytes went to the kernel, which makes `sent` of content.
    pub fn note(&self, count: u64, sent: u64) {
        self.downloads.sent.fetch_add(count, Ordering::Relaxed);
        self.live.note_sent(sent);
    }

    /// Says what it is waiting for from here on.
    pub fn enter(&self, phase: Phase) {
        self.live.enter(phase);
    }

    /// Whether its link was revoked, so that it has to end.
    pub fn is_revoked(&self) -> bool {
        self.live.stopped() == Some(Stop::Revoked)
    }

    /// Counts how it has ended; `part`: it was not the whole file.
    pub fn count(&self, outcome: &Outcome, part: bool) {
        let counter = match outcome {
            Outcome::Delivered if part => &self.downloads.parts,
            Outcome::Delivered => &self.downloads.delivered,
            _ => &self.downloads.interrupted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.downloads.list().remove(&self.number);
    }
}

/// Everything that is under way, and how everything before it ended.
#[derive(Debug, Default)]
pub struct Downloads {
    list: Mutex<HashMap<u64, Arc<Live>>>,
    count: AtomicU64,
    /// Bytes handed to the kernel since the start, heads of answers included.
    sent: AtomicU64,
    delivered: AtomicU64,
    parts: AtomicU64,
    interrupted: AtomicU64,
    last: Mutex<Option<(Instant, u64)>>,
    rate: AtomicU64,
}

/// How many downloads have ended in which way since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The whole file was delivered by one answer.
    pub delivered: u64,
    /// The part that was asked for was delivered.
    pub parts: u64,
    /// Neither.
    pub interrupted: u64,
}

impl Downloads {
    /// Adds `live`.
    pub fn begin(self: &Arc<Self>, live: &Arc<Live>) -> Running {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.list().insert(number, Arc::clone(live));
        Running { number, live: Arc::clone(live), downloads: Arc::clone(self) }
    }

    /// Those that are under way, in the order in which they began.
    pub fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.list().iter().map(|(n, one)| (*n, Arc::clone(one))).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, download)| download).collect()
    }

    /// How many there are in each of [`Phase::ALL`].
    pub fn phases(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for download in self.list().values() {
            counts[download.phase() as usize] += 1;
        }
        counts
    }

    /// Tells those that `target` names, and that `known` is about, to end. How many that are.
    pub fn revoke(&self, target: &Target, known: &Revocation) -> usize {
        let meant = |download: &&Arc<Live>| {
            target.names(&download.link) && known.covers(download.link.issued)
        };
        let list = self.list();
        let ends = list.values().filter(meant);
        ends.filter(|download| download.stop(Stop::Revoked)).count()
    }

    /// Looks at `now` how fast everything is. To be called about once per second.
    pub fn sample(&self, now: Instant) {
        let sent = self.sent();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((before, sent_before)) = last.replace((now, sent)) else { return };
        drop(last);
        let time = now.saturating_duration_since(before);
        self.rate.store(per_second(sent - sent_before, time), Ordering::Relaxed);
        for download in self.list().values() {
            download.sample(now, time);
        }
    }

    /// Bytes handed to the kernel since the start.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes per second of all together, as of the last sample.
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// How the others ended.
    pub fn ended(&self) -> Ended {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ended {
            delivered: read(&self.delivered),
            parts: read(&self.parts),
            interrupted: read(&self.interrupted),
        }
    }

    fn list(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::logging::access::Entry;
    use crate::replay::LinkId;

    fn begin(downloads: &Arc<Downloads>, user: u8, issued: Option<u64>) -> Running {
        let link = LinkId { link: [user; 16], server: [1; 16], user: Some([user; 16]), issued };
        let entry = Entry {
            client: None,
            method: "GET",
            endpoint: "file",
            status: 200,
            part: false,
            resource: None,
            began: Instant::now(),
            id: String::new(),
        };
        downloads.begin(&Arc::new(Live::new(entry, link, 1, 0..1000)))
    }

    #[test]
    fn only_what_is_named_ends_and_what_ends_leaves() {
        let downloads = Arc::<Downloads>::default();
        let (one, other) = (begin(&downloads, 1, Some(5)), begin(&downloads, 2, None));
        let known = Revocation { issued: 4, end: 100 };
        let user = |user| Target { user: Some([user; 16]), ..Target::default() };
        assert_eq!(downloads.revoke(&user(1), &known), 0, "it was issued later");
        assert_eq!(downloads.revoke(&user(2), &known), 1);
        assert_eq!(downloads.revoke(&Target::default(), &known), 0, "it knows already");
        assert_eq!((one.is_revoked(), other.is_revoked()), (false, true));
        other.count(&Outcome::Interrupted("revoked".into()), false);
        drop(other);
        assert_eq!((downloads.all().len(), downloads.ended().interrupted), (1, 1));
        drop(one);
        assert!(downloads.all().is_empty());
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let downloads = Arc::<Downloads>::default();
        let running = begin(&downloads, 1, None);
        let second = |n: u64| running.live.entry.began + Duration::from_secs(n);
        downloads.sample(second(0));
        running.note(100, 100);
        assert_eq!(running.live.rate(second(2)), 50);
        downloads.sample(second(1));
        assert_eq!((running.live.rate(second(1)), downloads.rate()), (100, 100));
        running.note(300, 400);
        downloads.sample(second(2));
        assert_eq!((running.live.rate(second(2)), downloads.rate()), (200, 300));
        downloads.sample(second(3));
        assert_eq!((running.live.rate(second(3)), downloads.rate()), (100, 0));
    }
}
