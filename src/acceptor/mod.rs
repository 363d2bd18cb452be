//! The acceptor: the only code that touches an untrusted socket before a request is known to be
//! sound, and the keeper of every connection that no worker holds.
//!
//! One thread and one epoll set. Connections wait here at about a kilobyte each, without a thread;
//! a sound request goes to tiny_http only against a free worker, so that the queue stays here,
//! bounded, where a hang-up is noticed and a deadline is answered.

mod answers;
mod connections;
mod deliveries;
mod drain;
mod intake;
mod queue;

use std::io::{self, ErrorKind::WouldBlock};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use connections::{Phase, Slots};
use queue::Queue;

use crate::http::refusal::{Busy, Refusal};
use crate::logging::access::Outcome;
use crate::logging::throttle::LogThrottle;
use crate::net::listener::Listener;
use crate::pool::Source;
use crate::pool::private::PrivateSocket;
use crate::process::signals::Signals;
use crate::shared::{Settings, Shared};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 64;
/// How long accepting pauses where no descriptor could be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read from a connection at once: a head fits.
const SCRATCH: usize = 16 * 1024;

/// Requests on one connection before it is closed.
const MAX_REQUESTS: u32 = 1000;
/// Lines of one kind that strangers can cause in ten seconds.
const LINES: u32 = 5;

/// Tags of what is not a connection; a connection's number has the highest bit clear.
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
    /// Where a new private socket may be bound if this one ends.
    pub base: PathBuf,
    /// What the pool pulls from.
    pub source: Arc<Source>,
    /// The process's signals.
    pub signals: Signals,
    /// Connections at a time that descriptors allow.
    pub descriptor_room: usize,
    /// TLS for listeners that ask for it.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<crate::net::tls::Certificates>>,
}

/// The acceptor's state; runs on its own thread.
#[derive(Debug)]
pub struct Acceptor {
    parts: Parts,
    settings: Arc<Settings>,
    epoll: OwnedFd,
    slots: Slots,
    queue: Queue,
    /// Workers that there are.
    workers: usize,
    /// Connections at workers.
    busy: usize,
    /// Requests that have been at a worker for a while, as the pool knows it.
    long: usize,
    /// Accepting goes on at this time; `None` while it is on.
    accept_again: Option<Instant>,
    /// Since when the server drains.
    draining: Option<Instant>,
    private_full: bool,
    /// Connections whose next request may have been read already. A list and not a call: a client
    /// that pipelines must neither grow the stack nor keep others from their turn.
    again: Vec<u64>,
    scratch: Box<[u8]>,
    noise: LogThrottles,
}

#[derive(Debug)]
struct LogThrottles {
    evicted: LogThrottle,
    share: LogThrottle,
    descriptors: LogThrottle,
    busy: LogThrottle,
    refused: LogThrottle,
}

