//! The journal as an operator meets it: crashes, damage, two servers.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{Client, get};
use crate::confinement::has_landlock;
use crate::harness::{Node, Server, must_be_root, pattern};
use crate::mint::Token;

/// Rounds of the crash test, unless `WINGLET_CRASH_ROUNDS` says otherwise.
const CRASH_ROUNDS: usize = 30;
const LOADERS: usize = 3;

/// A link of its own to one of the numbered files. The log tells them apart by the file's name.
fn link(number: usize) -> String {
    Token::file(&format!("f/{number}")).target()
}

/// What one thread did to the server.
#[derive(Default)]
struct Load {
    /// Links that it used, with their numbers.
    used: Vec<(usize, String)>,
    /// One of them whose download did not come whole.
    lacking: Option<String>,
}

/// Downloads one link after the other, from number `first` on, until the server is gone.
fn load(address: SocketAddr, first: usize, stop: &AtomicBool) -> Load {
    let mut load = Load::default();
    while !stop.load(Ordering::Relaxed) {
        let number = first + load.used.len() * LOADERS;
        let target = link(number);
        load.used.push((number, target.clone()));
        let Ok(stream) = std::net::TcpStream::connect(address) else { break };
        let mut client = Client::over(stream);
        let request = format!("GET {target} HTTP/1.1\r\nHost: node\r\n\r\n");
        if client.try_send(request).is_err() || client.try_answer().is_err() {
            load.lacking = Some(target);
            break;
        }
    }
    load
}

