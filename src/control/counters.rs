//! What is counted from the start on: connections that came, and answers by their status.

use std::sync::atomic::{AtomicU64, Ordering};

use super::status::Totals;
use crate::logging::access::Outcome;

/// The statuses that are ever answered; whatever else comes is counted as the last.
const STATUSES: [u16; 21] = [
    200, 204, 206, 304, 307, 400, 401, 404, 405, 408, 412, 413, 414, 416, 417, 431, 500, 501, 503,
    505, 0,
];

/// Plain numbers that any thread may raise.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    answers: [AtomicU64; STATUSES.len()],
    delivered: AtomicU64,
    parts: AtomicU64,
    interrupted: AtomicU64,
}

impl Counters {
    /// A connection has come in.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is answered with `status`.
    pub fn answered(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status);
        self.answers[place.unwrap_or(STATUSES.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// A download has ended; `part`: of less than the whole file.
    pub fn ended(&self, outcome: &Outcome, part: bool) {
        let counter = match outcome {
            Outcome::Delivered if part => &self.parts,
            Outcome::Delivered => &self.delivered,
            _ => &self.interrupted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How downloads have ended.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            delivered: load(&self.delivered),
            parts: load(&self.parts),
            interrupted: load(&self.interrupted),
        }
    }

    /// Connections that have come in.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Answers of each status that was answered, lowest first; 0 stands for others.
    pub fn answers(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = self.answers.iter().map(|count| count.load(Ordering::Relaxed));
        STATUSES.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}
