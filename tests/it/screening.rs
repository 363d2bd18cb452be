//! What strangers send that is not a valid request: the right status or a closed connection, one
//! answer and never two, and a server that stays as it was.

use std::io::Read;
use std::thread;

use crate::client::{Answer, Client, connect_from, get};
use crate::harness::{Node, Server, have, pattern};
use crate::mint::Token;

/// A valid request, sent after each hostile one: if it is answered, something was smuggled.
const SMUGGLED: &[u8] = b"GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";
/// Resident memory may differ by this much before and after, in KiB.
const SLACK_KIB: u64 = 6 * 1024;

fn with_field(field: &[u8]) -> Vec<u8> {
    let mut bytes = b"GET /health HTTP/1.1\r\nHost: node\r\n".to_vec();
    bytes.extend_from_slice(field);
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

/// Sends `bytes` and [`SMUGGLED`], and returns the statuses of all answers until the server hangs
/// up; on a connection that has served a request before, if `kept`.
fn exchange(server: &Server, bytes: &[u8], kept: bool) -> Vec<u16> {
    let mut client = Client::connect(server.address());
    if kept {
        assert_eq!(client.get("/health").status, 200);
    }
    // It may hang up before it has all of it.
    let _ = client.try_send(bytes).and_then(|()| client.try_send(SMUGGLED));
    let _ = client.stream().shutdown(std::net::Shutdown::Write);
    let answers = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    let statuses = answers.split("HTTP/1.1 ").skip(1);
    // The text of an error may name the version too.
    statuses.filter_map(|answer| answer[..3].parse().ok()).collect()
}

/// Each of `table` must be answered with its status alone, and the connection closed. With 200 it is
/// valid, and what follows is answered too.
fn check(table: &[(Vec<u8>, u16)]) {
    let mut server = Node::new().start();
    for kept in [false, true] {
        for (bytes, status) in table {
            let expected = if *status == 200 { vec![200, 200] } else { vec![*status] };
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
            assert_eq!(exchange(&server, bytes, kept), expected, "kept: {kept}\n{shown:?}");
        }
    }
    assert!(server.is_alive());
    assert_eq!(get(server.address(), "/health").status, 200);
}

fn fields(table: &[(&[u8], u16)]) -> Vec<(Vec<u8>, u16)> {
    table.iter().map(|(field, status)| (with_field(field), *status)).collect()
}

#[test]
fn every_content_length() {
    let mut table: Vec<(Vec<u8>, u16)> = [
        ("-1", 400),
        ("+1", 400),
        ("0", 200),
        ("00", 200),
        ("1", 413),
        ("0001", 413),
        ("4294967296", 413),
        ("9223372036854775807", 413),
        ("9223372036854775808", 413),
        ("18446744073709551615", 413),
        ("18446744073709551616", 413),
        ("99999999999999999999", 413),
        ("340282366920938463463374607431768211456", 400),
        ("0x10", 400),
        ("1e3", 400),
        ("1.0", 400),
        ("1,1", 400),
        ("1 1", 400),
        ("", 400),
        ("\u{661}", 400),
        ("0\r\nContent-Length: 0", 400),
        ("0\r\nContent-Length: 5", 400),
        ("5\r\ncontent-length: 5", 400),
    ]
    .iter()
    .map(|(value, status)| (with_field(format!("Content-Length: {value}").as_bytes()), *status))
    .collect();
    table.push((with_field(&[b"Content-Length: ".as_slice(), &[b'9'; 5000]].concat()), 400));
    check(&table);
}

#[test]
fn transfer_encoding_in_every_smuggling_spelling() {
    check(&fields(&[
        (b"Transfer-Encoding: chunked", 413),
        (b"tRANSFER-eNCODING:CHUNKED", 413),
        (b"Transfer-Encoding: \t chunked \t", 413),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
        (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 501),
        (b"Transfer-Encoding: identity", 501),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: chunked, chunked", 501),
        (b"Transfer-Encoding: xchunked", 501),
        (b"Transfer-Encoding: chunkedx", 501),
        (b"Transfer-Encoding: chunked;q=1", 501),
        (b"Transfer-Encoding: \"chunked\"", 501),
        (b"Transfer-Encoding: ,chunked", 501),
        (b"Transfer-Encoding: chunked,", 501),
        (b"Transfer-Encoding:", 501),
        (b"Transfer-Encoding: \xffchunked", 501),
        (b"Transfer-Encoding: chunked\x0b", 400),
        (b"Transfer-Encoding: \x00chunked", 400),
        (b"Transfer-Encoding : chunked", 400),
        (b"Transfer-Encoding\t: chunked", 400),
        (b" Transfer-Encoding: chunked", 400),
        (b"\tTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding:\r\n chunked", 400),
        (b"Transfer-Encoding\r\n: chunked", 400),
        (b"X: y\rTransfer-Encoding: chunked", 400),
        (b"X: y\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length: 4\r\nTransfer-Encoding: identity", 400),
    ]));
}

#[test]
fn header_fields_that_can_be_read_in_two_ways() {
    check(&fields(&[
        (b"Host: node", 400),
        (b"hOST: other", 400),
        (b"X: a\r\n folded", 400),
        (b"X: a\r\n\tfolded", 400),
        (b"X : y", 400),
        (b": y", 400),
        (b"X", 400),
        (b"X\x00: y", 400),
        (b"X: \x00", 400),
        (b"X: \x1b[2J", 400),
        (b"X: \x7f", 400),
        (b"X\xff: y", 400),
        (b"X(: y", 400),
        // obs-text in a value is old but valid (RFC 9110 section 5.5).
        (b"X: \x80\xff\xc3\xa9", 200),
        (b"X: a\r\nX: b", 200),
        (b"Expect: 100-continue", 200),
        (b"Expect: 200-ok", 417),
        (b"Expect: 100-continue, other", 417),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", 200),
        (b"Connection: Upgrade\r\nUpgrade: websocket", 200),
    ]));
}

#[test]
fn request_lines_of_every_kind() {
    let line = |line: &[u8]| [line, b"\r\nHost: node\r\n\r\n"].concat();
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[0x5a; 500]].concat();
    check(&[
        (b"GET /health\r\n".to_vec(), 400),
        (b"GET /health\r\n\r\n".to_vec(), 400),
        (b"GET\r\n\r\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\nHost: node\n\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\rHost: node\r\r".to_vec(), 400),
        (b"\nGET /health HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(), 400),
        (b"\r\nGET /health HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(), 200),
        (b"\r\n\r\n\r\n\r\n\r\nGET /health HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505),
        (hello, 400),
        (line(b"GET /health HTTP/0.9"), 505),
        (line(b"GET /health HTTP/1.2"), 200),
        (line(b"GET /health HTTP/1.9"), 200),
        (line(b"GET /health HTTP/3.0"), 505),
        (line(b"GET /health http/1.1"), 400),
        (line(b"GET /health HTTP/1.10"), 400),
        (line(b"GET  /health HTTP/1.1"), 400),
        (line(b"GET /health  HTTP/1.1"), 400),
        (line(b"GET\t/health\tHTTP/1.1"), 400),
        (line(b" GET /health HTTP/1.1"), 400),
        (line(b"GET /health HTTP/1.1 "), 400),
        (line(b"GET /h\xc3\xa9 HTTP/1.1"), 400),
        (line(b"GET /h\x00 HTTP/1.1"), 400),
        (line(b"GET /h\x7f HTTP/1.1"), 400),
        (line(b"G\xc3\x89T /health HTTP/1.1"), 400),
        (line(b"GET health HTTP/1.1"), 400),
        (line(b"GET ftp://node/health HTTP/1.1"), 400),
        (line(b"GET http:///health HTTP/1.1"), 400),
        (line(b"GET http://u@b/health HTTP/1.1"), 400),
        (line(b"GET http://[/health HTTP/1.1"), 400),
        (line(b"GET http://node:x/health HTTP/1.1"), 400),
        (line(b"GET /health#x HTTP/1.1"), 400),
        (line(b"GET http://node/health HTTP/1.1"), 200),
        (line(b"GET http://[::1]:80/health HTTP/1.1"), 200),
        (line(b"GET HTTPS://node:8080/health?x HTTP/1.1"), 200),
        (b"\x80\x80\x80\x80\r\n\r\n".to_vec(), 400),
    ]);
}

#[test]
fn a_host_is_a_host() {
    let table = [
        ("", 200),
        ("node", 200),
        ("node_1.example:8080", 200),
        ("127.0.0.1:80", 200),
        ("[::1]", 200),
        ("[2001:db8::1]:8080", 200),
        ("%6eode", 200),
        ("[::1", 400),
        ("a:x", 400),
        ("a^b", 400),
        ("%zz", 400),
        ("a:80:80", 400),
        ("::1", 400),
        ("u@a", 400),
        ("a,b", 400),
        ("a b", 400),
        (":80", 400),
    ];
    let request = |host| format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    check(&table.map(|(host, status)| (request(host), status)));
    check(&[(b"GET /health HTTP/1.1\r\nHost: caf\xe9\r\n\r\n".to_vec(), 400)]);
}

/// Refusals after which it is known where the next request begins keep the connection.
#[test]
fn methods_and_targets_that_are_not_here() {
    let server = Node::new().start();
    let mut client = Client::connect(server.address());
    for (method, target, status) in [
        ("GET", "/", 404),
        ("GET", "//download/file", 404),
        ("GET", "/download/file/../backup", 404),
        ("GET", "/%00", 404),
        ("POST", "/download/file", 405),
        ("CONNECT", "node:443", 405),
        ("TRACE", "/health", 405),
        ("TRACE", "/nothing", 405),
        ("GET", "http://elsewhere/health", 200),
        ("OPTIONS", "*", 204),
    ] {
        client.request(method, target, "");
        assert_eq!(client.answer().status, status, "{method} {target}");
    }
    client.request("BREW", "/health", "");
    assert_eq!(client.answer().status, 501);
    assert!(client.is_closed());
}

/// Sends `chunk` until the server has hung up or `most` bytes went out; says how many did.
fn flood(client: &mut Client, chunk: &[u8], most: u64) -> u64 {
    let mut sent = 0;
    while sent < most && client.try_send(chunk).is_ok() {
        sent += chunk.len() as u64;
    }
    sent
}

#[test]
fn endless_heads_are_answered_and_hung_up_on() {
    const MOST: u64 = 64 << 20;
    let server = Node::new().start();
    let before = server.resident_kib();
    let header = b"X-Header-Of-Somebody: 0123456789\r\n".repeat(1000);
    for (start, chunk, status) in [
        // Without end, as far as the client is concerned.
        ("GET /", vec![b'a'; 65536], 414),
        ("", vec![b'A'; 65536], 414),
        ("GET /health HTTP/1.1\r\nHost: node\r\n", header, 431),
        ("GET /health HTTP/1.1\r\nHost: node\r\nX: ", vec![b'a'; 65536], 431),
    ] {
        let mut client = Client::connect(server.address());
        client.send(start);
        assert!(flood(&mut client, &chunk, MOST) < MOST, "it never hung up on {start:?}");
        assert_eq!(client.answer().status, status, "{start:?}");
    }
    let mut client = Client::connect(server.address());
    client.request("GET", "/health", &"a: b\r\n".repeat(100));
    assert_eq!(client.answer().status, 431);
    let after = server.resident_kib();
    assert!(after < before + SLACK_KIB, "{before} KiB before, {after} KiB after");
}

/// The requests that end a bare tiny_http: a length that it allocates, and descriptors run out.
#[test]
fn what_kills_tiny_http_does_not_kill_this() {
    if !have("prlimit") {
        return;
    }
    let node = Node::new();
    node.file("a", b"content");
    let node = node.through(&["prlimit", "--nofile=128:128"]);
    let mut server = node.start();
    let before = server.resident_kib();
    for target in ["/", "/health", "/download/file?token=x", &Token::file("a").target()] {
        let mut client = Client::connect(server.address());
        client.request("GET", target, "Content-Length: 1125899906842624\r\n");
        assert!([404, 413].contains(&client.answer().status), "{target}");
    }
    let idle: Vec<_> =
        (0..300).map(|_| connect_from("127.0.0.3", server.address(), None)).collect();
    assert_eq!(get(server.address(), &Token::file("a").target()).text(), "content");
    drop(idle);
    assert_eq!(get(server.address(), &Token::file("a").target()).text(), "content");
    assert!(server.is_alive());
    assert!(server.resident_kib() < before + SLACK_KIB);
}

/// A client that is still sending when it is refused reads the answer, and not a reset.
#[test]
fn a_refusal_arrives_while_the_client_sends() {
    let server = Node::new().start();
    for (head, status) in [
        ("POST /download/file HTTP/1.1\r\nHost: n\r\nContent-Length: 200000\r\n\r\n", 405),
        ("GET /download/file HTTP/1.1\r\nHost: n\r\nContent-Length: 200000\r\n\r\n", 413),
        ("GET /health HTTP/1.1\r\nHost: n\r\nX: ", 431),
        ("GET /", 414),
    ] {
        let mut client = Client::connect(server.address());
        client.send(head);
        client.send(vec![b'a'; 100_000]);
        let answer: Answer = client.answer();
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("Connection"), Some("close"));
        client.send(vec![b'a'; 100_000]);
        let mut rest = Vec::new();
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        let end = client.stream().read_to_end(&mut rest);
        assert!(end.is_ok() && rest.is_empty(), "{status}: {end:?} {rest:?}");
    }
}

#[test]
fn heads_in_single_bytes_and_in_odd_pieces() {
    let server = Node::new().start();
    let mut client = Client::connect(server.address());
    client.stream().set_nodelay(true).unwrap();
    let request = b"\r\n\r\nGET /health HTTP/1.1\r\nHost: node\r\nX: y\r\n\r\n";
    for size in [1, 2, 3, 7] {
        for piece in request.chunks(size) {
            client.send(piece);
        }
        assert_eq!(client.answer().status, 200, "pieces of {size}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Node::new().winglet("reuse: unlimited");
    let files: Vec<Vec<u8>> = (0..10).map(|n| pattern(n * 997 + 1)).collect();
    for (number, content) in files.iter().enumerate() {
        node.file(&number.to_string(), content);
    }
    let server = node.start();
    // One fewer than a connection may have.
    const REQUESTS: usize = 999;
    // The request after a download waits until the client has acknowledged that, which takes time.
    let is_file = |number: usize| number % 61 < 2;
    let targets: Vec<String> = (0..10).map(|n| Token::file(&n.to_string()).target()).collect();
    let mut client = Client::connect(server.address());
    let mut sender = Client::over(client.stream().try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..REQUESTS {
                let target = if is_file(number) { &targets[number % 10] } else { "/health" };
                sender.request("GET", target, "");
            }
        });
        for number in 0..REQUESTS {
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{number}: {}", answer.raw);
            if is_file(number) {
                assert!(answer.body == files[number % 10], "{number}");
            } else {
                assert_eq!(answer.text(), r#"{"status":"ok"}"#, "{number}");
            }
        }
    });
}

/// However much a connection pipelines, it has one worker at a time, and no worker for what it does
/// not read.
#[test]
fn a_pipeline_that_is_never_read_holds_up_nobody() {
    let node = Node::new().winglet("threads: 2\ntimeouts: { queue: 5s, stall: 3s }");
    node.sparse("large", 64 << 20);
    node.file("small", b"small");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    let mut downloads = Client::connect(server.address());
    for _ in 0..10 {
        downloads.request("GET", &Token::file("large").target(), "");
    }
    // Refusals and small answers, 2000 of each, which are never read.
    let mut refusals = Client::over(connect_from("127.0.0.2", server.address(), Some(4096)));
    refusals.stream().set_nonblocking(true).unwrap();
    for target in ["/download/file?token=x", "/health"].repeat(2000) {
        let _ = refusals.try_send(format!("GET {target} HTTP/1.1\r\nHost: n\r\n\r\n"));
    }
    for _ in 0..20 {
        let mut other = Client::connect_from("127.0.0.3", server.address());
        assert_eq!(other.get(&Token::file("small").target()).text(), "small");
    }
    // The unread download is cut after `stall`, and its connection with all that follows on it.
    let lines = server.wait_for_logs(1, "interrupted: stall");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let held = downloads.read_to_end().len();
    assert!(held < 32 << 20, "{held}");
    drop(refusals);
    server.wait_until("the connections are closed", |server| {
        server.log().matches("interrupted: stall").count() == 1 && server.descriptors() < 30
    });
}
