//! A state directory on a disk that is full, frozen, or cannot be written to, at the start and later.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::client::{Client, connect_from, get};
use crate::control::status;
use crate::harness::{Server, have, must_be_root, pattern, skip};
use crate::journal::{assert_refuses, node, spend_many};
use crate::mint::Token;

#[test]
fn a_full_disk_is_reported_once_and_served_on() {
    if !have("prlimit") {
        return;
    }
    let (node, _) = node();
    // No file grows past this: the journal's writes fail, as on a full disk.
    let limit = ["prlimit", "--fsize=4096:4096", "sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let node = node.through(&limit);
    let mut server = node.start();
    server.may_log_errors();
    let targets = spend_many(&server, 60);
    server.wait_for_log("cannot write the journal");
    for target in &targets {
        assert_eq!(get(server.address(), target).status, 401, "in memory it is remembered");
    }
    assert_eq!(server.log().matches(" ERROR ").count(), 1, "{}", server.log());
    server.stop();
}

/// A file system of its own, unmounted in the end.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(at: PathBuf, arguments: &[&str]) -> Option<Mounted> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(&at).output().unwrap();
        if !mounted.status.success() {
            skip("mounting is not allowed here");
            return None;
        }
        Some(Mounted(at))
    }

    /// A small disk.
    fn small(at: PathBuf) -> Option<Mounted> {
        Mounted::mount(at, &["-t", "tmpfs", "-o", "size=64k,mode=0700", "winglet-test"])
    }

    /// A disk that can be frozen: tmpfs cannot.
    fn freezable(at: PathBuf) -> Option<Mounted> {
        let image = at.with_extension("img");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        if !have("mkfs.ext4") || !have("fsfreeze") {
            return None;
        }
        let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap();
        assert!(made.success());
        Mounted::mount(at, &["-o", "loop", image.to_str().unwrap()])
    }

    /// Lets whoever writes to it wait, until what is returned is dropped.
    fn freeze(&self) -> Option<Frozen<'_>> {
        let frozen = Command::new("fsfreeze").arg("--freeze").arg(&self.0).status().unwrap();
        if !frozen.success() {
            skip("file systems cannot be frozen here");
        }
        frozen.success().then_some(Frozen(self))
    }

    /// Fills the disk to its last byte, and returns what to remove again.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let _ = fs::write(&ballast, vec![0; 1 << 20]);
        ballast
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file system that takes nothing for now.
struct Frozen<'a>(&'a Mounted);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.0).status();
    }
}

/// All of `targets` are refused.
fn assert_spent(server: &Server, targets: &[String]) {
    for target in targets {
        assert_eq!(get(server.address(), target).status, 401);
    }
}

#[test]
fn a_disk_that_has_room_again_gets_everything() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let Some(small) = Mounted::small(node.state()) else { return };
    let mut server = node.start();
    server.may_log_errors();
    let early = spend_many(&server, 5);
    let ballast = small.fill();
    let late = spend_many(&server, 40);
    server.wait_for_log("cannot write the journal");
    assert_spent(&server, &late);
    fs::remove_file(&ballast).unwrap();
    server.wait_for_log("written again and complete");
    server.kill();
    let server = node.start();
    assert_spent(&server, &early);
    assert_spent(&server, &late);
}

#[test]
fn a_full_disk_at_the_start_is_reported_and_served_on() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let Some(small) = Mounted::small(node.state()) else { return };
    let mut server = node.start();
    let early = spend_many(&server, 5);
    server.kill();
    let ballast = small.fill();
    let mut server = node.start();
    server.may_log_errors();
    server.wait_for_log("ERROR state_directory: cannot write the journal");
    assert_spent(&server, &early);
    let late = spend_many(&server, 40);
    assert_spent(&server, &late);
    fs::remove_file(&ballast).unwrap();
    server.wait_for_log("written again and complete");
    server.kill();
    let server = node.start();
    assert_spent(&server, &early);
    assert_spent(&server, &late);
}

#[test]
fn a_read_only_disk_is_reported_and_served_on() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let state = node.state();
    let mut server = node.start();
    let early = spend_many(&server, 5);
    server.kill();
    let Some(bound) = Mounted::mount(state.clone(), &["--bind", &state.display().to_string()])
    else {
        return;
    };
    let remount = |options: &str| {
        let done = Command::new("mount").args(["-o", options]).arg(&bound.0).status();
        assert!(done.unwrap().success());
    };
    // At the start…
    remount("remount,bind,ro");
    let mut server = node.start();
    server.may_log_errors();
    server.wait_for_log("ERROR state_directory: cannot write the journal");
    assert_spent(&server, &early);
    let while_read_only = spend_many(&server, 5);
    assert_spent(&server, &while_read_only);
    assert_refuses(&node, "in use by another server");
    // …until it can be written to.
    remount("remount,bind,rw");
    server.wait_for_log("written again and complete");
    server.kill();
    let server = node.start();
    assert_spent(&server, &early);
    assert_spent(&server, &while_read_only);
}

