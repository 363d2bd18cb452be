//! Links for people whose address changes: who gets a link, when, and who never does.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, connect_from, get};
use crate::clients::{Download, curl};
use crate::delivery::{ended, node, range};
use crate::harness::{Node, PATIENCE, Random, Server, have, pattern};
use crate::mint::{Token, now};
use crate::proxy::{ACKNOWLEDGED_BY, Cut, Plan, Proxy};

const MIB: usize = 1 << 20;
/// Downloads of each kind and pool.
const DOWNLOADS: usize = 30;

/// `Retry-After` of an answer that says that the link is in use.
fn retry_after(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 503, "{}", answer.raw);
    answer.field("Retry-After").unwrap().parse().unwrap()
}

/// Downloads `target` over connections that break off at `breaks`, each from an address of its own.
/// Returns what has come.
fn download(
    server: &Server,
    target: &str,
    length: usize,
    breaks: &[usize],
    mut address: impl FnMut() -> String,
) -> Vec<u8> {
    let (mut content, mut tag) = (Vec::new(), String::new());
    for end in breaks.iter().copied().chain([length]) {
        let mut client = Client::connect_from(&address(), server.address());
        let part = format!("Range: bytes={}-\r\nIf-Range: {tag}\r\n", content.len());
        client.request("GET", target, if content.is_empty() { "" } else { &part });
        let answer = client.head().unwrap();
        assert_eq!(answer.status, if content.is_empty() { 200 } else { 206 }, "{}", answer.raw);
        answer.field("ETag").unwrap().clone_into(&mut tag);
        content.extend(client.read_some(end - content.len()));
        if end < length {
            // Whoever comes back before the server has heard of it waits for ten seconds.
            let seen = server.log().matches("interrupted").count();
            client.reset();
            server.wait_for_logs(seen + 1, "interrupted");
        }
    }
    content
}

/// With a strict binding, of 30 downloads from a pool of two addresses two arrived, and from four or
/// sixteen none.
#[test]
fn downloads_from_pools_of_addresses_arrive() {
    const LENGTH: usize = 8 * MIB;
    thread::scope(|scope| {
        for (pool, breaks) in [1, 2, 4, 16].into_iter().flat_map(|n| [(n, 1), (n, 3)]) {
            scope.spawn(move || {
                let (node, content) = node(LENGTH);
                let server = node.start();
                let mut random = Random(pool as u64 * 10 + breaks);
                for _ in 0..DOWNLOADS {
                    let target = Token::file("file").target();
                    let mut at: Vec<usize> =
                        (0..breaks).map(|_| 1 + random.below(LENGTH - 1)).collect();
                    at.sort_unstable();
                    let from = || format!("127.0.{pool}.{}", 1 + random.below(pool));
                    let came = download(&server, &target, LENGTH, &at, from);
                    assert!(came == *content, "pool of {pool}, {breaks} breaks");
                }
                println!("pool of {pool}, {breaks} breaks: {DOWNLOADS} of {DOWNLOADS} whole");
            });
        }
    });
}

