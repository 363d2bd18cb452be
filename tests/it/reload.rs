//! TERM, HUP, and what a service manager is told: draining, reloading, the notify socket, pid file.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from, get};
use crate::control::status;
use crate::harness::{KEY, Node, PATIENCE, Server, have, pattern, skip};
use crate::mint::Token;
use crate::stalled::{Stalled, busy_workers};

/// More than all buffers on the way hold.
const LARGE: usize = 8 << 20;

/// A client that has read no more than the head of `name`, through a small receive buffer.
fn begin(server: &Server, name: &str) -> Client {
    let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(16 << 10)));
    client.request("GET", &Token::file(name).target(), "");
    assert_eq!(client.head().unwrap().status, 200);
    client
}

/// Changes the configuration file of a running server and has it read again.
fn change(node: &Node, server: &Server, from: &str, to: &str, outcome: &str) {
    let config = fs::read_to_string(node.config()).unwrap();
    assert!(config.contains(from), "no {from:?} in:\n{config}");
    fs::write(node.config(), config.replace(from, to)).unwrap();
    let before = server.log().matches(outcome).count();
    server.signal("HUP");
    server.wait_for_logs(before + 1, outcome);
}

#[test]
fn downloads_of_different_speeds_end_in_peace() {
    let node = Node::new();
    let content = pattern(LARGE);
    node.file("large", &content);
    let mut server = node.start();
    let address = server.address();
    let clients = [0, 1, 4].map(|pause| (begin(&server, "large"), Duration::from_millis(pause)));
    server.signal("TERM");
    server.wait_for_log("stopping");
    assert!(TcpStream::connect(address).is_err(), "a new connection is accepted");
    thread::scope(|scope| {
        for (mut client, pause) in clients {
            let content = &content;
            scope.spawn(move || {
                client.each_chunk(LARGE as u64, |offset, piece| {
                    let offset = usize::try_from(offset).unwrap();
                    assert!(piece == &content[offset..offset + piece.len()]);
                    thread::sleep(pause);
                });
                assert!(client.is_closed());
            });
        }
    });
    assert!(server.wait().success());
    assert_eq!(server.log().matches(" delivered").count(), 3, "{}", server.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let node = Node::new();
    node.sparse("large", LARGE as u64);
    let mut server = node.start();
    let mut client = begin(&server, "large");
    server.signal("TERM");
    server.wait_for_log("stopping");
    server.signal("INT");
    assert!(server.wait().success());
    assert!(client.read_to_end().len() < LARGE);
}

/// What is parked, and what a worker holds whose disk stalls: each has its line in the log, and its link
/// is known to be as far as it came.
#[test]
fn what_does_not_end_in_time_is_cut() {
    const READABLE: u64 = 4 << 20;
    let node = Node::new().with_state();
    let node = node.winglet("timeouts: { drain: 300ms }\ncontrol: unix:control.sock");
    node.backup(&pattern(LARGE));
    let Some(stalled) = Stalled::after(&node.volume(), LARGE as u64, READABLE) else {
        return;
    };
    let mut server = node.start();
    let [parked, held] = [Token::backup(), Token::file("file")];
    let clients = [(&parked, "127.0.0.1"), (&held, "127.0.0.2")].map(|(token, source)| {
        let mut client = Client::over(connect_from(source, server.address(), Some(16 << 10)));
        client.request("GET", &token.target(), "");
        assert_eq!(client.head().unwrap().status, 200);
        client
    });
    server.wait_until("both are parked", |_| status(&node)["phases"]["parked"] == 2);
    let [mut idle, reading] = clients;
    let reading = thread::spawn(move || io::copy(&mut reading.stream(), &mut io::sink()));
    let sent = || status(&node)["downloads"][1]["sent"].as_u64().unwrap();
    server.wait_until("a worker waits for the disk", |_| {
        let before = sent();
        thread::sleep(Duration::from_millis(100));
        before == sent() && before > READABLE / 2 && busy_workers(&node) == 1
    });
    server.stop();
    let _ = reading.join().unwrap();
    assert!(idle.read_to_end().len() < LARGE);
    assert!(server.log().contains("drain: 2 connections did not end in time"), "{}", server.log());
    drop(stalled);
    for (token, what) in [(&parked, " backup="), (&held, " file=\"file\" ")] {
        let lines: Vec<_> =
            server.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{what}: {}", server.log());
        assert!(lines[0].ends_with(" interrupted: server stopping"), "{lines:?}");
        let sent = lines[0].split(" bytes=").nth(1).unwrap().split('/').next().unwrap();
        assert_ne!(sent, "0", "{lines:?}");
        let explained = node.run(&["explain", &token.sign()]);
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(text.contains(&format!("in progress: {sent} of {LARGE} bytes")), "{text}");
    }
}

/// They have their answers, and the server waits for them no longer than a moment.
#[test]
fn clients_that_do_not_hang_up_delay_no_end() {
    let node = Node::new().winglet("timeouts: { drain: 4s }");
    let mut server = node.start();
    let mut before = Client::connect(server.address());
    before.send("GET /health HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    assert_eq!(before.answer().status, 200);
    let mut meanwhile = Client::connect(server.address());
    meanwhile.send("GET /health HTTP/1.1\r\n");
    server.signal("TERM");
    server.wait_for_log("stopping");
    meanwhile.send("Host: node\r\n\r\n");
    assert_eq!(meanwhile.answer().status, 200);
    assert!(server.wait().success());
    assert!(!server.log().contains("did not end in time"), "{}", server.log());
}

/// Downloads that are as fast as they can be are at a worker, or about to be.
#[test]
fn a_second_signal_leaves_no_download_without_its_line() {
    const CLIENTS: usize = 6;
    let node = Node::new().with_state();
    node.sparse("huge", 1 << 40);
    let mut server = node.start();
    let (ready, began) = (Barrier::new(CLIENTS + 1), Barrier::new(CLIENTS + 1));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, ready, began) = (&server, &ready, &began);
            scope.spawn(move || {
                let source = format!("127.0.0.{}", number + 1);
                let mut client = Client::connect_from(&source, server.address());
                let answer = client.get_part(&Token::file("huge").target(), "", 8 << 20);
                assert_eq!(answer.status, 200);
                ready.wait();
                began.wait();
                io::copy(&mut client.stream(), &mut io::sink()).unwrap_or_default();
            });
        }
        ready.wait();
        began.wait();
        server.signal("TERM");
        server.wait_for_log("stopping");
        server.signal("TERM");
    });
    assert!(server.wait().success());
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" GET file 200 ")).collect();
    assert_eq!(lines.len(), CLIENTS, "{log}");
    for line in lines {
        assert!(line.ends_with(" interrupted: server stopping"), "{line}");
    }
}

