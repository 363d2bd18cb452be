//! How much may be sent now: of one link, to one address, and in all. Each is a bucket of bytes that
//! fills at its rate; a piece takes from all three what it may send, and gives back what it did not.
//! A download that has to wait for its link or its address has its turn reserved there, so that
//! streams which share one are served in the order in which they came. The server's own bucket is
//! the queue's, where all addresses take turns.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::address::ClientKey;
use crate::pool::buckets::{Bucket, Buckets, Flow};
use crate::replay::Key;

/// A bucket holds what its rate gives in this time.
const DEPTH: f64 = 0.050;
/// A piece takes at most what the rate gives in this time, so that turns are short.
const TURN: f64 = 0.010;
/// Less than this is not worth a piece, in bytes.
const LEAST: f64 = 16.0 * 1024.0;

fn flow(rate: u64) -> Flow {
    Flow { rate: rate as f64, depth: (rate as f64 * DEPTH).max(LEAST) }
}

/// Bytes of one piece at `rate`; without a rate, any number.
fn piece(rate: u64) -> f64 {
    if rate == 0 { f64::INFINITY } else { (rate as f64 * TURN).max(LEAST) }
}

/// The limit of all downloads together, and the bytes of a piece within it.
pub(super) fn common(config: &Config) -> Option<(Flow, f64)> {
    (config.bandwidth > 0).then(|| (flow(config.bandwidth), piece(config.bandwidth)))
}

/// Returns true if anything is limited.
pub(super) fn is_limited(config: &Config) -> bool {
    config.rate_limit > 0 || config.bandwidth_per_address > 0 || config.bandwidth > 0
}

/// What a piece may send, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) bytes: u64,
    /// Zero: now.
    pub(super) wait: Duration,
}

/// The buckets of links and addresses.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    addresses: Buckets<ClientKey>,
    links: Buckets<Key>,
}

impl Bandwidth {
    /// Takes the bytes of one piece. If there are not as many yet, they are the piece's after the
    /// wait.
    pub(super) fn take(
        &mut self,
        config: &Config,
        client: Option<ClientKey>,
        link: Key,
        now: Instant,
    ) -> Share {
        let rates = [config.rate_limit, config.bandwidth_per_address, config.bandwidth];
        let bytes = rates.into_iter().map(piece).fold(f64::INFINITY, f64::min);
        let mut wait = Duration::ZERO;
        self.each(config, client, link, now, |bucket, flow| {
            wait = wait.max(bucket.wait(bytes, flow));
            bucket.take(bytes);
        });
        // Infinite if nothing is limited: `as` saturates.
        Share { bytes: bytes as u64, wait }
    }

    /// Gives back `bytes` that were taken and not sent; negative: more was sent.
    pub(super) fn settle(
        &mut self,
        config: &Config,
        client: Option<ClientKey>,
        link: Key,
        bytes: f64,
    ) {
        let now = Instant::now();
        self.each(config, client, link, now, |bucket, flow| bucket.give_back(bytes, flow));
    }

    fn each(
        &mut self,
        config: &Config,
        client: Option<ClientKey>,
        link: Key,
        now: Instant,
        mut act: impl FnMut(&mut Bucket, Flow),
    ) {
        if let Some(client) = client.filter(|_| config.bandwidth_per_address > 0) {
            let flow = flow(config.bandwidth_per_address);
            act(self.addresses.get(client, flow, now), flow);
        }
        if config.rate_limit > 0 {
            let flow = flow(config.rate_limit);
            act(self.links.get(link, flow, now), flow);
        }
    }
}
