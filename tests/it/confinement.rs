//! The sandbox from inside: what a process that tries cannot do, root or not.

use std::fs;
use std::os::unix::fs::symlink;

use winglet::process::sandbox::{self, Sandbox};

use crate::client::get;
use crate::harness::{Node, OTHER_SERVER, must_be_root, skip};
use crate::mint::Token;

/// Whether this kernel has Landlock; a skip if it does not.
pub fn has_landlock() -> bool {
    let has = sandbox::probe() != Sandbox::None;
    if !has {
        skip("this kernel has no Landlock");
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
    if !has_landlock() || !must_be_root() {
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
