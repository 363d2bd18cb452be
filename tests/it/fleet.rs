//! Several front ends: a link is one link on all of them.

use std::fs;
use std::io::BufRead;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::client::{Client, get};
use crate::control::{exchange, request};
use crate::front_ends::{Fleet, Redis, free_port, key, location, next_line, until};
use crate::harness::{have, pattern};
use crate::mint::Token;

#[test]
fn of_three_front_ends_one_delivers() {
    let Some(redis) = Redis::start(&[]) else { return };
    let more = "max_connections_per_address: 1000\ncontrol: unix:control.sock";
    let fleet = Fleet::start(&redis, 3, more);
    fleet.introduce();
    fleet.nodes[0].file("f", b"content");
    let mut redirects = 0;
    for apart in [false, true] {
        let targets: Vec<_> = (0..1000).map(|_| Token::file("/f").target()).collect();
        let all = fleet.all_at_once(&targets, apart);
        for (number, target) in targets.iter().enumerate() {
            let answers: Vec<_> = all.iter().map(|answers| &answers[number]).collect();
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
    let token = Token::file("/f");
    let target = token.target();
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
    // In parts, so that it is open to its holder for a while, and to nobody else.
    until("covered for all", || redis.field(&token, "state") == "covered");
    for number in 0..3 {
        let stranger = Client::connect_from("127.0.0.9", fleet.address(number)).get(&target);
        assert_eq!(stranger.status, if number == 0 { 401 } else { 307 }, "{}", stranger.raw);
    }
    assert_eq!(get(fleet.address(0), &target).status, 200);
    until("spent for all", || redis.field(&token, "state") == "spent");
    assert!((0..3).all(|number| get(fleet.address(number), &target).status == 401));
    // From the owner: one claim, and one word each that it is covered and spent.
    let questions = questions(&redis, &mut monitor, &token);
    let of_owner = questions.iter().filter(|line| line.contains("\"n0\"")).count();
    assert_eq!(of_owner, 3, "{questions:#?}");
}

/// What was asked about the link of `token` since `monitor` began.
fn questions(redis: &Redis, monitor: &mut impl BufRead, token: &Token) -> Vec<String> {
    redis.ask("SET done 1");
    let lines = std::iter::repeat_with(|| next_line(monitor));
    let lines = lines.take_while(|line| !line.contains("\"done\""));
    let key = key(token);
    lines.filter(|line| line.contains(&key) && !line.contains("lua]")).collect()
}

#[test]
fn a_link_takes_one_round_trip_and_one_more_for_each_hand_over() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 1, "take_over_after: 60s");
    fleet.nodes[0].sparse("f", 64 << 20);
    let token = Token::file("/f");
    let mut monitor = redis.monitor();
    for part in 0..20 {
        let range = format!("{}-{}", part << 20, (part << 20) + 499_999);
        assert_eq!(fleet.part(0, 1, &token, &range).status, 206);
    }
    assert_eq!(questions(&redis, &mut monitor, &token).len(), 1);
    drop(monitor);
    let take = |last: u8| {
        let mut client = Client::connect_from(&format!("127.0.0.{last}"), fleet.address(0));
        client.request("GET", &token.target(), "");
        (client.head().unwrap().status == 200).then_some(client)
    };
    let broken = |last: u8| {
        until("the holder before is gone", || {
            take(last).is_some_and(|mut client| {
                client.read_some(1 << 20);
                client.reset();
                true
            })
        });
    };
    broken(1);
    let mut monitor = redis.monitor();
    for last in [2, 1, 3] {
        let before = redis.field(&token, "holders");
        broken(last);
        until("it was told", || redis.field(&token, "holders") != before);
    }
    let questions = questions(&redis, &mut monitor, &token);
    let of_owner = questions.iter().filter(|line| line.contains("\"n0\"")).count();
    assert_eq!(of_owner, 3, "{questions:#?}");
    assert_eq!(redis.field(&token, "holders").split(' ').count(), 3);
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
    assert_eq!(answer.status, 503, "{}", answer.raw);
    assert!(answer.field("Retry-After").is_some() && answer.field("WWW-Authenticate").is_none());
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
    assert_eq!(get(fleet.address(1), &target).status, 503);
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
    assert!(answer.status == 503 && answer.text().contains("elsewhere"), "{}", answer.raw);
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
