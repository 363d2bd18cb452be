//! Pages that are lent to sockets: where that is refused, and what a cut download leaves behind.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::thread;

use crate::client::{Client, connect_from, get};
use crate::harness::{Node, Random, Server, have, pattern, skip};
use crate::mint::Token;
use crate::stalled::{Stalled, byte_at};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// Members of a folder, in the order of the archive: large ones and, between them, what is copied.
const MEMBERS: [(&str, usize); 10] = [
    ("a", 700),
    ("b", 20 * MIB + 17),
    ("c", 0),
    ("d", 1),
    ("e", 64 * KIB),
    ("f", 64 * KIB + 1),
    ("g", 192 * KIB),
    ("h/a", 3 * MIB),
    ("h/b", 512),
    ("i", 2 * MIB - 1),
];

/// Writes the folder `world`, in which no two places are alike.
fn plant(node: &Node) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = pattern(MEMBERS.iter().map(|member| member.1).sum());
    let split = MEMBERS.map(|(name, length)| {
        let content: Vec<u8> = all.drain(..length).collect();
        node.file(&format!("world/{name}"), &content);
        (name, content)
    });
    split.into()
}

fn folder(format: &str) -> String {
    format!("{}&archive_format={format}", Token::directory("world").target())
}

/// The tar holds these files and no others.
fn assert_holds(archive: &[u8], members: &[(&str, Vec<u8>)]) {
    let mut members = members.iter();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let (name, content) = members.next().unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some(*name));
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert!(bytes == *content, "{name} has other bytes");
        }
    }
    assert!(members.next().is_none());
}

