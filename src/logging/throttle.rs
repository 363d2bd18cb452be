//! Log lines that a stranger can cause, rate-limited, so that an attack does not fill the disk.

use std::time::{Duration, Instant};

/// One kind of event: a few lines in each period, then a count.
#[derive(Debug)]
pub struct LogThrottle {
    what: &'static str,
    /// Lines in one period.
    most: u32,
    period_start: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// The length of a period.
const PERIOD: Duration = Duration::from_secs(10);

impl LogThrottle {
    /// Events of the kind `what`, of which `most` may be logged in ten seconds.
    pub fn new(what: &'static str, most: u32) -> LogThrottle {
        LogThrottle { what, most, period_start: None, lines: 0, suppressed: 0 }
    }

    /// Whether a line may be written at `now`.
    pub fn allows(&mut self, now: Instant) -> bool {
        if self.period_start.is_none_or(|start| now.duration_since(start) >= PERIOD) {
            if self.suppressed > 0 {
                log::warn!("{}: {} more lines like that were left out", self.what, self.suppressed);
            }
            self.period_start = Some(now);
            self.lines = 0;
            self.suppressed = 0;
        }
        self.lines += 1;
        if self.lines > self.most {
            self.suppressed += 1;
        }
        self.lines <= self.most
    }

    /// Writes a warning, if it may be written at `now`.
    pub fn warn(&mut self, now: Instant, message: impl FnOnce() -> String) {
        if self.allows(now) {
            log::warn!("{}: {}", self.what, message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_a_period() {
        let start = Instant::now();
        let mut noise = LogThrottle::new("test", 5);
        let allowed = |noise: &mut LogThrottle, at| (0..1000).filter(|_| noise.allows(at)).count();
        assert_eq!(allowed(&mut noise, start), 5);
        assert_eq!(allowed(&mut noise, start + PERIOD / 2), 0);
        assert_eq!(allowed(&mut noise, start + PERIOD), 5);
    }
}