#[test]
fn an_empty_read_only_disk_is_locked_and_written_once_it_can_be() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let Some(small) = Mounted::small(node.state()) else { return };
    let remount = |options: &str| {
        let done = Command::new("mount").args(["-o", options]).arg(&small.0).status();
        assert!(done.unwrap().success());
    };
    remount("remount,ro");
    let mut server = node.start();
    server.may_log_errors();
    assert!(server.log().contains("no lock"), "{}", server.log());
    server.wait_for_log("ERROR state_directory: cannot write the journal");
    let targets = spend_many(&server, 5);
    remount("remount,rw");
    server.wait_for_log("written again and complete");
    assert_refuses(&node, "in use by another server");
    server.kill();
    assert_spent(&node.start(), &targets);
}

#[test]
fn a_directory_that_its_user_may_not_write_to_is_reported_and_served_on() {
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let node = node.as_user(65_534);
    let mut server = node.start();
    let early = spend_many(&server, 5);
    server.kill();
    let server = {
        let command = node.command(&["serve", "--config", "config.yml"]);
        fs::set_permissions(node.state(), fs::Permissions::from_mode(0o500)).unwrap();
        Server::spawn(command, fs::read_to_string(node.config()).unwrap())
    };
    let mut server = server;
    server.may_log_errors();
    server.wait_for_log("ERROR state_directory: cannot write the journal");
    assert_spent(&server, &early);
    // The file itself can still be appended to.
    let late = spend_many(&server, 5);
    server.kill();
    fs::set_permissions(node.state(), fs::Permissions::from_mode(0o700)).unwrap();
    let server = node.start();
    assert_spent(&server, &early);
    assert_spent(&server, &late);
}

/// What has ended waits for its record, and makes no room for newcomers that there is not.
#[test]
fn a_frozen_disk_does_not_lift_the_limit_on_connections() {
    const LIMIT: usize = 40;
    if !must_be_root() {
        return;
    }
    let (node, _) = node();
    let node = node.winglet("control: unix:control.sock").winglet(&format!(
        "max_connections: {LIMIT}\nmin_rate: 0\ntimeouts: {{ stall: 10m, queue: 10m, head: 10m }}"
    ));
    let content = pattern(6 << 20);
    node.file("large", &content);
    let Some(disk) = Mounted::freezable(node.state()) else { return };
    let server = node.start();
    let clients: Vec<Client> = (0..24)
        .map(|number| {
            let source = format!("127.0.1.{}", number + 1);
            let mut client = Client::over(connect_from(&source, server.address(), Some(16 << 10)));
            client.request("GET", &Token::file("large").target(), "");
            assert_eq!(client.head().unwrap().status, 200);
            client
        })
        .collect();
    server.wait_until("all are parked", |_| status(&node)["phases"]["parked"] == 24);
    let Some(frozen) = disk.freeze() else { return };
    for mut client in clients {
        assert!(client.read_some(content.len()) == content);
    }
    // More than fit, each at an address of its own, that want what has to be written.
    let count = || -> u64 {
        let status = status(&node);
        let connections = status["connections"].as_object().unwrap();
        let of = |(name, count): (&String, &Value)| {
            if name == "limit" { 0 } else { count.as_u64().unwrap() }
        };
        connections.iter().map(of).sum()
    };
    let newcomers: Vec<Client> = (0..3 * LIMIT)
        .map(|number| {
            let source = format!("127.0.2.{}", number + 1);
            let mut client = Client::connect_from(&source, server.address());
            let _ = client.try_send(format!(
                "GET {} HTTP/1.1\r\nHost: node\r\n\r\n",
                Token::file("large").target()
            ));
            assert!(count() <= LIMIT as u64, "{:#}", status(&node)["connections"]);
            client
        })
        .collect();
    // There is always a place for a head.
    assert_eq!(get(server.address(), "/health").text(), "{\"status\":\"ok\"}");
    assert!(count() <= LIMIT as u64, "{:#}", status(&node)["connections"]);
    drop(frozen);
    drop(newcomers);
    server.wait_for_logs(24, &format!("bytes={0}/{0} link={0}/{0} ", content.len()));
    server.wait_until("all have ended", |_| count() == 0);
}
