//! The control listener: a thread of its own that answers what an operator asks and carries out what
//! he orders. It may wait for the journal's disk, since nothing else waits for it.
//!
//! Its connections are few, and none of them keeps the operator out: if there are too many, the one
//! that has waited longest gives way, whatever it is at. Connections of root or of the server's own
//! user, which only a socket file tells, give way last.

use std::io::{self, ErrorKind::WouldBlock};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::http::head::{Field, Head, Method, Place, Route, Screened, screen};
use crate::http::refusal::Refusal;
use crate::net::address::Peer;
use crate::net::listener::Listener;
use crate::net::socket::Socket;
use crate::sys;

/// Connections at a time.
const CONNECTIONS: usize = 32;
/// The thread's stack in bytes.
const STACK: usize = 256 * 1024;

/// A request to the control listener.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a Head,
    /// Its body.
    pub body: &'a [u8],
    /// True if it came through a socket file, whose permissions say who may ask.
    pub trusted: bool,
}

/// Whoever answers.
pub trait Desk: Send {
    /// Longest time for a request to come, and for an answer to be taken.
    fn timeout(&self) -> Duration;

    /// The whole answer to `asked`.
    fn answer(&self, asked: &Asked<'_>) -> Vec<u8>;

    /// The whole answer to a request that cannot be read.
    fn refuse(&self, head: Option<&Head>, refusal: &Refusal) -> Vec<u8>;
}

/// The running thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Lets `desk` answer at `listener`.
    ///
    /// # Errors
    /// If descriptors or threads are exhausted.
    pub fn start(listener: Listener, desk: impl Desk + 'static) -> io::Result<Control> {
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread =
            thread::Builder::new().name("control".into()).stack_size(STACK).spawn(move || {
                let mut server = Server { listener, desk, clients: Vec::new() };
                while server.serve(&stopped) {}
            })?;
        Ok(Control { stop, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Server<D> {
    listener: Listener,
    desk: D,
    clients: Vec<Client>,
}

/// One connection.
struct Client {
    socket: Socket,
    peer: Peer,
    /// True for root and the server's own user.
    is_operator: bool,
    input: Vec<u8>,
    /// What is left of an answer.
    output: Vec<u8>,
    deadline: Instant,
    /// True if the connection closes once the answer is written.
    closing: bool,
    /// True once our side is closed. What still comes is thrown away: a reset would take the answer
    /// from the client.
    closed: bool,
}

impl<D: Desk> Server<D> {
    /// Waits for something to happen, and deals with it. Returns false once the server stops.
    fn serve(&mut self, stop: &OwnedFd) -> bool {
        let now = Instant::now();
        let deadline = self.clients.iter().map(|client| client.deadline).min();
        let timeout = deadline.map(|deadline| {
            let wait = deadline.saturating_duration_since(now).as_millis();
            let millis = i64::try_from(wait).unwrap_or(i64::MAX).saturating_add(1);
            Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
        });
        let mut poll =
            vec![PollFd::new(stop, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        poll.extend(self.clients.iter().map(|client| PollFd::new(&client.socket, client.awaits())));
        // An interrupted wait is one in vain.
        let _ = rustix::event::poll(&mut poll, timeout.as_ref());
        let ready: Vec<bool> = poll.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(poll);
        if ready[0] {
            return false;
        }
        let now = Instant::now();
        let mut ready_clients = ready[2..].iter();
        let desk = &self.desk;
        self.clients.retain_mut(|client| match ready_clients.next() {
            Some(true) => client.go_on(desk, now),
            _ if client.deadline > now => true,
            _ => client.time_out(desk, now),
        });
        if ready[1] {
            self.accept(now);
        }
        true
    }

    fn accept(&mut self, now: Instant) {
        while let Ok((accepted, peer)) = self.listener.accept() {
            let socket = Socket::from(accepted);
            let is_operator = peer == Peer::Unix && sys::is_operator(socket.as_fd());
            if self.clients.len() >= CONNECTIONS {
                let first = |(_, client): &(usize, &Client)| (client.is_operator, client.deadline);
                let victim = self.clients.iter().enumerate().min_by_key(first);
                match victim {
                    Some((index, client)) if is_operator || !client.is_operator => {
                        self.clients.remove(index);
                    }
                    _ => continue,
                }
            }
            let mut client = Client {
                socket,
                peer,
                is_operator,
                input: Vec::new(),
                output: Vec::new(),
                deadline: now + self.desk.timeout(),
                closing: false,
                closed: false,
            };
            if client.go_on(&self.desk, now) {
                self.clients.push(client);
            }
        }
    }
}

impl Client {
    fn awaits(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Writes, reads and answers what can be. Returns false once the connection is done with.
    fn go_on(&mut self, desk: &impl Desk, now: Instant) -> bool {
        loop {
            if !self.write() {
                return false;
            }
            // One answer at a time: a client that reads none gets no further.
            if !self.output.is_empty() {
                return true;
            }
            if self.closing && !std::mem::replace(&mut self.closed, true) {
                self.socket.finish_writing();
            }
            if self.closed {
                self.input.clear();
            }
            if !self.answer(desk, now) {
                match self.read() {
                    Ok(()) => {}
                    Err(error) if error.kind() == WouldBlock => return true,
                    Err(_) => return false,
                }
            }
        }
    }

    /// The time is over. Half a request is told so.
    fn time_out(&mut self, desk: &impl Desk, now: Instant) -> bool {
        if self.closing || self.input.is_empty() || !self.output.is_empty() {
            return false;
        }
        self.input.clear();
        self.output = desk.refuse(None, &Refusal::HeadTimeout);
        self.closing = true;
        self.deadline = now + desk.timeout();
        self.go_on(desk, now)
    }

    fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count @ 1..) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == WouldBlock => return true,
                _ => return false,
            }
        }
        true
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// Answers the next request if all of it is there. Returns false if it is not.
    fn answer(&mut self, desk: &impl Desk, now: Instant) -> bool {
        if self.input.is_empty() {
            return false;
        }
        self.output = match screen(&self.input, 0, Place::Control) {
            Screened::Incomplete => return false,
            Screened::Refused(head, refusal) => {
                self.closing = true;
                desk.refuse(head.as_deref(), &refusal)
            }
            Screened::Ready(head, length) => {
                let end = length + head.body;
                if self.input.len() < end {
                    return false;
                }
                let input: Vec<u8> = self.input.drain(..end).collect();
                self.closing = !head.keep_alive;
                self.reply(desk, &head, &input[length..])
            }
        };
        self.deadline = now + desk.timeout();
        true
    }

    fn reply(&self, desk: &impl Desk, head: &Head, body: &[u8]) -> Vec<u8> {
        let trusted = self.peer == Peer::Unix;
        // Orders prove who gives them; whoever reaches a port may look.
        let named = head.field(Field::Host).is_none_or(names_this_machine);
        match (head.route, head.method) {
            (Route::Control(_), Method::Get | Method::Head) if !trusted && !named => {
                let refusal = Refusal::Malformed("Host has to be an address or localhost here");
                desk.refuse(Some(head), &refusal)
            }
            (Route::Control(_), _) => desk.answer(&Asked { head, body, trusted }),
            _ => desk.refuse(Some(head), &Refusal::UnknownPath),
        }
    }
}

/// Returns true if `host` is an address or `localhost`. Any other name may be a web page's own, whose
/// domain leads here so that a browser on this machine reads for it (DNS rebinding).
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}
