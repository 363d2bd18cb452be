//! How slow a client may be. It is judged by the bytes that it acknowledges: how long one write
//! takes says nothing, since with a grown send buffer a healthy slow reader keeps one waiting for a
//! minute.

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::Config;

/// Why a stream ended before its last byte was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client is gone.
    Client(String),
    /// No byte was acknowledged for the `stall` timeout.
    Stalled,
    /// The client took less than `min_rate`.
    TooSlow,
    /// The file is shorter than it was when it was opened.
    FileShrank,
    /// The file could not be read.
    File(String),
    /// The link has paid for as many bytes as it may.
    Budget,
    /// The link belongs to another address by now.
    LinkGone,
    /// The link was revoked.
    Revoked,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Client(error) => write!(f, "client gone ({error})"),
            Broken::Stalled => f.write_str("stall: nothing acknowledged in time"),
            Broken::TooSlow => f.write_str("stall: slower than min_rate"),
            Broken::FileShrank => f.write_str("the file was truncated meanwhile"),
            Broken::File(error) => write!(f, "read: {error}"),
            Broken::Budget => f.write_str("the link has paid for three times the file"),
            Broken::LinkGone => f.write_str("the link was taken over by another address"),
            Broken::Revoked => f.write_str("the link was revoked"),
        }
    }
}

/// How slow a client may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest time without an acknowledged byte.
    pub stall: Duration,
    /// Bytes per second, averaged over the last one to two `stall` times; 0 is none. It is first
    /// judged after half of one.
    pub min_rate: u64,
}

impl Pace {
    /// The pace that `config` asks for.
    pub fn of(config: &Config) -> Pace {
        Pace { stall: config.timeouts.stall, min_rate: config.min_rate }
    }

    /// How long to wait before judging again.
    pub fn tick(&self) -> Duration {
        (self.stall / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// Watches one client's pace. Time during which the server makes the client wait does not count.
#[derive(Debug)]
pub struct PaceWatch {
    moved: Instant,
    acknowledged: u64,
    start: Mark,
    older: Mark,
    newer: Mark,
    paused: Option<Instant>,
}

/// So many bytes were acknowledged by then.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    bytes: u64,
}

impl PaceWatch {
    /// Starts watching at `now`, with `acknowledged` bytes so far.
    pub fn new(now: Instant, acknowledged: u64) -> PaceWatch {
        let start = Mark { at: now, bytes: acknowledged };
        PaceWatch { moved: now, acknowledged, start, older: start, newer: start, paused: None }
    }

    /// Bytes per second since the start, as of the last judgement.
    pub fn rate(&self) -> u64 {
        let millis = self.moved.saturating_duration_since(self.start.at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(1000);
        (self.acknowledged - self.start.bytes).saturating_mul(1000) / millis
    }

    /// The clocks stand still from here on.
    pub fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// The clocks go on.
    pub fn resume(&mut self, now: Instant) {
        if let Some(since) = self.paused.take() {
            let stood = now.saturating_duration_since(since);
            self.moved += stood;
            for mark in [&mut self.start, &mut self.older, &mut self.newer] {
                mark.at += stood;
            }
        }
    }

    /// Takes note that `acknowledged` bytes have arrived by `now`.
    ///
    /// # Errors
    /// [`Broken::Stalled`] or [`Broken::TooSlow`].
    pub fn judge(&mut self, pace: &Pace, now: Instant, acknowledged: u64) -> Result<(), Broken> {
        self.resume(now);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved = now;
        } else if now.saturating_duration_since(self.moved) >= pace.stall {
            return Err(Broken::Stalled);
        }
        let time = now.saturating_duration_since(self.older.at);
        let bytes = u128::from(self.acknowledged - self.older.bytes) * 1000;
        if time >= pace.stall / 2 && bytes < u128::from(pace.min_rate) * time.as_millis() {
            return Err(Broken::TooSlow);
        }
        if now.saturating_duration_since(self.newer.at) >= pace.stall {
            // A window of a segment or two opens in steps: one alone must not decide.
            self.older = self.newer;
            self.newer = Mark { at: now, bytes: self.acknowledged };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(stall: Duration, min_rate: u64) -> Pace {
        Pace { stall, min_rate }
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_stalled() {
        let (start, pace) = (Instant::now(), pace(SECOND * 60, 0));
        let mut watch = PaceWatch::new(start, 0);
        assert_eq!(watch.judge(&pace, start + SECOND * 59, 0), Ok(()));
        assert_eq!(watch.judge(&pace, start + SECOND * 59, 1), Ok(()));
        assert_eq!(watch.judge(&pace, start + SECOND * 118, 1), Ok(()));
        assert_eq!(watch.judge(&pace, start + SECOND * 119, 1), Err(Broken::Stalled));
    }

    #[test]
    fn the_rate_is_an_average_over_a_stall_time_or_two() {
        let start = Instant::now();
        let run = |rate: u64| {
            let mut watch = PaceWatch::new(start, 0);
            let pace = pace(SECOND * 60, 1024);
            (1..=120).try_for_each(|s| watch.judge(&pace, start + SECOND * s, rate * u64::from(s)))
        };
        assert_eq!(run(1000), Err(Broken::TooSlow));
        assert_eq!(run(1024), Ok(()));
        assert_eq!(run(2048), Ok(()));
    }

    #[test]
    fn a_window_that_opens_in_steps_is_no_standstill() {
        let start = Instant::now();
        let mut watch = PaceWatch::new(start, 0);
        let pace = pace(SECOND * 10, 1024);
        for s in 1..=600 {
            let steps = u64::from(s / 9) + 1;
            assert_eq!(watch.judge(&pace, start + SECOND * s, steps * 65_536), Ok(()), "{s}");
        }
        assert_eq!(watch.judge(&pace, start + SECOND * 609, 67 * 65_536 + 1), Ok(()));
    }

    #[test]
    fn without_a_minimum_only_a_standstill_counts() {
        let (start, pace) = (Instant::now(), pace(SECOND, 0));
        let mut watch = PaceWatch::new(start, 0);
        for s in 1..100u32 {
            assert_eq!(watch.judge(&pace, start + SECOND * s / 2, s.into()), Ok(()));
        }
    }

    #[test]
    fn what_the_server_makes_a_client_wait_does_not_count() {
        let (start, pace) = (Instant::now(), pace(SECOND * 10, 1000));
        let mut watch = PaceWatch::new(start, 0);
        watch.pause(start + SECOND);
        assert_eq!(watch.judge(&pace, start + SECOND * 100, 0), Ok(()));
        assert_eq!(watch.judge(&pace, start + SECOND * 103, 5000), Ok(()));
        assert_eq!(watch.judge(&pace, start + SECOND * 113, 5000), Err(Broken::Stalled));
    }
}
