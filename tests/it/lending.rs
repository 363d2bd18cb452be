//! Pages that are lent to sockets: where that is refused, and what a cut download leaves behind.

use std::fs;
use std::ops::Range;
use std::thread;

use crate::client::Client;
use crate::harness::{Node, Random, Server, have, pattern, skip};
use crate::mint::Token;

const MIB: usize = 1 << 20;

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
        let server = node.start();
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        for token in [Token::file("large"), Token::backup()] {
            let answer = Client::connect(server.address()).get(&token.target());
            assert!(answer.body == content, "with error {error}");
        }
        server.wait_for_logs(2, " delivered");
    }
}

/// Downloads that are cut; `WINGLET_TEST_CUTS` sets another number.
const CUTS: usize = 800;
/// Clients at a time.
const CLIENTS: usize = 32;
/// Files, each unlike the others from its first byte on.
const FILES: usize = 6;
const LENGTH: usize = 3 * MIB;

#[test]
fn a_cut_download_leaves_nothing_and_nothing_of_it_reaches_another() {
    let node = Node::new().winglet("reuse: unlimited\nmax_connections_per_address: 1000");
    let all = pattern(FILES * LENGTH);
    let contents: Vec<&[u8]> = all.chunks(LENGTH).collect();
    for (number, content) in contents.iter().enumerate() {
        node.file(&format!("file{number}"), content);
    }
    let server = node.start();
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
                    let file = random.below(FILES);
                    let start = random.below(LENGTH - MIB / 4);
                    let read = random.below(LENGTH - start);
                    let source = format!("127.0.0.{}", 2 + client);
                    cut(server, &source, file, contents[file], start..start + read);
                }
            });
        }
    });
    server.wait_until("no connection left", |server| server.descriptors() == before);
    // One client that reads to the end, after all of them.
    let answer = Client::connect(server.address()).get(&Token::file("file0").target());
    assert!(answer.body == contents[0]);
}

/// Reads `span` of a file from an answer that goes on to the file's end, and hangs up.
fn cut(server: &Server, source: &str, file: usize, content: &[u8], span: Range<usize>) {
    let mut client = Client::connect_from(source, server.address());
    let range = format!("Range: bytes={}-\r\n", span.start);
    client.request("GET", &Token::file(&format!("file{file}")).target(), &range);
    let head = client.head().unwrap();
    assert_eq!(head.status, 206, "{}", head.raw);
    let came = client.read_some(span.len());
    assert!(came == content[span], "other bytes");
}
