//! Links that are revoked: their downloads end, and they stay revoked.

use std::fs;
use std::io;

use serde_json::json;

use crate::client::{Client, get};
use crate::control::{LENGTH, bearer, begin, exchange, node, request, status_of};
use crate::harness::{KEY, Node, OTHER_SERVER, SERVER};
use crate::mint::{Token, USER, now};

/// Whether a download ends before its end.
fn breaks(client: &mut Client) -> bool {
    match io::copy(&mut client.stream(), &mut io::sink()) {
        Ok(count) => count < LENGTH,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn revoke(node: &Node, arguments: &[&str]) -> String {
    let all = [&["revoke", "--config", "config.yml"], arguments].concat();
    let output = node.run(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_revoked_link_breaks_off_and_stays_revoked_over_a_crash() {
    let node = node("");
    let mut server = node.start();
    let (token, other) = (Token::file("world.zip"), Token::file("world.zip"));
    let (mut client, mut untouched) =
        (begin(&server, "127.0.0.2", &token), begin(&server, "127.0.0.3", &other));
    let link = format!("{}{}", server.base(), token.target());
    assert_eq!(revoke(&node, &[&link]), "revoked; 1 running download ends\n");
    assert!(breaks(&mut client));
    server.wait_for_log("interrupted: the link was revoked");
    untouched.read_some(4 << 20);
    let refused = get(server.address(), &token.target());
    assert_eq!((refused.status, refused.text().contains("this link was revoked")), (401, true));
    server.kill();
    let mut server = node.start();
    assert_eq!(get(server.address(), &token.target()).status, 401);
    let explained = node.run(&["explain", "--config", "config.yml", &token.sign()]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("link         revoked") && text.contains("refused with 401"), "{text}");
    // The rewrite at this start has kept it, too.
    server.stop();
    let server = node.start();
    assert_eq!(get(server.address(), &token.target()).status, 401);
    assert_eq!(get(server.address(), &Token::backup().target()).status, 200);
}

#[test]
fn a_link_is_revoked_by_what_status_calls_it() {
    let node = node("");
    let server = node.start();
    let tokens = [Token::file("world.zip"), Token::file("world.zip")];
    let mut first = begin(&server, "127.0.0.2", &tokens[0]);
    let mut other = begin(&server, "127.0.0.3", &tokens[1]);
    let table = String::from_utf8(node.run(&["status"]).stdout).unwrap();
    let name_of = |client: &str| {
        let line = table.lines().find(|line| line.starts_with(client)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(revoke(&node, &[&name_of("127.0.0.2 ")]), "revoked; 1 running download ends\n");
    assert!(breaks(&mut first));
    other.read_some(4 << 20);
    assert_eq!(get(server.address(), &tokens[0].target()).status, 401);
    // In whole, also after it has ended, and in capitals.
    let listed = String::from_utf8(node.run(&["status", "--json"]).stdout).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let whole = listed["downloads"][0]["link"].as_str().unwrap().to_uppercase();
    assert_eq!(revoke(&node, &[&whole]), "revoked; 1 running download ends\n");
    assert!(breaks(&mut other));
    assert_eq!(revoke(&node, &[&whole]), "revoked; 0 running downloads end\n");
    let unknown = node.run(&["revoke", "01234567"]);
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said.contains("no link that begins with 01234567 is downloaded now"), "{said}");
}

#[test]
fn a_server_a_user_or_all_at_once() {
    let node = node("reuse: unlimited");
    let server = node.start();
    let status = |token: &Token| {
        let mut client = Client::connect(server.address());
        client.request("HEAD", &token.target(), "");
        client.head().unwrap().status
    };
    // Links without anything that makes them one-time can be revoked as well.
    let plain = Token::file("world.zip").without("unique_id");
    let mut client = begin(&server, "127.0.0.2", &plain);
    revoke(&node, &[&plain.sign()]);
    assert!(breaks(&mut client));
    assert_eq!(status(&plain), 401);
    assert_eq!(status(&plain.clone().with("exp", now() + 800)), 200, "that is another link");

    let number = Token::file("world.zip").without("user_uuid").with("user_id", 4711);
    revoke(&node, &["--user", "4711"]);
    assert_eq!((status(&number), status(&Token::file("world.zip"))), (401, 200));

    revoke(&node, &["--user", USER, "--server", OTHER_SERVER]);
    assert_eq!(status(&Token::file("world.zip")), 200);
    revoke(&node, &["--user", &USER.to_uppercase()]);
    assert_eq!(status(&Token::file("world.zip")), 401);
    let somebody = Token::file("world.zip").with("user_uuid", OTHER_SERVER);
    assert_eq!(status(&somebody), 200);

    let mut client = begin(&server, "127.0.0.2", &somebody);
    revoke(&node, &["--server", SERVER]);
    assert!(breaks(&mut client));
    assert_eq!(status(&somebody), 401);
    let later = somebody.clone().with("iat", now() + 120);
    assert_eq!(status(&later), 200, "it was made after that, by more than the clocks may differ");
    assert_eq!(status(&later.without("iat")), 401);

    revoke(&node, &["--all"]);
    assert_eq!(status(&Token::backup()), 401);
}

#[test]
fn the_panels_call_ends_what_a_user_may_no_longer_do() {
    let node = node("");
    let server = node.start();
    let token = Token::file("world.zip");
    let mut client = begin(&server, "127.0.0.2", &token);
    let body = |servers: &[&str]| json!({"user": USER, "servers": servers}).to_string();
    let call = |fields: &str, body: &str| {
        exchange(&node, &request("POST", "/api/deauthorize-user", fields, body))
    };
    for fields in ["", "Authorization: Bearer x\r\n", "Authorization: Basic x\r\n"] {
        let answer = call(fields, &body(&[SERVER]));
        assert_eq!(status_of(&answer), 401, "{answer}");
        assert!(answer.contains("WWW-Authenticate: Bearer\r\n"), "{answer}");
    }
    let answer = call(&bearer(KEY), &body(&[OTHER_SERVER]));
    assert_eq!(status_of(&answer), 204, "{answer}");
    client.read_some(1 << 20);
    assert_eq!(status_of(&call(&bearer(KEY), &body(&[OTHER_SERVER, SERVER]))), 204);
    assert!(breaks(&mut client));
    assert_eq!(get(server.address(), &token.target()).status, 401);
    assert_eq!(status_of(&call(&bearer(KEY), "{}")), 400);
}

#[test]
fn a_port_takes_orders_from_who_has_the_key_only() {
    let node = Node::new().with_state().winglet("control: 127.0.0.1:0");
    node.sparse("world.zip", LENGTH);
    let server = node.start();
    let line = server.wait_for_log("control on http://");
    let address = line.rsplit("://").next().unwrap().parse().unwrap();
    let mut reader = Client::connect(address);
    reader.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(reader.answer().status, 200);
    let post = |fields: &str| {
        let mut client = Client::connect(address);
        client.send(request("POST", "/revoke", fields, r#"{"all":true}"#));
        client.answer().status
    };
    // A link's own token proves nothing, nor does a browser's page.
    let link = bearer(&Token::file("world.zip").sign());
    for fields in ["", "Origin: http://evil.example\r\nContent-Type: text/plain\r\n", &link] {
        assert_eq!(post(fields), 401, "{fields}");
    }
    assert_eq!(get(server.address(), &Token::file("none").target()).status, 404);
    assert_eq!(post(&bearer(KEY)), 200);
    assert_eq!(get(server.address(), &Token::file("none").target()).status, 401);
    // What the command does: it finds the port in the configuration, and keeps the key to itself.
    let config = fs::read_to_string(node.config()).unwrap();
    let config = config.replacen("control: 127.0.0.1:0", &format!("control: {address}"), 1);
    fs::write(node.config(), config).unwrap();
    assert_eq!(revoke(&node, &["--all"]), "revoked; 0 running downloads end\n");
}
