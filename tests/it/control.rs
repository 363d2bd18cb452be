//! The control listener: what it tells, what it does, and who is kept from it.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, get};
use crate::harness::{BACKUP, KEY, Node, PATIENCE, SERVER, Server, have, skip};
use crate::mint::Token;

/// More than is ever sent.
pub const LENGTH: u64 = 8 << 30;

/// A node with a control socket and a file that no download comes to the end of.
pub fn node(winglet: &str) -> Node {
    let node = Node::new().with_state().winglet(&format!("control: unix:control.sock\n{winglet}"));
    node.sparse("world.zip", LENGTH);
    node.sparse("large.zip", LENGTH);
    node.backup(b"a backup");
    node
}

fn socket(node: &Node) -> PathBuf {
    node.path().join("control.sock")
}

/// Sends raw bytes to the control socket; all that comes back.
pub fn exchange(node: &Node, request: &str) -> String {
    let mut stream = UnixStream::connect(socket(node)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A request for the control socket, its connection to be closed after it.
pub fn request(method: &str, path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

pub fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

fn ask(node: &Node, path: &str) -> String {
    let answer = exchange(node, &request("GET", path, "", ""));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

/// What the server says of itself.
pub fn status(node: &Node) -> Value {
    serde_json::from_str(&ask(node, "/status")).unwrap()
}

pub fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

/// Waits until what the server says of itself satisfies `wanted`, and returns it.
fn wait_for(node: &Node, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(node);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "never came: {what}\n{status:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client at `source` that has begun to download, and reads nothing by itself.
pub fn begin(server: &Server, source: &str, token: &Token) -> Client {
    let mut client = Client::connect_from(source, server.address());
    client.request("GET", &token.target(), "");
    assert_eq!(client.head().unwrap().status, 200);
    client
}

/// A check beside a running server, as before each reload, leaves no line in its log.
#[test]
fn a_check_asks_for_what_is_there() {
    for address in ["unix:control.sock", "127.0.0.1:0"] {
        let node = Node::new().winglet(&format!("control: {address}"));
        let server = node.start();
        let line = server.wait_for_log("control on ");
        if address.ends_with(":0") {
            let port = line.rsplit(':').next().unwrap();
            let text = fs::read_to_string(node.config()).unwrap();
            let bound = format!("control: 127.0.0.1:{port}");
            fs::write(node.config(), text.replace("control: 127.0.0.1:0", &bound)).unwrap();
        }
        let checked = node.run(&["check"]);
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && !text.contains("winglet.control"), "{text}");
        assert!(!server.log().contains("refused"), "{}", server.log());
    }
}

#[test]
fn three_downloads_at_three_paces_are_told_apart() {
    let node = node("bandwidth_per_address: 1");
    let server = node.start();
    // One takes what it gets, the others read nothing.
    let tokens = [Token::file("world.zip"), Token::file("large.zip"), Token::file("world.zip")];
    let mut reading = begin(&server, "127.0.0.2", &tokens[0]);
    let _parked = begin(&server, "127.0.0.3", &tokens[1]);
    let _other = begin(&server, "127.0.0.4", &tokens[2]);
    let state = |status: &Value, client: &str| {
        let rows = status["downloads"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["client"] == client).unwrap_or_default()
    };
    reading.read_some(1 << 20);
    let stream = reading.stream().try_clone().unwrap();
    let reader = std::thread::spawn(move || reading.read_to_end().len());
    let seen = wait_for(&node, "a download that waits for its turn", |status| {
        state(status, "127.0.0.2")["state"] == "limited"
    });
    let row = state(&seen, "127.0.0.2");
    assert_eq!((row["file"].as_str(), row["server"].as_str()), (Some("world.zip"), Some(SERVER)));
    assert_eq!((row["length"].as_u64(), row["start"].as_u64()), (Some(LENGTH), Some(0)));
    // Nearly what it has read: what is under way is counted a moment later.
    assert!(row["sent"].as_u64() >= Some(1 << 19), "{row}");
    let seen = wait_for(&node, "a download that waits for its client", |status| {
        state(status, "127.0.0.3")["state"] == "parked"
    });
    assert!(state(&seen, "127.0.0.3")["sent"].as_u64() < Some(LENGTH));
    assert_eq!(seen["downloads"].as_array().unwrap().len(), 3);
    assert_eq!(
        (seen["links"]["tracked"].as_u64(), seen["workers"]["total"].as_u64()),
        (Some(3), Some(8))
    );
    wait_for(&node, "a rate", |status| status["bandwidth"]["rate"].as_u64() > Some(0));
    // No token and nothing to forge one with.
    let text = seen.to_string();
    for secret in tokens.iter().map(Token::sign).chain([KEY.to_owned()]) {
        assert!(!text.contains(&secret), "{text}");
    }
    let output = node.run(&["status", "--config", "config.yml"]);
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("127.0.0.3 ")).unwrap();
    assert_eq!(lines[at + 1], format!("  {SERVER}  large.zip"), "{table}");
    let at = lines.iter().position(|line| line.starts_with("127.0.0.2 ")).unwrap();
    assert!(lines[at].contains("B/s") && lines[at + 1].ends_with("  world.zip"), "{table}");
    stream.shutdown(Shutdown::Both).unwrap();
    reader.join().unwrap();
    wait_for(&node, "the end of one", |status| status["ended"]["interrupted"] == 1);
}

#[test]
fn only_this_machine_and_only_who_may() {
    let node = node("");
    let server = node.start();
    let socket = fs::symlink_metadata(socket(&node)).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    // Nothing of it where downloads are, not even that it exists; no downloads here.
    let nothing = get(server.address(), "/nothing");
    for path in ["/status", "/metrics", "/revoke", "/api/deauthorize-user"] {
        let mut client = Client::connect(server.address());
        let answer = client.get(path);
        assert_eq!((answer.status, answer.length()), (nothing.status, nothing.length()), "{path}");
        client.send(request("POST", path, &bearer(KEY), r#"{"all":true}"#));
        assert_eq!(client.answer().status, 404, "{path}");
    }
    for target in [Token::file("world.zip").target(), "/health".into(), "/".into()] {
        assert_eq!(status_of(&exchange(&node, &request("GET", &target, "", ""))), 404, "{target}");
    }
    for (control, told) in [
        ("0.0.0.0:8082", "is no address of this machine alone"),
        ("tls:127.0.0.1:8082", "is no address of this machine alone"),
        ("8082", "is not an address"),
        ("unix:/x/", ""),
    ] {
        let other = Node::new().winglet(&format!("control: \"{control}\""));
        other.write_config();
        let output = other.run(&["check", "--config", "config.yml"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), told.is_empty(), "{text}");
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn hostile_requests_get_an_answer_and_change_nothing() {
    let node = node("timeouts: {head: 2s}");
    let server = node.start();
    let post = |path: &str, fields: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
    };
    let deep = "[".repeat(16_000);
    for (request, status) in [
        (post("/revoke", "Content-Length: 16385\r\n"), 413),
        (post("/revoke", "Content-Length: 18446744073709551615\r\n"), 413),
        (post("/revoke", "Content-Length: -1\r\n"), 400),
        (post("/revoke", "Transfer-Encoding: chunked\r\n") + "5\r\n{\"a\"\r\n", 413),
        (post("/revoke", ""), 400),
        (request("POST", "/revoke", "", &deep), 400),
        (request("POST", "/revoke", "", "{\"all\":true"), 400),
        (request("POST", "/revoke", "", "\u{0}"), 400),
        (request("POST", "/status", "", "{}"), 405),
        (request("GET", "/revoke", "", ""), 405),
        (request("GET", "/status", "", "{}"), 413),
        // Half a body, and silence.
        (post("/revoke", "Content-Length: 12\r\n") + "{\"all\"", 408),
    ] {
        let answer = exchange(&node, &request);
        let shown = &request[..request.len().min(200)];
        assert_eq!(status_of(&answer), status, "{shown}\n{answer}");
    }
    // In pieces, and with the next request behind it.
    let mut stream = UnixStream::connect(socket(&node)).unwrap();
    let body = r#"{"user":"x"}"#;
    let both = format!(
        "POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}GET /status HTTP/1.0\r\n\r\n",
        body.len()
    );
    for byte in both.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answers = String::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.contains(r#"{"ended":0,"remembered":"journal"}"#), "{answers}");
    assert!(answers.contains(r#""revocations":1"#), "{answers}");
    assert_eq!(get(server.address(), &Token::backup().target()).status, 200);
}

#[test]
fn metrics_keep_to_the_format_and_grow_nothing() {
    let node = node("");
    let server = node.start();
    assert_eq!(get(server.address(), &Token::backup().target()).status, 200);
    assert_eq!(get(server.address(), "/nothing").status, 404);
    wait_for(&node, "the end of a delivery", |status| status["ended"]["delivered"] == 1);
    let text = ask(&node, "/metrics");
    check_format(&text);
    for line in [
        "winglet_requests_total{code=\"404\"} 1",
        "winglet_downloads_ended_total{outcome=\"delivered\"} 1",
        "winglet_links_spent 1",
        "winglet_workers 8",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    let scrape = |stream: &mut UnixStream| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 32 << 10];
        while !answer.ends_with(b"winglet_journal_behind 0\n") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0);
            answer.extend_from_slice(&piece[..count]);
        }
    };
    let shown = server.shows_descriptors();
    let (mut before, mut descriptors) = (0, 0);
    for round in 0..4 {
        let mut stream = UnixStream::connect(socket(&node)).unwrap();
        (0..500).for_each(|_| scrape(&mut stream));
        if round == 1 {
            before = server.resident_kib();
            descriptors = if shown { server.descriptors() } else { 0 };
        }
    }
    assert!(server.resident_kib() < before + 1024, "{before} to {} KiB", server.resident_kib());
    if shown {
        server.wait_until("no descriptor more", |server| server.descriptors() <= descriptors);
    }
    if have("promtool") {
        let file = node.path().join("metrics");
        fs::write(&file, text).unwrap();
        let checked = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(fs::File::open(file).unwrap())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// The rules of the text format (version 0.0.4) and of naming: one HELP and TYPE before a metric's
/// series, which stand together; no series twice; counters end in `_total`, gauges do not.
fn check_format(text: &str) {
    assert!(text.ends_with('\n'));
    let (mut known, mut series) = (Vec::new(), Vec::new());
    let mut current = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            assert!(!known.contains(&name), "{name} comes twice");
            known.push(name.clone());
            current = (name, String::new());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current.0);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            current.1 = kind.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(!current.1.is_empty() && !series.contains(&name), "{line}");
            series.push(name);
            assert_eq!(name.split('{').next().unwrap(), current.0, "{line}");
            value.parse::<f64>().unwrap();
            let bare = current.0.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(bare && current.0.starts_with("winglet_"), "{line}");
        }
    }
}

#[test]
fn a_stale_socket_goes_and_a_reload_keeps_the_listener() {
    let node = node("");
    let mut server = node.start();
    server.kill();
    assert!(socket(&node).exists(), "a crash leaves it");
    let mut server = node.start();
    server.signal("HUP");
    server.wait_for_log("reload: done");
    assert_eq!(status(&node)["links"]["tracked"], 0);
    server.stop();
    assert!(!socket(&node).exists());
}

#[test]
fn commands_say_why_the_server_cannot_be_asked() {
    let told = |node: &Node, arguments: &[&str]| {
        let output = node.run(&[arguments, &["--config", "config.yml"]].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let without = Node::new();
    without.write_config();
    for arguments in [&["status"][..], &["status", "--json"], &["revoke", "--all"]] {
        let text = told(&without, arguments);
        assert!(text.contains("winglet.control is not set"), "{text}");
    }
    let stopped = node("");
    stopped.write_config();
    let text = told(&stopped, &["status", "--watch"]);
    assert!(text.contains("is the server running"), "{text}");
    let server = stopped.start();
    let text = told(&stopped, &["revoke", "not.a.link"]);
    assert!(text.contains("400") && text.contains("no link"), "{text}");
    let foreign = Token::file("a").signed_with(b"another key, another key").sign();
    assert!(told(&stopped, &["revoke", &foreign]).contains("no link of this node"));
    for wrong in
        [&["revoke"][..], &["revoke", "--all", "--server", SERVER], &["revoke", BACKUP, "--all"]]
    {
        assert_eq!(stopped.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    if rustix::process::geteuid().is_root() {
        let output = stopped.command(&["status", "--config", "config.yml"]);
        let mut output = output;
        use std::os::unix::process::CommandExt;
        let output = output.uid(65_534).gid(65_534).output();
        match output {
            Ok(output) => {
                let text = String::from_utf8(output.stderr).unwrap();
                assert!(!output.status.success() && text.contains("ermission denied"), "{text}");
            }
            Err(error) => skip(format!("the binary as another user: {error}")),
        }
    }
    drop(server);
}

#[test]
fn usr1_writes_the_state_to_the_log() {
    let node = node("");
    let mut server = node.start();
    let _client = begin(&server, "127.0.0.2", &Token::file("world.zip"));
    server.signal("USR1");
    server.wait_for_log("status: up ");
    let line = server.wait_for_log("status: 127.0.0.2 ");
    assert!(line.contains("world.zip bytes="), "{line}");
    assert!(server.is_alive());
}

#[cfg(feature = "tls")]
#[test]
fn the_end_of_the_certificate_is_told_and_follows_a_new_one() {
    use crate::certs::{Kind, tls_node};

    if !have("openssl") {
        return;
    }
    let (node, authority) = tls_node(Kind::Ec);
    let node = node.winglet("control: unix:control.sock");
    let server = node.start();
    let days = |status: &Value| {
        let end = status["certificate_expires"].as_u64().unwrap_or_default();
        end.saturating_sub(crate::mint::now()) / 86_400
    };
    assert!((29..=30).contains(&days(&status(&node))));
    assert!(ask(&node, "/metrics").contains("winglet_certificate_expiry_timestamp_seconds 1"));
    authority.leaf("other", Kind::Ec, "90");
    authority.replace("leaf", "other");
    wait_for(&node, "the new certificate", |status| days(status) >= 89);
    drop(server);
}
