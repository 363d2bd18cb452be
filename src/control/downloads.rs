//! The downloads that are running, for whoever wants to look at them or end them, whichever thread
//! has them at the moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::replay::live::{Live, Stop, per_second};
use crate::replay::{Revocation, Target};

/// Everything that is running.
#[derive(Debug, Default)]
pub struct Downloads {
    list: Mutex<List>,
    /// Bytes handed to the kernel since the start, heads of answers included.
    sent: AtomicU64,
    rate: AtomicU64,
}

#[derive(Debug, Default)]
struct List {
    /// In the order in which they began. Those that are over are removed when there are many.
    running: Vec<Weak<Live>>,
    sweep_at: usize,
    /// When the last sample was taken, and what had been sent by then.
    sampled: Option<(Instant, u64)>,
}

/// The list is searched for downloads that are over from this length on.
const MANY: usize = 64;

impl Downloads {
    /// Adds `live`, which is listed for as long as somebody holds it.
    pub fn add(&self, live: &Arc<Live>) {
        let mut list = self.list();
        if list.running.len() >= list.sweep_at {
            list.running.retain(|live| live.strong_count() > 0);
            list.sweep_at = MANY.max(2 * list.running.len());
        }
        list.running.push(Arc::downgrade(live));
    }

    /// All that are running, in the order in which they began.
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.list().running.iter().filter_map(Weak::upgrade).collect()
    }

    /// How many are in each [`Phase`](crate::replay::live::Phase), in the order of their numbers.
    pub fn phases(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for live in self.all() {
            counts[live.phase() as usize] += 1;
        }
        counts
    }

    /// Tells those to stop that `target` names and `known` covers. Returns how many that are.
    pub fn revoke(&self, target: &Target, known: &Revocation) -> usize {
        let meant = |live: &Arc<Live>| target.names(&live.link) && known.covers(live.link.issued);
        self.all().iter().filter(|live| meant(live) && live.stop(Stop::Revoked)).count()
    }

    /// Notes that `bytes` more went to the kernel.
    pub fn note_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Measures at `now` how fast everything is. To be called about once per second.
    pub fn sample(&self, now: Instant) {
        let sent = self.sent();
        let Some((then, before)) = self.list().sampled.replace((now, sent)) else { return };
        let time = now.saturating_duration_since(then);
        self.rate.store(per_second(sent - before, time), Ordering::Relaxed);
        self.all().iter().for_each(|live| live.sample(now, time));
    }

    /// Bytes handed to the kernel since the start.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes per second of all together, as of the last sample.
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::live::Phase;
    use crate::replay::tests::live;

    #[test]
    fn what_nobody_holds_is_no_longer_listed() {
        let downloads = Downloads::default();
        let kept: Vec<_> = (0..3).map(|_| Arc::new(live(0..10, 0))).collect();
        kept.iter().for_each(|live| downloads.add(live));
        for _ in 0..10 * MANY {
            downloads.add(&Arc::new(live(0..10, 0)));
        }
        assert!(downloads.list().running.len() <= 2 * MANY);
        assert_eq!(downloads.all().len(), 3);
        kept[0].enter(Phase::Parked);
        assert_eq!(downloads.phases(), [2, 0, 1, 0]);
    }

    #[test]
    fn the_rate_of_all_together() {
        let downloads = Downloads::default();
        let start = Instant::now();
        let second = |n| start + std::time::Duration::from_secs(n);
        downloads.sample(second(0));
        downloads.note_sent(100);
        downloads.sample(second(1));
        assert_eq!((downloads.sent(), downloads.rate()), (100, 100));
        downloads.sample(second(2));
        assert_eq!(downloads.rate(), 0);
    }
}
