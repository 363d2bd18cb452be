//! Downloads over a restart of the server, in order and by a crash.

use std::process::Command;

use crate::client::{Client, get};
use crate::clients::{Download, curl, wait_until_spent};
use crate::delivery::ended;
use crate::harness::{Node, Server, have, pattern};
use crate::mint::Token;

const LENGTH: usize = 24 << 20;

/// A node that a download of a few seconds can be interrupted on.
fn node() -> (Node, Vec<u8>) {
    let node = Node::new().with_state().winglet("rate_limit: 8\ntimeouts: { drain: 0s }");
    let content = pattern(LENGTH);
    node.file("file", &content);
    (node, content)
}

/// Starts a curl, stops the server in the middle by `stop`, and continues on the next one. Returns
/// that one, and the link.
fn curl_over_a_restart(stop: impl Fn(&mut Server)) -> Option<(Node, Server, String)> {
    if !have("curl") {
        return None;
    }
    let (node, content) = node();
    let token = Token::file("file");
    let download = Download::new();
    let mut server = node.start();
    let mut first = download.start(curl(&download).arg(server.base() + &token.target()));
    let cut = download.wait_for_bytes(LENGTH / 3);
    stop(&mut server);
    assert!(!first.wait().unwrap().success(), "curl does not notice");
    assert!(cut < LENGTH as u64, "it was over before the restart");
    let server = node.start();
    download.run(curl(&download).args(["-C", "-"]).arg(server.base() + &token.target()));
    assert!(download.content() == content);
    server.wait_for_log("delivered");
    Some((node, server, token.target()))
}

#[test]
fn curl_over_sigterm() {
    let Some((_node, server, target)) = curl_over_a_restart(Server::stop) else { return };
    let line = server.wait_for_log(" delivered");
    // What a worker had begun to send when the server ended may have come, and is not counted.
    if line.contains(&format!("link={LENGTH}/{LENGTH}")) {
        assert_eq!(Client::connect_from("127.0.0.2", server.address()).get(&target).status, 401);
    } else {
        let counted = line.split(" link=").nth(1).unwrap().split('/').next().unwrap();
        assert!(counted.parse::<usize>().unwrap() > LENGTH - (1 << 20), "{line}");
    }
}

#[test]
fn curl_over_a_crash() {
    // What was acknowledged since the last line of the journal is not known any more, so that the
    // link is not known to be delivered.
    curl_over_a_restart(Server::kill);
}

#[test]
fn aria2c_over_a_crash() {
    if !have("aria2c") {
        return;
    }
    let (node, content) = node();
    let token = Token::file("file");
    let download = Download::new();
    let mut server = node.start();
    let aria2c = |address: String| {
        let mut command = Command::new("aria2c");
        command.args(["-x8", "-s8", "-k1M", "-q", "--auto-save-interval=0", "--max-tries=1"]);
        command.args(["--file-allocation=none", "--allow-overwrite=false", "-o", "file", "-d"]);
        command.arg(download.directory()).arg(address + &token.target());
        command
    };
    let mut first = download.start(&mut aria2c(server.base()));
    server.wait_until("eight streams", |server| server.descriptors() > 24);
    download.wait_for_bytes(LENGTH / 4);
    server.kill();
    assert!(!first.wait().unwrap().success(), "aria2c does not notice");
    let server = node.start();
    // What only might have arrived must not spend the link while a part is still missing.
    download.run(aria2c(server.base()).arg("-c"));
    assert!(download.content() == content);
}

#[test]
fn a_resumed_link_is_spent_after_a_while_and_stays_so() {
    const LENGTH: usize = 4 << 20;
    let node = Node::new().with_state().winglet("settle_time: 3s");
    let content = pattern(LENGTH);
    node.file("file", &content);
    let target = Token::file("file").target();
    let mut server = node.start();
    let mut client = Client::connect(server.address());
    client.request("GET", &target, "");
    assert_eq!(client.head().unwrap().status, 200);
    let kept = client.read_some(LENGTH / 2);
    client.reset();
    ended(&server, 1);
    server.kill();
    let mut server = node.start();
    let mut client = Client::connect(server.address());
    let rest = client.get_with(&target, &format!("Range: bytes={}-\r\n", kept.len()));
    assert!([kept, rest.body].concat() == content);
    drop(client);
    server.wait_for_log(&format!("link={LENGTH}/{LENGTH}"));
    // Nobody refuses who may still lack bytes; and the time counts over a restart.
    let mut client = Client::connect(server.address());
    client.request("HEAD", &target, "");
    assert_eq!(client.bodiless_answer().status, 200);
    server.kill();
    let mut server = node.start();
    wait_until_spent(server.address(), &target);
    server.kill();
    assert_eq!(get(node.start().address(), &target).status, 401);
}

#[test]
fn a_spent_link_stays_spent_and_an_open_one_bound() {
    // More than a peek, which another address could take over.
    const PART: usize = 300_000;
    let node = Node::new().with_state();
    let content = pattern(4 * PART);
    node.file("file", &content);
    let (spent, open) = (Token::file("file").target(), Token::file("file").target());
    let mut server = node.start();
    assert_eq!(get(server.address(), &spent).body, content);
    server.wait_for_log("delivered");
    let mut stop: [fn(&mut Server); 4] = [Server::kill, Server::stop, Server::kill, Server::stop];
    for (number, stop) in stop.iter_mut().enumerate() {
        let mut client = Client::connect(server.address());
        let (start, end) = (number * PART, (number + 1) * PART);
        let part = client.get_with(&open, &format!("Range: bytes={start}-{}\r\n", end - 1));
        assert!(part.body == content[start..end]);
        drop(client);
        server.wait_for_log(&format!("link={end}/{}", content.len()));
        stop(&mut server);
        server = node.start();
        assert_eq!(get(server.address(), &spent).status, 401);
        // Within ten seconds of its last byte it is its holder's, and once it is delivered, too.
        let mut stranger = Client::connect_from("127.0.0.2", server.address());
        assert_eq!(stranger.get(&open).status, if number < 3 { 503 } else { 401 });
    }
}

#[test]
fn changing_reuse_revives_nothing() {
    let node = Node::new().with_state();
    let content = pattern(1000);
    node.file("file", &content);
    let (spent, open, once) =
        (Token::file("file").target(), Token::file("file").target(), Token::file("file").target());
    let mut server = node.start();
    assert_eq!(get(server.address(), &spent).body, content);
    let mut client = Client::connect(server.address());
    assert_eq!(client.get_with(&open, "Range: bytes=0-399\r\n").status, 206);
    drop(client);
    server.wait_for_logs(2, "delivered");
    server.kill();

    let config = std::fs::read_to_string(node.config()).unwrap();
    std::fs::write(node.config(), format!("{config}  reuse: once\n")).unwrap();
    let mut server = node.start_with(&[]);
    for target in [&spent, &open] {
        assert_eq!(get(server.address(), target).status, 401);
    }
    let answer = Client::connect(server.address()).get_with(&once, "Range: bytes=0-9\r\n");
    assert_eq!((answer.status, answer.field("Accept-Ranges")), (200, Some("none")));
    assert_eq!(get(server.address(), &once).status, 401);
    server.kill();

    let server = node.start();
    for target in [&spent, &once] {
        assert_eq!(get(server.address(), target).status, 401);
    }
}
