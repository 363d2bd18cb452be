//! How a connection passes between the acceptor and the pool.
//!
//! The acceptor puts an [`Exchange`] under its number into the table, and only the number travels
//! through tiny_http. A worker takes the exchange out, does its piece of work, and gives the
//! connection back. An exchange that is dropped on the way (a panic) still reports itself, so that
//! the acceptor's count of free workers stays right.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use crate::delivery::transfer::{Piece, Transfer};
use crate::http::head::{Head, Place};
use crate::net::address::Peer;
use crate::net::socket::Socket;

/// One client's connection, owned by whoever holds it.
#[derive(Debug)]
pub struct Connection {
    /// What the acceptor knows it by; never used twice.
    pub id: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// What it may ask for.
    pub place: Place,
    /// Its byte stream.
    pub socket: Socket,
    /// Bytes read and not yet used: the beginning of a head, or further requests.
    pub input: Vec<u8>,
    /// Requests answered on it so far.
    pub requests: u32,
}

/// A request with what the acceptor knows about it.
#[derive(Debug)]
pub struct Request {
    /// The well-formed head.
    pub head: Box<Head>,
    /// The client's address, behind trusted proxies too; `None` if none is known.
    pub client: Option<IpAddr>,
    /// No proxy stands between this connection and the client.
    pub direct: bool,
    /// Close the connection after this answer.
    pub last: bool,
    /// Send no content yet: the bandwidth is limited, and the transfer has to wait for its turn.
    pub head_only: bool,
}

/// What a worker is to do.
#[derive(Debug)]
pub enum Task {
    /// Answer a request.
    Answer(Box<Request>),
    /// Send the next piece of a transfer.
    Piece(Box<Transfer>),
    /// Carry on a TLS handshake.
    Handshake,
}

/// What is to become of a connection that a worker gives back.
#[derive(Debug)]
pub enum Next {
    /// An answer without content is complete. `true`: the connection may carry another request.
    Answered(bool),
    /// A piece of a transfer was sent, and ended this way.
    Piece(Box<Transfer>, Piece),
    /// A handshake was carried on.
    Handshake(std::io::Result<()>),
    /// The connection is of no more use.
    Abort,
}

/// One piece of work on its way to a worker.
#[derive(Debug)]
pub struct Exchange {
    number: u64,
    connection: Option<Box<Connection>>,
    task: Option<Task>,
    id: u64,
    is_handshake: bool,
    returns: Arc<Returns>,
}

/// A message from a worker to the acceptor: it is done with connection `id`.
#[derive(Debug)]
pub struct Returned {
    /// The connection's id.
    pub id: u64,
    /// It came from the thread for handshakes, not from the pool.
    pub is_handshake: bool,
    /// The connection and what is to become of it; `None` if it is lost.
    pub connection: Option<(Box<Connection>, Next)>,
}

impl Exchange {
    /// `task` for `connection`, to travel under `number`.
    pub fn new(
        number: u64,
        connection: Box<Connection>,
        task: Task,
        returns: Arc<Returns>,
    ) -> Exchange {
        let id = connection.id;
        let is_handshake = matches!(task, Task::Handshake);
        returns.unclaimed.fetch_add(usize::from(!is_handshake), Ordering::SeqCst);
        let (connection, task) = (Some(connection), Some(task));
        Exchange { number, connection, task, id, is_handshake, returns }
    }

    fn claim(&mut self) -> Option<Task> {
        let task = self.task.take()?;
        if !self.is_handshake {
            self.returns.claimed();
        }
        Some(task)
    }

    fn give_back(&self, connection: Option<(Box<Connection>, Next)>) {
        let (id, is_handshake) = (self.id, self.is_handshake);
        self.returns.push(Returned { id, is_handshake, connection });
    }

    /// Takes the work out; the worker gives the connection back with [`Work::finish`].
    pub fn open(mut self) -> Option<(Work, Task)> {
        let task = self.claim()?;
        Some((Work(self), task))
    }
}

/// A connection in a worker's hands.
#[derive(Debug)]
pub struct Work(Exchange);

impl Work {
    /// The client's byte stream; `None` only after [`Work::finish`].
    pub fn socket(&mut self) -> Option<&mut Socket> {
        self.0.connection.as_mut().map(|connection| &mut connection.socket)
    }

    /// Whether the client has sent more than the request.
    pub fn has_input(&self) -> bool {
        self.0.connection.as_ref().is_some_and(|connection| !connection.input.is_empty())
    }

    /// Gives the connection back to the acceptor.
    pub fn finish(mut self, next: Next) {
        if let Some(connection) = self.0.connection.take() {
            self.0.give_back(Some((connection, next)));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.claim();
        if self.connection.take().is_some() {
            self.give_back(None);
        }
    }
}

/// Exchanges that no worker has claimed yet.
#[derive(Debug, Default)]
pub struct Handed(Mutex<HashMap<u64, Exchange>>);

impl Handed {
    /// Puts an exchange where a worker finds it.
    pub fn put(&self, exchange: Exchange) {
        self.lock().insert(exchange.number, exchange);
    }

    /// Claims exchange `number`.
    pub fn take(&self, number: u64) -> Option<Exchange> {
        self.lock().remove(&number)
    }

    /// Drops everything: nobody will claim it any more.
    pub fn clear(&self) {
        let lost = mem::take(&mut *self.lock());
        drop(lost);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way back to the acceptor: a list, and a descriptor that wakes it. The descriptor is to be
/// watched edge-triggered; nobody reads from it.
#[derive(Debug)]
pub struct Returns {
    list: Mutex<Vec<Returned>>,
    wake: OwnedFd,
    asleep: AtomicBool,
    /// Exchanges that no worker has claimed yet.
    unclaimed: AtomicUsize,
}

impl Returns {
    /// An empty list.
    ///
    /// # Errors
    /// If no descriptor is left for waking.
    pub fn new() -> std::io::Result<Returns> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Returns {
            list: Mutex::default(),
            wake,
            asleep: AtomicBool::new(true),
            unclaimed: AtomicUsize::new(0),
        })
    }

    fn push(&self, returned: Returned) {
        self.lock().push(returned);
        // While there is more to claim, whoever claims the last of it wakes the acceptor: one
        // switch per batch.
        if self.unclaimed.load(Ordering::SeqCst) == 0 {
            self.wake();
        }
    }

    fn claimed(&self) {
        if self.unclaimed.fetch_sub(1, Ordering::SeqCst) == 1 && !self.lock().is_empty() {
            self.wake();
        }
    }

    /// Wakes the acceptor, if it sleeps.
    pub fn wake(&self) {
        // One system call per nap, not one per request.
        if self.asleep.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes everything out of the list.
    pub fn take(&self) -> Vec<Returned> {
        mem::take(&mut self.lock())
    }

    /// Announces that the acceptor will sleep, unless something is waiting: then `false`.
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        self.lock().is_empty()
    }

    /// The acceptor is up again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Returned>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Returns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
