//! How a connection passes between the acceptor and the pool.
//!
//! The acceptor puts an [`Exchange`] under its number into the table, and only the number travels
//! through tiny_http. A worker takes the exchange out, answers, and gives the connection back. An
//! exchange that is dropped on the way (a panic, a lost request) still reports its number, so that
//! the acceptor's count of free workers stays right.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use crate::http::head::Head;
use crate::logging::access::Entry;
use crate::net::socket::Socket;
use crate::replay::Stream;

/// One client's connection, owned by whoever holds it.
#[derive(Debug)]
pub struct Connection {
    /// Its byte stream.
    pub socket: Socket,
    /// Bytes read and not yet used: the beginning of a head, or further requests.
    pub input: Vec<u8>,
    /// Requests answered on it so far.
    pub requests: u32,
}

/// One request on its way to a worker.
#[derive(Debug)]
pub struct Exchange {
    number: u64,
    /// The sound head.
    pub head: Box<Head>,
    /// The client's address, behind trusted proxies too; `None` where none is known.
    pub client: Option<IpAddr>,
    /// Close the connection after this answer.
    pub last: bool,
    connection: Option<Box<Connection>>,
    returns: Arc<Returns>,
}

/// What is to become of a connection that a worker gives back.
#[derive(Debug)]
pub enum After {
    /// The answer is complete; the connection may carry another request.
    KeepAlive,
    /// The answer is complete; the connection is to be closed in order.
    Close,
    /// The connection is of no more use.
    Abort,
}

/// A content answer whose delivery is still to be seen.
#[derive(Debug)]
pub struct Delivery {
    /// Where the link accounts for it; `None` where nothing is to be accounted for.
    pub stream: Option<Stream>,
    /// The value of [`Socket::sent`] at the first content byte.
    pub content_start: u64,
    /// Content bytes, all handed to the kernel.
    pub content: u64,
    /// The line for the access log.
    pub entry: Entry,
}

/// A message from a worker to the acceptor: the exchange `number` is over.
#[derive(Debug)]
pub struct Returned {
    /// The exchange.
    pub number: u64,
    /// The connection and what is to become of it; `None` where it is lost.
    pub connection: Option<(Box<Connection>, After)>,
    /// A delivery to watch.
    pub delivery: Option<Box<Delivery>>,
}

impl Exchange {
    /// A request of `connection`, known by `number`.
    pub fn new(
        number: u64,
        head: Box<Head>,
        client: Option<IpAddr>,
        last: bool,
        connection: Box<Connection>,
        returns: Arc<Returns>,
    ) -> Exchange {
        Exchange { number, head, client, last, connection: Some(connection), returns }
    }

    /// The number that it travels under.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The client's byte stream; `None` only after the connection was taken back.
    pub fn socket(&mut self) -> Option<&mut Socket> {
        self.connection.as_mut().map(|connection| &mut connection.socket)
    }

    /// Gives the connection back to the acceptor.
    pub fn finish(mut self, after: After, delivery: Option<Box<Delivery>>) {
        let connection = self.connection.take().map(|connection| (connection, after));
        self.returns.push(Returned { number: self.number, connection, delivery });
    }

    /// Takes the connection out without telling the acceptor, which does this itself.
    pub fn take_back(mut self) -> Option<(Box<Head>, Box<Connection>)> {
        self.connection.take().map(|connection| (self.head.clone(), connection))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            self.returns.push(Returned { number: self.number, connection: None, delivery: None });
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

    /// Takes everything back.
    pub fn take_all(&self) -> Vec<Exchange> {
        self.lock().drain().map(|(_, exchange)| exchange).collect()
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
}

impl Returns {
    /// An empty list.
    ///
    /// # Errors
    /// Where no descriptor is left for waking.
    pub fn new() -> std::io::Result<Returns> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Returns { list: Mutex::default(), wake, asleep: AtomicBool::new(true) })
    }

    fn push(&self, returned: Returned) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(returned);
        self.wake();
    }

    /// Wakes the acceptor, if it sleeps.
    pub fn wake(&self) {
        // One system call a nap, not one a request.
        if self.asleep.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes everything out of the list.
    pub fn take(&self) -> Vec<Returned> {
        mem::take(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Announces that the acceptor will sleep, unless something is waiting: then `false`.
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        self.list.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The acceptor is up again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Release);
    }
}

impl AsFd for Returns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
