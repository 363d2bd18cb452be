//! What the workers pull from: tiny_http, through a turnstile.
//!
//! tiny_http wakes a sleeping thread for each request; with the whole pool asleep there, every small
//! answer would be a switch to a thread whose caches have gone cold. So only some of the pool pull
//! at a time: whoever is let in finds its next request without sleeping. Measured on two cores with
//! 32 kept-alive clients this halves the switches per request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tiny_http::{Request, Server};

/// Threads that pull at a time: as many as the processors keep busy, and one.
pub static PULLERS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(2, usize::from) + 1);

/// tiny_http's server, shared by the pool.
pub(super) struct Source {
    server: Server,
    closed: AtomicBool,
    passage: Mutex<Passage>,
    widened: Condvar,
}

#[derive(Debug, Default)]
struct Passage {
    inside: usize,
    limit: usize,
}

impl Source {
    pub(super) fn new(server: Server) -> Source {
        let passage = Mutex::new(Passage { inside: 0, limit: *PULLERS });
        Source { server, closed: AtomicBool::new(false), passage, widened: Condvar::new() }
    }

    /// Pulls until the source is closed, and does `handle` with each request.
    pub(super) fn pull(&self, handle: impl Fn(Request)) {
        self.enter();
        while !self.closed.load(Ordering::Acquire) {
            // An error is an unblocking, which carries no request.
            if let Ok(request) = self.server.recv() {
                handle(request);
            }
            if self.is_crowded() {
                self.leave();
                self.enter();
            }
        }
        self.leave();
    }

    /// Lets `limit` threads pull or work at a time.
    pub(super) fn set_limit(&self, limit: usize) {
        let before = std::mem::replace(&mut self.lock().limit, limit);
        for _ in before..limit {
            self.widened.notify_one();
        }
    }

    /// Ends the `workers` threads, each after the request it is at.
    pub(super) fn close(&self, workers: usize) {
        self.closed.store(true, Ordering::Release);
        self.set_limit(workers);
        for _ in 0..workers {
            self.server.unblock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) {
        let full = |passage: &mut Passage| passage.inside >= passage.limit;
        let waited = self.widened.wait_while(self.lock(), full);
        waited.unwrap_or_else(PoisonError::into_inner).inside += 1;
    }

    fn leave(&self) {
        self.lock().inside -= 1;
        self.widened.notify_one();
    }

    fn is_crowded(&self) -> bool {
        let passage = self.lock();
        passage.inside > passage.limit
    }
}
