//! Limits: what happens at each of them, to whom, and that nobody else notices.

use std::io::ErrorKind::UnexpectedEof;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from, get};
use crate::harness::{Node, PATIENCE, Server, pattern};
use crate::mint::Token;
use crate::stalled::{Occupied, TWO_WORKERS, busy_workers, wait_for_queue};

/// More than fits into the kernel's buffers for a client that does not read.
const LARGE: usize = 12 << 20;

/// A download from `source` of which nothing but the head has been read.
fn hold(server: &Server, source: &str, target: &str) -> Client {
    let mut client = Client::connect_from(source, server.address());
    client.request("GET", target, "");
    assert_eq!(client.head().unwrap().status, 200);
    client
}

fn finish(mut client: Client, content: &[u8]) {
    assert!(client.read_some(content.len()) == content, "wrong bytes");
}

#[test]
fn an_address_has_its_share_of_connections_and_others_theirs() {
    let node = Node::new().winglet("max_connections_per_address: 8\nmax_connections: 40");
    let content = pattern(LARGE);
    node.file("large", &content);
    node.file("small", b"small");
    let server = node.start();
    let held: Vec<Client> =
        (0..8).map(|_| hold(&server, "127.0.0.1", &Token::file("large").target())).collect();
    // More than the table holds, from one address whose connections are all busy.
    let mut crowd: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = Client::connect(server.address());
            let _ = client.try_send("GET /download/file?token=x HTTP/1.1\r\nHost: n\r\n\r\n");
            client
        })
        .collect();
    let mut other = Client::connect_from("127.0.0.2", server.address());
    assert_eq!(other.get(&Token::file("small").target()).text(), "small");
    // One at a time is let in beyond the share, and told so without waiting.
    drop(crowd.split_off(1));
    let answer = crowd[0].answer();
    assert_eq!(answer.status, 503);
    assert!(answer.field("Retry-After").is_some(), "{}", answer.raw);
    assert!(answer.text().contains("your address"), "{}", answer.text());
    server.wait_for_log("max_connections_per_address: 127.0.0.1 has its share of busy");
    // A place is free again once a connection has ended.
    drop(crowd);
    held.into_iter().for_each(|client| finish(client, &content));
    assert_eq!(get(server.address(), &Token::file("small").target()).text(), "small");
}

/// Whoever does not read holds no worker.
#[test]
fn slow_readers_keep_nobody_waiting() {
    let node = Node::new().winglet("threads: 2\nmin_rate: 0\ntimeouts: { stall: 10m }");
    let content = pattern(LARGE);
    node.file("large", &content);
    node.file("small", b"small");
    let server = node.start();
    let held: Vec<Client> = (1..20)
        .map(|n| hold(&server, &format!("127.0.0.{n}"), &Token::file("large").target()))
        .collect();
    for _ in 0..20 {
        assert_eq!(get(server.address(), &Token::file("small").target()).text(), "small");
        assert_eq!(get(server.address(), "/health").status, 200);
    }
    assert!(!server.log().contains("file=\"large\""), "one of them has ended");
    held.into_iter().for_each(|client| finish(client, &content));
}

/// A hang-up in the queue frees its place, is logged, and gives nothing to a worker.
#[test]
fn whoever_hangs_up_in_the_queue_is_forgotten() {
    const HANG_UPS: usize = 15;
    let node = Node::new().winglet(TWO_WORKERS).winglet("timeouts: { queue: 10m }");
    node.file("small", b"small");
    let mut server = node.start();
    let Some(occupied) = Occupied::start(&node, &server) else { return };
    server.may_log_errors();
    let ask = || {
        let mut client = Client::connect_from("127.0.0.2", server.address());
        client.request("GET", &Token::file("small").target(), "");
        client
    };
    let waiting: Vec<Client> = (0..HANG_UPS).map(|_| ask()).collect();
    wait_for_queue(&node, &server, HANG_UPS as u64);
    waiting.into_iter().for_each(Client::reset);
    wait_for_queue(&node, &server, 0);
    let lines = server.wait_for_logs(HANG_UPS, " GET file 499 ");
    assert!(lines.iter().all(|line| line.ends_with("refused: client gone")), "{lines:?}");
    // One that has only sent its FIN may still read.
    let mut half = ask();
    half.stream().shutdown(Shutdown::Write).unwrap();
    wait_for_queue(&node, &server, 1);
    assert_eq!(busy_workers(&node), 2, "nobody had to wait");
    occupied.end();
    assert_eq!(half.answer().text(), "small");
    assert_eq!(ask().answer().text(), "small");
}

