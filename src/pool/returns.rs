//! The way back from the pool to the acceptor: a list, and a descriptor that wakes it.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

/// Wakes the acceptor. Its descriptor is to be watched edge-triggered: nobody reads from it.
#[derive(Debug)]
pub struct Waker {
    descriptor: OwnedFd,
    asleep: AtomicBool,
}

impl Waker {
    /// A waker for a thread that is not awake yet.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new() -> std::io::Result<Waker> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = rustix::event::eventfd(0, flags)?;
        Ok(Waker { descriptor, asleep: AtomicBool::new(true) })
    }

    /// Wakes the acceptor, if it sleeps: one system call per nap, not one per message.
    pub fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Announces that the acceptor will sleep. What it sleeps for has to be looked at after this, or
    /// a message could be missed.
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Announces that the acceptor is up.
    pub fn stay_awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What the workers are done with, by its id; `None` if a worker panicked with it.
pub type Returned<R> = (u64, Option<R>);

/// Finished jobs on their way back.
#[derive(Debug)]
pub struct Returns<R> {
    list: Mutex<Vec<Returned<R>>>,
    waker: Arc<Waker>,
}

impl<R> Returns<R> {
    /// An empty list, whose reader `waker` wakes.
    pub fn new(waker: Arc<Waker>) -> Returns<R> {
        Returns { list: Mutex::default(), waker }
    }

    /// Appends what became of job `id`.
    pub fn push(&self, id: u64, result: Option<R>) {
        self.lock().push((id, result));
        self.waker.wake();
    }

    /// Takes everything out of the list.
    pub fn take(&self) -> Vec<Returned<R>> {
        mem::take(&mut self.lock())
    }

    /// Returns true if nothing is in the list.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Returned<R>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
