//! From the acceptor to a worker and back: a fixed pool of threads that pull requests off
//! tiny_http. Nothing else of the program knows tiny_http.

pub mod exchange;
pub mod private;
pub mod source;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use exchange::{Exchange, Handed};
use source::Source;
use tiny_http::{Request, Server};

/// A worker's stack in bytes: it holds no large arrays, and the kernel maps what is touched only.
const STACK: usize = 256 * 1024;

/// The running pool.
pub struct Pool {
    source: Arc<Source>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers.len()).finish_non_exhaustive()
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
        let source = Arc::new(Source::new(server));
        let workers = (0..workers)
            .map(|index| {
                let (source, handed) = (Arc::clone(&source), Arc::clone(&handed));
                let handler = handler.clone();
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .stack_size(STACK)
                    .spawn(move || source.pull(|request| handle(request, &handed, &handler)))
            })
            .collect::<io::Result<_>>()?;
        Ok(Pool { source, workers })
    }

    /// Lets so many workers pull or work at a time; see [`source`].
    pub fn set_limit(&self, limit: usize) {
        self.source.set_limit(limit.min(self.workers.len()));
    }

    /// Ends the threads, each after what it is at. Does not wait for them.
    pub fn close(&self) {
        self.source.close(self.workers.len());
    }
}

fn handle(request: Request, handed: &Handed, handler: &impl Fn(Exchange)) {
    let number = private::number_of(request.url());
    // Released at once: a Request that is merely dropped writes a 500 and waits its turn for it.
    drop(request.into_writer());
    let Some(exchange) = number.and_then(|number| handed.take(number)) else { return };
    // What a panic unwinds through is dropped: the connection closes and reports itself lost, and a
    // link's stream counts as broken. Nothing shared is left half changed.
    if catch_unwind(AssertUnwindSafe(|| handler(exchange))).is_err() {
        log::error!("a worker panicked; its request was dropped and the worker goes on");
    }
}

#[cfg(test)]
mod tests;
