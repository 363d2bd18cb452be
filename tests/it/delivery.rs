//! What counts as delivered: never before everything was, and never usable after.

use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from, get};
use crate::harness::{Node, PATIENCE, Server, pattern};
use crate::mint::Token;

const MIB: usize = 1 << 20;

/// A node with `file` of `length` bytes, and its content.
pub fn node(length: usize) -> (Node, Vec<u8>) {
    let node = Node::new();
    let content = pattern(length);
    node.file("file", &content);
    (node, content)
}

/// Waits until `count` streams have ended, one way or the other.
pub fn ended(server: &Server, count: usize) -> Vec<String> {
    server.wait_for_logs(count, " bytes=")
}

/// The field that asks for `start..end`.
pub fn range(start: usize, end: usize) -> String {
    format!("Range: bytes={start}-{}\r\n", end - 1)
}

/// Waits until `length` bytes lie unread in the receive buffer.
fn wait_for_unread(stream: &TcpStream, length: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; length];
    while stream.peek(&mut buffer).unwrap() < length {
        assert!(Instant::now() < deadline, "the answer does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reset_with_everything_unread_is_no_delivery() {
    const LENGTH: usize = 32 * 1024;
    let (node, content) = node(LENGTH);
    let server = node.start();
    // The last byte before, as a client does that looks at an archive's end; a second request
    // that was sent before the answer to the first could be read; and neither.
    let target =
        |number: usize| Token::file("file").with("unique_id", format!("{number}")).target();
    for (number, tail, pipelined) in [(0, false, false), (1, true, false), (2, false, true)] {
        let target = target(number);
        if tail {
            let mut client = Client::connect(server.address());
            assert_eq!(client.get_with(&target, "Range: bytes=-1\r\n").status, 206);
        }
        for _ in 0..3 {
            let seen = server.log().matches("interrupted").count();
            let client = Client::connect(server.address());
            let request = format!("GET {target} HTTP/1.1\r\nHost: node\r\n\r\n");
            let request = if pipelined { request.repeat(2) } else { request };
            let mut sender = client;
            sender.send(request);
            wait_for_unread(sender.stream(), LENGTH + 100);
            sender.reset();
            server.wait_for_logs(seen + 1, "interrupted");
        }
        let mut client = Client::connect(server.address());
        let answer = client.get(&target);
        assert_eq!(answer.status, 200, "case {number}: {}", answer.text());
        assert!(answer.body == content);
        drop(client);
        server.wait_for_logs(number + 1 + usize::from(number > 0), "delivered");
        assert_eq!(get(server.address(), &target).status, 401, "case {number}");
    }
}

#[test]
fn a_client_that_never_reads_has_not_been_served() {
    let node = Node::new().winglet("timeouts: { stall: 1s }");
    node.sparse("large", 64 * MIB as u64);
    // Small enough for the kernel to take all of it, too large for the client's buffer.
    let small = pattern(100_000);
    node.file("small", &small);
    let server = node.start();
    for (count, name) in [(1, "large"), (2, "small")] {
        let target = Token::file(name).target();
        let stream = connect_from("127.0.0.1", server.address(), Some(2048));
        let mut client = Client::over(stream);
        client.request("GET", &target, "");
        let lines = server.wait_for_logs(count, "interrupted: stall");
        assert!(lines[count - 1].contains(name), "{lines:?}");
        assert_eq!(server.log().matches("delivered").count(), count - 1);
        drop(client);
        let again = Client::connect(server.address()).get_with(&target, "Range: bytes=0-9\r\n");
        assert_eq!(again.status, 206, "the link is not spent");
        server.wait_until("the stream's end", |server| {
            server.log().matches(" bytes=").count() == 2 * count
        });
    }
}

/// One request of a round: what it asked for, and what came of it.
struct Outcome {
    span: (usize, usize),
    /// When it had its last byte, or its refusal.
    at: Instant,
    status: u16,
}

/// Fetches `span`, or all of the file.
fn fetch(
    address: SocketAddr,
    target: &str,
    content: &[u8],
    span: Option<(usize, usize)>,
) -> Outcome {
    let mut client = Client::connect(address);
    let fields = span.map(|(start, end)| range(start, end)).unwrap_or_default();
    let answer = client.get_with(target, &fields);
    let span = span.unwrap_or((0, content.len()));
    if answer.status != 401 {
        assert!(answer.body == content[span.0..span.1], "{}", answer.raw);
    }
    Outcome { span, at: Instant::now(), status: answer.status }
}

/// Whether `outcomes` hold every byte up to `length` that came before `end`.
fn covers(outcomes: &[Outcome], length: usize, end: Instant) -> bool {
    let mut spans: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.status != 401 && outcome.at <= end)
        .map(|outcome| outcome.span)
        .collect();
    spans.sort_unstable();
    let reach = |reach: usize, (start, end): (usize, usize)| match start <= reach {
        true => reach.max(end),
        false => reach,
    };
    spans.into_iter().fold(0, reach) >= length
}