#[test]
fn without_binding_sixteen_addresses_fetch_in_parallel() {
    const LENGTH: usize = 8 * MIB;
    let (node, content) = node(LENGTH);
    let node = node.winglet("bind_address: false");
    let server = node.start();
    for _ in 0..DOWNLOADS {
        let target = Token::file("file").target();
        let parts: Vec<Vec<u8>> = thread::scope(|scope| {
            let fetch = |number: usize| {
                let (target, address) = (&target, server.address());
                scope.spawn(move || {
                    let source = format!("127.0.0.{}", number + 1);
                    let (start, end) = (number * LENGTH / 16, (number + 1) * LENGTH / 16);
                    let mut client = Client::connect_from(&source, address);
                    let answer = client.get_with(target, &range(start, end));
                    assert_eq!(answer.status, 206, "{}", answer.raw);
                    answer.body
                })
            };
            let runs: Vec<_> = (0..16).map(fetch).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(parts.concat() == content);
    }
}

/// A client that fetches in parts, with pauses, loses its link to nobody, however often others ask.
/// Once it has stopped for ten seconds, they get it.
#[test]
fn whoever_polls_waits_until_the_holder_has_stopped() {
    let (node, content) = node(4 * MIB);
    let server = node.start();
    let (target, address) = (Token::file("file").target(), server.address());
    let (stopped, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let asked = AtomicUsize::new(0);
    let got = thread::scope(|scope| {
        let mut holder = Client::connect(address);
        let first = holder.get_with(&target, &range(0, MIB));
        assert!(first.status == 206 && first.body == content[..MIB]);
        let (stopped, asked, target, done) = (&stopped, &asked, &target, &done);
        let poller = scope.spawn(move || {
            let mut client = Client::connect_from("127.0.0.2", address);
            while !done.load(Ordering::Relaxed) {
                let answer = client.get_with(target, &range(2 * MIB, 2 * MIB + 10));
                asked.fetch_add(1, Ordering::Relaxed);
                if answer.status == 206 {
                    assert!(stopped.load(Ordering::Relaxed), "the holder is still at it");
                    return Some(Instant::now());
                }
                assert!((1..=10).contains(&retry_after(&answer)), "{}", answer.raw);
                thread::sleep(Duration::from_millis(50));
            }
            None
        });
        thread::sleep(Duration::from_secs(5));
        let second = holder.get_with(target, &range(MIB, 2 * MIB));
        assert!(second.status == 206 && second.body == content[MIB..2 * MIB]);
        let last = Instant::now();
        stopped.store(true, Ordering::Relaxed);
        server.wait_until("the link is handed over", |_| poller.is_finished());
        done.store(true, Ordering::Relaxed);
        poller.join().unwrap().unwrap().duration_since(last)
    });
    println!("{} polls; had after {got:?}", asked.load(Ordering::Relaxed));
    assert!(got >= Duration::from_millis(9_900), "{got:?}");
}

/// What a client with `Retry-After` makes of a link that is in use: its own connection has died
/// without a word, and it comes back from another address.
#[test]
fn clients_that_come_back_after_silence_wait_and_arrive() {
    const LENGTH: usize = 8 * MIB;
    let (node, content) = node(LENGTH);
    let server = node.start();
    type Make = fn(&Download, u64) -> Command;
    let clients: [(&str, Make); 2] = [
        ("curl", |download, wait| {
            let mut command = curl(download);
            command.args(["--retry", "9", "--retry-all-errors", "--retry-delay"]);
            // Without a delay of its own it follows Retry-After.
            command.arg(wait.to_string()).args(["-C", "-"]);
            command
        }),
        ("aria2c", |download, wait| {
            let mut command = Command::new("aria2c");
            command.args(["-q", "--no-conf", "--file-allocation=none", "--max-tries=20", "-o"]);
            command.args(["file", "-d"]).arg(download.directory());
            // With a wait of 0 it takes a 503 for the end.
            command.arg(format!("--retry-wait={}", wait.max(1)));
            command
        }),
    ];
    thread::scope(|scope| {
        for (name, make) in clients {
            if !have(name) {
                continue;
            }
            for wait in [0, 2, 12] {
                let (content, server) = (&content, &server);
                scope.spawn(move || {
                    let target = Token::file("file").target();
                    let sources = (1..30).map(|number| format!("127.0.{wait}.{number}"));
                    let cuts = vec![Cut::Silence(3 * MIB)];
                    let plan = Plan { sources: sources.collect(), cuts, ..Plan::default() };
                    let proxy = Proxy::with(server.address(), plan);
                    let download = Download::new();
                    download.run(make(&download, wait).arg(proxy.base() + &target));
                    assert!(download.content() == *content, "{name}, {wait}");
                    assert_eq!(proxy.cut(), 1, "{name}, {wait}");
                });
            }
        }
    });
}

/// Sixty of a hundred to one address, the rest to another, in both orders, over `kill -9`; nobody
/// else gets anything.
#[test]
fn a_delivered_link_is_for_those_who_held_it() {
    const LENGTH: usize = 4 * MIB;
    let cut = LENGTH * 6 / 10;
    for (first, second) in [(0..cut, cut..LENGTH), (cut..LENGTH, 0..cut)] {
        let node = Node::new().with_state().winglet("settle_time: 1m");
        let content = pattern(LENGTH);
        node.file("file", &content);
        let mut server = node.start();
        let target = Token::file("file").target();
        let fetch = |server: &Server, source: &str, part: &std::ops::Range<usize>| {
            let mut client = Client::connect_from(source, server.address());
            let answer = client.get_with(&target, &range(part.start, part.end));
            assert_eq!(answer.status, 206, "{source}: {}", answer.raw);
            assert!(answer.body == content[part.clone()]);
        };
        // The first one breaks off: it asked for more than its part.
        let mut client = Client::connect_from("127.0.0.2", server.address());
        let more = range(first.start, if first.start == 0 { LENGTH } else { first.end + 1 });
        let part = client.get_part(&target, &more, first.len() - 1);
        assert_eq!(part.status, 206);
        // By then its kernel has acknowledged what it has.
        thread::sleep(ACKNOWLEDGED_BY);
        client.reset();
        ended(&server, 1);
        let rest = if first.start == 0 { cut - 1..LENGTH } else { 0..cut };
        fetch(&server, "127.0.0.3", &rest);
        if first.start > 0 {
            fetch(&server, "127.0.0.3", &(LENGTH - 1..LENGTH));
        }
        server.wait_for_log(&format!("link={LENGTH}/{LENGTH}"));
        for _ in 0..2 {
            let mut stranger = Client::connect_from("127.0.0.4", server.address());
            let refused = stranger.get(&target);
            assert_eq!(refused.status, 401);
            assert!(refused.text().contains("already used"), "{}", refused.text());
            fetch(&server, "127.0.0.2", &second);
            fetch(&server, "127.0.0.3", &first);
            server.kill();
            server = node.start();
        }
    }
}

#[test]
fn after_exp_a_link_is_handed_to_nobody_new() {
    let (node, content) = node(4 * MIB);
    let server = node.start();
    let exp = now() + 2;
    let target = Token::file("file").with("exp", exp).target();
    let mut first = Client::connect_from("127.0.0.2", server.address());
    first.get_part(&target, "", MIB);
    first.reset();
    ended(&server, 1);
    let mut second = Client::connect_from("127.0.0.3", server.address());
    second.get_part(&target, &format!("Range: bytes={MIB}-\r\n"), MIB);
    second.reset();
    ended(&server, 2);
    server.wait_until("the token's end", |_| now() > exp);
    let refused = Client::connect_from("127.0.0.4", server.address()).get(&target);
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("expired"), "{}", refused.text());
    // Whoever held it goes on, the first one too.
    let mut first = Client::connect_from("127.0.0.2", server.address());
    let rest = first.get_with(&target, &format!("Range: bytes={MIB}-\r\n"));
    assert!(rest.status == 206 && rest.body == content[MIB..]);
}

/// Everything lay in the client's kernel for longer than a connection stays idle, and then it was
/// killed.
#[test]
fn silence_is_no_proof() {
    let (node, content) = node(60_000);
    let node = node.winglet("timeouts: { idle: 1s }");
    let server = node.start();
    let target = Token::file("file").target();
    let client = Client::over(connect_from("127.0.0.1", server.address(), Some(1 << 20)));
    let mut sender = client;
    sender.request("GET", &target, "");
    // The server gives up waiting for its end.
    server.wait_for_log("delivered");
    sender.reset();
    let again = get(server.address(), &target);
    assert!(again.status == 200 && again.body == content, "{}", again.raw);
}

/// Begun at one MiB, and two hundred by now: the link paid for 66.
#[test]
fn a_file_that_grows_arrives() {
    const GROWN: u64 = 200 * MIB as u64;
    let node = Node::new().with_state();
    node.file("file", &pattern(MIB));
    let mut server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    client.get_part(&target, "", MIB / 2);
    client.reset();
    ended(&server, 1);
    let file = fs::OpenOptions::new().append(true).open(node.volume().join("file")).unwrap();
    file.set_len(GROWN).unwrap();
    server.stop();
    server = node.start();
    let mut client = Client::connect(server.address());
    client.request("GET", &target, "");
    assert_eq!(client.head().unwrap().length(), Some(GROWN));
    client.each_chunk(GROWN, |_, _| ());
    drop(client);
    server.wait_for_log(&format!("link={GROWN}/{GROWN}"));
    assert_eq!(get(server.address(), &target).status, 401);
}

/// Sixteen connections whose client lost them without a word kept it out for a minute.
#[test]
fn a_seventeenth_stream_takes_the_place_of_a_dead_one() {
    // Nothing else would end them in time.
    let node = Node::new().winglet("min_rate: 1\ntimeouts: { stall: 10m }");
    node.sparse("file", 512 * MIB as u64);
    let server = node.start();
    let target = Token::file("file").target();
    let begin = |start: usize| {
        let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(8192)));
        client.request("GET", &target, &format!("Range: bytes={start}-\r\n"));
        client
    };
    let mut dead: Vec<Client> = (0..16).map(begin).collect();
    for client in &mut dead {
        assert_eq!(client.head().unwrap().status, 206);
    }
    let ask = || {
        let mut client = Client::connect(server.address());
        client.get_with(&target, &range(0, 100)).status
    };
    assert_eq!(ask(), 503, "they may be alive");
    let deadline = Instant::now() + PATIENCE;
    while ask() != 206 {
        assert!(Instant::now() < deadline, "it never comes in");
        thread::sleep(Duration::from_millis(100));
    }
    let ended = server.wait_for_log("interrupted");
    println!("{ended}");
}