#[test]
fn heads_and_pauses_have_their_deadlines() {
    let node = Node::new().winglet("timeouts: { head: 1s, idle: 1s }");
    node.file("a", b"a");
    let server = node.start();
    let address = server.address();
    let half_a_head = |kept: bool| {
        let mut client = Client::connect(address);
        if kept {
            assert_eq!(client.get(&Token::file("a").target()).status, 200);
        }
        client.send("GET /health HTTP/1.1\r\nHost:");
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("Connection")), (408, Some("close")));
        assert!(client.is_closed());
    };
    let idle = |target: &str| {
        let mut client = Client::connect(address);
        client.get(target);
        assert!(client.is_closed(), "{target}");
    };
    // All at once, since each takes its time.
    std::thread::scope(|scope| {
        // Nothing came: nothing to answer. Half a head came: 408.
        scope.spawn(|| assert!(Client::connect(address).is_closed()));
        for kept in [false, true] {
            scope.spawn(move || half_a_head(kept));
        }
        for target in ["/health".to_owned(), "/nothing".into(), Token::file("a").target()] {
            scope.spawn(move || idle(&target));
        }
    });
}

/// Bytes do not lengthen the deadline of a head.
#[test]
fn a_head_that_trickles_is_cut_on_time() {
    let server = Node::new().winglet("timeouts: { head: 1s }").start();
    let began = Instant::now();
    let mut client = Client::connect(server.address());
    client.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    client.send("GET /health HTTP/1.1\r\nX: ");
    let answer = loop {
        let _ = client.try_send("a");
        match client.try_answer() {
            Ok(answer) => break answer,
            Err(_) => assert!(began.elapsed() < PATIENCE, "never cut"),
        }
    };
    assert_eq!(answer.status, 408);
}

/// What a client has sent, its FIN and all, before the server looks for the first time.
#[test]
fn an_end_that_comes_with_the_requests_is_seen() {
    let node = Node::new().winglet("reuse: unlimited\ntimeouts: { head: 10m, idle: 10m }");
    node.file("small", b"small");
    let server = node.start();
    let health = "GET /health HTTP/1.1\r\nHost: n\r\n\r\n";
    let file = || health.replace("/health", &Token::file("small").target());
    let cases: [(String, usize); 6] = [
        (String::new(), 0),
        ("GET /hea".into(), 0),
        (health.into(), 1),
        (health.repeat(2), 2),
        (file(), 1),
        ([file(), file(), health[..20].to_owned()].concat(), 2),
    ];
    // On connections that the server has yet to see, and on those that it knows.
    let known = [0; 6].map(|_| {
        let mut client = Client::connect(server.address());
        assert_eq!(client.get("/health").status, 200);
        client
    });
    server.signal("STOP");
    let fresh = [0; 6].map(|_| Client::connect(server.address()));
    let mut clients = [known, fresh];
    for ((request, _), client) in cases.iter().cycle().zip(clients.as_flattened_mut()) {
        client.send(request);
        client.stream().shutdown(Shutdown::Write).unwrap();
    }
    server.signal("CONT");
    for ((request, count), client) in cases.iter().cycle().zip(clients.as_flattened_mut()) {
        for _ in 0..*count {
            assert_eq!(client.answer().status, 200, "{request}");
        }
        assert_eq!(client.try_answer().unwrap_err().kind(), UnexpectedEof, "{request}");
    }
}

