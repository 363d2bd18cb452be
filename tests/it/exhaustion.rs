//! Resources run out: descriptors, connections, memory. The server sheds, says so, and
//! goes on when it can.

use std::net::Shutdown;

use crate::client::{Client, connect_from, get};
use crate::crowd::Crowd;
use crate::harness::{Node, Server, descriptors_for, have, pattern};
use crate::mint::Token;
use crate::stalled::{Occupied, TWO_WORKERS, busy_workers, wait_for_queue};

/// `text` in the log, so often.
fn count(server: &Server, text: &str) -> usize {
    server.log().matches(text).count()
}

#[test]
fn few_descriptors_are_shed_and_used_again() {
    if !have("prlimit") {
        return;
    }
    let node = Node::new().through(&["prlimit", "--nofile=64:64"]);
    let content = pattern(12 << 20);
    node.file("large", &content);
    node.file("small", b"small");
    let mut server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    assert!(server.log().contains("raise the hard limit (ulimit -Hn) to"), "{}", server.log());
    let idle = server.descriptors();
    let mut download = Client::connect_from("127.0.0.9", server.address());
    download.request("GET", &Token::file("large").target(), "");
    download.head().unwrap();
    for round in 0..5 {
        let crowd = Crowd::gather(server.address(), 100, 10 + round, b"GET /health HTTP/1.1\r\n");
        let mut newcomer = Client::connect_from("127.0.0.8", server.address());
        assert_eq!(newcomer.get(&Token::file("small").target()).text(), "small");
        assert!(server.descriptors() <= 64);
        drop(crowd);
    }
    assert!(download.read_some(content.len()) == content);
    drop(download);
    server.wait_until("all is closed", |server| server.descriptors() <= idle);
    // Five lines of a kind in ten seconds, and then a count.
    assert!(count(&server, "closing one of the busiest address") <= 15, "{}", server.log());
    assert!(count(&server, "closing one of the busiest address") >= 1);
    assert!(server.is_alive());
    assert_eq!(get(server.address(), &Token::file("small").target()).text(), "small");
}

#[test]
fn the_busiest_address_gives_way_when_the_server_is_full() {
    let node = Node::new().winglet("max_connections: 100\ntimeouts: { head: 60s }");
    node.file("small", b"small");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    let idle = server.descriptors();
    // The oldest connections, and far from the most.
    let mut few: Vec<Client> =
        (1..21).map(|n| Client::connect_from(&format!("127.0.9.{n}"), server.address())).collect();
    few.iter_mut().for_each(|client| client.send("GET /health HTTP/1.1\r\n"));
    server.wait_until("they wait", |server| server.descriptors() >= idle + 20);
    let crowd = Crowd::gather(server.address(), 300, 2, b"GET");
    server.wait_until("the crowd has the rest", |_| crowd.open() <= 80);
    assert_eq!(get(server.address(), &Token::file("small").target()).text(), "small");
    for mut client in few {
        client.send("Host: node\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    server.wait_for_log("max_connections: 100 connections; closing one of the busiest address");
}

#[test]
fn one_address_cannot_wait_for_all() {
    let node = Node::new().winglet("max_connections_per_address: 5\ntimeouts: { head: 60s }");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    let idle = server.descriptors();
    let mut other = Client::connect_from("127.0.0.2", server.address());
    other.send("GET /health HTTP/1.1\r\n");
    let waiting: Vec<_> =
        (0..50).map(|_| connect_from("127.0.0.1", server.address(), None)).collect();
    server.wait_until("they wait", |server| server.descriptors() == idle + 6);
    server.wait_for_log("max_connections_per_address: 127.0.0.1 has its share");
    // Those that come back from an answer count, too.
    drop(waiting);
    let kept: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = Client::connect(server.address());
            client.get("/download/file?token=x");
            client
        })
        .collect();
    server.wait_until("they wait", |server| server.descriptors() == idle + 6);
    drop(kept);
    other.send("Host: node\r\n\r\n");
    assert_eq!(other.answer().status, 200);
}