/// aria2c and curl over IPv4 and IPv6 at the same time, which are two addresses: what comes over the
/// other one is answered with 503.
#[test]
fn one_client_over_two_families() {
    const LENGTH: usize = 16 * MIB;
    let (node, content) = node(LENGTH);
    let node = node.winglet("listen: [\"127.0.0.1:0\", \"[::1]:0\"]\nrate_limit: 8");
    let server = node.start();
    let bases: Vec<String> = server
        .wait_for_logs(2, "listening on http")
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect();
    if have("aria2c") {
        let (target, download) = (Token::file("file").target(), Download::new());
        let mut aria2c = Command::new("aria2c");
        aria2c.args(["-q", "--no-conf", "--file-allocation=none", "-x4", "-s8", "-k1M", "-o"]);
        aria2c.args(["file", "-d"]).arg(download.directory());
        download.run(aria2c.args(bases.iter().map(|base| format!("{base}{target}"))));
        assert!(download.content() == content);
        println!("aria2c: whole, {} answers were 503", server.log().matches(" 503 ").count());
    }
    if have("curl") {
        let target = Token::file("file").target();
        let downloads = [Download::new(), Download::new()];
        let before = server.log().matches(" 503 ").count();
        let mut first =
            downloads[0].start(curl(&downloads[0]).arg(format!("{}{target}", bases[0])));
        downloads[0].wait_for_bytes(MIB);
        let second = curl(&downloads[1]).arg(format!("{}{target}", bases[1])).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(22), "{said}");
        assert!(said.contains("503"), "{said}");
        assert!(first.wait().unwrap().success() && downloads[0].content() == content);
        assert_eq!(server.log().matches(" 503 ").count(), before + 1);
        println!("curl: the first whole, the second refused with 503");
    }
}
