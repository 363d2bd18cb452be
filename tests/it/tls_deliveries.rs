//! What counts as delivered through TLS, where an end is told from a cut, and renewal of the
//! certificate under a running server.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::certs::{Authority, Kind, TlsClient, connect, shown, tls_node};
use crate::harness::{Node, Server, have, pattern};
use crate::mint::Token;

fn setup() -> Option<(Node, Authority)> {
    have("openssl").then(|| tls_node(Kind::Ec))
}

fn ask(client: &mut TlsClient, target: &str, fields: &str) {
    write!(client, "GET {target} HTTP/1.1\r\nHost: node.test\r\n{fields}\r\n").unwrap();
}

/// Asks on a connection of its own and reads to the end: head and body.
fn fetch(authority: &Authority, server: &Server, target: &str) -> (String, Vec<u8>) {
    let mut client = connect(&authority.root(), server.address(), None);
    ask(&mut client, target, "Connection: close\r\n");
    let mut answer = Vec::new();
    // Fails without a close_notify at the end.
    client.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let body = answer.split_off(head);
    (String::from_utf8(answer).unwrap(), body)
}

#[test]
fn a_whole_download_spends_the_link_and_ends_with_close_notify() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(3_000_000);
    node.file("a", &content);
    let server = node.start();
    let target = Token::file("a").target();
    let (head, body) = fetch(&authority, &server, &target);
    assert!(head.starts_with("HTTP/1.1 200 ") && body == content, "{head}");
    server.wait_for_log("delivered");
    let (head, body) = fetch(&authority, &server, &target);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("already used"));
}

#[test]
fn a_kept_connection_spends_the_link_before_its_next_request_is_answered() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(5000);
    node.file("a", &content);
    let server = node.start();
    let target = Token::file("a").target();
    let mut client = connect(&authority.root(), server.address(), None);
    for status in ["200", "401"] {
        ask(&mut client, &target, "");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        client.read_exact(&mut body).unwrap();
    }
}

#[test]
fn an_interrupted_download_is_resumed_by_curl() {
    if !have("curl") {
        return;
    }
    let Some((node, authority)) = setup() else { return };
    let node = node.winglet("settle_time: 1s");
    let content = pattern(8 << 20);
    node.file("a", &content);
    let server = node.start();
    let target = Token::file("a").target();
    let mut client = connect(&authority.root(), server.address(), Some(32 * 1024));
    ask(&mut client, &target, "");
    let mut part = vec![0; 2 << 20];
    client.read_exact(&mut part).unwrap();
    let head = part.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let part = &part[head..];
    assert!(content.starts_with(part));
    fs::write(node.path().join("part"), part).unwrap();
    // So that its kernel has acknowledged all of it: of the rest, a reset tells nothing.
    std::thread::sleep(crate::proxy::ACKNOWLEDGED_BY);
    rustix::net::sockopt::set_socket_linger(&client.sock, Some(Duration::ZERO)).unwrap();
    drop(client);
    server.wait_for_log("interrupted");
    let port = server.address().port();
    let output = Command::new("curl")
        .args(["--noproxy", "*", "--silent", "--show-error", "--max-time", "60"])
        .args(["--cacert", "tls/root.pem", "--resolve", &format!("node.test:{port}:127.0.0.1")])
        .args(["-C", "-", "-o", "part", "-w", "%{http_code}"])
        .arg(format!("https://node.test:{port}{target}"))
        .current_dir(node.path())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"206", "{output:?}");
    assert!(fs::read(node.path().join("part")).unwrap() == content);
    server.wait_for_log(" delivered");
    server.wait_until("the link to settle", |server| {
        let mut client = connect(&authority.root(), server.address(), None);
        write!(client, "HEAD {target} HTTP/1.1\r\nHost: node.test\r\n\r\n").unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        status.ends_with(b" 401")
    });
}

