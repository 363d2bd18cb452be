//! A state directory on a disk that is full or cannot be written to, at the start and later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::client::get;
use crate::harness::{Server, have, must_be_root, skip};
use crate::journal::{assert_refuses, node, spend_many};

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
