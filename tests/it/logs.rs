//! What the log looks like, and how much of it there is.

use std::fs;

use serde_json::Value;

use crate::client::{Client, get};
use crate::harness::{KEY, Node, SERVER};
use crate::mint::Token;

#[test]
fn each_line_is_an_object_whose_fields_say_what_happened() {
    let node = Node::new().winglet("log_format: json");
    // Everything that could end a string or a line.
    let name = "a \"b\"\\\n\u{1b}[2J é.txt";
    node.file(name, b"0123456789");
    let mut server = node.start();
    let token = Token::file(name);
    let mut client = Client::connect(server.address());
    assert_eq!(client.get_with(&token.target(), "Range: bytes=2-4\r\n").status, 206);
    assert_eq!(client.get(&token.target()).status, 200);
    assert_eq!(client.get(&Token::file("none").target()).status, 404);
    drop(client);
    server.wait_for_logs(3, "\"method\":\"GET\"");
    server.stop();
    let lines: Vec<Value> = server
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        assert!(
            line["time"].as_str().unwrap().ends_with('Z') && line["level"].is_string(),
            "{line}"
        );
        assert!(line["message"].is_string() || line["method"].is_string(), "{line}");
    }
    let of = |status: u16| lines.iter().find(|line| line["status"] == status).unwrap();
    let part = of(206);
    for (field, value) in [
        ("client", "127.0.0.1".into()),
        ("endpoint", "file".into()),
        ("server", SERVER.into()),
        ("file", name.into()),
        ("bytes", 3.into()),
        ("length", 3.into()),
        ("outcome", Value::from("part delivered")),
    ] {
        assert_eq!(part[field], value, "{part}");
    }
    assert_eq!(part["link"]["length"], 10, "{part}");
    assert!(part["seconds"].is_number() && part["id"].is_string(), "{part}");
    assert_eq!(of(200)["outcome"], "delivered");
    assert_eq!((of(404)["outcome"].as_str(), of(404)["bytes"].is_null()), (Some("refused"), true));
    assert!(of(404)["cause"].is_string());
}

/// systemd's journal has its own time, and takes each line's priority from the line.
#[test]
fn the_journal_is_told_priorities() {
    // As systemd does it (systemd.exec(5)).
    let named = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    let node = Node::new().winglet("threads: 3").through(&["sh", "-c", named]);
    let server = node.start();
    assert_eq!(get(server.address(), &Token::file("none").target()).status, 404);
    server.wait_for_log("<6>INFO  127.0.0.1 GET file 404 ");
    let log = server.log();
    assert!(log.contains("<6>INFO  listening on http://"), "{log}");
    assert!(log.lines().all(|line| line.starts_with("<6>INFO ") || line.starts_with("<4>WARN ")));
    // Somebody else's standard error.
    let node = Node::new().env("JOURNAL_STREAM", "1:1");
    assert!(node.start().log().contains("Z INFO  listening on "));
}

#[test]
fn a_part_is_not_called_delivered_and_a_whole_range_is() {
    let node = Node::new();
    node.file("a", b"0123456789");
    let server = node.start();
    let range = |range: &str| {
        let mut client = Client::connect(server.address());
        client.get_with(&Token::file("a").target(), &format!("Range: bytes={range}\r\n")).status
    };
    assert_eq!((range("0-4"), range("0-9")), (206, 206));
    assert!(server.wait_for_log("bytes=5/5").ends_with(" part delivered"));
    let line = server.wait_for_log("bytes=10/10");
    assert!(line.ends_with(" delivered") && !line.ends_with("part delivered"), "{line}");
}

#[test]
fn the_access_log_can_be_switched_off_and_on_again() {
    let node = Node::new().winglet("access_log: false");
    node.file("a", b"content");
    let server = node.start();
    assert_eq!(get(server.address(), &Token::file("a").target()).status, 200);
    assert_eq!(get(server.address(), "/nothing").status, 404);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("access_log: false", "access_log: true")).unwrap();
    server.signal("HUP");
    server.wait_for_log("reload: done");
    assert_eq!(get(server.address(), "/again").status, 404);
    server.wait_for_log(" - 404 ");
    let log = server.log();
    assert_eq!(log.matches(" GET ").count(), 1, "{log}");
    assert!(!log.contains(KEY));
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use crate::certs::{Kind, tls_node};
    use crate::harness::have;

    #[test]
    fn a_browser_that_forgot_the_s_is_led_to_the_right_address() {
        if !have("openssl") {
            return;
        }
        let (node, _authority) = tls_node(Kind::Ec);
        let server = node.start();
        let address = server.address();
        let target = Token::file("a").target();
        let mut client = Client::connect(address);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nAccept: text/html,*/*;q=0.8\r\n\r\n"
        ));
        let answer = client.answer();
        assert_eq!(answer.status, 400);
        assert!(
            answer.text().contains(&format!("href=\"https://{address}{target}\"")),
            "{}",
            answer.text()
        );
        let mut client = Client::connect(address);
        let answer = client.get(&target);
        assert_eq!((answer.status, answer.field("Content-Type")), (400, Some("application/json")));
        assert!(answer.text().contains("this port speaks HTTPS"), "{}", answer.text());
    }

    #[test]
    fn a_broken_certificate_is_told_again_at_each_reload() {
        if !have("openssl") {
            return;
        }
        let (node, authority) = tls_node(Kind::Ec);
        let mut server = node.start();
        server.may_log_errors();
        fs::write(authority.path("leaf.pem"), "garbage").unwrap();
        server.wait_for_logs(1, "the certificate in force stays");
        for told in 2..4 {
            server.signal("HUP");
            server.wait_for_logs(told, "the certificate in force stays");
        }
    }
}