/// Also with a `close_notify` before it, as aria2c closes a connection of which it needs no more:
/// that ends the client's side of TLS, and says nothing of what it has read.
#[test]
fn a_client_that_reads_nothing_and_resets_does_not_spend() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(20_000);
    node.file("a", &content);
    let server = node.start();
    for (round, farewell) in [false, true].into_iter().enumerate() {
        let target = Token::file("a").target();
        let mut client = connect(&authority.root(), server.address(), None);
        ask(&mut client, &target, "");
        // Everything lies in its receive buffer, acknowledged and unread.
        server.wait_until("the answer", |_| {
            let mut seen = vec![0; content.len() + 4000];
            client.sock.peek(&mut seen).unwrap() > content.len()
        });
        let TlsClient { mut conn, mut sock } = client;
        if farewell {
            conn.send_close_notify();
            conn.write_tls(&mut sock).unwrap();
            // For the server to have read it when the reset comes.
            std::thread::sleep(Duration::from_millis(50));
        }
        rustix::net::sockopt::set_socket_linger(&sock, Some(Duration::ZERO)).unwrap();
        drop(sock);
        server.wait_for_logs(round + 1, "interrupted");
        let (head, body) = fetch(&authority, &server, &target);
        assert!(head.starts_with("HTTP/1.1 200 ") && body == content, "{head}");
        server.wait_for_logs(round + 1, " delivered");
        assert!(fetch(&authority, &server, &target).0.starts_with("HTTP/1.1 401 "));
    }
}

/// A client that has read all of `content` from `target`, has sent `close_notify` and no FIN.
fn close_after_all(
    authority: &Authority,
    server: &Server,
    target: &str,
    content: &[u8],
) -> TlsClient {
    let mut client = connect(&authority.root(), server.address(), None);
    ask(&mut client, target, "");
    let mut answer = Vec::new();
    while !answer.ends_with(content) {
        let mut bytes = [0; 4096];
        let count = client.read(&mut bytes).unwrap();
        answer.extend_from_slice(&bytes[..count]);
    }
    client.conn.send_close_notify();
    client.flush().unwrap();
    client
}

/// A client that closes TLS in both directions waits for the server's `close_notify` before its FIN.
#[test]
fn a_farewell_is_answered_and_the_fin_after_it_spends() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(20_000);
    node.file("a", &content);
    let server = node.start();
    let target = Token::file("a").target();
    let mut client = close_after_all(&authority, &server, &target, &content);
    // Fails without a close_notify at the end.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    server.wait_for_log(" delivered");
    assert!(fetch(&authority, &server, &target).0.starts_with("HTTP/1.1 401 "));
}

/// What comes after `close_notify` is nobody's, and keeps nobody busy: the FIN behind it is an end.
#[test]
fn a_byte_between_farewell_and_fin_is_no_matter() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(20_000);
    node.file("a", &content);
    let node = node.winglet("timeouts: { idle: 10m }");
    let server = node.start();
    let target = Token::file("a").target();
    let mut client = close_after_all(&authority, &server, &target, &content);
    std::thread::sleep(Duration::from_millis(50));
    client.sock.write_all(&[0]).unwrap();
    client.sock.shutdown(std::net::Shutdown::Write).unwrap();
    server.wait_for_log(" delivered");
    server.wait_until_asleep();
    assert!(fetch(&authority, &server, &target).0.starts_with("HTTP/1.1 401 "));
}

/// What a client has read was in whole records that its kernel acknowledged: none of it may be
/// missing when the link is settled.
#[test]
fn what_was_read_before_a_break_is_counted_to_the_last_record() {
    let Some((node, authority)) = setup() else { return };
    node.file("a", &pattern(4 << 20));
    let server = node.start();
    for round in 0..8 {
        let target = Token::file("a").target();
        let mut client = connect(&authority.root(), server.address(), Some(48 << 10));
        ask(&mut client, &target, "");
        let mut part = vec![0; (1 << 20) + round * 41_000];
        client.read_exact(&mut part).unwrap();
        std::thread::sleep(crate::proxy::ACKNOWLEDGED_BY);
        drop(client);
        let head = part.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let lines = server.wait_for_logs(round + 1, "interrupted");
        let counted = lines[round].split(" bytes=").nth(1).unwrap().split('/').next().unwrap();
        let counted: usize = counted.parse().unwrap();
        assert!(counted >= part.len() - head, "{counted} of {}", part.len() - head);
    }
}

