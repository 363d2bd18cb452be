//! From the acceptor to a worker and back: a fixed pool of threads that pull requests off
//! tiny_http. Nothing else of the program knows tiny_http.
//!
//! What comes through tiny_http is a call to a sleeping worker. What there is to do lies in a
//! [`Queue`], from which the worker takes jobs until none is ready.

pub mod buckets;
pub mod private;
pub mod queue;
pub mod returns;
mod turns;
pub mod walks;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use queue::Queue;
use returns::Returns;
use tiny_http::Server;

/// A worker's stack in bytes: it holds no large arrays, and the kernel maps only what is touched.
const STACK: usize = 256 * 1024;

/// The way to the workers and back, for jobs `J` and their results `R`.
#[derive(Debug)]
pub struct Exchange<J, R> {
    /// What is ready for a worker.
    pub queue: Queue<J>,
    /// What the workers are done with.
    pub returns: Returns<R>,
}

/// The running pool.
pub struct Pool {
    server: Arc<Server>,
    closed: Arc<AtomicBool>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `workers` threads, which pull calls from `server` and do `work` with each job of
    /// `exchange`.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn start<J, R>(
        workers: usize,
        server: Server,
        exchange: &Arc<Exchange<J, R>>,
        work: impl Fn(u64, J) -> R + Clone + Send + 'static,
    ) -> io::Result<Pool>
    where
        J: Send + 'static,
        R: Send + 'static,
    {
        let (server, closed) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
        let start = |index| {
            let worker = Worker {
                index,
                server: Arc::clone(&server),
                closed: Arc::clone(&closed),
                exchange: Arc::clone(exchange),
            };
            let (name, work) = (format!("worker-{index}"), work.clone());
            thread::Builder::new().name(name).stack_size(STACK).spawn(move || worker.run(&work))
        };
        let workers = (0..workers).map(start).collect::<io::Result<_>>()?;
        Ok(Pool { server, closed, workers })
    }

    /// Ends the threads, each after the job it is at. Does not wait for them.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for _ in &self.workers {
            self.server.unblock();
        }
    }
}

struct Worker<J, R> {
    index: usize,
    server: Arc<Server>,
    closed: Arc<AtomicBool>,
    exchange: Arc<Exchange<J, R>>,
}

impl<J, R> Worker<J, R> {
    fn run(&self, work: &impl Fn(u64, J) -> R) {
        while !self.closed.load(Ordering::Acquire) {
            // An error is an unblocking, which carries no request.
            let Ok(call) = self.server.recv() else { continue };
            // Released at once: a Request that is merely dropped writes a 500 and waits its turn for
            // it.
            drop(call.into_writer());
            while let Some((id, job)) = self.exchange.queue.next(self.index) {
                // What a panic unwinds through is dropped: the connection closes, and a link's
                // stream counts as broken. Nothing shared is left half changed.
                let result = catch_unwind(AssertUnwindSafe(|| work(id, job)));
                if result.is_err() {
                    log::error!("a worker panicked; its request was dropped, the worker goes on");
                }
                self.exchange.returns.push(id, result.ok());
            }
        }
    }
}

#[cfg(test)]
mod tests;
