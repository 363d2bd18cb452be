//! Folders and several files as one archive: what real programs make of it, with a length, resume,
//! the link's rules and the same words as for a file.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::client::{Answer, Client, get};
use crate::clients::Download;
use crate::harness::{Node, SERVER, Server, have, pattern};
use crate::mint::Token;

const MIB: usize = 1 << 20;

/// A volume with what is hard about names, and something to send.
fn node() -> Node {
    let node = Node::new().with_state();
    for (path, length) in [
        ("world/region/r.0.0.mca", 3 * MIB),
        ("world/region/r.0.1.mca", MIB + 1),
        ("world/level.dat", 65_535),
        ("world/empty file", 0),
        ("world/日本語/\"quoted\".txt", 10),
        ("world/line\nbreak", 11),
        ("plugins/a.jar", 70_000),
        ("server.properties", 12),
    ] {
        node.file(path, &pattern(length));
    }
    fs::create_dir(node.volume().join("world/empty")).unwrap();
    node
}

fn target(token: &Token, format: &str) -> String {
    format!("{}&archive_format={format}", token.target())
}

fn whole(server: &Server, format: &str) -> Answer {
    let answer = get(server.address(), &target(&Token::directory("world"), format));
    assert_eq!(answer.status, 200, "{}", answer.raw);
    answer
}

#[test]
fn a_folder_arrives_as_the_archive_that_every_program_reads() {
    let node = node();
    let server = node.start();
    let checks: [(&str, &str, &[&str]); 7] = [
        ("zip", "unzip", &["-tq"]),
        ("zip", "7z", &["t"]),
        ("zip", "bsdtar", &["-tf"]),
        ("zip", "python3", &["-m", "zipfile", "-t"]),
        ("tar", "tar", &["-tf"]),
        ("tar", "bsdtar", &["-tf"]),
        ("tar", "python3", &["-m", "tarfile", "-t"]),
    ];
    for format in ["zip", "tar"] {
        let url = format!("{}{}", server.base(), target(&Token::directory("/world/"), format));
        let download = Download::new();
        download.run(Command::new("curl").args(["-sSfOJ", &url]));
        let archive = download.directory().join(format!("world.{format}"));
        assert_eq!(fs::read(&archive).unwrap(), whole(&server, format).body);
        for (_, program, arguments) in checks.iter().filter(|check| check.0 == format) {
            if have(program) {
                download.run(Command::new(program).args(*arguments).arg(&archive));
            }
        }
        let unpacked = download.directory().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        if have("bsdtar") {
            let mut command = Command::new("bsdtar");
            download.run(command.arg("-xf").arg(&archive).arg("-C").arg(&unpacked));
            // Both say what Windows cannot hold, and a zip has no control characters in names.
            fs::remove_file(unpacked.join(".winglet-skipped.txt")).unwrap();
            if format == "zip" {
                fs::rename(unpacked.join("line%0Abreak"), unpacked.join("line\nbreak")).unwrap();
            }
            let mut diff = Command::new("diff");
            download.run(diff.arg("-r").arg(node.volume().join("world")).arg(&unpacked));
        }
    }
}