#[test]
fn a_truncated_file_is_a_cut_and_no_end() {
    let Some((node, authority)) = setup() else { return };
    let length = 64 << 20;
    let path = node.sparse("shrinking", length);
    let server = node.start();
    let mut client = connect(&authority.root(), server.address(), Some(32 * 1024));
    ask(&mut client, &Token::file("shrinking").target(), "Connection: close\r\n");
    client.read_exact(&mut [0; 1000]).unwrap();
    OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap();
    let mut rest = Vec::new();
    let error = client.read_to_end(&mut rest).unwrap_err();
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!((rest.len() as u64) < length);
    server.wait_for_log("interrupted: the file was truncated meanwhile");
}

/// A download of which half has come.
fn half_done(authority: &Authority, server: &Server, target: &str) -> (TlsClient, Vec<u8>) {
    let mut client = connect(&authority.root(), server.address(), Some(32 * 1024));
    ask(&mut client, target, "Connection: close\r\n");
    let mut half = vec![0; 4 << 20];
    client.read_exact(&mut half).unwrap();
    (client, half)
}

#[test]
fn renewal_takes_hold_under_a_running_download() {
    let Some((node, authority)) = setup() else { return };
    let content = pattern(16 << 20);
    node.file("a", &content);
    for name in ["second", "third", "fourth"] {
        authority.leaf(name, Kind::Ec, "30");
    }
    let first = authority.der("leaf");
    let mut server = node.start();
    // A look between the two renames finds a pair that does not match yet, and says so.
    server.may_log_errors();
    let (mut download, mut got) = half_done(&authority, &server, &Token::file("a").target());
    let root = authority.root();
    assert_eq!(shown(&root, server.address()), first);
    // The look of every second finds it.
    authority.replace("leaf", "second");
    let second = authority.der("second");
    server.wait_until("the new certificate", |server| shown(&root, server.address()) == second);
    // SIGHUP does at once…
    authority.replace("leaf", "third");
    server.signal("HUP");
    server.wait_for_log("reload: done");
    assert_eq!(shown(&root, server.address()), authority.der("third"));
    // …and finds files of other names.
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("tls/leaf.", "tls/fourth.")).unwrap();
    server.signal("HUP");
    server.wait_for_logs(2, "reload: done");
    assert_eq!(shown(&root, server.address()), authority.der("fourth"));
    download.read_to_end(&mut got).unwrap();
    let head = got.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(got[head..] == content);
    drop(download);
    server.wait_for_log(" delivered");
}

#[test]
fn renewal_goes_on_after_a_reload_that_drops_tls() {
    let Some((node, authority)) = setup() else { return };
    authority.leaf("second", Kind::Ec, "30");
    let mut server = node.start();
    // As above.
    server.may_log_errors();
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("\"tls:127", "\"127")).unwrap();
    server.signal("HUP");
    server.wait_for_log("winglet.listen needs a restart");
    server.wait_for_log("reload: done");
    authority.replace("leaf", "second");
    let (root, second) = (authority.root(), authority.der("second"));
    server.wait_until("the new certificate", |server| shown(&root, server.address()) == second);
}

#[test]
fn broken_new_files_keep_the_certificate_and_are_reported_once() {
    let Some((node, authority)) = setup() else { return };
    authority.leaf("second", Kind::Ec, "30");
    let mut server = node.start();
    server.may_log_errors();
    let (root, first) = (authority.root(), authority.der("leaf"));
    fs::write(authority.path("broken"), "not a certificate").unwrap();
    fs::rename(authority.path("broken"), authority.path("leaf.pem")).unwrap();
    server.wait_for_log("the certificate in force stays");
    for _ in 0..2 {
        server.signal("HUP");
    }
    server.wait_for_log("reload: done");
    assert_eq!(shown(&root, server.address()), first);
    fs::rename(authority.path("second.key"), authority.path("leaf.key")).unwrap();
    // Another change, another report: still broken, still the old one.
    server.wait_for_logs(2, "the certificate in force stays");
    assert_eq!(shown(&root, server.address()), first);
    assert_eq!(server.log().matches("the certificate in force stays").count(), 2);
    let second = authority.der("second");
    fs::rename(authority.path("second.pem"), authority.path("leaf.pem")).unwrap();
    server.wait_until("the new certificate", |server| shown(&root, server.address()) == second);
}
