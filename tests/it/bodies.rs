//! Download bodies: exact lengths, never chunked, the same bytes; growing and shrinking files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use crate::client::{Answer, Client, connect_from};
use crate::harness::{Node, have, may_take, pattern};
use crate::mint::Token;

/// Lengths around tiny_http's chunking threshold, and the usual suspects.
const LENGTHS: [usize; 6] = [0, 1, 4096, 32_767, 32_768, 32_769];
const MIB: u64 = 1 << 20;

/// A head without the fields that differ from answer to answer.
fn lasting(answer: &Answer) -> Vec<(String, String)> {
    let mut fields = answer.fields.clone();
    fields.retain(|(name, _)| name != "Date" && name != "X-Request-Id");
    fields
}

fn ask(client: &mut Client, version: &str, target: &str, fields: &str) -> Answer {
    client.send(format!("GET {target} HTTP/{version}\r\nHost: node\r\n{fields}\r\n"));
    client.answer()
}

#[test]
fn every_length_arrives_exactly_in_every_way() {
    let node = Node::new();
    for length in LENGTHS {
        node.file(&format!("f{length}"), &pattern(length));
    }
    let server = node.start();
    let keep = "Connection: keep-alive\r\n";
    for version in ["1.0", "1.1"] {
        for fields in ["", "TE: chunked\r\n", "TE: trailers, chunked;q=1\r\nConnection: TE\r\n"] {
            let mut kept = Client::connect(server.address());
            for length in LENGTHS {
                let name = format!("f{length}");
                let target = || Token::file(&name).target();
                let mut fresh = Client::connect(server.address());
                let answer = ask(&mut fresh, version, &target(), fields);
                check_body(&answer, length, version);
                let answer = ask(&mut kept, version, &target(), &format!("{fields}{keep}"));
                check_body(&answer, length, version);
            }
        }
    }
}

fn check_body(answer: &Answer, length: usize, version: &str) {
    assert_eq!(answer.status, 200, "{}", answer.raw);
    assert_eq!(answer.length(), Some(length as u64), "HTTP/{version}:\n{}", answer.raw);
    assert!(answer.field("Transfer-Encoding").is_none() && answer.field("Trailer").is_none());
    assert!(answer.body == pattern(length), "HTTP/{version}, {length} bytes: other bytes");
}

#[test]
fn http_1_0_closes_unless_asked_and_1_1_stays_unless_asked() {
    let node = Node::new();
    node.file("a", b"content");
    let server = node.start();
    let table = [
        ("1.0", "", Some("close"), false),
        ("1.0", "Connection: keep-alive\r\n", Some("keep-alive"), true),
        ("1.1", "", None, true),
        ("1.1", "Connection: close\r\n", Some("close"), false),
    ];
    for (version, fields, connection, stays) in table {
        let mut client = Client::connect(server.address());
        let answer = ask(&mut client, version, &Token::file("a").target(), fields);
        assert_eq!(answer.field("Connection"), connection, "HTTP/{version} {fields:?}");
        if stays {
            assert_eq!(client.get(&Token::file("a").target()).body, b"content");
        } else {
            assert!(client.is_closed(), "HTTP/{version} {fields:?}: more came");
        }
    }
}

