//! The fixed pool with every worker busy, and the private socket when it breaks.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use winglet::clock::Clock;
use winglet::process::notify::Notifier;
use winglet::process::signals::Signals;
use winglet::server::{Opened, Server as InProcess};
use winglet::shared::Shared;

use crate::client::{Answer, Client, connect_from, get};
use crate::harness::{Node, Server};
use crate::mint::Token;

/// More than all buffers on the way hold.
const LARGE: u64 = 64 << 20;

/// A node whose two workers have enough to do with [`occupy`].
fn node(winglet: &str) -> Node {
    let node = Node::new().winglet(&format!("threads: 2\n{winglet}"));
    node.sparse("large", LARGE);
    node.file("small", b"content");
    node
}

/// A client that takes a worker and reads no further than the head.
fn occupy(address: SocketAddr) -> Client {
    let mut client = Client::over(connect_from("127.0.0.1", address, Some(4096)));
    client.request("GET", &Token::file("large").target(), "");
    assert_eq!(client.head().unwrap().status, 200);
    client
}

/// Waits until the server has this many descriptors more than `before`, as it has when it has
/// accepted that many connections.
fn wait_for_connections(server: &Server, before: usize, count: usize) {
    server.wait_until("connections", |server| server.descriptors() >= before + count);
}

#[test]
fn health_answers_while_every_worker_is_busy_and_waiting_takes_no_memory() {
    const WAITING: usize = 200;
    let node = node("timeouts: { queue: 10m, stall: 10m }\nmin_rate: 0");
    let server = node.start();
    let busy = [occupy(server.address()), occupy(server.address())];
    let before = server.descriptors();
    assert_eq!(get(server.address(), "/health").status, 200);
    let (memory, threads) = (server.resident_kib(), server.threads());
    let mut waiting: Vec<Client> = (0..WAITING)
        .map(|count| {
            let source = format!("127.0.1.{}", count / 10 + 1);
            let mut client = Client::connect_from(&source, server.address());
            let padding = format!("X-Padding: {}\r\n", "x".repeat(8000));
            client.request("GET", &Token::file("small").target(), &padding);
            client
        })
        .collect();
    wait_for_connections(&server, before, WAITING);
    let mut health = Client::connect(server.address());
    for _ in 0..20 {
        assert_eq!(health.get("/health").text(), r#"{"status":"ok"}"#);
    }
    assert_eq!(server.threads(), threads);
    let grown = server.resident_kib().saturating_sub(memory);
    assert!(grown < 6 * 1024, "{WAITING} waiting requests took {grown} KiB");
    drop(busy);
    for client in &mut waiting {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"content".as_slice()));
    }
}

#[test]
fn a_request_that_no_worker_takes_in_time_is_told_when_to_come_again() {
    let node = node("timeouts: { queue: 200ms, stall: 10m }\nmin_rate: 0");
    let server = node.start();
    let busy = [occupy(server.address()), occupy(server.address())];
    let token = Token::file("small");
    let mut client = Client::connect(server.address());
    let answer = client.get(&token.target());
    assert_eq!((answer.status, answer.field("Retry-After").is_some()), (503, true));
    assert!(answer.text().contains("the server is busy; try again in a moment"));
    server.wait_for_log("refused: queue: no worker became free in time");
    drop(busy);
    server.wait_for_logs(2, "interrupted");
    // It spent nothing.
    server
        .wait_until("a free worker", |server| get(server.address(), &token.target()).status == 200);
}

#[test]
fn who_hangs_up_while_waiting_takes_no_worker() {
    let node = node("timeouts: { queue: 10m, stall: 10m }\nmin_rate: 0");
    let server = node.start();
    let busy = [occupy(server.address()), occupy(server.address())];
    let before = server.descriptors();
    let token = Token::file("large");
    let waiting: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = Client::connect(server.address());
            client.request("GET", &token.target(), "");
            client
        })
        .collect();
    wait_for_connections(&server, before, 30);
    drop(waiting);
    server.wait_until("hang-ups", |server| server.descriptors() <= before);
    drop(busy);
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
    // Nobody has used the link of those who left.
    assert_eq!(Client::connect_from("127.0.0.9", server.address()).get("/health").status, 200);
    let mut other = Client::connect_from("127.0.0.9", server.address());
    other.request("GET", &token.target(), "");
    assert_eq!(other.head().unwrap().status, 200);
}

#[test]
fn connections_take_no_threads_and_give_their_descriptors_back() {
    const CONNECTIONS: usize = 200;
    let node = Node::new().winglet("timeouts: { head: 10m, idle: 10m }");
    node.file("small", b"content");
    let server = node.start();
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
    server.wait_for_log("delivered");
    let threads = server.threads();
    let before = server.descriptors();
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|count| {
            let source = format!("127.0.1.{}", count / 10 + 1);
            let mut client = Client::connect_from(&source, server.address());
            match count % 4 {
                0 => {}
                1 => client.send("GET /download/file?token="),
                2 => assert_eq!(client.get("/health").status, 200),
                _ => assert_eq!(client.get(&Token::file("small").target()).status, 200),
            }
            client
        })
        .collect();
    wait_for_connections(&server, before, CONNECTIONS - 1);
    assert_eq!(server.threads(), threads);
    for client in clients.iter_mut().skip(3).step_by(4) {
        assert_eq!(client.get(&Token::file("small").target()).status, 200);
    }
    assert_eq!(server.threads(), threads);
    drop(clients);
    server.wait_until("all descriptors back", |server| server.descriptors() <= before);
}

