//! The Redis that front ends share: down, frozen, full, empty, and behind TLS.

use rustix::process::Signal;
use std::fs;
#[cfg(feature = "shared-state-tls")]
use std::net::TcpStream;
#[cfg(feature = "shared-state-tls")]
use std::process::{Command, Stdio};

use crate::client::{Client, get};
use crate::front_ends::{Fleet, Redis, key, until};
#[cfg(feature = "shared-state-tls")]
use crate::harness::have;
use crate::harness::{Node, Server};
use crate::mint::Token;

/// Owned links go on, and new ones are refused, until `mend`, and then nothing is forgotten.
fn goes_on_without(redis: &mut Redis, harm: impl Fn(&mut Redis), mend: impl Fn(&mut Redis)) {
    // Long enough for owned links to go on all the time.
    let mut fleet = Fleet::start(redis, 2, "take_over_after: 20s");
    fleet.nodes[0].sparse("f", 64 << 20);
    let owned = Token::file("/f").target();
    let part = "Range: bytes=0-9\r\n";
    assert_eq!(Client::connect(fleet.address(0)).get_with(&owned, part).status, 206);
    fleet.servers.iter_mut().for_each(Server::may_log_errors);
    harm(redis);
    let fresh = Token::file("/f").target();
    let refused = Client::connect(fleet.address(0)).get_with(&fresh, part);
    assert_eq!(refused.status, 503, "{}", refused.raw);
    assert!(refused.field("Retry-After").is_some());
    fleet.servers[0].wait_for_log("ERROR");
    for _ in 0..20 {
        assert_eq!(Client::connect(fleet.address(0)).get_with(&owned, part).status, 206);
    }
    mend(redis);
    until("service resumes", || {
        Client::connect(fleet.address(0)).get_with(&fresh, part).status == 206
    });
    // The other one waits until it can be sure whose the link is.
    let elsewhere = |target| get(fleet.address(1), target).text().contains("in use elsewhere");
    until("the other knows", || elsewhere(&owned));
    assert!(elsewhere(&fresh));
}

#[test]
fn redis_is_killed_and_comes_back_empty() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    goes_on_without(&mut redis, Redis::kill, Redis::run);
}

#[test]
fn redis_is_frozen() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let harm = |redis: &mut Redis| redis.signal(Signal::STOP);
    goes_on_without(&mut redis, harm, |redis| redis.signal(Signal::CONT));
}

#[test]
fn redis_is_full() {
    let Some(mut redis) = Redis::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let harm = |redis: &mut Redis| assert_eq!(redis.ask("CONFIG SET maxmemory 1"), "+OK");
    let mend = |redis: &mut Redis| assert_eq!(redis.ask("CONFIG SET maxmemory 0"), "+OK");
    goes_on_without(&mut redis, harm, mend);
}

#[test]
fn an_emptied_redis_gives_nobodys_link_away_and_is_called_that() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 2, "take_over_after: 3s");
    fleet.nodes[0].sparse("f", 64 << 20);
    let (owned, fresh) = (Token::file("/f"), Token::file("/f"));
    assert_eq!(fleet.part(0, 1, &owned, "0-9").status, 206);
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    let cause = "shared_state was found empty: new links wait";
    until("the other knows", || {
        let answer = fleet.part(1, 1, &owned, "0-9");
        assert_eq!(answer.status, 503, "{}", answer.raw);
        assert!(matches!(answer.field("Retry-After").unwrap(), "1" | "2" | "3" | "5"));
        answer.text().contains("in use elsewhere")
    });
    fleet.servers[1].wait_for_log(cause);
    fleet.servers[1].wait_for_log("was found empty, as after its first start");
    assert_eq!(fleet.part(0, 1, &owned, "0-9").status, 206);
    assert_eq!(fleet.part(1, 1, &fresh, "0-9").status, 206);
}

