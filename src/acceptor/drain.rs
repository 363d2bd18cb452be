//! The end: no new connections, and a peaceful one for those that are there.

use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Acceptor;
use super::answers::LAST_LINGER;
use super::state::{Held, State};
use crate::download::end::End;
use crate::download::finish::Sign;
use crate::download::job::Connection;
use crate::shared::Record;

/// What a client may take, once the server stops, to send the request that it connected for.
const LAST_CALL: Duration = Duration::from_secs(2);
/// Connections that are taken out of a listener's backlog at the end.
const LAST_ACCEPTS: usize = 8192;

impl Acceptor {
    /// Acts on TERM or INT.
    pub(super) fn stop(&mut self) {
        if self.parts.signals.take_stop() && self.draining.is_none() {
            log::info!("stopping: downloads in progress may end");
            self.drain();
        }
    }

    /// The private socket to tiny_http is gone: nothing can be handed over any more.
    pub(super) fn private_ended(&mut self) {
        if self.failed {
            return;
        }
        log::error!("the private socket to tiny_http ended; stopping");
        self.failed = true;
        let _ = epoll::delete(&self.epoll, &self.parts.private);
        if self.draining.is_none() {
            self.drain();
        }
        // Whoever waits for a worker that never comes is told by a closed connection.
        for id in self.connections.ids() {
            let waits = match self.connections.look(id) {
                Some(held) => matches!(held.state, State::Paced(..) | State::Parked(_)),
                None => true,
            };
            if waits {
                self.shed(id, "server stopping");
            }
        }
    }

    fn drain(&mut self) {
        // Whoever connected before now has been promised an answer.
        for index in 0..self.parts.listeners.len() {
            self.accept_some(index, LAST_ACCEPTS);
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
        for id in self.connections.ids() {
            let Some(Held { connection, state }) = self.connections.take(id) else {
                self.drop_walk(id);
                continue;
            };
            match state {
                State::Reading { screened } => {
                    let fresh = connection.requests == 0;
                    self.read_head(connection, screened);
                    self.last_call(id, fresh);
                }
                State::Finishing(mut download) => {
                    download.close_after();
                    self.look(connection, download, Sign::None);
                }
                state @ State::Closing { .. } => self.hold_for(connection, state, LAST_LINGER),
                state => self.hold_on(Held { connection, state }),
            }
        }
    }

    /// The drain is over: ends what is left, so that it is recorded how far each link has come. What
    /// a worker holds is recorded from what everyone sees of it, without waiting for the worker.
    pub(super) fn cut_all(&mut self) {
        for id in self.connections.ids() {
            self.shed(id, "server stopping");
        }
        let shared = &self.parts.shared;
        let mut records: Vec<Box<dyn Record>> = self.backlog.drain(..).collect();
        let running = shared.downloads.all();
        let ends = running.into_iter().filter_map(|live| End::of_abandoned(live, shared));
        records.extend(ends.map(|end| end as Box<dyn Record>));
        shared.leave_records(records);
    }

    /// Gives a connection that has yet to send its first request a moment for it, and closes an idle
    /// one.
    fn last_call(&mut self, id: u64, fresh: bool) {
        let Some(Held { connection, state }) = self.connections.take(id) else { return };
        match state {
            State::Reading { .. } if fresh || !connection.input.is_empty() => {
                self.hold_for(connection, state, LAST_CALL);
            }
            State::Reading { .. } => self.drop_connection(connection),
            state => self.hold_on(Held { connection, state }),
        }
    }

    /// Lets a connection wait on, for `time` at most.
    fn hold_for(&mut self, connection: Box<Connection>, state: State, time: Duration) {
        let end = Instant::now() + time;
        let before = self.connections.deadline(connection.id);
        self.hold(connection, state, Some(before.map_or(end, |before| before.min(end))));
    }
}
