//! The acceptor: the only code that touches an untrusted socket before a request is known to be
//! well-formed, and the keeper of every connection that no worker holds.
//!
//! One thread and one epoll set. Connections wait here at about a kilobyte each, without a thread: for
//! a head, for room in their socket, for the end of their download. What is ready for a worker lies
//! in the pool's queue, bounded.

mod answers;
mod bandwidth;
mod connections;
mod drain;
#[cfg(feature = "tls")]
mod handshakes;
mod idle;
mod intake;
mod requests;
mod shares;
mod state;
mod workers;

use std::collections::VecDeque;
use std::io::{self, ErrorKind::WouldBlock};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bandwidth::Bandwidth;
use connections::Connections;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use state::{Held, State};

use crate::download::finish::Sign;
use crate::download::job::{Connection, Crew};
use crate::net::listener::Listener;
use crate::pool::Pool;
use crate::pool::private::PrivateSocket;
use crate::process::signals::Signals;
use crate::shared::{Record, Settings, Shared};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Bytes read from a connection at once: a head fits.
const SCRATCH: usize = 16 * 1024;
/// The acceptor looks after its deadlines at least this often.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How soon records are offered again to a housekeeper that has too many.
const RECORD_AGAIN: Duration = Duration::from_millis(10);
/// What the epoll set reports of every connection. Edge-triggered: whatever comes while a worker has
/// the connection is remembered, and nothing has to be armed again.
const INPUT: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
const GONE: EventFlags = EventFlags::HUP.union(EventFlags::ERR);

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
    /// The way to the workers and back.
    pub crew: Arc<Crew>,
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
    bandwidth: Bandwidth,
    #[cfg(feature = "tls")]
    handshakes: handshakes::Handshakes,
    /// When the workers have to be looked at again.
    call_again: Option<Instant>,
    /// Accepting goes on at this time; `None` while it is on.
    accept_again: Option<Instant>,
    /// Since when the server drains.
    draining: Option<Instant>,
    /// True once the private socket has ended: no worker can be called any more.
    failed: bool,
    /// Connections that have events to be acted on. A list and not a call: a client that pipelines
    /// must neither grow the stack nor keep others from their turn.
    again: Vec<(u64, EventFlags)>,
    /// Records that the housekeeper had no room for. Each takes the place of a connection.
    backlog: VecDeque<Box<dyn Record>>,
    scratch: Box<[u8]>,
}

