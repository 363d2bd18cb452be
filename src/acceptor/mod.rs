//! The acceptor: the only code that touches an untrusted socket before a request is known to be
//! well-formed, and the keeper of every connection that no worker holds.
//!
//! One thread and one epoll set. Connections wait here at about a kilobyte each, without a thread: for
//! a head, for a worker, for room in their socket, for the end of their delivery. A request or a
//! piece goes to tiny_http only against a free worker, so that the queue stays here, bounded.

mod answers;
mod bandwidth;
mod connections;
mod control;
mod drain;
#[cfg(feature = "tls")]
mod handshakes;
mod intake;
mod parking;
mod queue;
mod requests;
mod shares;
mod status;
mod workers;

use std::io::{self, ErrorKind::WouldBlock};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bandwidth::Bandwidth;
use connections::{Connections, Held, State};
use queue::Queue;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::delivery::watch::{Look, Sign};
use crate::http::head::Place;
use crate::net::listener::Listener;
use crate::pool::Pool;
use crate::pool::exchange::Connection;
use crate::pool::private::PrivateSocket;
use crate::pool::source::PULLERS;
use crate::process::signals::Signals;
use crate::shared::{Settings, Shared};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Bytes read from a connection at once: a head fits.
const SCRATCH: usize = 16 * 1024;
/// The acceptor looks after its deadlines at least this often.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How soon a record is offered again to a housekeeper that has too many.
const RECORD_AGAIN: Duration = Duration::from_millis(10);

/// Tags of what is not a connection; a connection's id has the highest bit clear.
const TAG_RETURNS: u64 = 1 << 63;
const TAG_PRIVATE: u64 = TAG_RETURNS + 1;
const TAG_STOP: u64 = TAG_RETURNS + 2;
const TAG_LISTENERS: u64 = TAG_RETURNS + 16;

/// What the acceptor is made of.
#[derive(Debug)]
pub struct Parts {
    /// Shared with the pool.
    pub shared: Arc<Shared>,
    /// Where connections come from.
    pub listeners: Vec<Listener>,
    /// The private socket to tiny_http.
    pub private: PrivateSocket,
    /// The workers.
    pub pool: Pool,
    /// The process's signals.
    pub signals: Signals,
    /// Connections at a time that descriptors allow; a download counts twice.
    pub descriptor_room: usize,
    /// TLS for listeners that ask for it.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<crate::net::certificates::Certificates>>,
}

/// The acceptor's state; runs on its own thread.
#[derive(Debug)]
pub struct Acceptor {
    parts: Parts,
    settings: Arc<Settings>,
    epoll: OwnedFd,
    connections: Connections,
    queue: Queue,
    bandwidth: Bandwidth,
    /// When the server as a whole may send again.
    send_again: Option<Instant>,
    #[cfg(feature = "tls")]
    handshakes: handshakes::Handshakes,
    /// Numbers given to exchanges so far.
    exchanges: u64,
    /// Workers that may pull or work at a time, and when to let in one more.
    pullers: usize,
    widen_at: Option<Instant>,
    /// Since when something has waited for a worker, and none has come back.
    waiting_since: Option<Instant>,
    /// Accepting goes on at this time; `None` while it is on.
    accept_again: Option<Instant>,
    /// Since when the server drains.
    draining: Option<Instant>,
    /// The private socket has ended, and nothing can be handed over any more.
    failed: bool,
    private_full: bool,
    /// Connections whose next request may have been read already. A list and not a call: a client
    /// that pipelines must neither grow the stack nor keep others from their turn.
    again: Vec<u64>,
    /// Connections whose record the housekeeper had no room for.
    unrecorded: Vec<u64>,
    /// Connections to the control listener.
    controls: usize,
    scratch: Box<[u8]>,
}

