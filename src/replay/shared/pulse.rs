//! Whether this front end is there for the others: when its last beat was answered, and whether the
//! shared state answers and has not just been found empty.
//!
//! Times are of a clock that goes on while the machine is suspended: the others do not wait for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// See the file's head.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Links are others' once this front end was silent for so long.
    pub(super) silence: Duration,
    /// Milliseconds at which the last beat was sent that was answered; 0 before the first.
    beat: AtomicU64,
    /// Milliseconds until which everybody may assert what is theirs, and nobody claims anything.
    open_at: AtomicU64,
    /// It answers.
    up: AtomicBool,
    /// A new one begins whenever links may have been lost.
    term: AtomicU64,
}

impl Pulse {
    /// That of a front end which has not been heard of.
    pub(super) fn new(silence: Duration) -> Pulse {
        Pulse {
            silence,
            beat: AtomicU64::new(0),
            open_at: AtomicU64::new(0),
            up: AtomicBool::new(false),
            term: AtomicU64::new(0),
        }
    }

    /// Milliseconds of the clock.
    pub(super) fn now() -> u64 {
        let time = clock_gettime(ClockId::Boottime);
        u64::try_from(time.tv_sec).unwrap_or(0) * 1000
            + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
    }

    /// Notes that a beat was answered that was sent at `sent`.
    pub(super) fn note_beat(&self, sent: u64) {
        self.beat.store(sent, Ordering::SeqCst);
    }

    /// Returns true if the last answered beat is so old that others may have taken links over.
    pub(super) fn is_stale(&self) -> bool {
        let beat = self.beat.load(Ordering::SeqCst);
        beat == 0 || Duration::from_millis(Pulse::now().saturating_sub(beat)) >= self.silence
    }

    /// The number of the present term; `None` if the last beat is too old.
    pub(super) fn term(&self) -> Option<u64> {
        (!self.is_stale()).then(|| self.term.load(Ordering::SeqCst))
    }

    /// Begins a new term.
    pub(super) fn begin_term(&self) {
        self.term.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody claims anything for `wait`.
    pub(super) fn shut_for(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.open_at.store(Pulse::now().saturating_add(wait), Ordering::SeqCst);
    }

    /// For how many milliseconds more nobody claims anything.
    pub(super) fn shut(&self) -> u64 {
        self.open_at.load(Ordering::SeqCst).saturating_sub(Pulse::now())
    }

    /// Returns true if it answers.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// Notes whether it answers. Returns whether it did before.
    pub(super) fn set_up(&self, up: bool) -> bool {
        self.up.swap(up, Ordering::SeqCst)
    }
}
