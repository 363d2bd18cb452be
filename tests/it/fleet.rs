//! Several front ends: a link is one link on all of them, whatever becomes of one, or of the Redis
//! that they share: killed, frozen, filled and emptied.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::control::{exchange, request};
use crate::front_ends::{Fleet, Redis, free_port, location, next_line, until};
use crate::harness::{Node, Server, have, pattern};
use crate::mint::Token;

#[test]
fn of_three_front_ends_one_delivers() {
    let Some(redis) = Redis::start(&[]) else { return };
    let more = "max_connections_per_address: 1000\ncontrol: unix:control.sock";
    let fleet = Fleet::start(&redis, 3, more);
    fleet.introduce();
    fleet.nodes[0].file("f", b"content");
    let mut redirects = 0;
    for round in 0..60 {
        let target = Token::file("/f").target();
        let answers = fleet.all_at_once(&target, round % 2 == 0);
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        // Whoever comes after the file was delivered is told that it was used.
        assert_eq!(statuses[0], 200, "{statuses:?}");
        assert!(statuses[1..].iter().all(|status| matches!(status, 307 | 401)), "{statuses:?}");
        let owner = answers.iter().position(|answer| answer.status == 200).unwrap();
        for answer in answers.iter().filter(|answer| answer.status == 307) {
            let (address, marked) = location(answer);
            assert_eq!(address, fleet.address(owner));
            assert_eq!(marked, format!("{target}&hop"));
            redirects += 1;
        }
    }
    let counted = fleet.nodes.iter().map(|node| {
        let metrics = exchange(node, &request("GET", "/metrics", "", ""));
        let line =
            metrics.lines().find(|line| line.starts_with("winglet_requests_total{code=\"307\""));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    });
    assert_eq!(counted.sum::<usize>(), redirects);
}

#[test]
fn ranges_through_the_redirect_complete_and_spend_the_link() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 3, "");
    fleet.introduce();
    let content = pattern(300_000);
    fleet.nodes[0].file("f", &content);
    let target = Token::file("/f").target();
    let mut monitor = redis.monitor();
    let mut whole = Vec::new();
    for part in 0..6 {
        let range = format!("Range: bytes={}-{}\r\n", part * 50_000, part * 50_000 + 49_999);
        let mut answer = Client::connect(fleet.address(part % 3)).get_with(&target, &range);
        if part % 3 != 0 {
            let (address, target) = location(&answer);
            answer = Client::connect(address).get_with(&target, &range);
        }
        assert_eq!(answer.status, 206, "{}", answer.raw);
        whole.extend(answer.body);
    }
    assert!(whole == content);
    until("spent", || get(fleet.address(0), &target).status == 401);
    until("spent for all", || get(fleet.address(1), &target).status == 401);
    assert_eq!(Client::connect(fleet.address(2)).get(&target).status, 401);
    // From the owner: one claim, and one word that it is spent. Of the others, a question each time.
    redis.ask("SET done 1");
    let mut questions = Vec::new();
    loop {
        let line = next_line(&mut monitor);
        if line.contains("\"done\"") {
            break;
        }
        if line.contains("winglet:") && !line.contains("lua]") && !line.contains("winglet:node:n") {
            questions.push(line);
        }
    }
    let of_owner = |line: &&String| line.contains("\"n0\"") || line.contains("\"spent\" \"XX\"");
    assert_eq!(questions.iter().filter(of_owner).count(), 2, "{questions:#?}");
}

#[test]
fn whoever_sends_a_redirect_back_is_answered() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 2, "");
    fleet.introduce();
    fleet.nodes[0].sparse("f", 8 << 20);
    let target = Token::file("/f").target();
    let part = "Range: bytes=0-9\r\n";
    assert_eq!(Client::connect(fleet.address(0)).get_with(&target, part).status, 206);
    let answer = get(fleet.address(1), &format!("{target}&hop"));
    assert_eq!(answer.status, 401, "{}", answer.raw);
    assert!(answer.text().contains("in use elsewhere"), "{}", answer.text());
    // A HEAD, and the page, are looked for at the owner's as well, and claim nothing.
    let mut client = Client::connect(fleet.address(1));
    client.request("HEAD", &target, "");
    assert_eq!(client.bodiless_answer().status, 307);
    let fresh = Token::file("/f").target();
    client.request("HEAD", &fresh, "");
    assert_eq!(client.bodiless_answer().status, 200);
    assert_eq!(Client::connect(fleet.address(0)).get_with(&fresh, part).status, 206);
    let explained = fleet.nodes[1].run(&["explain", "--config", "config.yml", &target]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("owned by     the front end n0, at http://127.0.0.1"), "{text}");
    assert!(!explained.status.success() && text.contains("refused with 307"), "{text}");
}

