//! What a `resume` link allows and what it does not: binding, expiry, budget, and delivery.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::client::{Client, get};
use crate::clients::wait_until_spent;
use crate::delivery::{ended, node};
use crate::harness::Node;
use crate::mint::{Token, now};

const MIB: usize = 1 << 20;

/// The status of a `GET` on a connection of its own, from `source`.
fn status_from(source: &str, address: SocketAddr, target: &str) -> u16 {
    Client::connect_from(source, address).get(target).status
}

fn range(start: usize, end: usize) -> String {
    format!("Range: bytes={start}-{}\r\n", end - 1)
}

/// Waits until the clock of the node says `second`.
fn wait_for_time(second: u64) {
    while now() < second {
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_address_gets_nothing_and_disturbs_nobody() {
    let (node, content) = node(8 * MIB);
    let server = node.start();
    let target = Token::file("file").target();
    let stranger = || status_from("127.0.0.2", server.address(), &target);
    let mut client = Client::connect(server.address());
    client.request("GET", &target, "");
    let answer = client.head().unwrap();
    assert_eq!(answer.status, 200);
    let mut body = Vec::new();
    while body.len() < content.len() {
        assert_eq!(stranger(), 503, "after {} bytes", body.len());
        body.extend(client.read_some(2 * MIB));
    }
    assert!(body == content);
    drop(client);
    server.wait_for_log("delivered");
    assert_eq!(stranger(), 401);
    assert_eq!(get(server.address(), &target).status, 401);
}

#[test]
fn a_client_over_ipv6() {
    let (node, content) = node(100_000);
    let node = node.winglet("settle_time: 1s\nlisten: [\"[::1]:0\"]");
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    let first = client.get_with(&target, &range(0, 40_000));
    assert!(first.body == content[..40_000]);
    let mut other = Client::connect(server.address());
    let rest = other.get_with(&target, "Range: bytes=40000-\r\n");
    assert!(rest.body == content[40_000..]);
    drop((client, other));
    server.wait_for_log("link=100000/100000");
    wait_until_spent(server.address(), &target);
}

#[test]
fn one_64_is_one_client_behind_a_trusted_proxy() {
    // More than a peek, which another address could take over.
    const PART: usize = 300_000;
    let (node, content) = node(2 * PART);
    let node = node.top_level("api:\n  trusted_proxies: [127.0.0.1]");
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    let mut part = |forwarded: &str, start: usize, end: usize| {
        let fields = format!("X-Forwarded-For: {forwarded}\r\n{}", range(start, end));
        client.get_with(&target, &fields)
    };
    assert!(part("2001:db8::1", 0, PART).body == content[..PART]);
    assert_eq!(part("2001:db8:0:1::1", PART, 2 * PART).status, 503);
    assert_eq!(part("192.0.2.1", PART, 2 * PART).status, 503);
    // What stands left of the proxy's own entry is the client's invention.
    assert_eq!(part("2001:db8::1, 192.0.2.1", PART, 2 * PART).status, 503);
    assert!(part("2001:db8::ffff:2", PART, 2 * PART).body == content[PART..]);
    drop(client);
    server.wait_for_log("link=600000/600000");
    assert_eq!(status_from("127.0.0.1", server.address(), &target), 401);
}

#[test]
fn a_trusted_peer_that_forwards_nothing_is_a_client_itself() {
    let (node, content) = node(1000);
    let node = node.top_level("api:\n  trusted_proxies: [127.0.0.1]");
    let server = node.start();
    let target = Token::file("file").target();
    // As `curl` on the proxy's own machine.
    let answer = Client::connect(server.address()).get(&target);
    assert!(answer.body == content);
    wait_until_spent(server.address(), &target);
    // A proxy that does not say for whom: nothing is bound, nothing spent at once.
    for field in [
        "Forwarded: for=192.0.2.1",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "Via: 1.1 cache",
    ] {
        let target = Token::file("file").target();
        for _ in 0..3 {
            let fields = format!("{field}\r\n");
            let answer = Client::connect(server.address()).get_with(&target, &fields);
            assert_eq!(answer.status, 200, "{field}: {}", answer.raw);
        }
    }
    let warned = "127.0.0.1 forwards requests without X-Forwarded-For";
    server.wait_for_log(warned);
    assert_eq!(server.log().matches(warned).count(), 1, "{}", server.log());
}

#[test]
fn binding_can_be_switched_off() {
    let (node, content) = node(1000);
    let node = node.winglet("bind_address: false");
    let server = node.start();
    let target = Token::file("file").target();
    let mut first = Client::connect(server.address());
    assert_eq!(first.get_with(&target, &range(0, 400)).body, content[..400]);
    let mut second = Client::connect_from("127.0.0.2", server.address());
    assert_eq!(second.get_with(&target, &range(400, 1000)).body, content[400..]);
}

#[test]
fn a_grant_outlives_its_token_for_its_client_only() {
    let (node, content) = node(8 * MIB);
    let node = node.winglet("settle_time: 1s");
    let server = node.start();
    let exp = now() + 2;
    let (used, never) =
        (Token::file("file").with("exp", exp), Token::file("file").with("exp", exp));
    let (used, never) = (used.target(), never.target());
    let mut client = Client::connect(server.address());
    client.request("GET", &used, "");
    assert_eq!(client.head().unwrap().status, 200);
    let kept = client.read_some(MIB);
    wait_for_time(exp + 1);
    client.reset();
    ended(&server, 1);
    assert_eq!(status_from("127.0.0.2", server.address(), &used), 401);
    let unused = get(server.address(), &never);
    assert_eq!(
        (unused.status, unused.text().contains("expired")),
        (401, true),
        "{}",
        unused.text()
    );
    let mut client = Client::connect(server.address());
    let rest = client.get_with(&used, &format!("Range: bytes={}-\r\n", kept.len()));
    assert_eq!(rest.status, 206);
    assert!([kept, rest.body].concat() == content);
    drop(client);
    server.wait_for_log("delivered");
    // Part of it came on a stream that was reset: that settles.
    wait_for_time(now() + 2);
    assert_eq!(get(server.address(), &used).status, 401);
}

#[test]
fn the_window_ends_a_grant() {
    let (node, _) = node(1000);
    let node = node.winglet("resume_window: 2s");
    let server = node.start();
    let target = Token::file("file").target();
    let opened = now();
    assert_eq!(Client::connect(server.address()).get_with(&target, &range(0, 10)).status, 206);
    wait_for_time(opened + 4);
    assert_eq!(get(server.address(), &target).status, 401);
}

/// Fetches `length` bytes from the start until it is refused; counts what it got.
fn fetch_until_refused(address: SocketAddr, target: &str, length: usize, most: usize) -> usize {
    let mut bytes = 0;
    while bytes < most {
        let mut client = Client::connect(address);
        let fields = format!(
            "Connection: close\r\nIf-Unmodified-Since: Thu, 31 Dec 2099 23:59:59 GMT\r\n{}",
            range(0, length)
        );
        client.request("GET", target, &fields);
        let answer = client.head().unwrap();
        if answer.status == 401 {
            break;
        }
        assert_eq!(answer.status, 206, "{}", answer.raw);
        // A stream that would exceed the budget is cut.
        bytes += client.read_to_end().len();
    }
    bytes
}

#[test]
fn a_link_pays_for_three_times_the_file_and_no_more() {
    const LENGTH: usize = 4 * MIB;
    let budget = 3 * LENGTH + 64 * MIB;
    let (node, content) = node(LENGTH);
    let node = node.with_state();
    let target = Token::file("file").target();
    let mut bytes = 0;
    for run in 0..4 {
        let mut server = node.start();
        bytes += fetch_until_refused(server.address(), &target, LENGTH - 1, budget / 6);
        // Another version of the file starts the delivery over, not the budget.
        node.file("file", &[&content[..], &[run]].concat());
        bytes += fetch_until_refused(server.address(), &target, LENGTH - 1, budget / 12);
        if run % 2 == 0 { server.kill() } else { server.stop() }
    }
    let server = node.start();
    bytes += fetch_until_refused(server.address(), &target, LENGTH - 1, 2 * budget);
    assert!(bytes <= budget, "{bytes} of {budget}");
    assert!(bytes >= budget - 3 * LENGTH, "{bytes} of {budget}");
    assert_eq!(get(server.address(), &target).status, 401);
}

#[test]
fn ten_thousand_single_bytes_cost_bounded_memory_and_journal() {
    let (node, content) = node(MIB);
    let node = node.with_state();
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    client.get_with(&target, &range(0, 1));
    let before = server.resident_kib();
    let mut most = 0;
    for i in 1..10_000 {
        let at = i * 100;
        if i % 900 == 0 {
            client = Client::connect(server.address());
        }
        let answer = client.get_with(&target, &range(at, at + 1));
        assert_eq!((answer.status, answer.body[0]), (206, content[at]));
        if i % 100 == 0 {
            most = most.max(journal_bytes(&node));
        }
    }
    let grown = server.resident_kib().saturating_sub(before);
    println!("10,000 bytes: {grown} KiB more resident, journal at most {most} bytes");
    assert!(grown < 16 * 1024, "{grown} KiB");
    // Compaction looks once a second: that bounds what a client can write meanwhile.
    server.wait_until("compaction", |_| journal_bytes(&node) < 1_500_000);
    drop(client);
}

fn journal_bytes(node: &Node) -> u64 {
    let size = |name| std::fs::metadata(node.state().join(name)).map_or(0, |data| data.len());
    size("journal") + size("journal.new")
}
