//! What the keeper has to do: links that have changed, and whether all are to be asserted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::When;
use crate::replay::Key;

/// Links that have changed and were not passed on yet; above that, all are asserted.
const MAX_CHANGED: usize = 1024;

/// What the keeper has to do.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    inner: Mutex<Inner>,
    more: Condvar,
}

/// What has come together.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) changed: Vec<Key>,
    /// Something was missed: all links are to be asserted.
    pub(super) all: bool,
    woken: bool,
    /// The server stops.
    pub(super) leaving: bool,
    /// It has stopped.
    pub(super) stop: bool,
}

impl Tasks {
    /// A link has changed.
    pub(super) fn push(&self, key: Key, when: When) {
        let mut inner = self.inner();
        if inner.changed.len() < MAX_CHANGED {
            inner.changed.push(key);
        } else {
            inner.all = true;
        }
        drop(inner);
        if when == When::Now {
            self.wake();
        }
    }

    /// Links are to be asserted at the next look.
    pub(super) fn assert_all(&self) {
        self.inner().all = true;
    }

    /// The server stops: links are given back as they end.
    pub(super) fn begin_to_leave(&self) {
        self.inner().leaving = true;
        self.wake();
    }

    /// The keeper says goodbye and ends.
    pub(super) fn stop(&self) {
        self.inner().stop = true;
        self.more.notify_one();
    }

    /// Lets the keeper look at once.
    pub(super) fn wake(&self) {
        self.inner().woken = true;
        self.more.notify_one();
    }

    /// Waits up to `timeout` for something to do, and takes it.
    pub(super) fn wait(&self, timeout: Duration) -> Inner {
        let inner = self.inner();
        let asleep = |inner: &mut Inner| !inner.woken && !inner.stop;
        let waited = self.more.wait_timeout_while(inner, timeout, asleep);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        let stop = inner.stop;
        std::mem::replace(&mut *inner, Inner { stop, ..Inner::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
