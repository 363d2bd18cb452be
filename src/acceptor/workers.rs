//! To the workers and back: queues what is ready, calls workers for it, and takes back what they are
//! done with.

use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::bandwidth::{self, Share};
use super::state::{Held, Rank, State};
use super::{Acceptor, GONE};
use crate::download::Download;
use crate::download::end::{Broken, How};
use crate::download::finish::After;
use crate::download::job::{Connection, Done, Job, Next, Request, Step, Task, Walk};
use crate::http::refusal::Busy;
use crate::link::token::{Endpoint, Resource};
use crate::logging::access::{Entry, Outcome};
use crate::net::address::ClientKey;
use crate::pool::queue::{Kind, Lane, Ticket};
use crate::replay::live::{Live, Phase};

/// What the access log has as the status of a request that nobody was there to be answered for.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How soon a download that waits for another one tries again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

impl Acceptor {
    /// Queues `task` of `connection` as `ticket` says; at `deadline` it is looked at again.
    pub(super) fn send(
        &mut self,
        ticket: Ticket,
        connection: Box<Connection>,
        task: Task,
        deadline: Option<Instant>,
    ) {
        let rank = match task {
            Task::Handshake => Rank::Head,
            Task::Answer(_) | Task::Walk(_) => Rank::Queued,
            Task::Step(..) => Rank::Transfer,
        };
        self.connections.send(ticket, rank, deadline);
        self.parts.crew.queue.push(ticket, Job { connection, task });
    }

    /// Calls as many workers as what waits is worth.
    pub(super) fn call_workers(&mut self) {
        if self.failed {
            return;
        }
        let now = Instant::now();
        let calls = self.parts.crew.queue.calls(now);
        self.call_again = calls.again;
        if self.parts.private.call(calls.count).is_err() {
            self.private_ended();
        }
        let stuck = self.is_stuck(now);
        self.parts.shared.gauges.stuck.store(stuck, std::sync::atomic::Ordering::Relaxed);
    }

