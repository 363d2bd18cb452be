//! Beyond one TCP port: Unix sockets, proxies in front, other origins, sockets that were passed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, connect_from, get};
use crate::harness::{Node, PATIENCE, Server};
use crate::mint::Token;

/// More than all buffers on the way hold.
const LARGE: u64 = 64 << 20;
/// Becomes the server with standard input as the one socket that was passed.
const PASS: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#;
/// The same for somebody else.
const PASS_TO_ANOTHER: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=1 LISTEN_FDS=1 exec "$0" "$@""#;

fn over_unix(node: &Node, target: &str, fields: &str) -> String {
    let mut stream = UnixStream::connect(node.path().join("w.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_serves_and_believes_its_proxy() {
    let node = Node::new().winglet("listen: [\"unix:w.sock\"]\nunix_mode: \"0600\"");
    node.file("small", b"content");
    let path = node.path().join("w.sock");
    let mut server = node.start();
    server.wait_for_log(&format!("listening on unix:{}", path.display()));
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let answer =
        over_unix(&node, &Token::file("small").target(), "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\ncontent"), "{answer}");
    server.wait_for_log(" 192.0.2.7 GET file 200 ");
    // If nobody says who the client is, nobody is known.
    assert!(over_unix(&node, &Token::file("small").target(), "").starts_with("HTTP/1.1 200"));
    server.wait_for_log(" - GET file 200 ");
    server.stop();
    assert!(!path.exists(), "the socket's file is left behind");
}

#[test]
fn a_stale_socket_is_removed_and_a_live_one_is_not() {
    let node = Node::new().winglet("listen: [\"unix:w.sock\"]");
    let path = node.path().join("w.sock");
    let mut server = node.start();
    server.kill();
    assert!(path.exists());
    let server = node.start();
    assert!(over_unix(&node, "/health", "").starts_with("HTTP/1.1 200"));
    let second = node.run(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("something listens there already"));
    assert!(over_unix(&node, "/health", "").starts_with("HTTP/1.1 200"));
    drop(server);
    // A file that is not a socket stays.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    let refused = node.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

/// A node behind a proxy at 127.0.0.1, and perhaps another in 10.0.0.0/8.
fn behind_proxies(winglet: &str) -> Node {
    let node = Node::new()
        .top_level("api: { trusted_proxies: [\"127.0.0.1\", \"10.0.0.0/8\"] }")
        .winglet(winglet);
    node.file("small", b"content");
    node.sparse("large", LARGE);
    node
}

fn through(address: SocketAddr, token: &Token, forwarded: &str, fields: &str) -> Answer {
    let fields = format!("X-Forwarded-For: {forwarded}\r\n{fields}");
    Client::connect(address).get_with(&token.target(), &fields)
}

#[test]
fn forwarded_addresses_are_read_from_the_right() {
    let node = behind_proxies("");
    let server = node.start();
    let address = server.address();
    for (forwarded, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.2, 10.1.1.1", "192.0.2.2"),
        ("6.6.6.6\r\nX-Forwarded-For: 192.0.2.3", "192.0.2.3"),
        ("6.6.6.6, nonsense, 10.1.1.2", "10.1.1.2"),
        ("[2001:db8::1]:443", "2001:db8::1"),
    ] {
        assert_eq!(through(address, &Token::file("small"), forwarded, "").status, 200);
        server.wait_for_log(&format!(" {client} GET file 200 "));
    }
    // Somebody who is no proxy speaks for nobody.
    let mut stranger = Client::connect_from("127.0.0.2", address);
    let target = Token::file("small").target();
    assert_eq!(stranger.get_with(&target, "X-Forwarded-For: 192.0.2.9\r\n").status, 200);
    drop(stranger);
    server.wait_for_log(" 127.0.0.2 GET file 200 ");
    assert!(!server.log().contains("6.6.6.6") && !server.log().contains("192.0.2.9"));
}

#[test]
fn a_link_is_bound_to_the_client_behind_the_proxy() {
    let node = behind_proxies("");
    let server = node.start();
    // More than a peek, which does not bind.
    let token = Token::file("large");
    let part = |forwarded: &str| {
        let answer = through(server.address(), &token, forwarded, "Range: bytes=0-999999\r\n");
        let is_in_use = answer.text().contains("in use from another address");
        assert_eq!(is_in_use, answer.status == 503, "{}", answer.raw);
        answer.status
    };
    assert_eq!(part("192.0.2.1"), 206);
    assert_eq!(part("192.0.2.2"), 503);
    assert_eq!(part("192.0.2.1, 192.0.2.2"), 503);
    assert_eq!(part("6.6.6.6, 192.0.2.1"), 206);
}

#[test]
fn a_share_is_the_clients_and_not_the_proxys() {
    let node =
        behind_proxies("max_connections_per_address: 1\ntimeouts: { queue: 300ms, stall: 10m }");
    let server = node.start();
    let mut busy = Client::over(connect_from("127.0.0.1", server.address(), Some(4096)));
    let target = Token::file("large").target();
    busy.request("GET", &target, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(busy.head().unwrap().status, 200);
    let small = |forwarded| through(server.address(), &Token::file("small"), forwarded, "").status;
    assert_eq!(small("192.0.2.1"), 503);
    assert_eq!(small("192.0.2.2, 192.0.2.1"), 503);
    assert_eq!(small("192.0.2.2"), 200);
}

#[test]
fn pages_of_the_panel_may_read_answers_and_others_may_not() {
    let node = Node::new()
        .top_level("remote: https://panel.example/\nallowed_origins: [\"https://shop.example\"]");
    node.file("small", b"content");
    let server = node.start();
    let ask = |method: &str, file: &str, origin: &str| {
        let mut client = Client::connect(server.address());
        let fields = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: range\r\n"
        );
        client.request(method, &Token::file(file).target(), &fields);
        if method == "GET" { client.answer() } else { client.head().unwrap() }
    };
    for (origin, allowed) in [
        ("https://panel.example", true),
        ("https://shop.example", true),
        ("https://evil.example", false),
        ("http://panel.example", false),
        ("https://panel.example.evil", false),
        ("null", false),
    ] {
        for (method, file, status) in
            [("OPTIONS", "small", 204), ("GET", "small", 200), ("GET", "missing", 404)]
        {
            let answer = ask(method, file, origin);
            assert_eq!(answer.status, status, "{}", answer.raw);
            let seen = answer.field("Access-Control-Allow-Origin");
            assert_eq!(seen, allowed.then_some(origin), "{}", answer.raw);
            let varies = |on: &(String, String)| on.0 == "Vary" && on.1 == "Origin";
            assert!(answer.fields.iter().any(varies), "{}", answer.raw);
            assert_eq!(answer.field("Access-Control-Allow-Credentials"), None);
        }
    }
    let preflight = ask("OPTIONS", "small", "https://panel.example");
    assert!(preflight.field("Access-Control-Allow-Methods").unwrap().contains("GET"));
    assert!(preflight.field("Access-Control-Allow-Headers").unwrap().contains("Range"));
    let exposed = ask("GET", "small", "https://panel.example");
    let exposed = exposed.field("Access-Control-Expose-Headers").unwrap();
    assert!(exposed.contains("Content-Disposition") && exposed.contains("Content-Range"));
}

/// Starts a server on a socket of the test's own, as a service manager does.
fn pass(node: &Node, socket: impl Into<OwnedFd>) -> Server {
    Server::spawn(pass_to(node, socket), fs::read_to_string(node.config()).unwrap())
}

fn pass_to(node: &Node, socket: impl Into<OwnedFd>) -> std::process::Command {
    let mut command = node.command(&["serve"]);
    command.stdin(socket.into());
    command
}

#[test]
fn a_restart_on_a_passed_socket_loses_no_request() {
    let node = Node::new().winglet("reuse: unlimited").with_state().through(&["sh", "-c", PASS]);
    node.file("small", b"content");
    node.write_config();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = pass(&node, socket.try_clone().unwrap());
    assert_eq!(server.address(), address);
    let restarted = AtomicUsize::new(0);
    let asked = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            // Two hundred a second, each on a connection of its own, until some time after; from
            // many addresses, since what piles up meanwhile is more than the share of one.
            let target = Token::file("small").without("unique_id").target();
            let (mut asked, mut next) = (Vec::new(), Instant::now());
            let (mut after, end) = (0, Instant::now() + PATIENCE);
            while after < 100 && Instant::now() < end {
                after += usize::from(restarted.load(Ordering::Relaxed) == 3);
                let target = target.clone();
                let source = format!("127.0.0.{}", asked.len() % 50 + 1);
                let ask = move || Client::connect_from(&source, address).get(&target).status;
                asked.push(scope.spawn(ask));
                next += Duration::from_millis(5);
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        for _ in 0..3 {
            server.wait_for_logs(50, " delivered");
            server.stop();
            server = pass(&node, socket.try_clone().unwrap());
            restarted.fetch_add(1, Ordering::Relaxed);
        }
        clients.join().unwrap()
    });
    eprintln!("{} requests over three restarts", asked.len());
    assert!(asked.iter().all(|status| *status == 200), "{asked:?}");
    server.stop();
}

#[test]
fn a_passed_socket_is_left_alone_while_the_server_drains() {
    let node = Node::new().through(&["sh", "-c", PASS]);
    node.sparse("large", LARGE);
    node.file("small", b"content");
    node.write_config();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = pass(&node, socket.try_clone().unwrap());
    let mut slow = Client::over(connect_from("127.0.0.1", server.address(), Some(4096)));
    slow.request("GET", &Token::file("large").target(), "");
    assert_eq!(slow.head().unwrap().status, 200);
    server.signal("TERM");
    server.wait_for_log("stopping");
    // Waits for the next server.
    let mut newcomer = Client::connect(server.address());
    newcomer.request("GET", &Token::file("small").target(), "");
    server.wait_until_asleep();
    drop(slow);
    assert!(server.wait().success());
    let _next = pass(&node, socket);
    assert_eq!(newcomer.answer().body, b"content");
}

#[test]
fn passed_sockets_of_other_kinds() {
    let node = Node::new().through(&["sh", "-c", PASS]);
    node.write_config();
    let mut server = pass(&node, UnixListener::bind(node.path().join("w.sock")).unwrap());
    assert!(over_unix(&node, "/health", "").starts_with("HTTP/1.1 200"));
    server.stop();
    assert!(node.path().join("w.sock").exists(), "the service manager's own file is gone");
    // No listening socket.
    let output = pass_to(&node, UnixStream::pair().unwrap().0).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LISTEN_FDS: descriptor 3: not a"));
    // A name that asks for a certificate, and there is none.
    let node = node.env("LISTEN_FDNAMES", "tls");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = pass_to(&node, socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LISTEN_FDNAMES: a socket is named"));
}

#[test]
fn a_socket_passed_to_somebody_else_is_not_used() {
    let node = Node::new().through(&["sh", "-c", PASS_TO_ANOTHER]);
    node.write_config();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = pass(&node, socket.try_clone().unwrap());
    assert_ne!(server.address(), socket.local_addr().unwrap());
    assert_eq!(get(server.address(), "/health").status, 200);
}