impl Acceptor {
    /// Sets up the epoll set.
    ///
    /// # Errors
    /// If descriptors are exhausted.
    pub fn new(parts: Parts) -> io::Result<Acceptor> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFd, tag: u64, flags: EventFlags| {
            epoll::add(&epoll, fd.as_fd(), EventData::new_u64(tag), flags)
        };
        // Edge-triggered: the counter is never read. A worker may write to it when the acceptor is up
        // already; level-triggered, that late byte would keep the acceptor awake for good.
        add(&parts.shared.waker.as_ref(), TAG_RETURNS, EventFlags::IN | EventFlags::ET)?;
        add(&parts.private, TAG_PRIVATE, EventFlags::empty())?;
        add(&parts.signals.stop, TAG_STOP, EventFlags::IN)?;
        for (index, listener) in parts.listeners.iter().enumerate() {
            add(listener, TAG_LISTENERS + index as u64, EventFlags::IN)?;
        }
        let settings = parts.shared.settings();
        let mut acceptor = Acceptor {
            connections: Connections::new(Arc::clone(&parts.shared.gauges)),
            settings: Arc::clone(&settings),
            epoll,
            bandwidth: Bandwidth::default(),
            #[cfg(feature = "tls")]
            handshakes: handshakes::Handshakes::default(),
            call_again: None,
            accept_again: None,
            draining: None,
            failed: false,
            again: Vec::new(),
            backlog: VecDeque::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            parts,
        };
        acceptor.apply(settings);
        Ok(acceptor)
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
            self.parts.shared.waker.stay_awake();
            self.handle(events);
        }
        self.cut_all();
        self.parts.pool.close();
        if self.failed {
            return Err(io::Error::other("the private socket to tiny_http ended"));
        }
        Ok(())
    }

    /// Does everything there is to do after `events`.
    fn handle(&mut self, events: &[Event]) {
        let settings = self.parts.shared.settings();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.apply(settings);
        }
        for (id, done) in self.parts.crew.returns.take() {
            self.handle_return(id, done);
        }
        // What ends a delivery comes before new requests, so that a link which was delivered is
        // spent when it is used again at once.
        let mut listeners = Vec::new();
        for event in events {
            self.handle_event(event, &mut listeners);
        }
        for index in listeners {
            self.accept_from(index);
        }
        self.handle_deadlines();
        if self.parts.shared.take_stops() {
            self.end_stopped();
        }
        self.pass_on_backlog();
        for (id, events) in std::mem::take(&mut self.again) {
            self.connection_event(id, events);
        }
        self.call_workers();
    }

    /// Puts other settings in force.
    fn apply(&mut self, settings: Arc<Settings>) {
        self.parts.crew.queue.limit(bandwidth::common(&settings.config), Instant::now());
        self.settings = settings;
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
        let drain = self.draining.map(|since| since + self.settings.config.timeouts.drain);
        let next = [self.connections.next_deadline(), self.accept_again, self.call_again, drain];
        let next = next.into_iter().flatten().min();
        let mut wait = next.map_or(MAX_WAIT, |next| next.saturating_duration_since(Instant::now()));
        if !self.backlog.is_empty() {
            wait = wait.min(RECORD_AGAIN);
        }
        let Parts { shared, crew, .. } = &self.parts;
        if crew.queue.waiting() >= 2 && wait > Duration::ZERO {
            crew.queue.rest();
        }
        shared.waker.fall_asleep();
        // Looked at after that, or a wake-up could be missed.
        if !crew.returns.is_empty() || shared.has_stops() || !self.again.is_empty() {
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
                if flags.intersects(GONE) {
                    self.private_ended();
                }
            }
            TAG_STOP => self.stop(),
            tag if tag >= TAG_LISTENERS => listeners.push((tag - TAG_LISTENERS) as usize),
            id => self.connection_event(id, flags),
        }
    }

    fn connection_event(&mut self, id: u64, events: EventFlags) {
        let Some(Held { mut connection, state }) = self.connections.take(id) else {
            return self.away_event(id, events);
        };
        if events.contains(EventFlags::IN) {
            connection.socket.note_input();
        }
        let broken = events.contains(EventFlags::OUT)
            && connection.socket.flush().is_err_and(|error| error.kind() != WouldBlock);
        let is_due = events.intersects(state.interest() | GONE) || state.has_input(&connection);
        if !broken && !is_due {
            self.connections.remember(id, events);
            return self.hold_on(Held { connection, state });
        }
        // Reported once: whoever reads up to an end now does not see it, and who is parked reads nothing.
        let unread = if matches!(state, State::Parked(_)) { INPUT } else { EventFlags::RDHUP };
        self.connections.remember(id, events & unread);
        match state {
            #[cfg(feature = "tls")]
            State::Handshake { until } => self.carry_on_handshake(connection, until),
            State::Reading { screened } => self.read_head(connection, screened),
            State::Finishing(download) => self.finishing_event(connection, download, events),
            State::Parked(download) => self.make_ready(connection, download),
            State::Closing { left, hung_up } => self.discard_input(connection, left, hung_up),
            state @ State::Paced(..) => self.close(Held { connection, state }, "client gone"),
        }
    }

    fn handle_deadlines(&mut self) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|when| when <= now) {
            self.resume_accepting();
        }
        while let Some(id) = self.connections.take_due(now) {
            let Some(Held { connection, state }) = self.connections.take(id) else {
                self.away_deadline(id, now);
                continue;
            };
            match state {
                #[cfg(feature = "tls")]
                State::Handshake { until } => self.handshake_deadline(connection, until),
                State::Reading { .. } => self.head_deadline(connection),
                State::Parked(download) => self.judge(connection, download),
                State::Paced(download, Some(bytes)) => {
                    self.send_piece(connection, download, bytes);
                }
                State::Paced(download, None) => self.make_ready(connection, download),
                State::Finishing(download) => self.look(connection, download, Sign::None),
                State::Closing { hung_up: false, .. } => self.linger(connection),
                State::Closing { hung_up: true, .. } => self.drop_connection(connection),
            }
        }
    }

    /// Lets a connection wait in `state`, until `deadline` at most. Events that came while it was
    /// away and matter to that state are acted on soon, and so is what its buffer holds.
    fn hold(&mut self, connection: Box<Connection>, state: State, deadline: Option<Instant>) {
        let (id, wanted) = (connection.id, state.interest());
        let output = wanted.contains(EventFlags::OUT) || connection.socket.wants_write();
        if !self.watch(&connection, output) {
            return self.close(Held { connection, state }, "out of resources");
        }
        let has_input = state.has_input(&connection);
        self.connections.put(Held { connection, state }, deadline);
        let events = self.connections.take_events(id);
        if has_input || events.intersects(wanted | GONE) {
            self.again.push((id, events));
        } else {
            // For the state after this one.
            self.connections.remember(id, events);
        }
    }

    /// Has the epoll set report events of a connection; `output`: room for more bytes, too. Returns
    /// false if that failed.
    fn watch(&mut self, connection: &Connection, output: bool) -> bool {
        let (id, socket) = (connection.id, &connection.socket);
        let mut flags = INPUT | EventFlags::ET;
        flags.set(EventFlags::OUT, output);
        let data = EventData::new_u64(id);
        let result = match self.connections.is_watched(id) {
            false => epoll::add(&self.epoll, socket, data, flags),
            // Said again each time: that asks anew whether there is room.
            true if output => epoll::modify(&self.epoll, socket, data, flags),
            true => return true,
        };
        if let Err(error) = result {
            log::warn!("epoll: {error}");
            return false;
        }
        self.connections.note_watched(id);
        true
    }

    /// Lets a connection wait on as it did.
    fn hold_on(&mut self, held: Held) {
        let deadline = self.connections.deadline(held.connection.id);
        self.connections.put(held, deadline);
    }

    /// Closes a connection at once, whatever it waits for; the log says `why`.
    fn close(&mut self, held: Held, why: &'static str) {
        let Held { connection, state } = held;
        match state {
            State::Parked(download) | State::Paced(download, _) | State::Finishing(download) => {
                self.cut(connection, download, why);
            }
            _ => self.drop_connection(connection),
        }
    }

    /// Closes the connection of `id`. Returns false if a worker has it.
    fn shed(&mut self, id: u64, why: &'static str) -> bool {
        match self.connections.take(id) {
            Some(held) => {
                self.close(held, why);
                true
            }
            None => self.shed_away(id, why),
        }
    }

    /// Forgets a connection, with which nothing is to be accounted for any more. Its socket closes,
    /// and leaves the epoll set by that.
    fn drop_connection(&mut self, connection: Box<Connection>) {
        self.connections.forget(connection.id);
        drop(connection);
        if self.accept_again.is_some() {
            self.resume_accepting();
        }
    }
}

#[cfg(test)]
mod tests;