    /// Returns true if every worker has been at the same piece for as long as a request may wait: the
    /// disks stall.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.parts.crew.queue.is_stuck(self.settings.config.timeouts.queue, now)
    }

    /// Lets a download wait for a worker to send its next piece, once there is bandwidth for it.
    pub(super) fn make_ready(&mut self, connection: Box<Connection>, download: Box<Download>) {
        if self.failed {
            return self.cut(connection, download, "server stopping");
        }
        let now = Instant::now();
        download.pause(now);
        let (config, live) = (&self.settings.config, &download.live);
        if bandwidth::is_limited(config) {
            live.enter(Phase::Limited);
            let Share { bytes, wait } =
                self.bandwidth.take(config, client(live), live.link.link, now);
            if !wait.is_zero() {
                return self.hold(
                    connection,
                    State::Paced(download, Some(bytes)),
                    Some(now + wait),
                );
            }
            return self.send_piece(connection, download, bytes);
        }
        live.enter(Phase::Sending);
        self.send_piece(connection, download, u64::MAX);
    }

    /// Lets a download wait for a worker to send up to `bytes` of it.
    pub(super) fn send_piece(
        &mut self,
        connection: Box<Connection>,
        download: Box<Download>,
        bytes: u64,
    ) {
        let live = &download.live;
        let ticket = Ticket {
            id: connection.id,
            kind: Kind::Step(bytes),
            lane: lane(live.entry.resource.as_ref()),
            client: client(live),
        };
        self.send(ticket, connection, Task::Step(download, bytes), None);
    }

    /// Takes back what a worker is done with; `None` if it panicked.
    pub(super) fn handle_return(&mut self, id: u64, done: Option<Done>) {
        let Some(Done { connection, next, bandwidth }) = done else {
            return self.connections.forget(id);
        };
        let ticket = self.connections.ticket(id);
        self.connections.note_back(id);
        match next {
            Next::Answered(keep_alive) => self.answered(connection, keep_alive),
            Next::Walk(walk) => self.queue_walk(connection, walk),
            Next::Step(download, step) => {
                self.settle(&download.live, bandwidth);
                self.after_step(connection, download, step);
            }
            #[cfg(feature = "tls")]
            Next::Handshake(result) => self.handshake_returned(connection, result),
            #[cfg(not(feature = "tls"))]
            Next::Handshake(_) => self.drop_connection(connection),
            Next::Abort => self.drop_connection(connection),
        }
        debug_assert!(ticket.is_some(), "it was away");
    }

    fn after_step(&mut self, connection: Box<Connection>, download: Box<Download>, step: Step) {
        if let Some(stop) = download.live.stopped() {
            let how = How::Broken(Broken::Stopped(stop));
            return self.end(connection, download, how, After::Reset);
        }
        match step {
            Step::Sent => self.finish(connection, download),
            Step::Full => self.park(connection, download),
            Step::TurnOver => self.make_ready(connection, download),
            Step::Waits => {
                let now = Instant::now();
                download.pause(now);
                download.live.enter(Phase::Limited);
                self.hold(connection, State::Paced(download, None), Some(now + TRY_AGAIN));
            }
        }
    }

    /// Corrects what a piece took of the bandwidth by what it used.
    fn settle(&mut self, live: &Live, (taken, used): (u64, u64)) {
        let config = &self.settings.config;
        // A piece that was queued while nothing was limited took nothing, and owes nothing: what it
        // sent without a limit may be more than what a limit gives in minutes.
        if bandwidth::is_limited(config) && taken > 0 && taken < u64::MAX {
            let left = taken as f64 - used as f64;
            self.bandwidth.settle(config, client(live), live.link.link, left);
            self.parts.crew.queue.settle(left);
        }
    }

    /// Queues a walk to go on, or to begin once another one is over.
    fn queue_walk(&mut self, connection: Box<Connection>, walk: Box<Walk>) {
        let now = Instant::now();
        let ticket = Ticket {
            id: connection.id,
            kind: Kind::Walk(walk.server()),
            lane: Lane::Files,
            client: walk.request().client.map(ClientKey::of),
        };
        if self.failed || self.draining.is_some() {
            return self.drop_unanswered(connection, walk.entry().clone(), "server stopping");
        }
        // A walk that has begun has a time limit of its own.
        let id = connection.id;
        let before = self.connections.deadline(id);
        let until = before.unwrap_or_else(|| now + self.settings.config.timeouts.queue);
        let deadline = (!walk.has_begun()).then_some(until);
        self.send(ticket, connection, Task::Walk(walk), deadline);
        let events = self.connections.take_events(id);
        self.away_event(id, events);
    }

    /// Something happened to a connection that is in the queue or at a worker. One whose client is
    /// gone is not worth a worker.
    pub(super) fn away_event(&mut self, id: u64, events: EventFlags) {
        if events.intersects(GONE) && self.shed_away(id, "client gone") {
            return;
        }
        self.connections.remember(id, events);
    }

    /// Closes the connection of `id` if it is in the queue. Returns false if it is not.
    pub(super) fn shed_away(&mut self, id: u64, why: &'static str) -> bool {
        let Some(Job { connection, task }) = self.take_back(id) else { return false };
        match task {
            Task::Answer(request) => {
                let entry = self.unanswered(&request);
                self.drop_unanswered(connection, entry, why);
            }
            Task::Walk(walk) => self.drop_unanswered(connection, walk.entry().clone(), why),
            Task::Step(download, _) => self.cut(connection, download, why),
            Task::Handshake => self.drop_connection(connection),
        }
        true
    }

    /// Ends the walk of connection `id`, if it waits for one.
    pub(super) fn drop_walk(&mut self, id: u64) {
        let ticket = self.connections.ticket(id);
        if ticket.is_some_and(|ticket| matches!(ticket.kind, Kind::Walk(_))) {
            self.shed_away(id, "server stopping");
        }
    }

    /// Takes a connection out of the queue for workers.
    fn take_back(&mut self, id: u64) -> Option<Job> {
        let ticket = self.connections.ticket(id)?;
        let job = self.parts.crew.queue.take_back(&ticket)?;
        self.connections.note_back(id);
        Some(job)
    }

    /// The time for which a connection may wait for a worker is over.
    pub(super) fn away_deadline(&mut self, id: u64, now: Instant) {
        // At a worker: its deadline means nothing any more.
        let Some(Job { connection, task }) = self.take_back(id) else { return };
        match task {
            Task::Answer(request) => {
                let key = request.client.map(ClientKey::of);
                self.refuse_busy(connection, &request.head, key, Busy::Workers);
            }
            Task::Walk(walk) => {
                let request = walk.request();
                let key = request.client.map(ClientKey::of);
                self.refuse_busy(connection, &request.head, key, Busy::Walks);
            }
            Task::Step(download, bytes) => self.send_piece(connection, download, bytes),
            #[cfg(feature = "tls")]
            Task::Handshake => self.handshake_deadline(connection, now),
            #[cfg(not(feature = "tls"))]
            Task::Handshake => {
                let _ = now;
                self.drop_connection(connection);
            }
        }
    }

    /// The line for a request that no worker has seen.
    fn unanswered(&self, request: &Request) -> Entry {
        Entry {
            client: request.client,
            method: request.head.method.name(),
            endpoint: request.head.endpoint().map_or("-", Endpoint::name),
            status: CLIENT_CLOSED_REQUEST,
            part: false,
            resource: None,
            began: Instant::now(),
            id: self.parts.shared.next_id(),
        }
    }

    /// Drops a connection whose request cannot be answered any more, and logs the request.
    fn drop_unanswered(
        &mut self,
        connection: Box<Connection>,
        mut entry: Entry,
        why: &'static str,
    ) {
        entry.status = CLIENT_CLOSED_REQUEST;
        entry.log_bounded(&Outcome::Refused(why.into()), &self.parts.shared.throttle);
        self.drop_connection(connection);
    }

    /// Ends what was told to stop and is here; a worker ends what it holds.
    pub(super) fn end_stopped(&mut self) {
        for id in self.connections.ids() {
            let stopped = self.connections.look(id).is_some_and(|held| match &held.state {
                State::Parked(download)
                | State::Paced(download, _)
                | State::Finishing(download) => download.live.stopped().is_some(),
                _ => false,
            });
            if stopped && let Some(held) = self.connections.take(id) {
                let Held { connection, state } = held;
                self.close(Held { connection, state }, "stopped");
            }
        }
    }
}

/// Whose turn a download takes.
fn client(live: &Live) -> Option<ClientKey> {
    live.entry.client.map(ClientKey::of)
}

fn lane(resource: Option<&Resource>) -> Lane {
    match resource {
        Some(Resource::Backup { .. }) => Lane::Backups,
        _ => Lane::Files,
    }
}
