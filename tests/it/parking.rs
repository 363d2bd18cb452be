//! Downloads that wait for their client without a worker, over every kind of connection and
//! through everything that an operator does meanwhile.

use std::io::{self, ErrorKind::UnexpectedEof};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from, get};
use crate::control::status;
use crate::harness::{Node, pattern};
use crate::mint::Token;

/// More than fits into the kernel's buffers for a client that does not read.
const LENGTH: usize = 6 << 20;
/// Clients that wait for others to be served first are as slow as the machine.
const PATIENT: &str = "min_rate: 0\ntimeouts: { stall: 10m, drain: 10m }";

fn node(winglet: &str) -> (Node, Vec<u8>) {
    let node = Node::new().winglet(&format!("threads: 2\n{winglet}"));
    let content = pattern(LENGTH);
    node.file("large", &content);
    node.file("small", b"small");
    (node, content)
}

/// Clients at addresses of their own that have read the head of a large file and no more.
fn parked(address: SocketAddr, count: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..count)
        .map(|number| {
            let source = format!("127.0.{}.{}", number / 200, number % 200 + 1);
            let mut client = Client::over(connect_from(&source, address, Some(16 * 1024)));
            client.request("GET", &Token::file("large").target(), "");
            client
        })
        .collect();
    clients
        .into_iter()
        .map(|mut client| {
            assert_eq!(client.head().unwrap().status, 200);
            client
        })
        .collect()
}

fn finish(clients: Vec<Client>, content: &[u8]) {
    for mut client in clients {
        assert!(client.read_some(content.len()) == content, "wrong bytes");
    }
}

#[test]
fn a_term_waits_for_parked_downloads() {
    let (node, content) = node(PATIENT);
    let mut server = node.start();
    let clients = parked(server.address(), 200);
    server.signal("TERM");
    server.wait_for_log("stopping");
    finish(clients, &content);
    assert!(server.wait().success());
    assert_eq!(server.log().matches(" delivered").count(), 200);
}

#[test]
fn a_reload_leaves_parked_downloads_alone() {
    let (node, content) = node(PATIENT);
    let server = node.start();
    let clients = parked(server.address(), 10);
    server.signal("HUP");
    server.wait_for_log("reload: done");
    finish(clients, &content);
}

#[test]
fn a_crash_spends_nothing_that_was_not_delivered() {
    let (node, content) = node("");
    let node = node.with_state().winglet("max_connections_per_address: 256");
    let mut server = node.start();
    let tokens: Vec<Token> = (0..200).map(|_| Token::file("large")).collect();
    let clients: Vec<Client> = tokens
        .iter()
        .map(|token| {
            let socket = connect_from("127.0.0.1", server.address(), Some(4096));
            let mut client = Client::over(socket);
            client.request("GET", &token.target(), "");
            client.head().unwrap();
            client
        })
        .collect();
    server.kill();
    drop(clients);
    let server = node.start();
    for token in &tokens {
        assert!(get(server.address(), &token.target()).body == content);
    }
}

/// Eight streams against one within the server's bandwidth: an address weighs as much as another, so
/// the one ends when each of the eight has most of its way before it.
#[test]
fn addresses_share_the_bandwidth_and_not_their_streams() {
    let (node, content) = node("bandwidth: 4\ncontrol: unix:control.sock");
    let server = node.start();
    let address = server.address();
    let eight = [0; 8].map(|_| {
        thread::spawn(move || {
            let mut client = Client::connect_from("127.0.0.2", address);
            client.request("GET", &Token::file("large").target(), "");
            let _ = io::copy(&mut client.stream(), &mut io::sink());
        })
    });
    let running = || status(&node)["downloads"].as_array().unwrap().len();
    server.wait_until("all eight run", |_| running() == 8);
    assert!(get(address, &Token::file("large").target()).body == content);
    server.wait_for_log(" 127.0.0.1 GET file 200 ");
    assert_eq!(server.log().matches(" 127.0.0.2 GET file 200 ").count(), 0, "{}", server.log());
    assert_eq!(get(address, "/health").status, 200);
    drop(server);
    eight.into_iter().for_each(|one| one.join().unwrap());
}

