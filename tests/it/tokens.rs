//! Tokens: what the Panel mints is accepted, and everything else is refused with its reason in the
//! log.

use serde_json::{Value, json};

use crate::client::{Answer, Client, at_once, get};
use crate::harness::{BACKUP, KEY, Node, OTHER_SERVER, SERVER, Server, pattern};
use crate::mint::{MD5_JTI, Token, encode, now};

const DAY: u64 = 24 * 3600;

/// A link of a Panel from before scopes and user UUIDs.
fn oldest(token: Token) -> Token {
    let mut token =
        token.without("scope").without("user_uuid").with("user_id", 7).with("jti", MD5_JTI);
    token.header["jti"] = json!(MD5_JTI);
    token
}

/// Dates as older Panels write them, with microseconds.
fn with_float_dates(mut token: Token) -> Token {
    for date in ["iat", "nbf", "exp"] {
        token.claims[date] = json!(token.claims[date].as_f64().unwrap() + 0.482_913);
    }
    token
}

fn with_header(mut token: Token, header: Value) -> Token {
    token.header = header.into();
    token
}

fn node() -> Node {
    let node = Node::new();
    node.file("a", b"content");
    node.backup(b"content");
    node
}

#[test]
fn everything_that_a_panel_mints_is_accepted() {
    let node = node();
    let server = node.start();
    let upper = (SERVER.to_uppercase(), BACKUP.to_uppercase());
    let now = now();
    for fresh in [|| Token::file("a"), Token::backup] {
        let table = [
            ("oldest", oldest(fresh())),
            ("floats", with_float_dates(fresh())),
            ("oldest, floats", with_float_dates(oldest(fresh()))),
            ("upper case", fresh().with("server_uuid", upper.0.as_str())),
            ("two scopes", fresh().with("scope", "file-download backup-download")),
            ("null scope", fresh().with("scope", Value::Null)),
            ("bare header", with_header(fresh(), json!({"alg": "HS256"}))),
            ("full header", with_header(fresh(), json!({"alg": "HS256", "kid": "1", "x": [1]}))),
            ("other claims", fresh().with("sub", "7").with("nonce", "n").with("aud", "one")),
            ("unknown claims", fresh().with("x", json!({"deep": [1, null, "ü"]}))),
            ("nbf at the skew", fresh().with("nbf", now + 50)),
            ("a node 100 s behind", fresh().with("iat", now + 100).with("nbf", now - 200)),
            ("iat in the future", fresh().with("iat", now + DAY)),
            ("iat that is no date", fresh().with("iat", "now")),
            ("nulls", fresh().with("nbf", Value::Null).with("sub", Value::Null)),
            ("no nbf, no iat", fresh().without("nbf").without("iat")),
            ("a whole day", fresh().with("exp", now + DAY - 5)),
        ];
        for (name, token) in table {
            let answer = get(server.address(), &token.target());
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert_eq!(answer.body, b"content", "{name}");
        }
    }
    let token = Token::backup().with("backup_uuid", upper.1.as_str());
    let answer = get(server.address(), &token.target());
    assert_eq!(answer.status, 200);
    let name = format!("attachment; filename=\"backup-{BACKUP}.tar.gz\"");
    assert_eq!(answer.field("Content-Disposition"), Some(name.as_str()));
}

/// A token whose header says `algorithm`, whoever signed it.
fn claiming(algorithm: &str) -> Token {
    let mut token = Token::file("a");
    token.header["alg"] = json!(algorithm);
    token
}

fn tampered() -> String {
    let token = Token::file("a").sign();
    let parts: Vec<&str> = token.split('.').collect();
    let claims = Token::file("b").claims.to_string();
    format!("{}.{}.{}", parts[0], encode(claims.as_bytes()), parts[2])
}