/// A server inside the test, stopped at its end.
struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: UnixStream,
    house: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start(node: &Node) -> Running {
        let none = |_: &str| None;
        let loaded = winglet::config::load(&[node.write_config()], &[], &none);
        let config = loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.findings));
        let opened = Opened::open(&config, &none).unwrap();
        let (signals, stop) = Signals::unconnected().unwrap();
        let server = InProcess::start(config, opened, signals, Clock::System, false).unwrap();
        let address = server.addresses()[0].rsplit("://").next().unwrap().parse().unwrap();
        let shared = Arc::clone(server.shared());
        let read = |_: &[_]| winglet::config::Loaded::default();
        let house = thread::spawn(move || {
            server.run_housekeeping(&read, &Notifier::connect(&|_: &str| None))
        });
        Running { address, shared, stop, house: Some(house) }
    }

    fn stop(mut self) {
        self.stop.write_all(b"x").unwrap();
        self.house.take().unwrap().join().unwrap().unwrap();
    }
}

/// Requests one small file after the other until `done`, and counts (served, turned away).
fn load(address: SocketAddr, done: &AtomicBool, served: &AtomicUsize) -> usize {
    let mut client = Client::connect(address);
    let mut refused = 0;
    while !done.load(Ordering::Relaxed) {
        let answer = client.get(&Token::file("small").target());
        match answer.status {
            200 => assert_eq!(answer.body, b"content"),
            _ => check_lost(&answer),
        }
        served.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
        refused += usize::from(answer.status == 503);
        if answer.field("Connection") == Some("close") {
            client = Client::connect(address);
        }
    }
    refused
}

fn check_lost(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.raw);
    assert!(answer.field("Retry-After").is_some(), "{}", answer.raw);
}

#[test]
fn the_private_socket_is_rebuilt_under_load() {
    const TIMES: usize = 20;
    let node = node("timeouts: { stall: 10m, queue: 3s }\nmin_rate: 0");
    let running = Running::start(&node);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..6).map(|_| scope.spawn(|| load(running.address, &done, &served))).collect();
        for _ in 0..TIMES {
            let before = served.load(Ordering::Relaxed);
            running.shared.sabotage_private_socket();
            // It is served again after each time, or the loop never ends.
            while served.load(Ordering::Relaxed) < before + 50
                && !clients.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::Relaxed);
        let refused: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        eprintln!("{} served, {refused} lost", served.load(Ordering::Relaxed));
    });
    // By the time of the second answer on one connection the acceptor has seen the last sabotage,
    // and by the next it has rebuilt.
    for _ in 0..5 {
        assert!(matches!(get(running.address, &Token::file("small").target()).status, 200 | 503));
    }
    for _ in 0..50 {
        assert_eq!(get(running.address, &Token::file("small").target()).status, 200);
    }
    // Both workers are there, and no third is believed to be.
    let busy = [occupy(running.address), occupy(running.address)];
    check_lost(&get(running.address, &Token::file("small").target()));
    drop(busy);
    running.stop();
}

#[test]
fn a_download_in_progress_outlives_the_private_socket() {
    let node = node("timeouts: { stall: 10m }\nmin_rate: 0");
    let running = Running::start(&node);
    let mut slow = occupy(running.address);
    running.shared.sabotage_private_socket();
    for _ in 0..20 {
        let answer = get(running.address, &Token::file("small").target());
        assert!(matches!(answer.status, 200 | 503), "{}", answer.raw);
    }
    slow.each_chunk(LARGE, |_, _| {});
    assert_eq!(slow.get(&Token::file("small").target()).body, b"content");
    // A hang-up of everybody is no reason to stop.
    drop((slow, TcpStream::connect(running.address)));
    assert_eq!(get(running.address, &Token::file("small").target()).status, 200);
    running.stop();
}

#[test]
fn a_panic_costs_one_request_and_no_worker() {
    let node = node("timeouts: { stall: 10m, queue: 1s }\nmin_rate: 0");
    let running = Running::start(&node);
    for _ in 0..6 {
        let token = Token::file("small");
        running.shared.provoke_panic();
        let mut client = Client::connect(running.address);
        client.request("GET", &token.target(), "");
        assert!(client.is_closed(), "no answer, and no waiting for one");
        // Its link was not spent by that.
        assert_eq!(get(running.address, &token.target()).body, b"content");
    }
    let busy = [occupy(running.address), occupy(running.address)];
    check_lost(&get(running.address, &Token::file("small").target()));
    drop(busy);
    running.stop();
}
