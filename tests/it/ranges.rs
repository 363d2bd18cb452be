//! Ranges and preconditions over the wire, on fresh and on kept-alive connections.

use std::ops::Range;

use crate::client::{Answer, Client};
use crate::harness::{Node, Server, pattern};
use crate::mint::Token;

const GIB5: u64 = 5 << 30;
/// Bodies up to this size are read and compared.
const READ: u64 = 64 * 1024;

/// What a `Range` selects.
#[derive(Clone, Copy)]
enum Expected {
    Whole,
    Part(u64, u64),
    Not,
}
use Expected::{Not, Part, Whole};

/// `Range` values, the file's length, and what they select; ends are exclusive.
#[rustfmt::skip]
const TABLE: &[(&str, u64, Expected)] = &[
    ("bytes=0-0", 10, Part(0, 1)), ("bytes=0-9", 10, Part(0, 10)),
    ("bytes=0-", 10, Part(0, 10)), ("bytes=9-", 10, Part(9, 10)),
    ("bytes=10-", 10, Not), ("bytes=10-12", 10, Not),
    ("bytes=5-100", 10, Part(5, 10)), ("bytes=-1", 10, Part(9, 10)),
    ("bytes=-10", 10, Part(0, 10)), ("bytes=-11", 10, Part(0, 10)),
    ("bytes=-0", 10, Not), ("bytes=-00", 10, Not),
    ("bytes=3-3", 10, Part(3, 4)), ("bytes=003-0004", 10, Part(3, 5)),
    ("BYTES=3-4", 10, Part(3, 5)), ("bytes= 3-4", 10, Part(3, 5)),
    ("bytes=0-4,5-9", 10, Part(0, 10)), ("bytes=5-9,0-4", 10, Part(0, 10)),
    ("bytes=0-6,3-9", 10, Part(0, 10)), ("bytes=2-3,2-3,2-3", 10, Part(2, 4)),
    ("bytes=0-1,1-2,2-3", 10, Part(0, 4)), ("bytes=0-,-1", 10, Part(0, 10)),
    ("bytes=8-,-3", 10, Part(7, 10)), ("bytes=0-1,,2-3", 10, Part(0, 4)),
    ("bytes=,0-1", 10, Part(0, 2)), ("bytes=0-1,", 10, Part(0, 2)),
    ("bytes=0-1 , 2-3", 10, Part(0, 4)), ("bytes=0-1,20-30", 10, Part(0, 2)),
    ("bytes=20-30,-0", 10, Not), ("bytes=20-30,40-50", 10, Not),
    ("bytes=0-1,5-6", 10, Whole), ("bytes=0-0,-1", 10, Whole),
    ("bytes=0-1,3-4,6-7", 10, Whole), ("", 10, Whole),
    ("bytes", 10, Whole), ("bytes=", 10, Whole),
    ("bytes=,", 10, Whole), ("bytes=-", 10, Whole),
    ("bytes=--1", 10, Whole), ("bytes=1--2", 10, Whole),
    ("bytes=5-3", 10, Whole), ("bytes=0-4,5-3", 10, Whole),
    ("bytes=a-b", 10, Whole), ("bytes=1-b", 10, Whole),
    ("bytes=1", 10, Whole), ("bytes=1-2-3", 10, Whole),
    ("bytes=+1-2", 10, Whole), ("bytes=1-+2", 10, Whole),
    ("bytes=0x1-0x2", 10, Whole), ("bytes=1.0-2", 10, Whole),
    ("bytes=1 -2", 10, Whole), ("bytes=1- 2", 10, Whole),
    ("bytes:1-2", 10, Whole), ("byte=1-2", 10, Whole),
    ("items=1-2", 10, Whole), ("bytes=1-2;3-4", 10, Whole),
    ("bytes=bytes=1-2", 10, Whole), ("bytes=9223372036854775808-", 10, Not),
    ("bytes=18446744073709551616-", 10, Not), ("bytes=99999999999999999999999999-", 10, Not),
    ("bytes=0-18446744073709551615", 10, Part(0, 10)),
    ("bytes=0-99999999999999999999999999", 10, Part(0, 10)),
    ("bytes=-18446744073709551616", 10, Part(0, 10)),
    ("bytes=18446744073709551615-18446744073709551615", 10, Not),
    ("bytes=0-0", 0, Not), ("bytes=0-", 0, Whole), ("bytes=-0", 0, Not),
    ("bytes=-1", 0, Whole), ("bytes=1-", 0, Not), ("bytes", 0, Whole),
    ("bytes=0-0", 1, Part(0, 1)), ("bytes=0-", 1, Part(0, 1)), ("bytes=1-1", 1, Not),
    ("bytes=-1", 1, Part(0, 1)), ("bytes=-5", 1, Part(0, 1)), ("bytes=-0", 1, Not),
    ("bytes=0-0,0-0", 1, Part(0, 1)), ("bytes=9223372036854775808-", 1, Not),
    ("bytes=0-0", GIB5, Part(0, 1)),
    ("bytes=2147483647-2147483648", GIB5, Part(2_147_483_647, 2_147_483_649)),
    ("bytes=4294967295-4294967296", GIB5, Part(4_294_967_295, 4_294_967_297)),
    ("bytes=5368709119-", GIB5, Part(GIB5 - 1, GIB5)), ("bytes=5368709120-", GIB5, Not),
    ("bytes=-1", GIB5, Part(GIB5 - 1, GIB5)), ("bytes=-65536", GIB5, Part(GIB5 - READ, GIB5)),
    ("bytes=-5368709121", GIB5, Part(0, GIB5)), ("bytes=0-4294967295,4294967296-", GIB5, Part(0, GIB5)),
    ("bytes=1-", GIB5, Part(1, GIB5)), ("bytes=0-0,-1", GIB5, Whole),
    ("bytes=9223372036854775808-", GIB5, Not),
];

