//! The end: no new connections, and a peaceful one for those that are there.

use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Acceptor;
use super::connections::Phase;

/// What a client may take, once the server stops, to send the request that it connected for.
const LAST_CALL: Duration = Duration::from_secs(2);

impl Acceptor {
    /// Acts on TERM or INT.
    pub(super) fn stop(&mut self) {
        if !self.parts.signals.take_stop() || self.draining.is_some() {
            return;
        }
        // Whoever connected before now has been promised an answer.
        for index in 0..self.parts.listeners.len() {
            self.accept_from(index);
        }
        self.draining = Some(Instant::now());
        self.parts.shared.stop();
        for listener in &self.parts.listeners {
            // A socket that a service manager keeps stays open, and so would its place in the epoll
            // set, reporting connections that are no longer ours.
            let _ = epoll::delete(&self.epoll, listener);
        }
        // Closing the listeners refuses new connections at once.
        self.parts.listeners.clear();
        log::info!("stopping: downloads in progress may end");
        for index in self.slots.indexes() {
            let Some(slot) = self.slots.get(index) else { continue };
            match slot.phase {
                Phase::Head if slot.watch.is_none() => self.last_call(index),
                Phase::Head => self.linger(index),
                _ => {}
            }
        }
    }

    /// Answers what a waiting connection has sent already, gives one that has yet to send its first
    /// request a moment for it, and closes an idle one.
    fn last_call(&mut self, index: usize) {
        let number = self.slots.number(index);
        self.read_input(index);
        let Some(slot) = self.slots.find(number).and_then(|index| self.slots.get(index)) else {
            return;
        };
        if !matches!(slot.phase, Phase::Head) || slot.watch.is_some() {
            return;
        }
        let fresh = slot.connection.as_ref().is_some_and(|connection| connection.requests == 0);
        if fresh || self.has_input(index) {
            let end = Instant::now() + LAST_CALL;
            let end = slot.expiry.map_or(end, |expiry| expiry.min(end));
            self.slots.set_expiry(index, Some(end));
        } else {
            self.close(index);
        }
    }
}
