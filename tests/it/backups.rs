//! Backups: every layout that nodes have, and which one wins.

use std::fs;
use std::os::unix::fs::symlink;

use crate::client::get;
use crate::harness::{BACKUP, Node, OTHER_SERVER, SERVER, Server};
use crate::mint::Token;

/// Where a backup may lie, first choice first.
fn layouts() -> [String; 4] {
    [
        format!("{SERVER}/{BACKUP}.tar.gz"),
        format!("{BACKUP}.tar.gz"),
        format!("{SERVER}/backup-{BACKUP}.tar.gz"),
        format!("backup-{BACKUP}.tar.gz"),
    ]
}

fn put(node: &Node, layout: &str, content: &str) {
    let path = node.backups().join(layout);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn fetch(server: &Server) -> (u16, String) {
    let answer = get(server.address(), &Token::backup().target());
    if answer.status == 200 {
        let name = format!("attachment; filename=\"backup-{BACKUP}.tar.gz\"");
        assert_eq!(answer.field("Content-Disposition"), Some(name.as_str()));
    }
    (answer.status, answer.text())
}

#[test]
fn every_layout_is_found_and_the_first_wins() {
    let node = Node::new();
    let server = node.start();
    // From the last choice to the first: each hides the ones after it.
    for layout in layouts().iter().rev() {
        put(&node, layout, layout);
        assert_eq!(fetch(&server), (200, layout.clone()));
    }
    // And back, each uncovered by the removal of the one before.
    for pair in layouts().windows(2) {
        fs::remove_file(node.backups().join(&pair[0])).unwrap();
        assert_eq!(fetch(&server), (200, pair[1].clone()));
    }
    fs::remove_file(node.backups().join(&layouts()[3])).unwrap();
    let (status, text) = fetch(&server);
    assert_eq!((status, text.contains("may be stored in S3")), (404, true), "{text}");
    server.wait_for_log("refused: no such backup in any layout");
}

#[test]
fn each_layout_alone_is_enough() {
    for layout in layouts() {
        let node = Node::new();
        put(&node, &layout, &layout);
        let server = node.start();
        assert_eq!(fetch(&server), (200, layout));
    }
}

#[test]
fn a_backup_needs_no_volume() {
    let node = Node::new();
    node.backup(b"archive");
    fs::remove_dir(node.volume()).unwrap();
    let server = node.start();
    assert_eq!(fetch(&server), (200, "archive".into()));
    // It does not need a volumes directory either.
    fs::remove_dir(node.path().join("volumes")).unwrap();
    let server = node.start();
    assert_eq!(fetch(&server), (200, "archive".into()));
    assert!(server.log().contains(" WARN  system.data: "), "{}", server.log());
    let file = get(server.address(), &Token::file("a").target());
    assert_eq!(file.status, 404);
}

#[test]
fn files_need_no_backups() {
    let node = Node::new();
    node.file("a", b"content");
    fs::remove_dir(node.backups()).unwrap();
    let server = node.start();
    assert_eq!(get(server.address(), &Token::file("a").target()).status, 200);
    let (status, text) = fetch(&server);
    assert_eq!((status, text.contains("S3")), (404, true), "{text}");
}

#[test]
fn another_servers_backup_is_not_there() {
    let node = Node::new();
    let elsewhere = node.backups().join(OTHER_SERVER);
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join(format!("{BACKUP}.tar.gz")), b"secret").unwrap();
    let server = node.start();
    assert_eq!(fetch(&server).0, 404);
}

#[test]
fn what_is_no_regular_file_or_leads_away_is_not_there() {
    let node = Node::new();
    let first = node.backups().join(&layouts()[0]);
    fs::create_dir_all(&first).unwrap();
    let server = node.start();
    assert_eq!(fetch(&server).0, 404, "a directory");
    fs::remove_dir(&first).unwrap();
    let outside = node.path().join("outside");
    fs::write(&outside, b"secret").unwrap();
    for target in [outside.to_str().unwrap(), "../../outside", "/proc/self/environ"] {
        symlink(target, &first).unwrap();
        let (status, text) = fetch(&server);
        assert_eq!((status, text.contains("secret")), (404, false), "{target}");
        fs::remove_file(&first).unwrap();
    }
    symlink("stored", &first).unwrap();
    fs::write(first.with_file_name("stored"), b"archive").unwrap();
    assert_eq!(fetch(&server), (200, "archive".into()), "a link inside");
}