/// Which are sent to a process that has yet to read its configuration.
#[test]
fn signals_that_come_before_it_serves_are_not_lost() {
    if !have("mkfifo") {
        return;
    }
    for signal in ["HUP", "USR1", "TERM"] {
        let node = Node::new();
        let config = fs::read_to_string(node.write_config()).unwrap();
        fs::remove_file(node.config()).unwrap();
        assert!(Command::new("mkfifo").arg(node.config()).status().unwrap().success());
        let command = node.command(&["serve", "--config", "config.yml"]);
        let mut server = Server::over(command, config.clone());
        // Opened once the server opens it, too.
        let mut pipe = fs::File::options().write(true).open(node.config()).unwrap();
        server.signal(signal);
        fs::remove_file(node.config()).unwrap();
        fs::write(node.config(), &config).unwrap();
        pipe.write_all(config.as_bytes()).unwrap();
        drop(pipe);
        match signal {
            "HUP" => drop(server.wait_for_log("reload: done")),
            "USR1" => drop(server.wait_for_log("status: up ")),
            _ => assert!(server.wait().success(), "{}", server.log()),
        }
    }
}

/// One client has the server to itself, and is limited all the same.
#[test]
fn a_reload_reaches_a_download_that_a_worker_holds() {
    let node = Node::new().winglet("bandwidth: 0\ncontrol: unix:control.sock");
    node.sparse("huge", 1 << 40);
    let server = node.start();
    let mut client = Client::connect(server.address());
    let stream = client.stream().try_clone().unwrap();
    assert_eq!(client.get_part(&Token::file("huge").target(), "", 8 << 20).status, 200);
    let read = thread::spawn(move || io::copy(&mut client.stream(), &mut io::sink()));
    let row = || status(&node)["downloads"][0].clone();
    server.wait_until("a worker has it", |_| busy_workers(&node) == 1);
    change(&node, &server, "bandwidth: 0", "bandwidth: 2", "reload: done");
    server.wait_until("it is limited", |_| row()["state"] == "limited");
    // Two MiB per second, and what had been given out before.
    let (since, before) = (Instant::now(), row()["sent"].as_u64().unwrap());
    server.wait_until("some more is sent", |_| row()["sent"].as_u64() >= Some(before + (4 << 20)));
    assert!(since.elapsed() >= Duration::from_secs(1), "4 MiB in {:?}", since.elapsed());
    // And back.
    change(&node, &server, "bandwidth: 2", "bandwidth: 0", "reload: done");
    server.wait_until("it is limited no more", |_| row()["state"] != "limited");
    stream.shutdown(Shutdown::Both).unwrap();
    let _ = read.join().unwrap();
}