/// Reading an answer slowly is not idling: the next request has all its time.
#[test]
fn the_pause_begins_when_the_answer_has_arrived() {
    let node = Node::new().winglet("timeouts: { head: 1s, idle: 1s, stall: 20s }");
    let content = pattern(100_000);
    node.file("a", &content);
    let server = node.start();
    let read_slowly = |pipelined: bool| {
        let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(4096)));
        client.request("GET", &Token::file("a").target(), "");
        if pipelined {
            client.request("GET", "/health", "");
        }
        client.head().unwrap();
        // The answer is in the kernel's hands long before the client has it.
        for chunk in content.chunks(10_000) {
            std::thread::sleep(Duration::from_millis(200));
            assert!(client.read_some(chunk.len()) == chunk);
        }
        if !pipelined {
            client.request("GET", "/health", "");
        }
        assert_eq!(client.answer().status, 200, "pipelined: {pipelined}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| read_slowly(false));
        scope.spawn(|| read_slowly(true));
    });
}

#[test]
fn a_connection_carries_a_thousand_requests() {
    let node = Node::new().winglet("reuse: unlimited");
    node.file("a", b"a");
    let server = node.start();
    for target in ["/download/file", &Token::file("a").target()] {
        let mut client = Client::connect(server.address());
        for number in 1..=1000 {
            let answer = client.get(target);
            let close = answer.field("Connection") == Some("close");
            assert_eq!(close, number == 1000, "{number}: {}", answer.raw);
        }
        assert!(client.is_closed());
    }
}

/// What a client controls cannot break a line of the log or speak to a terminal.
#[test]
fn a_log_line_stays_a_log_line() {
    let node = Node::new();
    let server = node.start();
    let forged =
        "x\n2026-01-01T00:00:00Z FATAL forged\r\n\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}\u{9b}31m";
    let tokens = [Token::file(forged), Token::file("a").with("server_uuid", forged)];
    let encoded = "%0a2026-01-01T00:00:00Z%20FATAL%20forged%1b[2J";
    for token in tokens.iter().map(Token::sign).chain([encoded.to_owned()]) {
        let agent = format!("User-Agent: {encoded}\r\nReferer: \u{9b}31m\u{202e}\r\n");
        let mut client = Client::connect(server.address());
        let target = format!("/download/file?token={token}&{encoded}");
        assert!(client.get_with(&target, &agent).status >= 400);
        assert_eq!(client.get_with(&format!("/{encoded}"), &agent).status, 404);
        client.send(format!("GET / HTTP/1.1\r\nX: \u{1b}[2J{forged}\r\n\r\n"));
        assert_eq!(client.answer().status, 400);
    }
    server.wait_for_log("forged");
    let log = server.log();
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{line:?}");
        assert!(["INFO ", "WARN "].iter().any(|level| rest.starts_with(level)), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn an_attack_is_a_few_lines_of_log() {
    let node = Node::new().winglet("max_connections: 20\nmax_connections_per_address: 4");
    let server = node.start();
    let before = server.log().lines().count();
    for number in 0..2000 {
        let source = format!("127.0.0.{}", number % 20 + 1);
        let mut client = Client::over(connect_from(&source, server.address(), None));
        let bytes = ["\u{16}\r\n\r\n", "GET / HTTP/1.1\r\nHost: n\r\n\r\n", "G"][number % 3];
        let _ = client.try_send(bytes);
    }
    assert_eq!(get(server.address(), "/health").status, 200);
    // Some 240 lines in ten seconds, whatever the kinds, and the attack may take two such periods.
    let lines = server.log().lines().count() - before;
    assert!(lines < 500, "{lines} lines:\n{}", server.log());
}