/// Tokens that are refused at `/download/file`, with the reason in the log.
fn refused_files() -> Vec<(String, &'static str)> {
    let now = now();
    let not_hs256 = "token not signed with HS256";
    let signed = [
        (claiming("HS384"), not_hs256),
        (claiming("HS512"), not_hs256),
        (claiming("RS256"), not_hs256),
        (claiming("none"), not_hs256),
        (Token::file("a").signed_with(b"another key of good length"), "signature is wrong"),
        (Token::file("a").with("exp", now - 1), "token expired"),
        (Token::file("a").with("exp", -5), "token expired"),
        (Token::file("a").without("exp"), "token without exp"),
        (Token::file("a").with("exp", "soon"), "token malformed"),
        (Token::file("a").with("nbf", now + 90), "not valid yet: nbf"),
        (Token::file("a").with("exp", Value::Null), "token without exp"),
        (Token::file("a").with("server_uuid", Value::Null), "token without server_uuid"),
        (Token::file("a").with("exp", now + DAY + 60), "longer than max_token_lifetime"),
        (Token::file("a").with("exp", 1e300), "longer than max_token_lifetime"),
        (Token::file("a").with("scope", "backup-download"), "scope does not cover"),
        (Token::file("a").with("scope", "file-downloads"), "scope does not cover"),
        (Token::file("a").with("scope", ""), "scope does not cover"),
        (Token::backup(), "scope does not cover"),
        (Token::backup().without("scope"), "token without file_path"),
        (Token::file("a").without("server_uuid"), "token without server_uuid"),
        (Token::file("a").with("server_uuid", 7), "token malformed"),
        (Token::file("a").with("server_uuid", "../volumes"), "server_uuid is not a UUID"),
        (Token::file("a").with("server_uuid", SERVER.replace('-', "")), "is not a UUID"),
        (Token::file("a").with("server_uuid", format!("{SERVER}/..")), "is not a UUID"),
        (Token::file("a").with("server_uuid", ""), "is not a UUID"),
    ];
    let unsigned = claiming("none").unsigned();
    let mut all = vec![
        (String::new(), "no token in the request"),
        ("garbage-garbage-garbage".into(), "token malformed"),
        ("..".into(), "no token in the request"),
        ("a..b".into(), "token malformed"),
        (format!("{unsigned}.."), "token malformed"),
        (format!("{unsigned}.x"), not_hs256),
        (tampered(), "signature is wrong"),
        (Token::file("a").unsigned(), "token malformed"),
        (format!("{}.x", Token::file("a").sign()), "token malformed"),
    ];
    all.extend(signed.map(|(token, reason)| (token.sign(), reason)));
    all
}

/// Tokens that are refused at `/download/backup`.
fn refused_backups() -> Vec<(String, &'static str)> {
    let signed = [
        (Token::file("a"), "scope does not cover"),
        (Token::file("a").without("scope"), "token without backup_uuid"),
        (Token::backup().with("backup_uuid", "../../etc/passwd"), "backup_uuid is not a UUID"),
        (Token::backup().with("backup_uuid", format!("../{BACKUP}")), "is not a UUID"),
        (Token::backup().with("server_uuid", "..").without("scope"), "server_uuid is not a UUID"),
    ];
    signed.map(|(token, reason)| (token.sign(), reason)).into()
}

