//! Wall-clock time, passed in: what decides about expiry takes a [`Clock`] and is tested without
//! sleeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the time of day comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// Set by a test: seconds since the epoch.
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// Whole seconds since the epoch, as in a JWT's NumericDate (RFC 7519 §2).
    pub fn unix(&self) -> u64 {
        match self {
            Clock::System => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            }
            Clock::Fixed(seconds) => seconds.load(Ordering::Relaxed),
        }
    }
}

/// `seconds` since the epoch, or the end of the year 9999: dates have four digits for the year.
pub fn time(seconds: u64) -> SystemTime {
    const LAST: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))
}

/// A date in seconds since the epoch, as RFC 3339 writes it.
pub fn date(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(time(seconds)).to_string()
}