/// Memory that an attack took goes back when it is over.
#[test]
fn memory_is_back_where_it_was() {
    let size = descriptors_for(2000);
    let node = Node::new().winglet("max_connections: 3000\ntimeouts: { head: 60s }");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    let head = format!("GET /health HTTP/1.1\r\nX: {}", "a".repeat(15_000));
    let round = || {
        let idle = server.descriptors();
        let crowd = Crowd::gather(server.address(), size, 3, head.as_bytes());
        server.wait_until("they wait", |server| server.descriptors() >= idle + size);
        let most = server.resident_kib();
        drop(crowd);
        server.wait_until("they are gone", |server| server.descriptors() <= idle);
        most
    };
    let before = server.resident_kib();
    let most = round();
    // 16 KiB of head, in a buffer that grows by doubling.
    assert!(most < before + 48 * size as u64, "{before} KiB, then {most} KiB");
    println!("{before} KiB before, {most} KiB during, {} KiB after", server.resident_kib());
    server.wait_until("memory is back", |server| server.resident_kib() < before + 8 * 1024);
    let second = round();
    assert!(second < most + 8 * 1024, "{most} KiB, then {second} KiB");
}

/// Nothing is done for connections in odd states while nothing happens on them.
#[test]
fn odd_connections_do_not_keep_the_server_busy() {
    let node = Node::new()
        .winglet(TWO_WORKERS)
        .winglet("min_rate: 0\ntimeouts: { head: 10m, idle: 10m, queue: 10m, stall: 10m }");
    node.file("large", &pattern(12 << 20));
    node.file("tail", &pattern(60_000));
    let mut server = node.start();
    let mut odd = Vec::new();
    let mut add = |host: u8, request: &str, file: &str, half_closed: bool| {
        let source = format!("127.0.0.{host}");
        let mut client = Client::over(connect_from(&source, server.address(), Some(4096)));
        let target = if file.is_empty() { "/health".into() } else { Token::file(file).target() };
        client.send(request.replace("TARGET", &target));
        if !file.is_empty() {
            client.head().unwrap();
        }
        if half_closed {
            client.stream().shutdown(Shutdown::Write).unwrap();
        }
        odd.push(client);
    };
    let (get, end) = ("GET TARGET HTTP/1.1\r\nHost: n\r\n\r\n", "Connection: close\r\n\r\n");
    let last = format!("GET TARGET HTTP/1.1\r\nHost: n\r\n{end}");
    let pipelined = format!("{get}GET /health HTTP/1.1\r\n");
    add(2, "", "", false);
    add(2, "GET /hea", "", false);
    add(2, "GET /hea", "", true);
    add(2, get, "", true);
    // Deliveries that wait for their reader: kept, last, with a FIN before the end, with input.
    for request in [get, &last, &pipelined] {
        add(3, request, "tail", false);
        add(3, request, "tail", true);
    }
    // Parked downloads, whole and half closed.
    for half_closed in [false, true, false] {
        add(4, get, "large", half_closed);
    }
    server.wait_until_asleep();
    // Workers that wait for their disks, and what waits for those.
    let Some(occupied) = Occupied::start(&node, &server) else { return };
    server.may_log_errors();
    let mut queued: Vec<Client> = (0..15)
        .map(|number| {
            let mut client = Client::connect_from("127.0.0.5", server.address());
            client.request("GET", "/download/file?token=x", "");
            match number % 3 {
                0 => {}
                1 => client.send(get),
                _ => client.stream().shutdown(Shutdown::Write).unwrap(),
            }
            client
        })
        .collect();
    wait_for_queue(&node, &server, 15);
    server.wait_until_asleep();
    queued.drain(..5).for_each(Client::reset);
    server.wait_for_logs(5, " GET file 499 ");
    server.wait_until_asleep();
    assert_eq!(busy_workers(&node), 2);
    occupied.end();
    for mut client in queued {
        assert_eq!(client.answer().status, 401);
    }
    assert!(!server.log().contains("file=\"large\""), "a download has ended:\n{}", server.log());
}
