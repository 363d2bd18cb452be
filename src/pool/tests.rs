//! The pool with handlers of the tests' own.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::exchange::{Connection, Exchange, Next, Returned, Returns, Task};
use super::private::PrivateSocket;
use super::*;
use crate::http::head::Place;
use crate::net::address::Peer;
use crate::net::socket::Socket;

const PATIENCE: Duration = Duration::from_secs(20);

/// A pool with its private socket, and what its handler has seen.
struct Bench {
    pool: Pool,
    private: PrivateSocket,
    handed: Arc<Handed>,
    returns: Arc<Returns>,
    seen: Receiver<&'static str>,
}

/// Does with each exchange what its number of answered requests says.
fn bench(workers: usize) -> Bench {
    let (server, private) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
    let handed = Arc::<Handed>::default();
    let (sender, seen) = channel();
    let handler = move |exchange: Exchange| {
        let Some((work, Task::Handshake)) = exchange.open() else { return };
        let name = thread::current().name().unwrap_or("").to_owned();
        sender.send(if work.has_input() { "panic" } else { "answered" }).unwrap();
        assert!(!work.has_input(), "provoked in {name}");
        work.finish(Next::Answered(true));
    };
    let pool = Pool::start(workers, server, Arc::clone(&handed), handler).unwrap();
    Bench { pool, private, handed, returns: Arc::new(Returns::new().unwrap()), seen }
}

impl Bench {
    /// Hands a connection over under `number`; with input, its worker panics.
    fn hand_over(&mut self, number: u64, input: &[u8]) {
        let (ours, _) = UnixStream::pair().unwrap();
        let (socket, input) = (Socket::unix(ours), input.to_vec());
        let connection = Connection {
            id: number,
            peer: Peer::Unix,
            place: Place::Public,
            socket,
            input,
            requests: 0,
        };
        let returns = Arc::clone(&self.returns);
        let exchange = Exchange::new(number, Box::new(connection), Task::Handshake, returns);
        self.handed.put(exchange);
        self.private.push(number);
        assert!(self.private.flush().unwrap());
    }

    fn wait_for_returns(&self, count: usize) -> Vec<Returned> {
        let end = std::time::Instant::now() + PATIENCE;
        let mut returned = Vec::new();
        while returned.len() < count && std::time::Instant::now() < end {
            returned.extend(self.returns.take());
            thread::yield_now();
        }
        returned
    }
}

#[test]
fn a_panic_costs_one_exchange_and_no_worker() {
    let mut bench = bench(1);
    bench.hand_over(1, b"panic");
    bench.hand_over(2, b"");
    let returned = bench.wait_for_returns(2);
    let outcomes: Vec<_> = returned.iter().map(|r| (r.id, r.connection.is_some())).collect();
    assert_eq!(outcomes, [(1, false), (2, true)]);
    assert_eq!(bench.seen.try_iter().collect::<Vec<_>>(), ["panic", "answered"]);
}

#[test]
fn a_number_that_nobody_put_there_is_passed_over() {
    let mut bench = bench(2);
    bench.private.push(77);
    bench.hand_over(78, b"");
    assert_eq!(bench.wait_for_returns(1).len(), 1);
}

#[test]
fn every_worker_ends_when_the_pool_is_closed() {
    let bench = bench(4);
    bench.pool.close();
    let end = std::time::Instant::now() + PATIENCE;
    while !bench.pool.workers.iter().all(thread::JoinHandle::is_finished) {
        assert!(std::time::Instant::now() < end);
        thread::yield_now();
    }
}

#[test]
fn what_is_dropped_unclaimed_reports_itself() {
    let mut bench = bench(1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let socket = Socket::unix(ours);
    let connection = Connection {
        id: 5,
        peer: Peer::Unix,
        place: Place::Public,
        socket,
        input: Vec::new(),
        requests: 0,
    };
    let returns = Arc::clone(&bench.returns);
    bench.handed.put(Exchange::new(5, Box::new(connection), Task::Handshake, returns));
    bench.handed.clear();
    assert!(bench.wait_for_returns(1)[0].connection.is_none());
    assert!(theirs.write_all(b"x").is_err(), "its connection is closed");
    bench.hand_over(6, b"");
    assert_eq!(bench.wait_for_returns(1)[0].id, 6);
}