#[test]
fn a_reloaded_resume_window_reaches_links_that_are_known() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 1, "resume_window: 1h");
    fleet.nodes[0].sparse("f", 64 << 20);
    let token = Token::file("/f");
    assert_eq!(fleet.part(0, 1, &token, "0-9").status, 206);
    let seconds = || redis.ask(&format!("TTL {}", key(&token)))[1..].parse::<u64>().unwrap();
    assert!(seconds() <= 2 * 3600);
    let config = fs::read_to_string(fleet.nodes[0].config()).unwrap();
    fs::write(fleet.nodes[0].config(), config.replace("window: 1h", "window: 12h")).unwrap();
    fleet.servers[0].signal("HUP");
    until("it is remembered for longer", || seconds() > 12 * 3600);
    assert_eq!(fleet.part(0, 1, &token, "0-9").status, 206);
    assert!(seconds() > 12 * 3600);
}

#[test]
fn with_serve_new_links_go_through_and_are_claimed_later() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "shared_state_down: serve");
    fleet.nodes[0].sparse("f", 64 << 20);
    fleet.servers.iter_mut().for_each(Server::may_log_errors);
    redis.kill();
    let target = Token::file("/f").target();
    let part = "Range: bytes=0-9\r\n";
    assert_eq!(Client::connect(fleet.address(0)).get_with(&target, part).status, 206);
    redis.run();
    fleet.servers.iter().for_each(|server| {
        server.wait_for_logs(2, "answers; this front end is");
    });
    assert_eq!(Client::connect(fleet.address(1)).get_with(&target, part).status, 503);
}

#[test]
fn check_says_what_is_wrong() {
    let Some(redis) = Redis::start(&[]) else { return };
    assert_eq!(redis.ask("CONFIG SET requirepass right"), "+OK");
    let check = |url: &str, expected: &str, ok: bool| {
        let node = Node::new().winglet(&format!("shared_state: {url}\nnode: a"));
        node.write_config();
        let output = node.run(&["check", "--config", "config.yml", "--print"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "{url}: {text}");
        assert_eq!(output.status.success(), ok, "{url}: {text}");
        assert!(!text.contains("right") && !text.contains("wrong"), "{text}");
    };
    let place = format!("127.0.0.1:{}", redis.port);
    check(&format!("redis://:right@{place}"), "this front end is a", true);
    check(&format!("redis://{place}"), "wants a password", false);
    check(&format!("redis://:wrong@{place}"), "does not take this user and password", false);
    check("redis://127.0.0.1:1", "connection refused", true);
    #[cfg(not(feature = "shared-state-tls"))]
    check(&format!("rediss://:right@{place}"), "which this binary lacks", false);
    #[cfg(feature = "shared-state-tls")]
    check(&format!("rediss://:right@{place}"), "it may not speak TLS", true);
    redis.signal(Signal::STOP);
    check(&format!("redis://:right@{place}"), "does not answer within a second", true);
    redis.signal(Signal::CONT);
}

#[cfg(feature = "shared-state-tls")]
#[test]
fn redis_may_speak_tls() {
    if !have("openssl") {
        return;
    }
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    let certificate = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(redis.scratch.path())
        .output()
        .unwrap();
    assert!(certificate.status.success());
    let port = redis.port.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--tls-port", &port, "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
    command.args(["--tls-ca-cert-file", "cert.pem", "--tls-auth-clients", "no"]);
    command.args(["--requirepass", "secret"]).current_dir(redis.scratch.path());
    redis.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    until("it listens", || TcpStream::connect(redis.address()).is_ok());
    let password = redis.scratch.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let url = format!("shared_state: rediss://127.0.0.1:{port}/2");
    let node = Node::new().winglet(crate::front_ends::SILENCE).winglet(&url);
    let node = node.winglet(&format!("shared_state_password_file: {}", password.display()));
    node.write_config();
    let check = |node: &Node| {
        String::from_utf8(node.run(&["check", "--config", "config.yml"]).stdout).unwrap()
    };
    let text = check(&node);
    assert!(text.contains("name the authority of its certificate in shared_state_ca"), "{text}");
    let authority = redis.scratch.path().join("cert.pem");
    let node = node.winglet(&format!("shared_state_ca: {}", authority.display()));
    node.file("f", b"content");
    let server = node.start();
    server.wait_for_log("answers; this front end is");
    assert_eq!(get(server.address(), &Token::file("/f").target()).status, 200);
    let text = check(&node);
    assert!(text.contains("shared state") && text.contains(": ok"), "{text}");
}