#[test]
fn a_request_that_is_under_way_when_the_server_stops_is_answered() {
    let node = Node::new();
    node.file("small", b"content");
    let mut server = node.start();
    let address = server.address();
    let mut idle = Client::connect(address);
    assert_eq!(idle.get("/health").status, 200);
    let target = Token::file("small").target();
    let mut halfway = Client::connect(address);
    assert_eq!(halfway.get("/health").status, 200);
    halfway.send(format!("GET {target} HTTP/1.1\r\n"));
    let mut silent = Client::connect(address);
    // By the answer to this one, all that came before it is accepted and read.
    assert_eq!(get(address, "/health").status, 200);
    server.signal("TERM");
    server.wait_for_log("stopping");
    assert!(idle.is_closed(), "an idle connection stays");
    halfway.send("Host: node\r\n\r\n");
    let answer = halfway.answer();
    assert_eq!((answer.status, answer.field("Connection")), (200, Some("close")));
    let answer = silent.get(&Token::file("small").target());
    assert_eq!((answer.status, answer.field("Connection")), (200, Some("close")));
    drop((halfway, silent));
    assert!(server.wait().success());
}

#[test]
fn a_reload_changes_token_reuse_and_limits() {
    let node = Node::new().winglet("max_token_lifetime: 24h\nreuse: resume");
    node.file("small", b"content");
    let server = node.start();
    let head = |token: &Token| {
        let mut client = Client::connect(server.address());
        client.request("HEAD", &token.target(), "");
        client.bodiless_answer()
    };
    let token = Token::file("small");
    assert_eq!(head(&token).field("Accept-Ranges"), Some("bytes"));
    change(&node, &server, "reuse: resume", "reuse: once", "reload: done");
    assert_eq!(head(&token).field("Accept-Ranges"), Some("none"));
    change(&node, &server, "max_token_lifetime: 24h", "max_token_lifetime: 5m", "reload: done");
    assert_eq!(head(&token).status, 401);
    change(&node, &server, "max_token_lifetime: 5m", "max_token_lifetime: 1h", "reload: done");
    assert_eq!(head(&token).status, 200);
    let other = "another-key-of-sixteen-bytes-and-more";
    change(&node, &server, KEY, other, "reload: done");
    assert_eq!(head(&token).status, 401);
    assert_eq!(head(&token.signed_with(other.as_bytes())).status, 200);
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_so() {
    let node = Node::new().winglet("reuse: resume");
    node.file("small", b"content");
    let mut server = node.start();
    server.may_log_errors();
    let stays = "the configuration has errors; the one in force stays";
    change(&node, &server, "reuse: resume", "reuse: twice", stays);
    assert!(server.log().contains("winglet.reuse"), "{}", server.log());
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
    change(&node, &server, "reuse: twice", "reuse: [", stays);
    fs::remove_file(node.config()).unwrap();
    server.signal("HUP");
    server.wait_for_logs(3, stays);
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
}

#[test]
fn what_takes_a_restart_is_kept_and_named() {
    let node = Node::new().winglet("threads: 4");
    node.file("small", b"content");
    node.write_config();
    let check = node.run(&["check"]);
    let landlock = String::from_utf8_lossy(&check.stdout).contains("Landlock, ");
    let server = node.start();
    change(&node, &server, "threads: 4", "threads: 5", "reload: done");
    server.wait_for_log("winglet.threads needs a restart");
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
    fs::create_dir(node.path().join("elsewhere")).unwrap();
    change(&node, &server, "data: volumes", "data: elsewhere", "reload: done");
    let named = server.log().contains("system.data needs a restart");
    let status = get(server.address(), &Token::file("small").target()).status;
    if landlock {
        assert!(named && status == 200, "{status}\n{}", server.log());
    } else {
        skip("this kernel has no Landlock");
        assert!(!named && status == 404, "{status}\n{}", server.log());
    }
}

#[test]
fn a_token_in_a_file_of_its_own_is_read_again_under_the_sandbox() {
    let node = Node::new();
    node.file("small", b"content");
    let secrets = node.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let file = secrets.join("token");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    node.write_config();
    // In a directory of its own, so that the rule for the configuration does not cover the token.
    let etc = node.path().join("etc");
    fs::create_dir(&etc).unwrap();
    let config = fs::read_to_string(node.config()).unwrap();
    let config = config
        .replace(&format!("token: {KEY}"), "token: file://../secrets/token")
        .replace("data: volumes", "data: ../volumes")
        .replace("backup_directory: backups", "backup_directory: ../backups");
    fs::write(etc.join("config.yml"), config).unwrap();
    let command = node.command(&["serve", "--config", "etc/config.yml"]);
    let server = Server::spawn(command, String::new());
    let token = Token::file("small");
    assert_eq!(get(server.address(), &token.target()).status, 200);
    let other = "another-key-of-sixteen-bytes-and-more";
    fs::write(&file, other).unwrap();
    server.signal("HUP");
    server.wait_for_log("reload: done");
    let token = Token::file("small").signed_with(other.as_bytes());
    assert_eq!(get(server.address(), &token.target()).status, 200);
}

#[test]
fn a_service_manager_is_told() {
    let node = Node::new();
    node.sparse("large", LARGE as u64);
    let path = node.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let news = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let node = node.env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut server = node.start();
    assert_eq!(news(), "READY=1");
    server.signal("HUP");
    let reloading = news();
    let (first, second) = reloading.split_once('\n').unwrap();
    assert_eq!(first, "RELOADING=1");
    let microseconds = second.strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(microseconds.parse::<u64>().unwrap() > 0);
    assert_eq!(news(), "READY=1");
    let client = begin(&server, "large");
    server.signal("TERM");
    // At the beginning of the drain, not at its end.
    assert_eq!(news(), "STOPPING=1");
    assert!(server.is_alive());
    drop(client);
    assert!(server.wait().success());
}

#[test]
fn the_pid_file_is_filled_once_it_serves_and_removed_at_the_end() {
    let node = Node::new();
    node.write_config();
    let path = node.path().join("winglet.pid");
    let mut server = node.start_with(&["--pid-file", "winglet.pid"]);
    let pid = format!("{}\n", server.pid());
    server.wait_until("pid file", |_| fs::read_to_string(&path).is_ok_and(|text| text == pid));
    // A second server on the same address fails before it touches the file of the first.
    let listen = server.address().to_string();
    let second = node.run(&["serve", "--pid-file", "winglet.pid", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), pid);
    server.stop();
    assert!(!path.exists());
    let mut third = node.launch(&["--pid-file", "nowhere/winglet.pid"]);
    assert_eq!(third.wait().code(), Some(1));
    assert!(
        third.log().contains("--pid-file: cannot write nowhere/winglet.pid"),
        "{}",
        third.log()
    );
}