impl Acceptor {
    /// Sets up the epoll set.
    ///
    /// # Errors
    /// Where descriptors are exhausted.
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
        let workers = settings.config.threads;
        Ok(Acceptor {
            queue: Queue::new(workers, window(), settings.config.max_connections_per_address),
            settings,
            epoll,
            slots: Slots::default(),
            workers,
            busy: 0,
            long: 0,
            accept_again: None,
            draining: None,
            private_full: false,
            again: Vec::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            noise: LogThrottles {
                evicted: LogThrottle::new("max_connections", LINES),
                share: LogThrottle::new("max_connections_per_address", LINES),
                descriptors: LogThrottle::new("descriptors", LINES),
                busy: LogThrottle::new("queue", LINES),
                refused: LogThrottle::new("refused requests", LINES),
            },
            parts,
        })
    }

    /// Runs until the server has been told to stop and everything has ended, or must.
    ///
    /// # Errors
    /// Where the kernel refuses to wait, which it does not do to a sound epoll set.
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
            self.queue.set_share(self.settings.config.max_connections_per_address);
            self.handle_returns();
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
            for number in std::mem::take(&mut self.again) {
                if let Some(index) = self.slots.find(number) {
                    self.go_on(index);
                }
            }
            self.hand_over();
        }
        self.parts.source.close(self.workers);
        Ok(())
    }

    fn is_done(&self) -> bool {
        let Some(since) = self.draining else { return false };
        let active = self.busy > 0 || !self.queue.is_idle() || self.slots.len() > 0;
        if active && since.elapsed() >= self.settings.config.timeouts.drain {
            log::warn!("drain: {} connections did not end in time and are cut", self.slots.len());
            return true;
        }
        !active || self.parts.signals.stopped_twice()
    }

    fn time_to_wait(&self) -> rustix::event::Timespec {
        let now = Instant::now();
        let drain = self.draining.map(|since| since + self.settings.config.timeouts.drain);
        let next = [self.slots.next_deadline(), self.accept_again, self.queue.next_turn(), drain];
        let next = next.into_iter().flatten().min();
        let mut wait = next.map_or(MAX_WAIT, |next| next.saturating_duration_since(now));
        if !self.parts.shared.returns.fall_asleep() || !self.again.is_empty() {
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
                    self.rebuild_private();
                }
            }
            TAG_STOP => self.stop(),
            tag if tag >= TAG_LISTENERS => listeners.push((tag - TAG_LISTENERS) as usize),
            number => {
                if let Some(index) = self.slots.find(number) {
                    self.connection_event(index, flags);
                }
            }
        }
    }

    fn connection_event(&mut self, index: usize, flags: EventFlags) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if flags.contains(EventFlags::OUT)
            && let Some(connection) = &mut slot.connection
            && connection.socket.flush().is_err_and(|error| error.kind() != WouldBlock)
        {
            return self.close(index);
        }
        match slot.phase {
            // A request in the queue is watched for a hang-up only.
            Phase::Queued(_) => {
                if flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP) {
                    self.close(index);
                } else {
                    self.arm(index);
                }
            }
            Phase::Busy => {}
            Phase::Lingering { .. } => self.discard_input(index),
            Phase::Head => self.read_input(index),
        }
    }

    fn handle_deadlines(&mut self) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|when| when <= now) {
            self.resume_accepting();
        }
        while let Some(index) = self.slots.take_due(now) {
            let Some(slot) = self.slots.get(index) else { continue };
            if slot.watch.is_some() {
                self.look_at_delivery(index, false);
                continue;
            }
            match &slot.phase {
                Phase::Queued(_) => self.queue_deadline(index),
                Phase::Busy => {}
                Phase::Lingering { .. } => self.close(index),
                Phase::Head => self.head_deadline(index),
            }
        }
    }

    /// Takes back what workers are done with.
    fn handle_returns(&mut self) {
        for returned in self.parts.shared.returns.take() {
            self.handle_return(returned);
        }
        if self.parts.shared.take_sabotage() {
            self.parts.private.sabotage();
        }
    }

    /// Arms the epoll set for what `index` waits for. One-shot: after an event it is silent until
    /// armed again.
    fn arm(&mut self, index: usize) {
        let number = self.slots.number(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(connection) = &slot.connection else { return };
        let mut flags = EventFlags::ONESHOT | EventFlags::RDHUP;
        match &slot.phase {
            Phase::Queued(_) | Phase::Busy => {}
            _ if slot.watch.is_some() && !connection.input.is_empty() => {
                // Input that has to wait for a delivery: no more of it for now.
                flags = EventFlags::ONESHOT;
            }
            _ => flags |= EventFlags::IN,
        }
        if slot.watch.as_ref().is_some_and(|watch| watch.has_fin()) {
            flags = EventFlags::ONESHOT;
        }
        if connection.socket.wants_write() {
            flags |= EventFlags::OUT;
        }
        let data = EventData::new_u64(number);
        let result = if slot.registered {
            epoll::modify(&self.epoll, &connection.socket, data, flags)
        } else {
            epoll::add(&self.epoll, &connection.socket, data, flags)
        };
        slot.registered = true;
        if let Err(error) = result {
            log::warn!("epoll: {error}");
            self.close(index);
        }
    }

    /// Closes a connection at once, whatever it is at. Not for one that a worker holds.
    fn close(&mut self, index: usize) {
        self.end_delivery(index, Outcome::Interrupted("client gone".into()));
        let number = self.slots.number(index);
        let Some(slot) = self.slots.remove(index) else { return };
        if matches!(slot.phase, Phase::Queued(_)) {
            self.queue.remove(number, slot.stream_of);
        }
        // Dropping the connection closes the socket, which leaves the epoll set by that.
        drop(slot);
        if self.accept_again.is_some() {
            self.resume_accepting();
        }
    }

    /// Closes a connection whose client does not take what it was sent.
    fn close_with_reset(&mut self, index: usize) {
        if let Some(connection) = self.slots.get(index).and_then(|slot| slot.connection.as_ref()) {
            connection.socket.reset_at_close();
        }
        self.close(index);
    }

    /// Gives free workers the oldest requests.
    fn hand_over(&mut self) {
        self.hand_over_now();
        let long = self.queue.long(Instant::now());
        if long != std::mem::replace(&mut self.long, long) {
            self.parts.source.set_long(long);
        }
        match self.parts.private.flush() {
            Ok(done) if done != self.private_full => {}
            Ok(done) => {
                self.private_full = !done;
                let flags = if done { EventFlags::empty() } else { EventFlags::OUT };
                let data = EventData::new_u64(TAG_PRIVATE);
                let _ = epoll::modify(&self.epoll, &self.parts.private, data, flags);
            }
            Err(_) => self.rebuild_private(),
        }
    }

    /// tiny_http's side has ended: makes a new one, and answers what was on its way.
    fn rebuild_private(&mut self) {
        log::error!("the private socket to tiny_http ended; making a new one");
        for exchange in self.parts.shared.handed.take_all() {
            let number = exchange.number();
            self.queue.worker_is_free(number);
            let (Some(index), Some((head, connection))) =
                (self.slots.find(number), exchange.take_back())
            else {
                continue;
            };
            self.busy -= 1;
            let Some(slot) = self.slots.get_mut(index) else { continue };
            self.queue.end(slot.stream_of.take());
            slot.connection = Some(connection);
            slot.phase = Phase::Head;
            self.refuse(index, Some(&head), &Refusal::Busy(Busy::Handover));
        }
        match PrivateSocket::open(&self.parts.base) {
            Ok((server, private)) => {
                self.parts.private = private;
                self.private_full = false;
                let data = EventData::new_u64(TAG_PRIVATE);
                let _ = epoll::add(&self.epoll, &self.parts.private, data, EventFlags::empty());
                self.parts.source.replace(server, self.workers);
            }
            Err(error) => {
                log::error!("cannot make a new private socket: {error}; trying again");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Requests that are begun at the same moment.
fn window() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| cores.get() * 8)
}

/// The acceptor looks after its deadlines at least this often.
const MAX_WAIT: Duration = Duration::from_secs(1);