#[test]
fn an_archive_has_the_head_of_a_file_and_the_name_of_its_folder() {
    let node = node();
    let server = node.start();
    let files = Token::files("world", &["level.dat", "region"]);
    let table = [
        (Token::directory("world"), "world.zip"),
        (Token::directory("/"), &format!("{SERVER}.zip")[..]),
        (Token::directory(""), &format!("{SERVER}.zip")),
        (Token::directory("world/region/"), "region.zip"),
        (files, "world.zip"),
    ];
    for (round, (token, name)) in table.into_iter().enumerate() {
        let mut client = Client::connect(server.address());
        client.request("HEAD", &token.target(), "");
        let head = client.bodiless_answer();
        let answer = client.get(&token.target());
        assert_eq!((head.status, answer.status), (200, 200), "{}", answer.raw);
        assert_eq!(head.length(), Some(answer.body.len() as u64));
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(answer.field("Content-Disposition"), Some(&disposition[..]));
        assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
        assert_eq!(head.field("ETag"), answer.field("ETag"));
        assert_eq!(head.field("Last-Modified"), answer.field("Last-Modified"));
        assert!(answer.body.starts_with(b"PK\x03\x04"));
        drop(client);
        server.wait_for_logs(round + 1, "delivered");
        // Its one download is complete.
        assert_eq!(get(server.address(), &token.target()).status, 401);
    }
    server.wait_for_log(&format!("GET directory 200 server={SERVER} directory=\"world\" bytes="));
    server
        .wait_for_log(&format!("GET files 200 server={SERVER} directory=\"world\" files=2 bytes="));
}

#[test]
fn parts_of_an_archive_join_to_the_whole() {
    let node = node();
    let mut server = node.start();
    for format in ["zip", "tar"] {
        let whole = whole(&server, format);
        let target = target(&Token::directory("world"), format);
        let length = whole.body.len();
        let cut = length * 9 / 10;
        let mut client = Client::connect(server.address());
        let part = client.get_part(&target, "", cut);
        client.reset();
        assert_eq!(part.status, 200);
        // A restart loses the listing and the CRCs that were known, and no link.
        server.stop();
        server = node.start();
        let mut client = Client::connect(server.address());
        let tag = whole.field("ETag").unwrap();
        let fields = format!("Range: bytes={cut}-\r\nIf-Range: {tag}\r\n");
        let rest = client.get_with(&target, &fields);
        assert_eq!(rest.status, 206, "{}", rest.raw);
        let range = format!("bytes {cut}-{}/{length}", length - 1);
        assert_eq!(rest.field("Content-Range"), Some(&range[..]));
        assert!([&part.body[..], &rest.body].concat() == whole.body);
    }
}

#[test]
fn a_tree_that_changed_is_another_archive() {
    let node = node();
    let server = node.start();
    let old = whole(&server, "zip");
    let target = Token::directory("world").target();
    let mut client = Client::connect(server.address());
    client.get_part(&target, "", MIB);
    client.reset();
    node.file("world/session.lock", b"new");
    // As curl -C - asks, without a validator: it must not join two archives.
    let mut client = Client::connect(server.address());
    let answer = client.get_with(&target, "Range: bytes=1048576-\r\n");
    assert_eq!(answer.status, 412, "{}", answer.raw);
    let answer = client.get(&target);
    assert_eq!(answer.status, 200, "{}", answer.raw);
    assert_ne!(answer.field("ETag"), old.field("ETag"));
    assert!(answer.body == whole(&server, "zip").body);
}

