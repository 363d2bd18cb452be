//! How much may be sent now: of one link, to one address, and in all. Each is a bucket of bytes
//! that fills at its rate; a piece takes from all three what it may send, and gives back what it did
//! not. Whoever has to wait for a link or an address has its turn reserved, so that streams which
//! share one are served in the order in which they came.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::address::ClientKey;
use crate::replay::Key;

/// A bucket holds what its rate gives in this time.
const DEPTH: Duration = Duration::from_millis(50);
/// A piece takes at most what the rate gives in this time, so that turns are short.
const TURN: Duration = Duration::from_millis(10);
/// Less than this is not worth a piece, in bytes.
const LEAST: f64 = 16.0 * 1024.0;
/// Buckets that are kept before the full ones are forgotten.
const MANY: usize = 1024;

/// Bytes per second; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    link: u64,
    address: u64,
    all: u64,
}

impl Rates {
    /// The rates that `config` sets.
    pub(super) fn of(config: &Config) -> Rates {
        Rates {
            link: config.rate_limit,
            address: config.bandwidth_per_address,
            all: config.bandwidth,
        }
    }

    /// Whether anything is limited.
    pub(super) fn any(&self) -> bool {
        *self != Rates { link: 0, address: 0, all: 0 }
    }
}

/// Bytes that may be sent, filled up to `at`.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u64, now: Instant) -> Bucket {
        Bucket { bytes: depth(rate), at: now }
    }

    fn fill(&mut self, rate: u64, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.bytes = (self.bytes + since * rate as f64).min(depth(rate));
        self.at = now;
    }

    /// How long until there are `bytes` in it.
    fn wait(&self, bytes: f64, rate: u64) -> Duration {
        Duration::from_secs_f64((bytes - self.bytes).max(0.0) / rate as f64)
    }
}

/// Bytes of one piece.
fn turn(rate: u64) -> f64 {
    (rate as f64 * TURN.as_secs_f64()).max(LEAST)
}

fn depth(rate: u64) -> f64 {
    (rate as f64 * DEPTH.as_secs_f64()).max(LEAST)
}

/// What a piece may send, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) bytes: u64,
    /// Zero: now.
    pub(super) wait: Duration,
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    all: Option<Bucket>,
    addresses: HashMap<ClientKey, Bucket>,
    links: HashMap<Key, Bucket>,
}

impl Bandwidth {
    /// How long to wait until the server as a whole may send again.
    pub(super) fn wait(&mut self, rates: &Rates, now: Instant) -> Option<Duration> {
        if rates.all == 0 {
            return None;
        }
        let bucket = self.all.get_or_insert_with(|| Bucket::full(rates.all, now));
        bucket.fill(rates.all, now);
        let wait = bucket.wait(turn(rates.all), rates.all);
        (!wait.is_zero()).then_some(wait)
    }

    /// Takes the bytes of one piece. If a link or an address has to wait for them, they are reserved:
    /// the next call, after that wait, comes with what was `reserved`.
    pub(super) fn take(
        &mut self,
        rates: &Rates,
        client: Option<ClientKey>,
        link: Option<Key>,
        reserved: Option<u64>,
        now: Instant,
    ) -> Turn {
        if let Some(bytes) = reserved {
            if let Some(all) = &mut self.all {
                all.bytes -= bytes as f64;
            }
            return Turn { bytes, wait: Duration::ZERO };
        }
        if !rates.any() {
            return Turn { bytes: u64::MAX, wait: Duration::ZERO };
        }
        let mut buckets = self.buckets(rates, client, link, now);
        let bytes = buckets.iter().map(|(_, rate)| turn(*rate)).fold(f64::INFINITY, f64::min);
        let mut wait = Duration::ZERO;
        for (bucket, rate) in &mut buckets {
            bucket.fill(*rate, now);
            wait = wait.max(bucket.wait(bytes, *rate));
        }
        buckets.iter_mut().for_each(|(bucket, _)| bucket.bytes -= bytes);
        // What waits takes its part of the server's bandwidth when it is sent.
        if let Some(all) = self.all.as_mut().filter(|_| !wait.is_zero() && rates.all > 0) {
            all.bytes += bytes;
        }
        // Infinite if nothing here is limited: `as` saturates.
        Turn { bytes: bytes as u64, wait }
    }

    /// Corrects what was taken by what was sent.
    pub(super) fn settle(
        &mut self,
        rates: &Rates,
        client: Option<ClientKey>,
        link: Option<Key>,
        (taken, sent): (u64, u64),
    ) {
        if rates.any() && taken != u64::MAX {
            let correction = taken as f64 - sent as f64;
            for (bucket, rate) in self.buckets(rates, client, link, Instant::now()) {
                bucket.bytes = (bucket.bytes + correction).min(depth(rate));
            }
        }
    }