#[test]
fn a_dead_owners_links_are_taken_over() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "control: unix:control.sock");
    fleet.nodes[0].sparse("f", 64 << 20);
    fleet.nodes[0].file("small", b"content");
    let (target, small) = (Token::file("/f").target(), Token::file("/small").target());
    assert_eq!(get(fleet.address(0), &small).status, 200);
    until("spent for all", || {
        redis.ask("KEYS winglet:*").len() > 1 && {
            get(fleet.address(1), &small).text().contains("already used")
        }
    });
    let mut client = Client::connect(fleet.address(0));
    client.get_part(&target, "", 100_000);
    assert_eq!(get(fleet.address(1), &target).status, 401);
    fleet.servers[0].kill();
    let resume = "Range: bytes=100000-100099\r\n";
    until("taken over", || {
        Client::connect(fleet.address(1)).get_with(&target, resume).status == 206
    });
    assert_eq!(get(fleet.address(1), &small).status, 401, "spent stays spent");
    let status = fleet.nodes[1].run(&["status", "--config", "config.yml"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("answers; this front end is n1"), "{status}");
    assert!(status.contains("0 failures, 1 links taken over"), "{status}");
    let metrics = exchange(&fleet.nodes[1], &request("GET", "/metrics", "", ""));
    assert!(metrics.contains("winglet_shared_state_take_overs_total 1\n"), "{metrics}");
    // The one that comes back has lost the link, whatever its journal says.
    let back = fleet.nodes[0].start();
    back.wait_for_log("answers; this front end is");
    let answer = get(back.address(), &target);
    assert!(answer.status == 401 && answer.text().contains("elsewhere"), "{}", answer.raw);
}

#[test]
fn one_that_stops_gives_its_links_up_at_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "timeouts: {drain: 0s}");
    fleet.nodes[0].sparse("f", 64 << 20);
    let target = Token::file("/f").target();
    let part = "Range: bytes=0-9\r\n";
    assert_eq!(Client::connect(fleet.address(0)).get_with(&target, part).status, 206);
    fleet.servers[0].stop();
    assert_eq!(redis.ask("EXISTS winglet:node:n0"), ":0");
    assert_eq!(Client::connect(fleet.address(1)).get_with(&target, part).status, 206);
}

/// Owned links go on, and new ones are refused, until `mend`, and then nothing is forgotten.
fn goes_on_without(redis: &mut Redis, harm: impl Fn(&mut Redis), mend: impl Fn(&mut Redis)) {
    let mut fleet = Fleet::start(redis, 2, "");
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
    until("the other knows", || get(fleet.address(1), &owned).status == 401);
    assert_eq!(get(fleet.address(1), &fresh).status, 401);
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
fn an_emptied_redis_gives_nobodys_link_away() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 2, "");
    fleet.nodes[0].sparse("f", 64 << 20);
    let owned = Token::file("/f").target();
    let part = "Range: bytes=0-9\r\n";
    assert_eq!(Client::connect(fleet.address(0)).get_with(&owned, part).status, 206);
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    until("the other knows", || {
        let status = Client::connect(fleet.address(1)).get_with(&owned, part).status;
        assert!(matches!(status, 503 | 401), "{status}");
        status == 401
    });
    assert_eq!(Client::connect(fleet.address(0)).get_with(&owned, part).status, 206);
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
    assert_eq!(Client::connect(fleet.address(1)).get_with(&target, part).status, 401);
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

/// Killed when it goes out of scope, a failed test's as well.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn behind_the_shipped_haproxy_a_client_keeps_its_front_end_until_that_dies() {
    let Some(redis) = Redis::start(&[]) else { return };
    if !have("haproxy") {
        return;
    }
    let mut fleet = Fleet::start(&redis, 2, "").trusting();
    let content = pattern(100_000);
    fleet.nodes[0].file("f", &content);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/proxy/haproxy-front-ends.cfg");
    let front: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let certificate = " ssl crt /etc/haproxy/certs/node.example.com.pem alpn http/1.1";
    let config = fs::read_to_string(path).unwrap().replace(certificate, "");
    let config = config
        .replace("bind :443", &format!("bind {front}"))
        .replace("192.0.2.11:8081", &fleet.address(0).to_string())
        .replace("192.0.2.12:8081", &fleet.address(1).to_string());
    let file = redis.scratch.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let _proxy = Proxy(command.spawn().unwrap());
    until("it listens", || TcpStream::connect(front).is_ok());
    let target = Token::file("/f").target();
    let ask = |start: usize| {
        let range = format!("Range: bytes={start}-{}\r\n", start + 9_999);
        Client::connect_from("127.0.0.2", front).get_with(&target, &range)
    };
    for part in 0..5 {
        let answer = ask(part * 10_000);
        assert_eq!(answer.status, 206, "{}", answer.raw);
        assert!(answer.body == content[part * 10_000..][..10_000]);
    }
    let owner = || fleet.servers.iter().position(|server| server.log().contains("GET file 206"));
    until("the owner says so", || owner().is_some());
    let owner = owner().unwrap();
    fleet.servers[owner].kill();
    until("the other serves", || ask(50_000).status == 206);
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