fn node() -> Node {
    // None of this may depend on how often a link is used.
    let node = Node::new().winglet("reuse: unlimited");
    for length in [0, 1, 10] {
        node.file(&length.to_string(), &pattern(length));
    }
    node.sparse(&GIB5.to_string(), GIB5);
    node
}

fn target(length: u64) -> String {
    Token::file(&length.to_string()).target()
}

fn content(length: u64, span: &Range<u64>) -> Vec<u8> {
    if length == GIB5 {
        return vec![0; (span.end - span.start) as usize];
    }
    pattern(length as usize)[span.start as usize..span.end as usize].to_vec()
}

/// Checks an answer; `false` if its body is too large to be read, and the connection of no more use.
fn check(client: &mut Client, answer: &Answer, length: u64, expected: Expected) -> bool {
    let (status, span, content_range) = match expected {
        Whole => (200, 0..length, None),
        Part(start, end) => (206, start..end, Some(format!("bytes {start}-{}/{length}", end - 1))),
        Not => (416, 0..0, Some(format!("bytes */{length}"))),
    };
    assert_eq!(answer.status, status, "{}", answer.raw);
    assert_eq!(answer.field("Content-Range"), content_range.as_deref(), "{}", answer.raw);
    let announced = answer.length().unwrap();
    if status == 416 {
        assert!(client.read_some(announced as usize).starts_with(b"{\"error\""));
        return true;
    }
    assert_eq!(announced, span.end - span.start, "{}", answer.raw);
    assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
    assert!(answer.field("ETag").is_some_and(|tag| tag.starts_with('"')), "{}", answer.raw);
    if announced > READ {
        return false;
    }
    assert!(client.read_some(announced as usize) == content(length, &span), "{}", answer.raw);
    true
}

#[test]
fn the_matrix_on_fresh_connections() {
    assert!(TABLE.len() >= 80);
    let node = node();
    let server = node.start();
    for (value, length, expected) in TABLE {
        let mut client = Client::connect(server.address());
        client.request("GET", &target(*length), &format!("Range: {value}\r\n"));
        let answer = client.head().unwrap_or_else(|error| panic!("{value} of {length}: {error}"));
        check(&mut client, &answer, *length, *expected);
    }
}

#[test]
fn the_matrix_on_a_kept_alive_connection() {
    let node = node();
    let server = node.start();
    let mut client = Client::connect(server.address());
    for (value, length, expected) in TABLE {
        client.request("GET", &target(*length), &format!("Range: {value}\r\n"));
        let answer = client.head().unwrap_or_else(|error| panic!("{value} of {length}: {error}"));
        if !check(&mut client, &answer, *length, *expected) {
            client = Client::connect(server.address());
        }
    }
}