    fn buckets(
        &mut self,
        rates: &Rates,
        client: Option<ClientKey>,
        link: Option<Key>,
        now: Instant,
    ) -> Vec<(&mut Bucket, u64)> {
        let mut buckets = Vec::with_capacity(3);
        if rates.all > 0 {
            let all = self.all.get_or_insert_with(|| Bucket::full(rates.all, now));
            buckets.push((all, rates.all));
        }
        buckets.extend(bucket_of(&mut self.addresses, client, rates.address, now));
        buckets.extend(bucket_of(&mut self.links, link, rates.link, now));
        buckets
    }
}

fn bucket_of<K: Eq + Hash>(
    map: &mut HashMap<K, Bucket>,
    key: Option<K>,
    rate: u64,
    now: Instant,
) -> Option<(&mut Bucket, u64)> {
    let key = key.filter(|_| rate > 0)?;
    if map.len() >= MANY {
        map.retain(|_, bucket| {
            bucket.fill(rate, now);
            bucket.bytes < depth(rate)
        });
    }
    Some((map.entry(key).or_insert_with(|| Bucket::full(rate, now)), rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const A: Option<ClientKey> = Some(ClientKey::V4(1));
    const B: Option<ClientKey> = Some(ClientKey::V4(2));

    /// Sends as much as is allowed for ten seconds, in turns; how many bytes each got.
    fn run(rates: &Rates, streams: &[(Option<ClientKey>, Option<Key>)]) -> Vec<u64> {
        let (start, mut bandwidth) = (Instant::now(), Bandwidth::default());
        let mut sent = vec![0; streams.len()];
        let mut waiting = vec![(start, None); streams.len()];
        for tick in 0..10_000 {
            let now = start + Duration::from_millis(tick);
            for (index, (client, link)) in streams.iter().enumerate() {
                let (until, reserved) = waiting[index];
                if until > now || bandwidth.wait(rates, now).is_some() {
                    continue;
                }
                let Turn { bytes, wait } = bandwidth.take(rates, *client, *link, reserved, now);
                waiting[index] = (now + wait, (!wait.is_zero()).then_some(bytes));
                if wait.is_zero() {
                    sent[index] += bytes;
                }
            }
        }
        sent
    }

    fn is_about(bytes: u64, mib: u64) -> bool {
        bytes.abs_diff(mib * MIB) < mib * MIB / 20
    }

    #[test]
    fn a_link_keeps_its_rate_over_all_its_streams() {
        let rates = Rates { link: 10 * MIB, address: 0, all: 0 };
        let link = Some([1; 16]);
        let sent = run(&rates, &[(A, link), (A, link), (A, Some([2; 16]))]);
        assert!(is_about(sent[0] + sent[1], 100) && is_about(sent[2], 100), "{sent:?}");
        assert!(is_about(sent[0], 50), "each has half: {sent:?}");
    }

    #[test]
    fn an_address_and_the_server_keep_theirs() {
        let rates = Rates { link: 0, address: 5 * MIB, all: 8 * MIB };
        let sent = run(&rates, &[(A, None), (A, None), (B, None)]);
        assert!(is_about(sent.iter().sum(), 80), "{sent:?}");
        assert!(sent[0] + sent[1] <= 51 * MIB, "{sent:?}");
    }

    #[test]
    fn what_was_not_sent_is_given_back() {
        let rates = Rates { link: 0, address: MIB, all: 0 };
        let (now, mut bandwidth) = (Instant::now(), Bandwidth::default());
        for _ in 0..100 {
            let turn = bandwidth.take(&rates, A, None, None, now);
            assert_eq!(turn.wait, Duration::ZERO);
            bandwidth.settle(&rates, A, None, (turn.bytes, 0));
        }
        let unlimited = Rates { link: 0, address: 0, all: 0 };
        assert_eq!(bandwidth.take(&unlimited, A, None, None, now).bytes, u64::MAX);
    }

    #[test]
    fn buckets_of_those_who_are_gone_are_forgotten() {
        let rates = Rates { link: 0, address: MIB, all: 0 };
        let (start, mut bandwidth) = (Instant::now(), Bandwidth::default());
        for address in 0..5000 {
            let now = start + Duration::from_millis(u64::from(address));
            bandwidth.take(&rates, Some(ClientKey::V4(address)), None, None, now);
        }
        assert!(bandwidth.addresses.len() <= MANY);
    }
}
