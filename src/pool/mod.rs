//! From the acceptor to a worker and back: a fixed pool of threads that pull requests off
//! tiny_http. Nothing else of the program knows tiny_http.

pub mod exchange;
pub mod private;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use exchange::{Exchange, Handed};
use tiny_http::{Request, Server};

/// A worker's stack in bytes: it holds no large arrays, and the kernel maps what is touched only.
const STACK: usize = 256 * 1024;

/// The running pool.
#[derive(Debug)]
pub struct Pool {
    source: Arc<Source>,
    workers: Vec<thread::JoinHandle<()>>,
}

/// What the workers share.
struct Source {
    server: Server,
    handed: Arc<Handed>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `workers` threads that pull from `server` and do with `handler` what they find in
    /// `handed`.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn start<H>(
        workers: usize,
        server: Server,
        handed: Arc<Handed>,
        handler: H,
    ) -> io::Result<Pool>
    where
        H: Fn(Exchange) + Clone + Send + 'static,
    {
        let source = Arc::new(Source { server, handed, closed: AtomicBool::new(false) });
        let workers = (0..workers)
            .map(|index| {
                let (source, handler) = (Arc::clone(&source), handler.clone());
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .stack_size(STACK)
                    .spawn(move || source.work(&handler))
            })
            .collect::<io::Result<_>>()?;
        Ok(Pool { source, workers })
    }

    /// Ends the threads, each after what it is at. Does not wait for them.
    pub fn close(&self) {
        self.source.closed.store(true, Ordering::Release);
        for _ in &self.workers {
            self.source.server.unblock();
        }
    }
}

impl Source {
    fn work(&self, handler: &impl Fn(Exchange)) {
        while !self.closed.load(Ordering::Acquire) {
            // An error is an unblocking, which carries no request.
            if let Ok(request) = self.server.recv() {
                self.handle(request, handler);
            }
        }
    }

    fn handle(&self, request: Request, handler: &impl Fn(Exchange)) {
        let number = private::number_of(request.url());
        // Released at once: a Request that is merely dropped writes a 500 and waits its turn for it.
        drop(request.into_writer());
        let Some(exchange) = number.and_then(|number| self.handed.take(number)) else { return };
        // What a panic unwinds through is dropped: the connection closes and reports itself lost,
        // and a link's stream counts as broken. Nothing shared is left half changed.
        if catch_unwind(AssertUnwindSafe(|| handler(exchange))).is_err() {
            log::error!("a worker panicked; its request was dropped and the worker goes on");
        }
    }
}

#[cfg(test)]
mod tests;