/// Bytes that the server has read by read(2) and its like. What it lends is not among them.
fn read_bytes(server: &Server) -> usize {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn the_large_members_of_a_tar_are_lent_and_arrive_as_they_are() {
    for line in ["bandwidth: 0", "bandwidth: 128"] {
        let node = Node::new().winglet(line);
        let members = plant(&node);
        let server = node.start();
        let before = read_bytes(&server);
        let whole = get(server.address(), &folder("tar"));
        assert_eq!(whole.status, 200, "{}", whole.raw);
        let read = read_bytes(&server) - before;
        assert!(read < whole.body.len() / 4, "{read} bytes of {} were read", whole.body.len());
        assert_holds(&whole.body, &members);
        // One that is parked again and again.
        let stream = connect_from("127.0.0.1", server.address(), Some(32 * KIB));
        assert!(Client::over(stream).get(&folder("tar")).body == whole.body);
    }
}

#[test]
fn any_part_of_an_archive_is_that_part_of_the_whole() {
    let node = Node::new().winglet("reuse: unlimited");
    plant(&node);
    let server = node.start();
    for format in ["tar", "zip"] {
        let whole = get(server.address(), &folder(format)).body;
        let mut random = Random(7);
        let mut client = Client::connect(server.address());
        for _ in 0..60 {
            let start = random.below(whole.len());
            let bound = [KIB, 300 * KIB, 8 * MIB][random.below(3)];
            let length = 1 + random.below(bound);
            let end = whole.len().min(start + length);
            let fields = format!("Range: bytes={start}-{}\r\n", end - 1);
            let answer = client.get_with(&folder(format), &fields);
            assert_eq!(answer.status, 206, "{}", answer.raw);
            assert!(answer.body == whole[start..end], "{format} {start}..{end}");
        }
    }
}

/// Runs its arguments under a filter (seccomp(2), linux/filter.h) by which splice(2) fails with the
/// error of this number.
const FILTER: &str = "
import ctypes, os, struct, sys
number = {'x86_64': 275, 'aarch64': 76}[os.uname().machine]
program = struct.pack('HBBI', 0x20, 0, 0, 0)
program += struct.pack('HBBI', 0x15, 0, 1, number)
program += struct.pack('HBBI', 0x06, 0, 0, 0x00050000 | int(sys.argv[1]))
program += struct.pack('HBBI', 0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
head = struct.pack('HxxxxxxP', 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(head), 0, 0):
    sys.exit(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
";

/// EPERM, EINVAL, ENOSYS: as a filter, a file system and an old kernel say it.
const REFUSALS: [&str; 3] = ["1", "22", "38"];

#[test]
fn where_splice_is_refused_files_are_copied() {
    if !have("python3") {
        return;
    }
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return skip("the number of splice is not known here");
    }
    let content = pattern(20 * MIB + 17);
    for error in REFUSALS {
        let node = Node::new().through(&["python3", "-c", FILTER, error]);
        node.file("large", &content);
        node.backup(&content);
        let members = plant(&node);
        let server = node.start();
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        for token in [Token::file("large"), Token::backup()] {
            let answer = Client::connect(server.address()).get(&token.target());
            assert!(answer.body == content, "with error {error}");
        }
        assert_holds(&get(server.address(), &folder("tar")).body, &members);
        server.wait_for_logs(3, " delivered");
    }
}

/// A file system in user space: with pages to lend, and, if it does not cache them, without.
#[test]
fn a_file_of_fuse_arrives_as_it_is() {
    const LENGTH: u64 = (20 << 20) + 17;
    for cached in [true, false] {
        // The sandbox knows the directories as they were at the start, without what is mounted later.
        let node = Node::new().winglet("sandbox: false");
        let server = node.start();
        let Some(_disk) = Stalled::never(&node.volume(), LENGTH, cached) else { return };
        let answer = Client::connect(server.address()).get(&Token::file("file").target());
        assert_eq!(answer.status, 200, "{}", answer.raw);
        assert!((0..LENGTH).map(byte_at).eq(answer.body), "cached: {cached}");
        server.wait_for_log(" delivered");
    }
}

/// Downloads that are cut; `WINGLET_TEST_CUTS` sets another number.
const CUTS: usize = 800;
/// Clients at a time.
const CLIENTS: usize = 32;
/// Files, each unlike the others from its first byte on; a folder of other ones comes on top, in each
/// format.
const FILES: usize = 6;
const LENGTH: usize = 3 * MIB;
const FORMATS: [&str; 2] = ["tar", "zip"];

/// Something to download, newly linked to.
fn target(number: usize) -> String {
    match number.checked_sub(FILES) {
        None => Token::file(&format!("file{number}")).target(),
        Some(number) => folder(FORMATS[number]),
    }
}

#[test]
fn a_cut_download_leaves_nothing_and_nothing_of_it_reaches_another() {
    let node = Node::new().winglet("reuse: unlimited\nmax_connections_per_address: 1000");
    let all = pattern(FILES * LENGTH);
    let mut contents: Vec<&[u8]> = all.chunks(LENGTH).collect();
    for (number, content) in contents.iter().enumerate() {
        node.file(&format!("file{number}"), content);
    }
    plant(&node);
    let server = node.start();
    let archives = FORMATS.map(|format| get(server.address(), &folder(format)).body);
    contents.extend(archives.iter().map(|archive| &archive[..]));
    drop(Client::connect(server.address()).get("/health"));
    server.wait_until_asleep();
    let before = server.descriptors();
    let cuts = std::env::var("WINGLET_TEST_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, contents) = (&server, &contents);
            scope.spawn(move || {
                let mut random = Random(client as u64 + 1);
                for _ in 0..cuts / CLIENTS {
                    let number = random.below(contents.len());
                    let content = contents[number];
                    let start = random.below(content.len() - MIB / 4);
                    let read = random.below(LENGTH.min(content.len() - start));
                    let source = format!("127.0.0.{}", 2 + client);
                    cut(server, &source, &target(number), content, start..start + read);
                }
            });
        }
    });
    server.wait_until("no connection left", |server| server.descriptors() == before);
    // One client that reads to the end, after all of them.
    let answer = Client::connect(server.address()).get(&Token::file("file0").target());
    assert!(answer.body == contents[0]);
}

/// Reads `span` of `content` from an answer that goes on to its end, and hangs up.
fn cut(server: &Server, source: &str, target: &str, content: &[u8], span: Range<usize>) {
    let mut client = Client::connect_from(source, server.address());
    let range = format!("Range: bytes={}-\r\n", span.start);
    client.request("GET", target, &range);
    let head = client.head().unwrap();
    assert_eq!(head.status, 206, "{}", head.raw);
    let came = client.read_some(span.len());
    assert!(came == content[span], "other bytes");
}