#[test]
fn many_streams_of_one_link_share_an_archive() {
    let node = node();
    let server = node.start();
    let whole = whole(&server, "zip").body;
    let target = Token::directory("world").target();
    let step = whole.len().div_ceil(12);
    let parts: Vec<Vec<u8>> = thread::scope(|scope| {
        let (target, server) = (&target, &server);
        let part = |number: usize| {
            let fields = format!("Range: bytes={}-{}\r\n", number * step, (number + 1) * step - 1);
            let answer = Client::connect(server.address()).get_with(target, &fields);
            assert_eq!(answer.status, 206, "{}", answer.raw);
            answer.body
        };
        let runs: Vec<_> = (0..12).map(|number| scope.spawn(move || part(number))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(parts.concat() == whole);
}

/// More archives are downloaded than are kept: the listing of the first is made anew.
#[test]
fn a_transfer_outlives_its_listing() {
    let node = node();
    node.file("big/noise", &pattern(24 * MIB));
    node.file("small/file", b"small");
    let server = node.start();
    let target = Token::directory("big").target();
    let whole = get(server.address(), &target).body;
    let target = Token::directory("big").target();
    let mut client = Client::connect(server.address());
    let first = client.get_part(&target, "", MIB).body;
    for _ in 0..70 {
        assert_eq!(get(server.address(), &Token::directory("small").target()).status, 200);
    }
    let rest = client.read_some(whole.len() - MIB);
    assert!([first, rest].concat() == whole);
}

#[test]
fn what_is_no_folder_or_format_is_said_in_words() {
    let node = node().top_level("remote: https://panel.example");
    let mut server = node.start();
    let html = "Accept: text/html\r\n";
    let cases = [
        (Token::directory("nothing").target(), 404, "folder does not exist"),
        (Token::directory("server.properties").target(), 404, "folder does not exist"),
        (Token::directory("../..").target(), 404, "file does not exist"),
        (Token::files("world", &["nothing", "neither"]).target(), 404, "files do not exist"),
        (Token::files("world", &[]).target(), 404, "files do not exist"),
        (Token::files("world", &["../plugins/a.jar"]).target(), 404, "file does not exist"),
        (target(&Token::directory("world"), "rar"), 400, "as tar"),
        (target(&Token::directory("world"), ""), 400, "as tar"),
        (Token::directory("").with("scope", "backup-download").target(), 401, "link does not work"),
        (Token::directory("").without("file_path").target(), 401, "link does not work"),
        (Token::files("", &["world"]).without("file_paths").target(), 401, "link does not work"),
    ];
    for (target, status, words) in &cases {
        let mut client = Client::connect(server.address());
        let (json, page) = (client.get(target), client.get_with(target, html));
        assert_eq!((json.status, page.status), (*status, *status), "{target}");
        assert!(json.text().starts_with("{\"error\":\""), "{}", json.text());
        assert!(page.text().contains(words), "{words}: {}", page.text());
        if *status == 400 {
            assert!(json.text().contains("zip or tar"), "{}", json.text());
        }
    }
    // A file ignores what is meant for archives.
    let file = target(&Token::file("server.properties"), "tar_gz");
    assert_eq!(get(server.address(), &file).status, 200);
    server.may_log_errors();
}

#[test]
fn the_landing_page_tells_name_and_size_and_uses_nothing_up() {
    let node = node();
    let server = node.start();
    let target = target(&Token::directory("world"), "tar");
    let length = whole(&server, "tar").body.len();
    let page = get(server.address(), &format!("{target}&page")).text();
    assert!(page.contains("<h1>world.tar</h1>"), "{page}");
    assert!(
        page.contains(&format!("{}.{} MB", length / 1_000_000, length / 100_000 % 10)),
        "{page}"
    );
    assert!(page.contains("archive_format=tar\""), "{page}");
    assert_eq!(get(server.address(), &target).status, 200);
}

/// The format is not the link's to say: both are versions of one thing, within one budget.
#[test]
fn a_link_may_be_had_in_the_other_format_until_it_is_spent() {
    let node = node();
    let server = node.start();
    let token = Token::directory("world");
    let mut client = Client::connect(server.address());
    client.get_part(&target(&token, "zip"), "", MIB);
    client.reset();
    let tar = get(server.address(), &target(&token, "tar"));
    assert_eq!((tar.status, tar.body.len()), (200, whole(&server, "tar").body.len()));
    assert_eq!(get(server.address(), &target(&token, "zip")).status, 401);
}

/// Of a zip that nobody has read, the last kilobytes want every CRC: that is read once, in steps, and
/// paid for.
#[test]
fn reading_for_crcs_is_paid_for_by_the_link() {
    let node = Node::new().with_state();
    node.file("world/noise", &pattern(20 * MIB));
    let server = node.start();
    let token = Token::directory("world");
    let url = format!("http://node{}", token.target());
    let paid = || -> u64 {
        let text = String::from_utf8(node.run(&["explain", &url]).stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("paid for")).unwrap_or(&text);
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let mut expected = 0..0;
    for (round, charge) in [20 * MIB as u64, 0].into_iter().enumerate() {
        let mut client = Client::connect(server.address());
        let answer = client.get_with(&token.target(), "Range: bytes=-100\r\n");
        assert_eq!((answer.status, answer.body.len()), (206, 100));
        drop(client);
        server.wait_for_logs(round + 1, "delivered");
        expected = expected.start + charge..expected.start + charge + 10_000 * (round as u64 + 1);
        assert!(expected.contains(&paid()), "{} is not in {expected:?}", paid());
    }
}

/// A tree that changes all the time has its CRCs read again and again, and no more often than the
/// budget of three times the archive and 64 MiB pays for.
#[test]
fn reading_for_crcs_ends_with_the_budget() {
    let node = Node::new();
    node.file("world/noise", &pattern(16 * MIB));
    let server = node.start();
    let target = Token::directory("world").target();
    let mut outcomes = Vec::new();
    for round in 0..9 {
        // What changes in the directory itself is noticed at once.
        node.file(&format!("world/{round}"), b"");
        let mut noise =
            File::options().append(true).open(node.volume().join("world/noise")).unwrap();
        noise.write_all(b"x").unwrap();
        let mut client = Client::connect(server.address());
        client.request("HEAD", &target, "");
        let head = client.bodiless_answer();
        if head.status != 200 {
            outcomes.push(head.status);
            break;
        }
        let fields = format!("Range: bytes=-100\r\nIf-Range: {}\r\n", head.field("ETag").unwrap());
        client.request("GET", &target, &fields);
        outcomes.push(client.try_answer().map_or(0, |answer| answer.status));
    }
    assert_eq!(outcomes, [206, 206, 206, 206, 206, 206, 206, 401]);
}

#[test]
fn sign_and_explain_know_archives() {
    let node = node();
    let server = node.start();
    let signed = |arguments: &[&str]| {
        let base = server.base();
        let mut all = vec!["sign"];
        all.extend(arguments);
        all.extend(["--server", SERVER, "--base-url", &base]);
        let output = node.run(&all);
        // Which file was read, and no warning.
        let said = String::from_utf8_lossy(&output.stderr).lines().count();
        assert!(output.status.success() && said == 1, "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let explained = |url: &str| {
        let output = node.run(&["explain", url]);
        String::from_utf8(output.stdout).unwrap()
    };
    let zip = signed(&["directory", "--path", "world"]);
    assert!(explained(&zip).contains("bytes, offered as world.zip\n"), "{}", explained(&zip));
    let tar =
        signed(&["files", "--file", "server.properties", "--file", "plugins", "--format", "tar"]);
    let text = explained(&tar);
    assert!(text.contains(&format!("bytes, offered as {SERVER}.tar\n")), "{text}");
    assert!(text.contains("of it        server.properties\n"), "{text}");
    let page = signed(&["directory", "--page"]);
    assert!(page.ends_with("&page"), "{page}");
    let refused = explained(&format!("{zip}&archive_format=rar"));
    assert!(refused.contains("refused with 400"), "{refused}");
    for (round, url) in [&zip, &tar].into_iter().enumerate() {
        assert_eq!(get(server.address(), url.strip_prefix(&server.base()).unwrap()).status, 200);
        server.wait_for_logs(round + 1, "delivered");
        assert!(explained(url).contains("link         one-time, spent"), "{}", explained(url));
    }
    let missing = node.run(&["sign", "directory", "--path", "no", "--server", SERVER]);
    let warning = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(warning.contains("no such directory"), "{warning}");
}

#[test]
fn status_lists_an_archive_and_what_its_listing_takes() {
    let node = Node::new();
    let node_control = format!("control: unix:{}/control.sock", node.path().display());
    let node = node.winglet(&node_control);
    fs::create_dir(node.volume().join("world")).unwrap();
    node.sparse("world/large", 64 << 20);
    let server = node.start();
    let mut client = Client::connect(server.address());
    client.get_part(&Token::directory("world").target(), "", MIB);
    let output = node.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["archives"]["kept"], 1, "{status:#}");
    assert!(status["archives"]["bytes"].as_u64().unwrap() > 0, "{status:#}");
    assert_eq!(status["downloads"][0]["length"].as_u64().unwrap() >> 20, 64, "{status:#}");
    server.wait_until("the listing is told", |_| {
        String::from_utf8_lossy(&node.run(&["status"]).stdout)
            .contains("archives     1 listed, 1 in use")
    });
}

/// A slow client's transfer parks many times within one member, whose CRC is made of what was sent.
#[test]
fn a_slow_client_gets_a_sound_archive() {
    if !have("unzip") {
        return;
    }
    let node = node();
    node.file("world/noise", &pattern(12 * MIB));
    let server = node.start();
    let url = format!("{}{}", server.base(), Token::directory("world").target());
    let download = Download::new();
    let file = download.path();
    download
        .run(Command::new("curl").args(["-sSf", "--limit-rate", "6M", "-o"]).arg(&file).arg(url));
    download.run(Command::new("unzip").arg("-tq").arg(&file));
    assert!(Path::new(&file).metadata().unwrap().len() > 16 << 20);
}

/// Nothing is written that could fail while checksums are read: the reading ends with its client.
#[test]
fn reading_for_crcs_ends_with_its_client() {
    let node = Node::new();
    fs::create_dir_all(node.volume().join("world")).unwrap();
    node.sparse("world/a", 32 << 30);
    // Many seconds of reading that take little room on the disk: no hole is worth passing over.
    let file = File::options().write(true).open(node.volume().join("world/a")).unwrap();
    for position in (0..32 << 30).step_by(250 << 10) {
        file.write_all_at(b"x", position).unwrap();
    }
    let server = node.start();
    let target = target(&Token::directory("world"), "zip");
    let mut client = Client::connect(server.address());
    client.request("HEAD", &target, "");
    let head = client.bodiless_answer();
    let length: u64 = head.field("Content-Length").unwrap().parse().unwrap();
    // In the record of the file, which has its checksum.
    let range = format!("Range: bytes={}-{}\r\n", length - 150, length - 120);
    let mut client = Client::connect(server.address());
    client.request("GET", &target, &range);
    assert_eq!(client.head().unwrap().status, 206);
    drop(client);
    server.wait_for_log("interrupted: client gone (hung up)");
}

/// 150 bytes at the end of a zip kept a core busy for 13 hours.
#[test]
fn a_tebibyte_of_holes_needs_no_reading() {
    let node = Node::new().with_state();
    fs::create_dir_all(node.volume().join("holes")).unwrap();
    node.sparse("holes/a", 1 << 40);
    let server = node.start();
    let target = target(&Token::directory("holes"), "zip");
    let mut client = Client::connect(server.address());
    client.request("HEAD", &target, "");
    let length: u64 = client.bodiless_answer().field("Content-Length").unwrap().parse().unwrap();
    // In the record of the file, which has its checksum.
    let range = format!("Range: bytes={}-{}\r\n", length - 150, length - 121);
    let answer = client.get_with(&target, &range);
    assert_eq!((answer.status, answer.body.len()), (206, 30));
    drop(client);
    server.wait_for_log("delivered");
    let explained = node.run(&["explain", &format!("http://node{target}")]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    let paid = text.lines().find(|line| line.starts_with("paid for")).unwrap_or(&text);
    let paid: u64 = paid.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(paid < MIB as u64, "{text}");
}

#[test]
fn a_link_to_some_files_does_not_open_the_others() {
    let node = node();
    let server = node.start();
    let link = Token::files("world", &["level.dat"]);
    let directory = link.target().replace("/download/files", "/download/directory");
    assert_eq!(get(server.address(), &directory).status, 401);
    assert_eq!(get(server.address(), &link.target()).status, 200);
}
