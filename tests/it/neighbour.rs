//! A download beside a game server: what it leaves in the page cache, what it takes from there, and
//! how often it reads the disk for it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise, statfs};

use crate::client::{Client, connect_from};
use crate::harness::{Node, Server, have, is_quiet, pattern, skip};
use crate::mint::Token;

const MIB: u64 = 1 << 20;
/// More than one step of dropping what was acknowledged, which is 16 MiB.
const LENGTH: usize = 24 << 20;

fn node() -> Node {
    Node::new().winglet("reuse: unlimited\nmin_rate: 0")
}

/// Whether the page cache is to be measured, and the node's file system has one. Other programs, and
/// a kernel that reclaims memory, change what is measured.
fn has_cache(node: &Node) -> bool {
    if !is_quiet() {
        return false;
    }
    /// ext4, XFS, Btrfs; from linux/magic.h.
    const KINDS: [i64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
    let kind = statfs(node.path()).unwrap().f_type;
    if !KINDS.contains(&(kind as i64)) {
        skip("the directory for temporary files is on none of ext4, XFS, Btrfs");
        return false;
    }
    have("fincore")
}

/// Takes a file from the cache.
fn chill(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(cached(path), 0, "something else has the file open");
}

/// Bytes of a file that are in the cache.
fn cached(path: &Path) -> u64 {
    let output = Command::new("fincore").args(["-nbo", "RES"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Bytes that the server has read from the disk.
fn disk_reads(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

/// At most 1.1 times the bytes sent, and the places that were looked at.
fn assert_few_reads(server: &Server, sent: usize) {
    let reads = disk_reads(server);
    assert!(reads <= sent as u64 * 11 / 10 + MIB / 8, "{reads} bytes read for {sent}");
}

#[test]
fn what_was_downloaded_is_not_in_the_cache() {
    let node = node();
    if !has_cache(&node) {
        return;
    }
    // A backup at any size, whoever has it in the cache.
    let contents = [pattern(LENGTH), pattern(100_000)];
    let (file, backup) = (node.file("large", &contents[0]), node.backup(&contents[1]));
    let member = node.file("world/large", &contents[0]);
    chill(&file);
    chill(&member);
    // What is not on the disk yet cannot be dropped.
    File::open(&backup).unwrap().sync_all().unwrap();
    let server = node.start();
    for (token, content) in [Token::file("large"), Token::backup()].iter().zip(&contents) {
        let mut client = Client::connect(server.address());
        assert!(client.get(&token.target()).body == *content);
    }
    let tar = format!("{}&archive_format=tar", Token::directory("world").target());
    assert_eq!(Client::connect(server.address()).get(&tar).status, 200);
    server.wait_for_logs(3, "delivered");
    let left = (cached(&file), cached(&member), cached(&backup));
    assert!(left.0 <= MIB && left.1 <= MIB && left.2 == 0, "{left:?} are left in the cache");
    assert_few_reads(&server, 2 * LENGTH);
}

#[test]
fn a_file_in_use_comes_from_the_cache_and_stays_there() {
    let node = node();
    if !has_cache(&node) {
        return;
    }
    let content = pattern(LENGTH);
    let world = node.file("world", &content);
    File::open(&world).unwrap().sync_all().unwrap();
    let server = node.start();
    let mut client = Client::connect(server.address());
    assert_eq!(cached(&world), LENGTH as u64, "something else has dropped it");
    assert!(client.get(&Token::file("world").target()).body == content);
    server.wait_for_log("delivered");
    assert_eq!(cached(&world), LENGTH as u64);
    assert!(disk_reads(&server) < MIB);
}

#[test]
fn with_keep_the_cache_fills() {
    let node = node().winglet("page_cache: keep");
    if !has_cache(&node) {
        return;
    }
    let file = node.file("large", &pattern(LENGTH));
    chill(&file);
    let server = node.start();
    assert_eq!(Client::connect(server.address()).get(&Token::file("large").target()).status, 200);
    assert_eq!(cached(&file), LENGTH as u64);
}

/// Reads to the end with a pause every 256 KiB, so that the transfer is parked over and over.
fn read_with_pauses(server: &Server, source: &str) -> usize {
    let mut stream = connect_from(source, server.address(), Some(64 << 10));
    let fields = "Connection: close\r\n";
    let target = Token::file("large").target();
    Client::over(stream.try_clone().unwrap()).request("GET", &target, fields);
    let (mut piece, mut came) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => return came,
            count => came += count,
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn slow_readers_of_one_file_share_what_one_has_read() {
    for readers in [1, 12] {
        let node = node().winglet("threads: 4");
        if !has_cache(&node) {
            return;
        }
        let file = node.file("large", &pattern(LENGTH));
        chill(&file);
        let server = node.start();
        thread::scope(|scope| {
            for number in 0..readers {
                let source = format!("127.0.0.{}", 2 + number);
                let server = &server;
                scope.spawn(move || assert!(read_with_pauses(server, &source) > LENGTH));
            }
        });
        server.wait_for_logs(readers, "delivered");
        // The first of them may have gone past the cache before the others came.
        assert_few_reads(&server, if readers == 1 { LENGTH } else { 2 * LENGTH });
        let left = cached(&file);
        assert!(left <= MIB, "{left} bytes of {readers} readers are left in the cache");
    }
}

#[test]
fn a_file_system_that_cannot_is_read_like_any_other() {
    let volumes = Path::new("/dev/shm").join(format!("winglet-it-{}", std::process::id()));
    let server_volume = volumes.join(crate::harness::SERVER);
    if fs::create_dir_all(&server_volume).is_err() {
        return skip("/dev/shm cannot be written to");
    }
    let content = pattern(LENGTH);
    fs::write(server_volume.join("large"), &content).unwrap();
    let places = format!("system:\n  data: {}\n  backup_directory: backups", volumes.display());
    let node = Node::new().top_level(&places);
    node.backup(&content);
    let server = node.start();
    let answer = Client::connect(server.address()).get(&Token::file("large").target());
    fs::remove_dir_all(&volumes).unwrap();
    assert!(answer.body == content);
}