/// Checks a refusal of `status` in JSON, which must not tell too much, and returns its access log
/// line.
fn check_refusal(server: &Server, node: &Node, answer: &Answer, status: u16) -> String {
    // RFC 6750 §3.1: no error code if no token came at all.
    let without_token = answer.text().contains("the link has no token");
    let bearer = if without_token { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    assert_eq!(answer.status, status, "{}\n{}", answer.raw, answer.text());
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    assert_eq!(answer.field("Cache-Control"), Some("no-store"));
    assert_eq!(answer.field("WWW-Authenticate"), (status == 401).then_some(bearer));
    assert_eq!(answer.field("Vary"), Some("Accept"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert!(!body["error"].as_str().unwrap().is_empty());
    assert_eq!(body["request_id"].as_str(), answer.field("X-Request-Id"));
    tells_nothing(node, answer);
    server.wait_for_log(&format!("id={}", body["request_id"].as_str().unwrap()))
}

/// The text of an answer contains no path of the node, no key and no token.
fn tells_nothing(node: &Node, answer: &Answer) {
    let text = answer.text();
    let path = node.path().display().to_string();
    for secret in [path.as_str(), KEY, SERVER, BACKUP, "volumes", "eyJ", "secret-name", "os error"]
    {
        assert!(!text.contains(secret), "{secret:?} in {text}");
    }
}

#[test]
fn everything_else_is_refused_with_its_reason_in_the_log_and_no_token() {
    let node = node().top_level("debug: true");
    let server = node.start();
    let endpoints = [("file", refused_files()), ("backup", refused_backups())];
    for (endpoint, table) in &endpoints {
        for (number, (token, reason)) in table.iter().enumerate() {
            // Lines that one address causes are bounded.
            let mut client = Client::connect_from(&format!("127.0.1.{number}"), server.address());
            let target = format!("/download/{endpoint}?token={token}");
            for answer in [client.get(&target), client.get(&target)] {
                let line = check_refusal(&server, &node, &answer, 401);
                let said = line.split_once("refused: ").expect(&line).1;
                assert!(said.contains(reason), "{reason:?} wanted for {target}: {line}");
                assert!(line.contains(&format!(" GET {endpoint} 401 ")), "{line}");
            }
        }
    }
    let missing = get(server.address(), "/download/backup");
    assert_eq!(missing.field("WWW-Authenticate"), Some("Bearer"));
    let line = check_refusal(&server, &node, &missing, 401);
    assert!(line.contains("no token in the request"), "{line}");
    let served = Token::file("a");
    assert_eq!(get(server.address(), &served.target()).status, 200);
    server.wait_for_log("delivered");
    let mut tokens = vec![served.sign()];
    for malformed in ["GET {} HTTP/9.9\r\n\r\n", "GET {} HTTP/1.1\r\nHost\r\n\r\n", "BREW {} x\r\n"]
    {
        let token = Token::file("a").sign();
        let mut client = Client::connect(server.address());
        client.send(malformed.replace("{}", &format!("/download/file?token={token}")));
        assert!(client.answer().status >= 400);
        tokens.push(token);
    }
    let log = server.log();
    let long = |token: &&String| token.len() > 2;
    let refused = endpoints.iter().flat_map(|(_, table)| table.iter().map(|(token, _)| token));
    for token in refused.filter(long).chain(&tokens) {
        assert!(!log.contains(token.as_str()), "{token} is in the log");
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.len() < 20 || !log.contains(signature), "{signature} is in the log");
    }
    assert!(!log.contains(KEY));
}

#[test]
fn the_first_token_parameter_counts_in_any_spelling() {
    let node = node();
    let server = node.start();
    let fresh = || Token::file("a").sign();
    let bad = Token::file("a").signed_with(b"another key of good length").sign();
    let table = [
        (format!("/download/file?token={}&token={bad}", fresh()), 200),
        (format!("/download/file?token={bad}&token={}", fresh()), 401),
        (format!("/download/file?token=&token={}", fresh()), 401),
        (format!("/download/file?a=b&tokens={bad}&token={}", fresh()), 200),
        (format!("/download/file?%74ok%65n={}", fresh().replace('.', "%2E")), 200),
        (format!("/download/file?token={}", fresh().replace('e', "%65")), 200),
        (format!("/download/file?token={}#token={bad}", fresh()), 400),
        (format!("/download/%66ile?token={}", fresh()), 200),
        (format!("http://other.example/download/file?token={}", fresh()), 200),
        (format!("/download/file?Token={}", fresh()), 401),
        (format!("/download/file/?token={}", fresh()), 404),
        (format!("/download/file?token={}%00", fresh()), 200),
        ("/download/file?token=%ff%fe".into(), 401),
    ];
    for (target, status) in table {
        assert_eq!(get(server.address(), &target).status, status, "{target}");
    }
}

#[test]
fn a_client_that_is_no_browser_gets_json() {
    let node = node();
    let server = node.start();
    let target = Token::file("secret-name").target();
    let ask = |accept: &str| Client::connect(server.address()).get_with(&target, accept);
    for accept in ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: text/plain\r\n"]
    {
        let line = check_refusal(&server, &node, &ask(accept), 404);
        assert!(line.contains(r#"file="secret-name""#) && line.contains(SERVER), "{line}");
    }
}

#[test]
fn of_50_simultaneous_first_uses_exactly_one_is_served() {
    let node = node().winglet("reuse: once\ntimeouts: { queue: 60s, head: 60s }");
    node.file("big", &pattern(300_000));
    let server = node.start();
    let tokens = [Token::file("a"), Token::file("big"), Token::backup()];
    for (source, token) in ["127.0.0.2", "127.0.0.3", "127.0.0.4"].into_iter().zip(tokens) {
        let mut statuses = at_once(server.address(), &token.target(), 50);
        statuses.sort_unstable();
        assert_eq!((statuses[0], statuses[1], statuses[49]), (200, 401, 401), "{statuses:?}");
        // Not from the address that has filled its share of the log.
        let mut other = Client::connect_from(source, server.address());
        let again = other.get(&token.target());
        let line = check_refusal(&server, &node, &again, 401);
        assert!(again.text().contains("this link was already used"), "{}", again.text());
        assert!(line.contains("already used"), "{line}");
    }
}

#[test]
fn what_is_not_content_spends_nothing() {
    for reuse in ["once", "resume"] {
        let node = Node::new().winglet(&format!("reuse: {reuse}"));
        let server = node.start();
        let other = Token::file("late").with("server_uuid", OTHER_SERVER);
        let tokens = [Token::file("late"), other, Token::backup()];
        for token in &tokens {
            let answer = get(server.address(), &token.target());
            check_refusal(&server, &node, &answer, 404);
        }
        node.file("late", b"content");
        let elsewhere = node.path().join("volumes").join(OTHER_SERVER);
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("late"), b"content").unwrap();
        node.backup(b"content");
        for (count, token) in tokens.iter().enumerate() {
            assert_eq!(get(server.address(), &token.target()).status, 200, "{reuse}");
            server.wait_for_logs(count + 1, "delivered");
            assert_eq!(get(server.address(), &token.target()).status, 401, "{reuse}");
        }
    }
}

#[test]
fn links_that_are_not_one_time_are_served_again_and_again() {
    let without = || Token::file("a").without("unique_id");
    let table = [
        ("unlimited", Token::file("a")),
        ("unlimited", Token::backup()),
        ("unlimited", without()),
        ("once", without()),
        ("once", Token::file("a").with("unique_id", "")),
        ("once", Token::file("a").with("unique_id", Value::Null)),
        ("resume", without()),
    ];
    for (reuse, token) in table {
        let node = node().winglet(&format!("reuse: {reuse}"));
        let server = node.start();
        let mut kept = Client::connect(server.address());
        for _ in 0..3 {
            assert_eq!(kept.get(&token.target()).status, 200, "{reuse}: {}", token.claims);
            assert_eq!(get(server.address(), &token.target()).status, 200);
        }
    }
}

#[test]
fn one_unique_id_opens_one_resource() {
    for reuse in ["once", "resume"] {
        let node = node().winglet(&format!("reuse: {reuse}"));
        node.file("b", b"content");
        let server = node.start();
        let first = Token::file("a");
        let id = first.claims["unique_id"].clone();
        assert_eq!(get(server.address(), &first.target()).status, 200);
        let other_server = Token::file("a").with("server_uuid", OTHER_SERVER);
        for other in [Token::file("b"), Token::backup(), other_server] {
            let answer = get(server.address(), &other.with("unique_id", id.clone()).target());
            let line = check_refusal(&server, &node, &answer, 401);
            assert!(line.contains("its unique_id belongs to another resource"), "{line}");
        }
    }
}

#[test]
fn a_full_table_turns_new_links_away_and_nothing_else() {
    for reuse in ["once", "resume"] {
        let node = node().winglet(&format!("reuse: {reuse}\nmax_tracked_tokens: 8"));
        let server = node.start();
        // One server has a quarter of the table.
        let first = Token::file("a");
        for token in [&first, &Token::backup()] {
            assert_eq!(get(server.address(), &token.target()).status, 200);
        }
        server.wait_for_logs(2, "delivered");
        let third = Token::file("a");
        for _ in 0..2 {
            let answer = get(server.address(), &third.target());
            let line = check_refusal(&server, &node, &answer, 503);
            assert!(line.contains("max_tracked_tokens reached"), "{line}");
            assert!(answer.field("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
        }
        let plain = Token::file("a").without("unique_id");
        assert_eq!(get(server.address(), &plain.target()).status, 200);
        // Nothing live was evicted for the newcomer.
        assert_eq!(get(server.address(), &first.target()).status, 401);
    }
}

#[test]
fn one_server_cannot_take_the_places_of_all() {
    let node = node().winglet("max_tracked_tokens: 16");
    let elsewhere = node.path().join("volumes").join(OTHER_SERVER);
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("a"), b"content").unwrap();
    let server = node.start();
    let first_byte = |token: &Token| {
        Client::connect(server.address()).get_with(&token.target(), "Range: bytes=0-0\r\n").status
    };
    let statuses: Vec<u16> = (0..20).map(|_| first_byte(&Token::file("a"))).collect();
    assert_eq!(statuses, [[206; 4].as_slice(), &[503; 16]].concat());
    let other = Token::file("a").with("server_uuid", OTHER_SERVER);
    assert_eq!(get(server.address(), &other.target()).status, 200);
}

#[test]
fn a_scope_can_be_required() {
    let node = node().winglet("require_scope: true");
    let server = node.start();
    for fresh in [|| Token::file("a"), Token::backup] {
        assert_eq!(get(server.address(), &fresh().target()).status, 200);
        let answer = get(server.address(), &oldest(fresh()).target());
        let line = check_refusal(&server, &node, &answer, 401);
        assert!(line.contains("token without scope, and require_scope is set"), "{line}");
    }
}

#[test]
fn a_flood_of_refusals_fills_no_disk() {
    let node = node();
    let server = node.start();
    let target = Token::file("a").with("exp", now() - 1).target();
    let mut client = Client::connect(server.address());
    for count in 0..300 {
        client.request(if count % 2 == 0 { "GET" } else { "HEAD" }, &target, "");
        let answer = if count % 2 == 0 { client.answer() } else { client.bodiless_answer() };
        assert_eq!(answer.status, 401);
    }
    // Others are still heard of, and what was left out is said. Few share a counter with the first.
    for other in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        let mut other = Client::connect_from(other, server.address());
        assert_eq!(other.get("/nothing").status, 404);
    }
    server.wait_for_log(" GET - 404");
    let line = server.wait_for_log("refused requests: ");
    assert!(line.contains(" more lines in 10 s were left out"), "{line}");
    assert!(server.log().matches("token expired").count() <= 40, "{}", server.log());
}