#[test]
fn a_link_keeps_its_rate_over_all_its_streams() {
    let (node, content) = node("rate_limit: 3");
    let server = node.start();
    let target = Token::file("large").target();
    let began = Instant::now();
    thread::scope(|scope| {
        for part in 0..4 {
            let (server, target, content) = (&server, &target, &content);
            scope.spawn(move || {
                let (from, to) = (part * LENGTH / 4, (part + 1) * LENGTH / 4);
                let range = format!("Range: bytes={from}-{}\r\n", to - 1);
                let answer = Client::connect(server.address()).get_with(target, &range);
                assert!(answer.body == content[from..to]);
            });
        }
    });
    // Six MiB at three per second; a stream alone would have taken half a second for its part. A busy
    // machine only makes it longer.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
}

/// The kernel has accepted these connections, and the server not yet: they are answered.
#[test]
fn a_term_answers_who_has_connected_before() {
    let (node, _) = node("max_connections_per_address: 1000");
    let mut server = node.start();
    server.signal("STOP");
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.request("GET", "/health", "Connection: close\r\n");
    }
    server.signal("TERM");
    server.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    drop(clients);
    assert!(server.wait().success());
}

#[test]
fn a_client_that_sends_no_more_is_served() {
    let (node, content) = node("");
    let server = node.start();
    let mut client = Client::connect(server.address());
    client.request("GET", &Token::file("large").target(), "");
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.answer().body == content);
}

/// A request that comes while the answer to the last one is parked, or is yet to be acknowledged.
#[test]
fn a_request_that_comes_early_is_answered() {
    let (node, content) = node("control: unix:control.sock\ntimeouts: { head: 10m, idle: 10m }");
    let server = node.start();
    for (file, state) in [("large", "parked"), ("tail", "finishing")] {
        let content = &content[..if file == "tail" { 60_000 } else { LENGTH }];
        node.file(file, content);
        let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(4096)));
        client.request("GET", &Token::file(file).target(), "");
        server.wait_until(state, |_| status(&node)["downloads"][0]["state"] == state);
        client.request("GET", "/health", "");
        client.request("GET", &Token::file("small").target(), "");
        assert!(client.answer().body == content);
        assert_eq!(client.answer().text(), "{\"status\":\"ok\"}", "{state}");
        assert_eq!(client.answer().text(), "small", "{state}");
        // An end that comes early is one, too.
        client.request("GET", &Token::file(file).target(), "");
        server.wait_until(state, |_| status(&node)["downloads"][0]["state"] == state);
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert!(client.answer().body == content);
        assert_eq!(client.try_answer().unwrap_err().kind(), UnexpectedEof, "{state}");
    }
}

/// A server that hangs, with a full backlog, is one that is there.
#[test]
fn a_start_beside_a_hung_listener_does_not_hang() {
    let (node, _) = node("");
    let path = node.path().join("s.sock");
    let hung = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&hung, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    node.write_config();
    let mut server = node.launch(&["--listen", &listen]);
    assert!(!server.wait().success());
    assert!(server.log().contains("something listens there already"), "{}", server.log());
}

/// A client that goes away while its download is parked costs nothing for long.
#[test]
fn a_parked_download_ends_with_its_client() {
    let (node, _) = node("");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    let idle = server.descriptors();
    let clients = parked(server.address(), 20);
    clients.into_iter().for_each(Client::reset);
    server.wait_for_logs(20, "interrupted");
    server.wait_until("all is closed", |server| server.descriptors() <= idle);
}

/// One that never reads is cut, and its memory in the kernel with it.
#[test]
fn a_parked_download_that_stands_still_is_cut() {
    let (node, _) = node("timeouts: { stall: 1s }\nmin_rate: 0");
    let server = node.start();
    let clients = parked(server.address(), 5);
    server.wait_for_logs(5, "interrupted: stall: nothing acknowledged in time");
    drop(clients);
    assert_eq!(get(server.address(), "/health").status, 200);
}