#[test]
fn many_ranges_in_one_head() {
    let node = node();
    let server = node.start();
    let mut client = Client::connect(server.address());
    let ranges =
        |count: usize| (0..count).map(|i| format!("{i}-{i}")).collect::<Vec<_>>().join(",");
    let merging = format!("Range: bytes={}\r\n", ranges(1000));
    let answer = client.get_with(&target(10), &merging);
    assert_eq!((answer.status, answer.field("Content-Range")), (206, Some("bytes 0-9/10")));
    assert_eq!(answer.body, pattern(10));
    let apart = format!("Range: bytes={}\r\n", ["0-0", "9-9"].repeat(1000).join(","));
    assert_eq!(client.get_with(&target(10), &apart).status, 200);
    // Two lines are ambiguous: the whole file.
    let twice = "Range: bytes=0-0\r\nRange: bytes=1-1\r\n";
    assert_eq!(client.get_with(&target(10), twice).body, pattern(10));
    let too_many = format!("Range: bytes={}\r\n", ranges(5000));
    client.request("GET", &target(10), &too_many);
    assert_eq!(client.head().unwrap().status, 431);
}

struct Validated {
    tag: String,
    date: String,
}

fn validated(server: &Server) -> Validated {
    let answer = Client::connect(server.address()).get(&target(10));
    let field = |name: &str| answer.field(name).unwrap().to_owned();
    Validated { tag: field("ETag"), date: field("Last-Modified") }
}

#[test]
fn preconditions_on_one_connection() {
    let node = node();
    let server = node.start();
    let Validated { tag, date } = validated(&server);
    let (past, future) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 06 Nov 2226 08:49:37 GMT");
    let part = "Range: bytes=2-4\r\n";
    let table = [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n{part}"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        (format!("If-None-Match: \"x\"\r\n{part}"), 206),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {future}\r\n"), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("If-Modified-Since: {past}\r\n{part}"), 206),
        (format!("If-Match: {tag}\r\n{part}"), 206),
        (format!("If-Match: \"x\", {tag}\r\n"), 200),
        (format!("If-Match: W/{tag}\r\n"), 412),
        (format!("If-Match: \"x\"\r\n{part}"), 412),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"), 412),
        (format!("If-Unmodified-Since: {past}\r\n"), 412),
        (format!("If-Unmodified-Since: {date}\r\n{part}"), 206),
        (format!("If-Range: {tag}\r\n{part}"), 206),
        (format!("If-Range: {date}\r\n{part}"), 206),
        (format!("If-Range: \"x\"\r\n{part}"), 200),
        (format!("If-Range: W/{tag}\r\n{part}"), 200),
        (format!("If-Range: {past}\r\n{part}"), 200),
        // Not satisfiable, but of another version: the whole file.
        ("If-Range: \"x\"\r\nRange: bytes=10-\r\n".into(), 200),
        ("Range: bytes=10-\r\n".into(), 416),
    ];
    let mut client = Client::connect(server.address());
    for (fields, status) in table {
        let answer = client.get_with(&target(10), &fields);
        assert_eq!(answer.status, status, "{fields}{}", answer.raw);
        match status {
            200 => assert_eq!(answer.body, pattern(10)),
            206 => assert_eq!(answer.body, pattern(10)[2..5]),
            304 => {
                assert!(answer.body.is_empty());
                assert_eq!(answer.field("ETag"), Some(tag.as_str()));
                assert!(matches!(answer.length(), None | Some(10)), "{}", answer.raw);
            }
            _ => assert!(answer.text().starts_with("{\"error\""), "{}", answer.text()),
        }
    }
}

#[test]
fn head_ignores_ranges_and_has_no_body() {
    let node = node();
    let server = node.start();
    let mut client = Client::connect(server.address());
    for fields in ["", "Range: bytes=2-4\r\n", "Range: bytes=10-\r\n"] {
        client.request("HEAD", &target(10), fields);
        let answer = client.bodiless_answer();
        let range = answer.field("Content-Range");
        // RFC 9110 §14.2: Range means nothing to methods other than GET.
        assert_eq!((answer.status, answer.length(), range), (200, Some(10), None), "{fields}");
    }
    assert_eq!(client.get(&target(10)).body, pattern(10));
}

#[test]
fn requests_without_content_use_no_link() {
    let node = Node::new();
    node.file("file", &pattern(10));
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect_from("127.0.0.2", server.address());
    for (fields, status) in
        [("Range: bytes=10-\r\n", 416), ("If-Match: \"x\"\r\n", 412), ("If-None-Match: *\r\n", 304)]
    {
        assert_eq!(client.get_with(&target, fields).status, status);
    }
    client.request("HEAD", &target, "");
    assert_eq!(client.bodiless_answer().status, 200);
    // None of that has bound it to the other address.
    let mut first = Client::connect(server.address());
    assert_eq!(first.get(&target).body, pattern(10));
}