#[test]
fn a_5_gib_file_arrives_with_every_byte_in_its_place() {
    if !may_take("20 s") {
        return;
    }
    let length: u64 = 5 << 30;
    let marks = [0, (4 << 30) - 3, length - 6];
    let node = Node::new();
    let path = node.sparse("huge", length);
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    for mark in marks {
        file.seek(SeekFrom::Start(mark)).unwrap();
        file.write_all(b"marked").unwrap();
    }
    let server = node.start();
    let mut client = Client::connect(server.address());
    client.request("GET", &Token::file("huge").target(), "TE: chunked\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.status, head.length()), (200, Some(length)), "{}", head.raw);
    let zeros = vec![0; MIB as usize];
    let mut seen = 0;
    client.each_chunk(length, |offset, chunk| {
        let end = offset + chunk.len() as u64;
        if !marks.iter().any(|mark| *mark < end && *mark + 6 > offset) {
            return assert!(zeros[..chunk.len()] == *chunk, "other bytes at {offset}");
        }
        let mut expected = zeros[..chunk.len()].to_vec();
        for mark in marks {
            for (position, byte) in (mark..).zip(b"marked") {
                if (offset..end).contains(&position) {
                    expected[(position - offset) as usize] = *byte;
                    seen += 1;
                }
            }
        }
        assert!(expected == chunk, "other bytes at {offset}");
    });
    assert_eq!(seen, 18);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn a_download_carries_every_promised_field() {
    let node = Node::new().top_level("remote: https://panel.example");
    node.file("logs/latest.log", b"content");
    node.backup(b"archive");
    let server = node.start();
    let backup = format!("attachment; filename=\"backup-{}.tar.gz\"", crate::harness::BACKUP);
    let table = [
        (Token::file("logs/latest.log"), "attachment; filename=\"latest.log\""),
        (Token::backup(), backup.as_str()),
    ];
    for (token, disposition) in table {
        let fields = "X-Request-Id: mine\r\n";
        let answer = Client::connect(server.address()).get_with(&token.target(), fields);
        let expected = [
            ("Content-Type", "application/octet-stream"),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "private, no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Accel-Buffering", "no"),
            ("Content-Disposition", disposition),
        ];
        for (name, value) in expected {
            assert_eq!(answer.field(name), Some(value), "{}", answer.raw);
        }
        for name in ["Date", "Last-Modified"] {
            let date = answer.field(name).unwrap();
            assert!(date.ends_with(" GMT") && date.len() == 29, "{name}: {date}");
        }
        let tag = answer.field("ETag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 8, "{tag}");
        let id = answer.field("X-Request-Id").unwrap();
        assert!(id != "mine" && id.len() >= 16, "{id}");
        server.wait_for_log(&format!("id={id}"));
    }
}

#[test]
fn an_entity_tag_is_stable_until_the_file_changes_and_tells_nothing() {
    let node = Node::new();
    let path = node.file("a", b"content");
    let tag = |server: &crate::harness::Server| {
        let answer = crate::client::get(server.address(), &Token::file("a").target());
        answer.field("ETag").unwrap().to_owned()
    };
    let mut server = node.start();
    let first = tag(&server);
    assert_eq!(tag(&server), first);
    server.stop();
    let server = node.start();
    assert_eq!(tag(&server), first, "after a restart");
    let metadata = path.metadata().unwrap();
    let hidden = [metadata.ino(), metadata.mtime() as u64, metadata.mtime_nsec() as u64];
    for value in hidden {
        assert!(!first.contains(&value.to_string()) && !first.contains(&format!("{value:x}")));
    }
    std::fs::write(&path, b"content, changed").unwrap();
    let second = tag(&server);
    assert_ne!(second, first);
    let date = UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().write(true).open(path).unwrap().set_modified(date).unwrap();
    assert_ne!(tag(&server), second);
    let answer = crate::client::get(server.address(), &Token::file("a").target());
    assert_eq!(answer.field("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

#[test]
fn a_file_from_the_future_was_modified_now() {
    // RFC 9110 §8.8.2.1: Last-Modified is never later than Date.
    let node = Node::new();
    let path = node.file("a", b"content");
    let date = UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    File::options().write(true).open(path).unwrap().set_modified(date).unwrap();
    let server = node.start();
    let answer = crate::client::get(server.address(), &Token::file("a").target());
    let date = |name| httpdate::parse_http_date(answer.field(name).unwrap()).unwrap();
    assert!(date("Last-Modified") <= date("Date"), "{}", answer.raw);
}

#[test]
fn head_equals_the_head_of_get_and_spends_nothing() {
    for (reuse, ranges) in [("once", "none"), ("resume", "bytes"), ("unlimited", "bytes")] {
        let node = Node::new().winglet(&format!("reuse: {reuse}"));
        node.file("été.log", &pattern(40_000));
        node.backup(&pattern(5000));
        let server = node.start();
        for (count, token) in [Token::file("été.log"), Token::backup()].iter().enumerate() {
            let mut client = Client::connect(server.address());
            let mut heads = Vec::new();
            for fields in ["", "", "Range: bytes=1-2\r\n", "Range: bytes=99999999-\r\n"] {
                client.request("HEAD", &token.target(), fields);
                heads.push(client.bodiless_answer());
            }
            let got = client.get(&token.target());
            assert_eq!((got.status, got.field("Accept-Ranges")), (200, Some(ranges)));
            for head in heads {
                assert_eq!(head.status, 200, "{reuse}: {}", head.raw);
                assert_eq!(lasting(&head), lasting(&got), "{reuse}");
            }
            drop(client);
            server.wait_for_logs(count + 1, "delivered");
            let mut client = Client::connect(server.address());
            client.request("HEAD", &token.target(), "");
            let refused = client.bodiless_answer();
            let expected = if reuse == "unlimited" { 200 } else { 401 };
            assert_eq!(refused.status, expected, "{reuse}: {}", refused.raw);
            // Nothing but the head came: the next answer begins where it ended.
            assert_eq!(client.get("/health").text(), r#"{"status":"ok"}"#);
        }
    }
}

#[test]
fn once_ignores_ranges() {
    let node = Node::new().winglet("reuse: once");
    node.file("a", &pattern(1000));
    let server = node.start();
    let target = Token::file("a").target();
    let answer = Client::connect(server.address()).get_with(&target, "Range: bytes=10-19\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
    assert!(answer.field("Content-Range").is_none());
}

#[test]
fn a_file_that_grows_is_cut_at_the_announced_length() {
    let node = Node::new();
    let length = 32 * MIB;
    let path = node.sparse("live.log", length);
    node.file("next", b"clean");
    let server = node.start();
    let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(32 * 1024)));
    client.request("GET", &Token::file("live.log").target(), "");
    let head = client.head().unwrap();
    assert_eq!(head.length(), Some(length));
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(&[b'x'; 100_000]).unwrap();
    client.each_chunk(length, |offset, chunk| {
        assert!(chunk.iter().rev().take(100).all(|byte| *byte == 0), "grown bytes at {offset}");
    });
    let next = client.get(&Token::file("next").target());
    assert_eq!((next.status, next.body.as_slice()), (200, b"clean".as_slice()), "{}", next.raw);
}

#[test]
fn a_file_that_shrinks_ends_the_connection_early() {
    let node = Node::new();
    let path = node.sparse("shrinking", 64 * MIB);
    let server = node.start();
    let mut client = Client::over(connect_from("127.0.0.1", server.address(), Some(32 * 1024)));
    client.request("GET", &Token::file("shrinking").target(), "");
    assert_eq!(client.head().unwrap().length(), Some(64 * MIB));
    OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap();
    let body = client.read_to_end();
    assert!((body.len() as u64) < 64 * MIB, "a short file that looks whole");
    assert!(body.iter().step_by(997).all(|byte| *byte == 0), "something else followed");
    server.wait_for_log("interrupted: the file was truncated meanwhile");
}

#[test]
fn curl_reports_a_file_that_shrinks_as_partial() {
    if !have("curl") {
        return;
    }
    let node = Node::new();
    let path = node.sparse("shrinking", 64 * MIB);
    let server = node.start();
    let url = format!("{}{}", server.base(), Token::file("shrinking").target());
    // Its output is a pipe that nobody reads, so it cannot have everything yet.
    let mut curl = Command::new("curl")
        .args(["--noproxy", "*", "--silent", "--show-error", "--output", "-", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = curl.stdout.take().unwrap();
    output.read_exact(&mut [0; 1000]).unwrap();
    OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    let ended = curl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(18), "{said}");
}

/// Names with a percent sign, quotes or a backslash are saved whole by a client that knows the
/// extended form, and without them by one that does not.
#[test]
fn wget_and_curl_save_files_under_their_names() {
    let node = Node::new();
    let server = node.start();
    for (name, plain) in [
        ("100%.txt", "100_.txt"),
        ("a\"b\\c.txt", "a_b_c.txt"),
        ("50% \"x\".txt", "50_ _x_.txt"),
        ("plain (1).txt", "plain (1).txt"),
    ] {
        node.file(name, b"content");
        for (program, arguments, saved) in [
            ("wget", ["--no-proxy", "-q", "--content-disposition"], name),
            ("curl", ["--noproxy", "*", "-sOJ"], plain),
        ] {
            if !have(program) {
                continue;
            }
            let directory = node.path().join(program);
            std::fs::create_dir_all(&directory).unwrap();
            let url = format!("{}{}", server.base(), Token::file(name).target());
            let mut command = Command::new(program);
            command.args(arguments).arg(url).env("LC_ALL", "C.UTF-8").current_dir(&directory);
            assert!(command.status().unwrap().success(), "{program}: {name:?}");
            assert!(directory.join(saved).is_file(), "{program}: no {saved:?}");
        }
    }
}