/// The numbers of the files that the log calls delivered.
fn delivered(log: &str) -> Vec<usize> {
    log.lines()
        .filter(|line| line.ends_with(" delivered"))
        .map(|line| {
            let name = line.split("file=\"f/").nth(1).unwrap();
            name.split('"').next().unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn no_crash_revives_a_delivered_link() {
    let rounds = std::env::var("WINGLET_CRASH_ROUNDS");
    let rounds = rounds.map_or(CRASH_ROUNDS, |rounds| rounds.parse().unwrap());
    // One server has a quarter of the places, and 1,000 rounds take some 200,000.
    let node = Node::new().with_state().winglet("max_tracked_tokens: 2000000");
    let content = pattern(2000);
    fs::create_dir_all(node.volume().join("f")).unwrap();
    node.file("content", &content);
    let (mut made, mut next, mut checked, mut resumed) = (0, 0, 0, 0);
    let mut links: HashMap<usize, String> = HashMap::new();
    let mut lacking: Vec<String> = Vec::new();
    let mut seed = 1u64;
    for round in 0..rounds {
        while made < next + 4000 {
            // Not hard links: a file can have 65,000 of them, and 1,000 rounds want more.
            symlink("../content", node.volume().join(format!("f/{made}"))).unwrap();
            made += 1;
        }
        let mut server = node.start();
        // Everything that the last run reported is refused by this one.
        for target in links.values() {
            let again = get(server.address(), target);
            assert_eq!(again.status, 401, "round {round}: {}", again.raw);
            checked += 1;
        }
        // Whoever lacks bytes gets them.
        for target in lacking.drain(..) {
            let again = get(server.address(), &target);
            assert!(again.status == 200 && again.body == content, "round {round}: {}", again.raw);
            resumed += 1;
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_micros((seed >> 33) % 60_000);
        let (stop, address) = (AtomicBool::new(false), server.address());
        let loads: Vec<Load> = thread::scope(|scope| {
            let stop = &stop;
            let loaders: Vec<_> = (0..LOADERS)
                .map(|loader| scope.spawn(move || load(address, next + loader, stop)))
                .collect();
            thread::sleep(moment);
            server.kill();
            stop.store(true, Ordering::Relaxed);
            loaders.into_iter().map(|loader| loader.join().unwrap()).collect()
        });
        let mut used: HashMap<usize, String> = HashMap::new();
        for load in loads {
            used.extend(load.used);
            lacking.extend(load.lacking);
        }
        next = used.keys().max().map_or(next, |last| last + 1);
        links = delivered(&server.log())
            .into_iter()
            .filter_map(|number| used.get(&number).map(|target| (number, target.clone())))
            .collect();
    }
    println!("{rounds} crashes, {checked} delivered links refused, {resumed} others resumed");
    assert!(checked > rounds, "hardly any load: {checked}");
}

/// A node with a state directory, and the content of its file.
pub fn node() -> (Node, Vec<u8>) {
    let node = Node::new().with_state();
    let content = pattern(1000);
    node.file("file", &content);
    (node, content)
}

/// Uses a link up and stops the server cleanly; returns the link.
fn spend(node: &Node) -> String {
    let target = Token::file("file").target();
    let mut server = node.start();
    assert_eq!(get(server.address(), &target).status, 200);
    server.wait_for_log("delivered");
    server.stop();
    target
}

/// The server does not start, and says why.
pub fn assert_refuses(node: &Node, why: &str) {
    let mut server = node.launch(&[]);
    server.may_log_errors();
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    let log = server.log();
    assert!(log.contains("state_directory") && log.contains(why), "{log}");
}

#[test]
fn the_files_are_private() {
    let (node, _) = node();
    spend(&node);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(node.state()), 0o700);
    for name in ["journal", "lock"] {
        assert_eq!(mode(node.state().join(name)), 0o600, "{name}");
    }
    let journal = fs::read_to_string(node.state().join("journal")).unwrap();
    assert!(journal.starts_with("winglet-journal 3\n"), "{journal}");
    assert!(!journal.contains("file") && !journal.contains('\0'), "{journal}");
}

#[test]
fn damage_costs_no_good_record() {
    let (node, _) = node();
    let target = spend(&node);
    let path = node.state().join("journal");
    let content = fs::read_to_string(&path).unwrap();
    let torn =
        &content[content.rfind("\n").map_or(0, |end| content[..end].rfind('\n').unwrap() + 1)..];
    let cases = [
        format!("{content}{}", &torn[..torn.len() / 2]),
        format!("{content}garbage\nmore \u{1} of it\n"),
        content.replacen('\n', "\n0123 not a record\n", 1),
    ];
    for case in cases {
        fs::write(&path, case).unwrap();
        let mut server = node.start();
        assert!(server.log().contains("unreadable lines"), "{}", server.log());
        assert_eq!(get(server.address(), &target).status, 401);
        server.stop();
    }
}

#[test]
fn what_cannot_be_read_stops_the_start() {
    let (node, _) = node();
    let target = spend(&node);
    let path = node.state().join("journal");
    let content = fs::read(&path).unwrap();
    for bad in ["", "winglet-journal 4\nnew\n", "hello\n", "\u{0}\u{0}\u{0}"] {
        fs::write(&path, bad).unwrap();
        assert_refuses(&node, "move it away");
        let check = node.run(&["check", "--config", "config.yml"]);
        assert_eq!(check.status.code(), Some(1), "{bad:?}");
    }
    fs::write(&path, content).unwrap();
    let server = node.start();
    assert_eq!(get(server.address(), &target).status, 401);
}

#[test]
fn a_journal_of_another_user_stops_the_start() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let node = node.as_user(65_534);
    spend(&node);
    let path = node.state().join("journal");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    assert_refuses(&node, "cannot read");
}

#[test]
fn two_servers_cannot_share_a_directory() {
    let (node, _) = node();
    let mut first = node.start();
    assert_refuses(&node, "in use by another server");
    first.kill();
    // The lock of a dead server is none.
    let mut second = node.start();
    second.stop();
}

/// Downloads `count` links of their own.
pub fn spend_many(server: &Server, count: usize) -> Vec<String> {
    let before = server.log().matches(" delivered").count();
    let mut client = Client::connect(server.address());
    let targets: Vec<String> = (0..count).map(|_| Token::file("file").target()).collect();
    for target in &targets {
        assert_eq!(client.get(target).status, 200);
    }
    drop(client);
    server.wait_for_logs(before + count, " delivered");
    targets
}

#[test]
fn explain_reads_what_the_server_writes() {
    let (node, _) = node();
    let mut server = node.start();
    let token = Token::file("file");
    let says = |text: &str| {
        let output = node.run(&["explain", &token.target(), "--config", "config.yml"]);
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.contains(text), "{text}:\n{output}");
    };
    says("never used");
    let mut client = Client::connect(server.address());
    assert_eq!(client.get_with(&token.target(), "Range: bytes=0-399\r\n").status, 206);
    drop(client);
    server.wait_for_log("delivered");
    says("in progress: 400 of 1000 bytes delivered");
    says("held by      127.0.0.1");
    let mut client = Client::connect(server.address());
    assert_eq!(client.get_with(&token.target(), "Range: bytes=400-\r\n").status, 206);
    drop(client);
    server.wait_for_log("link=1000/1000");
    says("passes on    no more");
    server.stop();
}

/// Answered "already used" and killed within milliseconds, 23 of 23 links worked again.
#[test]
fn a_kill_after_already_used_revives_nothing() {
    let rounds = std::env::var("WINGLET_CRASH_ROUNDS");
    let rounds = rounds.map_or(10, |rounds| rounds.parse().unwrap());
    let (node, _) = node();
    let mut server = node.start();
    for round in 0..rounds {
        let target = Token::file("file").target();
        let mut client = Client::connect(server.address());
        assert_eq!(client.get(&target).status, 200);
        // On the same connection: it ends the first one, and may be answered before that is written.
        let refused = client.get(&target).status;
        server.kill();
        assert_eq!(refused, 401, "round {round}");
        server = node.start();
        assert_eq!(get(server.address(), &target).status, 401, "round {round}");
    }
}

/// A backup that was put back over the state, or a wrong `rm`: after a crash, every spent link
/// worked again.
#[test]
fn a_journal_that_is_replaced_or_removed_is_written_anew() {
    type Harm = fn(&Node);
    let harms: [(&str, Harm); 3] = [
        ("removed", |node| fs::remove_file(node.state().join("journal")).unwrap()),
        ("lock removed", |node| fs::remove_file(node.state().join("lock")).unwrap()),
        ("replaced", |node| {
            let copy = node.state().join("copy");
            fs::write(&copy, "winglet-journal 3\n").unwrap();
            fs::rename(copy, node.state().join("journal")).unwrap();
        }),
    ];
    let (node, _) = node();
    for (name, harm) in harms {
        let mut server = node.start();
        let target = Token::file("file").target();
        assert_eq!(get(server.address(), &target).status, 200);
        server.wait_for_log("delivered");
        let lines = || fs::read_to_string(node.state().join("journal")).unwrap_or_default();
        harm(&node);
        server.may_log_errors();
        server.wait_for_log("was replaced or removed while the server runs");
        server.wait_until("a new journal", |_| lines().contains(" spent "));
        server.kill();
        let server = node.start();
        assert_eq!(get(server.address(), &target).status, 401, "{name}");
    }
}

/// The sandbox keeps the server out of another directory of that name, so it says what to do. What it was
/// started with is of use again once it is moved back.
#[test]
fn a_directory_that_is_replaced_is_reported() {
    if !has_landlock() {
        return;
    }
    let (node, _) = node();
    let mut server = node.start();
    let (state, aside) = (node.state(), node.path().join("aside"));
    fs::rename(&state, &aside).unwrap();
    fs::create_dir(&state).unwrap();
    server.may_log_errors();
    server.wait_for_log("the directory itself was replaced, and the sandbox allows only the one");
    fs::remove_dir(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    server.kill();
    node.start();
}

#[test]
fn what_a_killed_server_left_goes_at_the_next_start() {
    let (node, _) = node();
    node.start().stop();
    let left = node.state().join("winglet-0123456789abcdef");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("s"), "").unwrap();
    fs::write(node.state().join("journal.new"), "winglet-journal 3\nhalf a l").unwrap();
    let _server = node.start();
    let mut names: Vec<_> = fs::read_dir(node.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["journal", "lock"]);
}
