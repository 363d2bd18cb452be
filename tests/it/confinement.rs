//! The sandbox from inside: what a process that tries cannot do, root or not.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::thread;

use winglet::clock::Clock;
use winglet::process::notify::Notifier;
use winglet::process::sandbox::{self, Allowed, Sandbox};
use winglet::process::signals::Signals;
use winglet::server::{self, Opened, Server as InProcess};
use winglet::shared::Shared;

use crate::client::{Client, get};
use crate::harness::{Node, OTHER_SERVER, is_root};
use crate::mint::Token;

/// Whether this kernel has Landlock. Prints why a test is skipped where it has not.
fn has_landlock() -> bool {
    let has = sandbox::probe() != Sandbox::None;
    if !has {
        eprintln!("skipped: this kernel has no Landlock");
    }
    has
}

/// A link to the password file of the machine, through a volume that leads to /etc.
fn shadow(node: &Node) -> Token {
    symlink("/etc", node.path().join("volumes").join(OTHER_SERVER)).unwrap();
    Token::file("shadow").with("server_uuid", OTHER_SERVER)
}

#[test]
fn the_password_file_is_out_of_reach_even_for_root() {
    if !has_landlock() || !is_root() {
        return;
    }
    let node = Node::new().with_state();
    node.file("small", b"content");
    let link = shadow(&node);
    let mut server = node.start();
    server.wait_for_log("sandbox: Landlock, ");
    let answer = get(server.address(), &link.target());
    assert!(matches!(answer.status, 404 | 500), "{}", answer.raw);
    assert!(!answer.text().contains("root:"));
    // What it is for still works: files, and the memory of used links.
    assert_eq!(get(server.address(), &Token::file("small").target()).status, 200);
    server.wait_for_log(" delivered");
    let written: u64 = fs::read_dir(node.state())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(written > 0, "the state directory is empty");
    server.stop();

    // The same without: the test would see it.
    let open = Node::new().winglet("sandbox: false");
    let link = shadow(&open);
    let server = open.start();
    server.wait_for_log("sandbox: switched off by winglet.sandbox");
    let answer = get(server.address(), &link.target());
    assert_eq!(answer.status, 200, "{}", answer.raw);
    assert!(answer.body == fs::read("/etc/shadow").unwrap());
}

#[test]
fn check_says_what_is_in_force() {
    let said = |node: Node| {
        node.write_config();
        String::from_utf8(node.run(&["check"]).stdout).unwrap()
    };
    let on = said(Node::new());
    let expected = format!("  sandbox        {}\n", sandbox::probe());
    assert!(on.contains(&expected), "{on}");
    let off = said(Node::new().winglet("sandbox: false"));
    assert!(off.contains("  sandbox        switched off by winglet.sandbox\n"), "{off}");
}

/// Starts a server whose threads are confined, and none of this test's own: its shared state, its
/// address, and the way to stop it.
fn confined(node: &Node) -> (Arc<Shared>, SocketAddr, impl FnOnce()) {
    let config_file = node.write_config();
    let start = move || {
        let none = |_: &str| None;
        let loaded = winglet::config::load(&[config_file], &[], &none);
        let config = loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.findings));
        let opened = Opened::open(&config, &none).unwrap();
        let (signals, mut stop) = Signals::unconnected().unwrap();
        if let Some(directory) = &config.state_directory {
            fs::create_dir_all(directory).unwrap();
        }
        let base = server::private_base(&config);
        // Binds this thread and those it starts.
        sandbox::enter(&Allowed::by(&config, &base, None)).unwrap();
        assert!(fs::read("/etc/passwd").is_err());
        let server = InProcess::start(config, opened, signals, Clock::System, true).unwrap();
        let address = server.addresses()[0].rsplit("://").next().unwrap().parse().unwrap();
        let shared = Arc::clone(server.shared());
        let house = thread::spawn(move || {
            let read = |_: &[_]| winglet::config::Loaded::default();
            server.run_housekeeping(&read, &Notifier::connect(&|_: &str| None))
        });
        let end = move || {
            stop.write_all(b"x").unwrap();
            house.join().unwrap().unwrap();
        };
        (shared, address, end)
    };
    thread::spawn(start).join().unwrap()
}

fn survives_the_loss_of_the_private_socket(node: &Node) {
    node.file("small", b"content");
    let (shared, address, end) = confined(node);
    for _ in 0..3 {
        shared.sabotage_private_socket();
        // By the second answer on one connection the acceptor has seen it, by the next it has a
        // new one.
        let mut client = Client::connect(address);
        for _ in 0..3 {
            assert_eq!(client.get("/health").status, 200);
        }
    }
    assert_eq!(get(address, &Token::file("small").target()).status, 200);
    end();
}

#[test]
fn the_private_socket_is_rebuilt_inside_the_sandbox() {
    if !has_landlock() {
        return;
    }
    for long in ["", &format!("state_directory: {}", "long-name-".repeat(12))] {
        survives_the_loss_of_the_private_socket(&Node::new().winglet(long));
    }
    survives_the_loss_of_the_private_socket(&Node::new().with_state());
}