impl Acceptor {
    /// Sets up the epoll set.
    ///
    /// # Errors
    /// If descriptors or threads are exhausted.
    pub fn new(parts: Parts) -> io::Result<Acceptor> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFd, tag: u64, flags: EventFlags| {
            epoll::add(&epoll, fd.as_fd(), EventData::new_u64(tag), flags)
        };
        // Edge-triggered: the counter is never read. A worker may write to it when the acceptor is up
        // already; level-triggered, that late byte would keep the acceptor awake for good.
        add(&parts.shared.returns.as_ref(), TAG_RETURNS, EventFlags::IN | EventFlags::ET)?;
        add(&parts.private, TAG_PRIVATE, EventFlags::empty())?;
        add(&parts.signals.stop, TAG_STOP, EventFlags::IN)?;
        for (index, listener) in parts.listeners.iter().enumerate() {
            add(listener, TAG_LISTENERS + index as u64, EventFlags::IN)?;
        }
        let settings = parts.shared.settings();
        Ok(Acceptor {
            queue: Queue::new(settings.config.threads),
            settings,
            epoll,
            connections: Connections::default(),
            bandwidth: Bandwidth::default(),
            send_again: None,
            #[cfg(feature = "tls")]
            handshakes: handshakes::Handshakes::start(parts.tls.is_some())?,
            exchanges: 0,
            pullers: *PULLERS,
            widen_at: None,
            waiting_since: None,
            accept_again: None,
            draining: None,
            failed: false,
            private_full: false,
            again: Vec::new(),
            unrecorded: Vec::new(),
            controls: 0,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            parts,
        })
    }

    /// Runs until the server has been told to stop and everything has ended, or must.
    ///
    /// # Errors
    /// If the private socket to tiny_http has ended, or the kernel refuses to wait, which it does
    /// not do with a valid epoll set.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        while !self.is_done() {
            let timeout = self.time_to_wait();
            let events = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
                Ok((events, _)) => &*events,
                Err(rustix::io::Errno::INTR) => &[],
                Err(error) => return Err(error.into()),
            };
            self.parts.shared.returns.awake();
            self.settings = self.parts.shared.settings();
            for returned in self.parts.shared.returns.take() {
                self.handle_return(returned);
            }
            // What ends a delivery comes before new requests, so that a link which was delivered
            // is spent when it is used again at once.
            let mut listeners = Vec::new();
            for event in events {
                self.handle_event(event, &mut listeners);
            }
            for index in listeners {
                self.accept_from(index);
            }
            self.handle_deadlines();
            self.log_status();
            for id in std::mem::take(&mut self.again) {
                self.read_on(id);
            }
            self.hand_over();
        }
        self.cut_all();
        self.parts.pool.close();
        if self.failed {
            return Err(io::Error::other("the private socket to tiny_http ended"));
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let Some(since) = self.draining else { return false };
        let count = self.connections.len();
        if count > 0 && since.elapsed() >= self.settings.config.timeouts.drain {
            log::warn!("drain: {count} connections did not end in time and are cut");
            return true;
        }
        count == 0 || self.parts.signals.stopped_twice()
    }

    fn time_to_wait(&mut self) -> rustix::event::Timespec {
        let now = Instant::now();
        let drain = self.draining.map(|since| since + self.settings.config.timeouts.drain);
        let next = [
            self.connections.next_deadline(),
            self.accept_again,
            self.send_again,
            self.widen_at,
            drain,
        ];
        let next = next.into_iter().flatten().min();
        let mut wait = next.map_or(MAX_WAIT, |next| next.saturating_duration_since(now));
        if !self.unrecorded.is_empty() {
            wait = wait.min(RECORD_AGAIN);
        }
        let returned = !self.parts.shared.returns.fall_asleep();
        // Looked at after that, or a wake-up could be missed.
        if returned || !self.again.is_empty() {
            wait = Duration::ZERO;
        }
        let wait = wait.min(MAX_WAIT);
        rustix::event::Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(1),
            tv_nsec: wait.subsec_nanos().into(),
        }
    }

    fn handle_event(&mut self, event: &Event, listeners: &mut Vec<usize>) {
        let flags = event.flags;
        match event.data.u64() {
            TAG_RETURNS => {}
            TAG_PRIVATE => {
                if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                    self.private_ended();
                }
            }
            TAG_STOP => self.stop(),
            tag if tag >= TAG_LISTENERS => listeners.push((tag - TAG_LISTENERS) as usize),
            id => self.connection_event(id, flags),
        }
    }

    fn connection_event(&mut self, id: u64, flags: EventFlags) {
        let Some(Held { mut connection, state }) = self.connections.take(id) else { return };
        let broken = flags.contains(EventFlags::OUT)
            && connection.socket.flush().is_err_and(|error| error.kind() != WouldBlock);
        let gone = broken || flags.intersects(EventFlags::HUP | EventFlags::ERR);
        match state {
            #[cfg(feature = "tls")]
            State::Handshake { until } => self.carry_on_handshake(connection, until),
            State::Reading { screened } => self.read_head(connection, screened),
            State::Watched(watch) => self.watched_event(connection, watch, flags),
            State::Parked(transfer) => self.make_ready(connection, transfer),
            State::Lingering { left } => self.discard_input(connection, left),
            State::Body(head) => self.more_body(connection, head),
            State::Answering { answer, at, keep } => self.write_on(connection, answer, at, keep),
            state if gone => self.close(Held { connection, state }, "client gone"),
            state => self.put_back(Held { connection, state }),
        }
    }

    fn handle_deadlines(&mut self) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|when| when <= now) {
            self.resume_accepting();
        }
        while let Some(id) = self.connections.take_due(now) {
            let Some(Held { connection, state }) = self.connections.take(id) else { continue };
            match state {
                #[cfg(feature = "tls")]
                State::Handshake { until } => self.handshake_deadline(connection, until),
                State::Reading { .. } => self.head_deadline(connection),
                State::Queued { request, until } => {
                    self.queue_deadline(connection, request, until);
                }
                State::Parked(transfer) => self.judge(connection, transfer),
                State::Watched(watch) => self.look(connection, watch, Sign::None),
                State::Ready(transfer) => self.make_ready(connection, transfer),
                State::Recording(..) => self.put_back(Held { connection, state }),
                State::Body(head) => self.body_deadline(connection, &head),
                State::Lingering { .. } | State::Answering { .. } => {
                    self.drop_connection(connection);
                }
            }
        }
        for id in std::mem::take(&mut self.unrecorded) {
            let Some(Held { connection, state }) = self.connections.take(id) else { continue };
            if let State::Recording(record, watch, look) = state {
                self.record(connection, record, watch, look);
            }
        }
    }

    /// Lets a connection wait in `state`, until `deadline` at most, and arms the epoll set for what
    /// that state waits for. One-shot: after an event it is silent until armed again.
    fn hold(&mut self, connection: Box<Connection>, state: State, deadline: Option<Instant>) {
        let id = connection.id;
        self.connections.put(Held { connection, state }, deadline);
        self.arm(id);
    }

    fn arm(&mut self, id: u64) {
        let registered = self.connections.register(id);
        let Some(Held { connection, state }) = self.connections.look(id) else { return };
        let input = EventFlags::IN | EventFlags::RDHUP;
        let mut flags = EventFlags::ONESHOT;
        match state {
            #[cfg(feature = "tls")]
            State::Handshake { .. } => flags |= input,
            State::Reading { .. } | State::Lingering { .. } | State::Body(_) => flags |= input,
            State::Watched(watch) if watch.wants_input() => flags |= input,
            State::Parked(_) | State::Answering { .. } => flags |= EventFlags::OUT,
            State::Watched(watch) if watch.is_shut() => return,
            // A hang-up is always reported.
            _ => {}
        }
        if connection.socket.wants_write() {
            flags |= EventFlags::OUT;
        }
        let data = EventData::new_u64(id);
        let result = if registered {
            epoll::modify(&self.epoll, &connection.socket, data, flags)
        } else {
            epoll::add(&self.epoll, &connection.socket, data, flags)
        };
        if let Err(error) = result {
            log::warn!("epoll: {error}");
            self.shed(id, "out of resources");
        }
    }

    /// Lets a connection wait on as it did.
    fn put_back(&mut self, held: Held) {
        let deadline = self.connections.deadline(held.connection.id);
        self.connections.put(held, deadline);
    }

    /// Closes a connection at once, whatever it waits for; the log says `why`.
    fn close(&mut self, held: Held, why: &str) {
        let Held { connection, state } = held;
        let id = connection.id;
        match state {
            State::Queued { .. } => self.queue.remove(self.connections.turn(id), id),
            State::Ready(transfer) => {
                self.queue.remove(self.connections.turn(id), id);
                return self.break_off(connection, transfer, why);
            }
            State::Parked(transfer) => return self.break_off(connection, transfer, why),
            State::Watched(watch) => return self.cut_watched(connection, watch, why),
            State::Recording(record, watch, _) => {
                return self.record(connection, record, watch, Look::Reset);
            }
            _ => {}
        }
        self.drop_connection(connection);
    }

    /// Closes the connection of `id`. `false` if a worker has it.
    fn shed(&mut self, id: u64, why: &str) -> bool {
        match self.connections.take(id) {
            Some(held) => {
                self.close(held, why);
                true
            }
            None => false,
        }
    }

    /// Forgets a connection, with which nothing is to be accounted for any more. Its socket closes,
    /// and leaves the epoll set by that.
    fn drop_connection(&mut self, connection: Box<Connection>) {
        self.connections.forget(connection.id);
        self.controls -= usize::from(connection.place == Place::Control);
        drop(connection);
        if self.accept_again.is_some() {
            self.resume_accepting();
        }
    }
}

#[cfg(test)]
mod tests;
