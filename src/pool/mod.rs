//! The fixed pool: threads that pull requests off tiny_http and answer them.

pub mod exchange;
pub mod private;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tiny_http::{Request, Server};

use crate::download;
use crate::shared::Shared;

/// The header in which the number of an exchange travels through tiny_http.
pub const NUMBER_FIELD: &str = "X-Exchange";
/// A worker's stack in bytes: it holds no large arrays, and the kernel maps what is touched only.
const STACK: usize = 256 * 1024;

/// The tiny_http server that the pool pulls from: replaced when its private socket ended.
#[derive(Debug, Default)]
pub struct Source {
    current: Mutex<Current>,
    changed: Condvar,
    generation: AtomicU64,
    turnstile: Turnstile,
}

/// Lets only some of the pool pull at a time. tiny_http wakes a sleeping thread for each request;
/// with the whole pool asleep there, every small answer would cost a switch to a thread whose stack
/// and caches have gone cold. Whoever is let in finds its next request without sleeping.
#[derive(Debug, Default)]
struct Turnstile {
    state: Mutex<Passage>,
    widened: Condvar,
}

#[derive(Debug, Default)]
struct Passage {
    inside: usize,
    limit: usize,
}

impl Turnstile {
    fn lock(&self) -> MutexGuard<'_, Passage> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) {
        let full = |passage: &mut Passage| passage.inside >= passage.limit;
        let waited = self.widened.wait_while(self.lock(), full);
        waited.unwrap_or_else(PoisonError::into_inner).inside += 1;
    }

    /// Goes out, to where there is room again.
    fn leave(&self) {
        self.lock().inside -= 1;
        self.widened.notify_one();
    }

    /// Whether one of those inside has to leave, since the limit was lowered.
    fn is_crowded(&self) -> bool {
        let passage = self.lock();
        passage.inside > passage.limit
    }

    fn set_limit(&self, limit: usize) {
        let mut passage = self.lock();
        let before = std::mem::replace(&mut passage.limit, limit);
        let room = limit.saturating_sub(passage.inside);
        drop(passage);
        for _ in 0..limit.saturating_sub(before).min(room) {
            self.widened.notify_one();
        }
    }
}

#[derive(Default)]
struct Current {
    server: Option<Arc<Server>>,
    generation: u64,
    closed: bool,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Source {
    /// Lets the pool pull from `server`, and wakes the `workers` that wait at the one before.
    pub fn replace(&self, server: Arc<Server>, workers: usize) {
        let before = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.generation += 1;
            self.generation.store(current.generation, Ordering::Release);
            current.server.replace(server)
        };
        self.changed.notify_all();
        unblock(before.as_deref(), workers);
    }

    /// Ends the `workers` threads, each after the request it is at.
    pub fn close(&self, workers: usize) {
        let before = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.closed = true;
            self.generation.store(CLOSED, Ordering::Release);
            current.server.take()
        };
        self.changed.notify_all();
        self.turnstile.set_limit(workers);
        unblock(before.as_deref(), workers);
    }

    /// The server to pull from, newer than `seen`; `None` once closed.
    fn next(&self, seen: u64) -> Option<(Arc<Server>, u64)> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if current.closed {
                return None;
            }
            match &current.server {
                Some(server) if current.generation > seen => {
                    return Some((Arc::clone(server), current.generation));
                }
                _ => {
                    current = self.changed.wait(current).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// Lets as many threads pull as the processors can keep busy, and one more for each of `long`
    /// requests, which have been at a thread for a while.
    pub fn set_long(&self, long: usize) {
        self.turnstile.set_limit(*PULLERS + long);
    }
}

/// The generation that no server has.
const CLOSED: u64 = u64::MAX;

/// Threads that pull at a time: asked for once, since the answer is read from files.
static PULLERS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(2, usize::from) + 1);

fn unblock(server: Option<&Server>, workers: usize) {
    let Some(server) = server else { return };
    for _ in 0..workers {
        server.unblock();
    }
}

/// Starts `workers` threads on `source`.
///
/// # Errors
/// Where the system has no more threads.
pub fn start(
    workers: usize,
    source: &Arc<Source>,
    shared: &Arc<Shared>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    source.set_long(0);
    (0..workers)
        .map(|index| {
            let (source, shared) = (Arc::clone(source), Arc::clone(shared));
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(STACK)
                .spawn(move || work(&source, &shared))
        })
        .collect()
}

fn work(source: &Source, shared: &Shared) {
    let mut generation = 0;
    while let Some((server, current)) = source.next(generation) {
        generation = current;
        source.turnstile.enter();
        while source.is_current(generation) {
            // An error is an unblocking, which carries no request.
            if let Ok(request) = server.recv() {
                handle(shared, request);
            }
            if source.turnstile.is_crowded() {
                source.turnstile.leave();
                source.turnstile.enter();
            }
        }
        source.turnstile.leave();
    }
}

fn handle(shared: &Shared, request: Request) {
    let number = request
        .headers()
        .iter()
        .find(|header| header.field.equiv(NUMBER_FIELD))
        .and_then(|header| header.value.as_str().parse().ok());
    // Released at once: a Request that is merely dropped writes a 500 and waits its turn for it.
    drop(request.into_writer());
    let Some(exchange) = number.and_then(|number| shared.handed.take(number)) else { return };
    // What a panic unwinds through is dropped: the connection closes and reports itself lost, and
    // a link's stream counts as broken. Nothing shared is left half changed.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        assert!(!shared.take_panic(), "provoked by a test");
        download::serve(shared, exchange);
    }));
    if outcome.is_err() {
        log::error!("a worker panicked; its request was dropped and the worker goes on");
    }
}
