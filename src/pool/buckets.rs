//! Token buckets: something may be taken at a rate, and a little more of it at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Units per second.
    pub rate: f64,
    /// Units that may be taken at once.
    pub depth: f64,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(flow: Flow, now: Instant) -> Bucket {
        Bucket { left: flow.depth, filled: now }
    }

    /// Adds what came in up to `now`.
    pub fn fill(&mut self, flow: Flow, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * flow.rate).min(flow.depth);
        self.filled = now;
    }

    /// How long until it holds `amount`.
    pub fn wait(&self, amount: f64, flow: Flow) -> Duration {
        Duration::from_secs_f64((amount - self.left).max(0.0) / flow.rate)
    }

    /// Takes `amount`, even if it holds less.
    pub fn take(&mut self, amount: f64) {
        self.left -= amount;
    }

    /// Gives back `amount`, which may be negative.
    pub fn give_back(&mut self, amount: f64, flow: Flow) {
        self.left = (self.left + amount).min(flow.depth);
    }
}

/// Buckets that are kept before full ones are looked for.
const MANY: usize = 1024;

/// One bucket for each key. Those that are full again are forgotten.
#[derive(Debug)]
pub struct Buckets<K> {
    buckets: HashMap<K, Bucket>,
    /// Full ones are looked for once there are this many: twice what was left the last time, so that
    /// a crowd does not cost a search per call.
    sweep_at: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Buckets<K> {
        Buckets { buckets: HashMap::new(), sweep_at: MANY }
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// The bucket of `key`, filled up to `now`.
    pub fn get(&mut self, key: K, flow: Flow, now: Instant) -> &mut Bucket {
        if self.buckets.len() >= self.sweep_at {
            self.buckets.retain(|_, bucket| {
                bucket.fill(flow, now);
                bucket.left < flow.depth
            });
            self.sweep_at = MANY.max(2 * self.buckets.len());
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket::full(flow, now));
        bucket.fill(flow, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { rate: 10.0, depth: 20.0 };

    #[test]
    fn a_bucket_gives_its_depth_at_once_and_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::full(FLOW, now);
        assert_eq!(bucket.wait(20.0, FLOW), Duration::ZERO);
        bucket.take(25.0);
        assert_eq!(bucket.wait(5.0, FLOW), Duration::from_secs(1));
        bucket.fill(FLOW, now + Duration::from_secs(1));
        assert_eq!(bucket.wait(5.0, FLOW), Duration::ZERO);
        bucket.give_back(100.0, FLOW);
        assert_eq!(bucket.wait(21.0, FLOW), Duration::from_millis(100));
    }

    #[test]
    fn full_buckets_are_forgotten_and_a_crowd_is_not_searched_at_every_call() {
        let (start, mut buckets) = (Instant::now(), Buckets::default());
        for key in 0..5000_u32 {
            let now = start + Duration::from_millis(u64::from(key));
            buckets.get(key, FLOW, now).take(1.0);
        }
        assert!(buckets.buckets.len() <= 2 * MANY, "{}", buckets.buckets.len());
        let mut buckets = Buckets::default();
        for key in 0..5000_u32 {
            buckets.get(key, FLOW, start).take(1.0);
        }
        assert_eq!((buckets.buckets.len(), buckets.sweep_at), (5000, 8192));
    }
}
