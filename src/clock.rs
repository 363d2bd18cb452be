//! Wall-clock time, passed in: what decides about expiry takes a [`Clock`] and is tested without
//! sleeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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