#[test]
fn eight_segments_race_with_a_full_get() {
    const LENGTH: usize = 256 * 1024;
    const SEGMENTS: usize = 8;
    let (node, content) = node(LENGTH);
    let server = node.start();
    let address = server.address();
    let mut streams = 0;
    for round in 0..200 {
        let target = Token::file("file").target();
        let barrier = Barrier::new(SEGMENTS + 1);
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let spans = (0..SEGMENTS).map(|i| Some((i * LENGTH / 8, (i + 1) * LENGTH / 8)));
            let racers: Vec<_> = spans
                .chain([None])
                .map(|span| {
                    let (barrier, target, content) = (&barrier, &target, &content);
                    scope.spawn(move || {
                        barrier.wait();
                        fetch(address, target, content, span)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        for refused in outcomes.iter().filter(|outcome| outcome.status == 401) {
            assert!(covers(&outcomes, LENGTH, refused.at), "round {round}: spent too early");
        }
        assert!(covers(&outcomes, LENGTH, Instant::now()), "round {round}");
        streams += outcomes.iter().filter(|outcome| outcome.status != 401).count();
        ended(&server, streams);
        assert_eq!(get(address, &target).status, 401, "round {round}: usable after its delivery");
    }
}

#[test]
fn segments_that_are_thrown_away_do_not_count() {
    const LENGTH: usize = 256 * 1024;
    let (node, content) = node(LENGTH);
    let server = node.start();
    let address = server.address();
    let mut streams = 0;
    for round in 0..60usize {
        let target = Token::file("file").target();
        // A different choice of the eight each round; in every fourth, none.
        let thrown = |i: usize| !round.is_multiple_of(4) && (round * 37 + i * 11).is_multiple_of(5);
        thread::scope(|scope| {
            for i in 0..8 {
                let (target, content) = (&target, &content);
                scope.spawn(move || {
                    let span = (i * LENGTH / 8, (i + 1) * LENGTH / 8);
                    if !thrown(i) {
                        fetch(address, target, content, Some(span));
                        return;
                    }
                    let mut client = Client::connect(address);
                    client.request("GET", target, &range(span.0, span.1));
                    wait_for_unread(client.stream(), LENGTH / 8);
                    client.reset();
                });
            }
        });
        streams += 8;
        ended(&server, streams);
        // A delivered link is open to its own client, and to nobody else.
        let whole = !(0..8).any(thrown);
        let source = if whole { "127.0.0.2" } else { "127.0.0.1" };
        let again = Client::connect_from(source, address).get(&target);
        assert_eq!(again.status, if whole { 401 } else { 200 }, "round {round}");
        streams += usize::from(!whole);
        ended(&server, streams);
    }
}

/// What was acknowledged and not read, and what comes before the place where somebody resumed, may
/// be missing: whoever asks for it gets it.
#[test]
fn doubtful_bytes_are_given_again() {
    const LENGTH: usize = 8_000_000;
    // How far a client reads, how far more is acknowledged, where it goes on, and what it lacks.
    for (read, unread, resumed, lacks) in
        [(400_000, 110_000, 500_000, 400_000..500_000), (3_500_000, 0, 3_000_000, 0..3_000_000)]
    {
        let (node, content) = node(LENGTH);
        let server = node.start();
        let target = Token::file("file").target();
        let mut first = Client::over(connect_from("127.0.0.1", server.address(), Some(1 << 20)));
        let answer = first.get_part(&target, "Range: bytes=0-\r\n", read);
        assert!(answer.status == 206 && answer.body == content[..read]);
        wait_for_unread(first.stream(), unread);
        first.reset();
        ended(&server, 1);
        let mut second = Client::connect(server.address());
        let rest = second.get_with(&target, &format!("Range: bytes={resumed}-\r\n"));
        assert!(rest.status == 206 && rest.body == content[resumed..]);
        drop(second);
        ended(&server, 2);
        let mut third = Client::connect(server.address());
        let missing = third.get_with(&target, &range(lacks.start, lacks.end));
        assert_eq!(missing.status, 206, "{}", missing.text());
        assert!(missing.body == content[lacks]);
    }
}

#[test]
fn a_changed_file_starts_the_delivery_over() {
    let (node, content) = node(1000);
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    let first = client.get_with(&target, &range(0, 600));
    let tag = first.field("ETag").unwrap().to_owned();
    let changed: Vec<u8> = content.iter().rev().copied().collect();
    node.file("new", &changed);
    std::fs::rename(node.volume().join("new"), node.volume().join("file")).unwrap();
    // The rest of the new file does not make a whole of the first part of the old one.
    let new = client.get_with(&target, &range(0, 100));
    let new_tag = format!("If-Match: {}\r\n", new.field("ETag").unwrap());
    let rest = client.get_with(&target, &format!("{}{new_tag}", range(600, 1000)));
    assert_eq!((rest.status, rest.body), (206, changed[600..].to_vec()));
    let resumed = client.get_with(&target, &format!("{}If-Range: {tag}\r\n", range(600, 1000)));
    assert_eq!((resumed.status, resumed.body), (200, changed));
    drop(client);
    server.wait_for_log("link=1000/1000");
    assert_eq!(get(server.address(), &target).status, 401);
}

/// `curl -C -` and wget's own retry after the file was replaced must not join two files: one takes
/// the tail of a whole file that it did not ask for, the other half a file for all of it.
#[test]
fn who_names_no_version_of_a_changed_file_gets_nothing() {
    let (node, content) = node(1000);
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    assert_eq!(client.get_with(&target, &range(0, 600)).status, 206);
    let changed: Vec<u8> = content.iter().rev().copied().collect();
    node.file("new", &changed);
    std::fs::rename(node.volume().join("new"), node.volume().join("file")).unwrap();
    for fields in [
        "Range: bytes=600-\r\n",
        "Range: bytes=1000-\r\n",
        "Range: bytes=-10\r\n",
        "Range: bytes=600-\r\nIf-Unmodified-Since: Thu, 31 Dec 2099 23:59:59 GMT\r\n",
    ] {
        let refused = client.get_with(&target, fields);
        assert_eq!(refused.status, 412, "{fields}");
    }
    // Whoever begins anew gets the new one, and then is asked for a validator all the same.
    let whole = client.get(&target);
    assert_eq!((whole.status, whole.body), (200, changed));
    drop(client);
}

#[test]
fn two_overlapping_downloads_may_both_complete() {
    let (node, content) = node(4 * MIB);
    let server = node.start();
    let target = Token::file("file").target();
    let mut clients = [0; 2].map(|_| Client::connect(server.address()));
    for client in &mut clients {
        client.request("GET", &target, "");
        assert_eq!(client.head().unwrap().status, 200);
    }
    let [mut first, mut second] = clients;
    let kept = second.read_some(MIB);
    assert!(first.read_some(4 * MIB) == content);
    drop(first);
    server.wait_for_log("delivered");
    assert_eq!(get(server.address(), &target).status, 401);
    assert!([kept, second.read_some(3 * MIB)].concat() == content);
}
