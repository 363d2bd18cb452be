//! How slow a client may be. It is judged by the bytes that it acknowledges: how long one write
//! takes says nothing, since with a grown send buffer a healthy slow reader keeps one waiting for a
//! minute.

use std::time::{Duration, Instant};

use super::end::Broken;
use crate::config::Config;
use crate::replay::live::Live;

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
    older: Mark,
    newer: Mark,
}

/// The number of bytes that were acknowledged by some moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    bytes: u64,
}

impl PaceWatch {
    /// Starts watching at `now`.
    pub fn new(now: Instant) -> PaceWatch {
        let start = Mark { at: now, bytes: 0 };
        PaceWatch { older: start, newer: start }
    }

    /// Leaves `time`, which the server made the client wait, out of account.
    pub fn leave_out(&mut self, time: Duration) {
        self.older.at += time;
        self.newer.at += time;
    }

    /// Judges at `now` the client of `live`.
    ///
    /// # Errors
    /// [`Broken::Stalled`] or [`Broken::TooSlow`].
    pub fn judge(&mut self, pace: &Pace, live: &Live, now: Instant) -> Result<(), Broken> {
        if live.silence(now) >= pace.stall {
            return Err(Broken::Stalled);
        }
        let acknowledged = live.acknowledged();
        let time = now.saturating_duration_since(self.older.at);
        let bytes = u128::from(acknowledged - self.older.bytes) * 1000;
        if time >= pace.stall / 2 && bytes < u128::from(pace.min_rate) * time.as_millis() {
            return Err(Broken::TooSlow);
        }
        if now.saturating_duration_since(self.newer.at) >= pace.stall {
            // A window of a segment or two opens in steps: one alone must not decide.
            self.older = self.newer;
            self.newer = Mark { at: now, bytes: acknowledged };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::tests::live;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client that has acknowledged so many bytes by each of these seconds; how that is judged.
    fn judge(
        pace: &Pace,
        acknowledged: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<(), Broken> {
        let live = live(0..u64::MAX, 0);
        let mut watch = PaceWatch::new(live.began);
        for (second, bytes) in acknowledged {
            let now = live.began + SECOND * second;
            live.note_acknowledged(bytes, now);
            watch.judge(pace, &live, now)?;
        }
        Ok(())
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_stalled() {
        let pace = Pace { stall: SECOND * 60, min_rate: 0 };
        assert_eq!(judge(&pace, [(59, 0), (59, 1), (118, 1)]), Ok(()));
        assert_eq!(judge(&pace, [(59, 0), (59, 1), (119, 1)]), Err(Broken::Stalled));
    }

    #[test]
    fn the_rate_is_an_average_over_a_stall_time_or_two() {
        let pace = Pace { stall: SECOND * 60, min_rate: 1024 };
        let run = |rate: u64| judge(&pace, (1..=120).map(|s| (s, rate * u64::from(s))));
        assert_eq!(run(1000), Err(Broken::TooSlow));
        assert_eq!(run(1024), Ok(()));
        assert_eq!(run(2048), Ok(()));
    }

    #[test]
    fn a_window_that_opens_in_steps_is_no_standstill() {
        let pace = Pace { stall: SECOND * 10, min_rate: 1024 };
        let steps = (1..=600).map(|s| (s, (u64::from(s / 9) + 1) * 65_536));
        assert_eq!(judge(&pace, steps.chain([(609, 67 * 65_536 + 1)])), Ok(()));
    }

    #[test]
    fn without_a_minimum_only_a_standstill_counts() {
        let pace = Pace { stall: SECOND * 2, min_rate: 0 };
        assert_eq!(judge(&pace, (1..100).map(|s| (s, u64::from(s)))), Ok(()));
    }

    #[test]
    fn what_the_server_makes_a_client_wait_does_not_count() {
        let pace = Pace { stall: SECOND * 10, min_rate: 1000 };
        let live = live(0..u64::MAX, 0);
        let mut watch = PaceWatch::new(live.began);
        let second = |n| live.began + SECOND * n;
        live.pause(second(1));
        watch.leave_out(live.resume(second(100)));
        live.note_acknowledged(5000, second(103));
        assert_eq!(watch.judge(&pace, &live, second(103)), Ok(()));
        assert_eq!(watch.judge(&pace, &live, second(113)), Err(Broken::Stalled));
    }
}
