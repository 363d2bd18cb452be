//! Downloads that are under way, for whoever wants to look at them or end them, whichever thread has
//! them at the moment.
//!
//! A delivery and this list share a few counters. Nobody waits for another: the list's lock is held to
//! put in, take out and copy, and there are no more entries than connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::link::token::Resource;
use crate::logging::access::Outcome;
use crate::replay::{LinkId, Revocation, Target};

/// What a download is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: a worker has it, or is about to.
    Sending,
    /// Its turn in the bandwidth.
    Limited,
    /// The client, whose socket is full.
    Parked,
    /// The client, which has yet to acknowledge the last bytes.
    Finishing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 4] = [Phase::Sending, Phase::Limited, Phase::Parked, Phase::Finishing];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Sending => "sending",
            Phase::Limited => "limited",
            Phase::Parked => "parked",
            Phase::Finishing => "finishing",
        }
    }
}

/// One download that is under way.
#[derive(Debug)]
pub struct Download {
    /// The request's id, as in the log.
    pub request: String,
    /// Its link.
    pub link: LinkId,
    /// Who gets it, if that is known.
    pub client: Option<IpAddr>,
    /// What it is.
    pub resource: Resource,
    /// Bytes of this answer.
    pub length: u64,
    /// Where in the file it begins.
    pub start: u64,
    /// When it began.
    pub began: Instant,
    sent: AtomicU64,
    /// Bytes per second as of the last sample, and what had been sent by then.
    rate: AtomicU64,
    sampled: AtomicU64,
    phase: AtomicU8,
    revoked: AtomicBool,
}

impl Download {
    /// Content bytes handed to the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed).min(self.length)
    }

    /// What it is waiting for.
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Sending)
    }

    /// Bytes per second lately; of one that has just begun, since then.
    pub fn rate(&self, now: Instant) -> u64 {
        if self.sampled.load(Ordering::Relaxed) > 0 {
            return self.rate.load(Ordering::Relaxed);
        }
        per_second(self.sent(), now.saturating_duration_since(self.began))
    }
}

/// A download's place in the list, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Running {
    number: u64,
    download: Arc<Download>,
    downloads: Arc<Downloads>,
}

impl Running {
    /// `count` more bytes went to the kernel, which makes `sent` of content.
    pub fn note(&self, count: u64, sent: u64) {
        self.downloads.sent.fetch_add(count, Ordering::Relaxed);
        self.download.sent.store(sent, Ordering::Relaxed);
    }

    /// Says what it is waiting for from here on.
    pub fn enter(&self, phase: Phase) {
        self.download.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether its link was revoked, so that it has to end.
    pub fn is_revoked(&self) -> bool {
        self.download.revoked.load(Ordering::Acquire)
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
    list: Mutex<HashMap<u64, Arc<Download>>>,
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
    /// Adds `what` about `link`, of `length` bytes from `start` on.
    pub fn begin(
        self: &Arc<Self>,
        link: LinkId,
        (client, resource, request): (Option<IpAddr>, Resource, String),
        (start, length): (u64, u64),
    ) -> Running {
        let download = Arc::new(Download {
            request,
            link,
            client,
            resource,
            length,
            start,
            began: Instant::now(),
            sent: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Sending as u8),
            revoked: AtomicBool::new(false),
        });
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.list().insert(number, Arc::clone(&download));
        Running { number, download, downloads: Arc::clone(self) }
    }

    /// Those that are under way, in the order in which they began.
    pub fn all(&self) -> Vec<Arc<Download>> {
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
        let meant = |download: &&Arc<Download>| {
            target.names(&download.link) && known.covers(download.link.issued)
        };
        let list = self.list();
        let ends = list.values().filter(meant);
        ends.filter(|download| !download.revoked.swap(true, Ordering::AcqRel)).count()
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
            let sent = download.sent();
            let before = download.sampled.swap(sent, Ordering::Relaxed);
            let since_start = now.saturating_duration_since(download.began);
            let rate = per_second(sent.saturating_sub(before), time.min(since_start));
            // Half of it from the seconds before: a client that takes steps has a pace all the same.
            let rate = match before {
                0 => rate,
                _ => rate.midpoint(download.rate.load(Ordering::Relaxed)),
            };
            download.rate.store(rate, Ordering::Relaxed);
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

    fn list(&self) -> MutexGuard<'_, HashMap<u64, Arc<Download>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    // Of less than a moment nothing can be told.
    let millis = time.as_millis().max(50);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(downloads: &Arc<Downloads>, user: u8, issued: Option<u64>) -> Running {
        let link = LinkId {
            link: [user; 16],
            server: Some([1; 16]),
            user: Some([user; 16]),
            jti: None,
            issued,
        };
        let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
        let resource = Resource::File { server, path: "a".into() };
        downloads.begin(link, (None, resource, "id".into()), (0, 1000))
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
        let second = |n: u64| running.download.began + Duration::from_secs(n);
        downloads.sample(second(0));
        running.note(100, 100);
        assert_eq!(running.download.rate(second(2)), 50);
        downloads.sample(second(1));
        assert_eq!((running.download.rate(second(1)), downloads.rate()), (100, 100));
        running.note(300, 400);
        downloads.sample(second(2));
        assert_eq!((running.download.rate(second(2)), downloads.rate()), (200, 300));
        downloads.sample(second(3));
        assert_eq!((running.download.rate(second(3)), downloads.rate()), (100, 0));
    }
}
