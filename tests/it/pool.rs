//! The fixed pool with every worker busy, and what waiting connections cost.

use crate::client::{Client, get};
use crate::harness::Node;
use crate::mint::Token;
use crate::stalled::{Occupied, TWO_WORKERS, busy_workers, wait_for_queue};

#[test]
fn health_answers_while_every_worker_is_busy_and_waiting_takes_no_memory() {
    const WAITING: usize = 200;
    let node = Node::new().winglet(TWO_WORKERS).winglet("timeouts: { queue: 10m }");
    node.file("small", b"content");
    let mut server = node.start();
    let Some(occupied) = Occupied::start(&node, &server) else { return };
    server.may_log_errors();
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
    wait_for_queue(&node, &server, WAITING as u64);
    let mut health = Client::connect(server.address());
    for _ in 0..20 {
        assert_eq!(health.get("/health").text(), r#"{"status":"ok"}"#);
    }
    assert!(server.threads() <= threads);
    let grown = server.resident_kib().saturating_sub(memory);
    assert!(grown < 6 * 1024, "{WAITING} waiting requests took {grown} KiB");
    assert_eq!(busy_workers(&node), 2, "nobody had to wait");
    occupied.end();
    for client in &mut waiting {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"content".as_slice()));
    }
}

#[test]
fn connections_take_no_threads_and_give_their_descriptors_back() {
    const CONNECTIONS: usize = 200;
    let node = Node::new().winglet("timeouts: { head: 10m, idle: 10m }");
    node.file("small", b"content");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
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
    server.wait_until("all are there", |server| server.descriptors() >= before + CONNECTIONS - 1);
    // Fewer, if spare threads of tiny_http have ended.
    assert!(server.threads() <= threads);
    for client in clients.iter_mut().skip(3).step_by(4) {
        assert_eq!(client.get(&Token::file("small").target()).status, 200);
    }
    assert!(server.threads() <= threads);
    drop(clients);
    server.wait_until("all descriptors back", |server| server.descriptors() <= before);
}
