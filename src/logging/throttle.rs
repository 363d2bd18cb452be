//! Log lines that strangers can cause, bounded per address and in all, so that nobody can fill the
//! disk (an expired link alone made 14 GB per hour).
//!
//! Each kind of line has its own bounds, most in periods of ten seconds. What exceeds them is counted,
//! and the end of the period says how much that was. Memory is fixed, whoever comes.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::address::ClientKey;

/// The period of a warning that says all there is to say.
const HOUR: Duration = Duration::from_secs(3600);
/// The length of all other periods.
const PERIOD: Duration = Duration::from_secs(10);
/// Counters of addresses per kind. Two addresses that share one share its bound.
const COUNTERS: usize = 4096;

/// What a line that a stranger can cause is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request was refused, for whatever reason.
    Refused,
    /// A request was answered without content: `HEAD`, 304, a landing page.
    Answered,
    /// A file could not be read.
    Storage,
    /// The server has all connections that it may have.
    Connections,
    /// An address has all connections that it may have.
    Share,
    /// The process has no file descriptor left.
    Descriptors,
    /// No worker became free in time.
    Queue,
    /// An order to the control listener was refused.
    Orders,
    /// A proxy is not trusted.
    Proxy,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Refused,
        Kind::Answered,
        Kind::Storage,
        Kind::Connections,
        Kind::Share,
        Kind::Descriptors,
        Kind::Queue,
        Kind::Orders,
        Kind::Proxy,
    ];

    /// What the log calls it.
    fn name(self) -> &'static str {
        match self {
            Kind::Refused => "refused requests",
            Kind::Answered => "requests answered without content",
            Kind::Storage => "storage",
            Kind::Connections => "max_connections",
            Kind::Share => "max_connections_per_address",
            Kind::Descriptors => "descriptors",
            Kind::Queue => "queue",
            Kind::Orders => "orders",
            Kind::Proxy => "api.trusted_proxies",
        }
    }

    /// Lines per period, of one address and in all.
    fn bounds(self) -> (u8, u32) {
        match self {
            // Enough to see who asks for what, and that a key is wrong.
            Kind::Refused | Kind::Answered => (20, 200),
            Kind::Storage | Kind::Orders => (5, 20),
            Kind::Share | Kind::Queue => (2, 10),
            Kind::Connections | Kind::Descriptors => (5, 5),
            Kind::Proxy => (1, 1),
        }
    }

    fn period(self) -> Duration {
        match self {
            Kind::Proxy => HOUR,
            _ => PERIOD,
        }
    }
}

/// Decides which of these lines are written. Shared by all threads.
#[derive(Debug)]
pub struct LogThrottle {
    periods: Mutex<[Period; Kind::ALL.len()]>,
    /// Keyed at random, so that nobody can choose whose counter to share.
    hash: RandomState,
}

#[derive(Debug)]
struct Period {
    start: Option<Instant>,
    lines: u32,
    left_out: u64,
    counters: [u8; COUNTERS],
}

impl Period {
    const NEW: Period = Period { start: None, lines: 0, left_out: 0, counters: [0; COUNTERS] };

    /// Begins anew if the period is over, and returns how many lines it left out.
    fn end(&mut self, kind: Kind, now: Instant) -> u64 {
        if self.start.is_none_or(|start| now.duration_since(start) < kind.period()) {
            return 0;
        }
        std::mem::replace(self, Period::NEW).left_out
    }
}

impl Default for LogThrottle {
    fn default() -> LogThrottle {
        LogThrottle {
            periods: Mutex::new([Period::NEW; Kind::ALL.len()]),
            hash: RandomState::new(),
        }
    }
}

impl LogThrottle {
    /// Whether a line of `kind` that `client` caused may be written at `now`. Clients whose address
    /// is not known count as one.
    pub fn allows(&self, kind: Kind, client: Option<ClientKey>, now: Instant) -> bool {
        let mut periods = self.lock();
        let period = &mut periods[kind as usize];
        let left_out = period.end(kind, now);
        period.start.get_or_insert(now);
        let counter = self.hash.hash_one(client) as usize % COUNTERS;
        let (per_address, total) = kind.bounds();
        let allowed = period.counters[counter] < per_address && period.lines < total;
        if allowed {
            period.counters[counter] += 1;
            period.lines += 1;
        } else {
            period.left_out += 1;
        }
        drop(periods);
        tell(kind, left_out);
        allowed
    }

    /// Writes a warning about `kind` that `client` caused, if that may be written at `now`.
    pub fn warn(
        &self,
        kind: Kind,
        client: Option<ClientKey>,
        now: Instant,
        message: impl FnOnce() -> String,
    ) {
        if self.allows(kind, client, now) {
            log::warn!("{}: {}", kind.name(), message());
        }
    }

    /// Says what was left out in periods that are over. To be called about once per second: without
    /// it, that is said when the next line of the kind comes.
    pub fn report(&self, now: Instant) {
        for kind in Kind::ALL {
            let left_out = self.lock()[kind as usize].end(kind, now);
            tell(kind, left_out);
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Period; Kind::ALL.len()]> {
        self.periods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(kind: Kind, left_out: u64) {
    if left_out > 0 && kind.period() == PERIOD {
        let seconds = PERIOD.as_secs();
        log::warn!("{}: {left_out} more lines in {seconds} s were left out", kind.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(throttle: &LogThrottle, kind: Kind, address: u32, now: Instant) -> usize {
        let client = Some(ClientKey::V4(address));
        (0..1000).filter(|_| throttle.allows(kind, client, now)).count()
    }

    #[test]
    fn a_flood_from_one_address_is_a_few_lines_per_period() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        for (at, expected) in [(0, 20), (5, 0), (10, 20), (19, 0), (60, 20)] {
            let now = start + Duration::from_secs(at);
            assert_eq!(lines(&throttle, Kind::Refused, 1, now), expected, "after {at} s");
        }
        // Other kinds are counted apart.
        assert_eq!(lines(&throttle, Kind::Answered, 1, start), 20);
    }

    #[test]
    fn one_address_leaves_lines_to_others_and_all_have_a_bound() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());
        assert_eq!(lines(&throttle, Kind::Refused, 0, now), 20);
        let others: usize = (1..1000).map(|n| lines(&throttle, Kind::Refused, n, now)).sum();
        assert_eq!(others, 180);
    }

    #[test]
    fn what_was_left_out_is_counted_once() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());
        lines(&throttle, Kind::Queue, 1, now);
        let left_out = |at| throttle.lock()[Kind::Queue as usize].end(Kind::Queue, at);
        assert_eq!(left_out(now + PERIOD / 2), 0);
        assert_eq!((left_out(now + PERIOD), left_out(now + PERIOD)), (998, 0));
    }

    #[test]
    fn a_proxy_is_warned_of_once_an_hour() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        for (minutes, expected) in [(0, 1), (1, 0), (59, 0), (60, 1), (119, 0), (500, 1)] {
            let now = start + Duration::from_secs(60 * minutes);
            assert_eq!(lines(&throttle, Kind::Proxy, 1, now), expected, "after {minutes} min");
            assert_eq!(lines(&throttle, Kind::Proxy, 2, now), 0);
        }
    }

    #[test]
    fn each_kind_has_a_place_of_its_own() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
