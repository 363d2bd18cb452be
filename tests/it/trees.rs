//! Trees that a server's user planted, as archives: nothing from outside, no hang, limits in words, and
//! what is left out is named.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Answer, Client, get};
use crate::clients::Download;
use crate::harness::{Node, Server, have, is_root, pattern};
use crate::mint::Token;

const SECRET: &[u8] = b"must never be served";
const MIB: usize = 1 << 20;

/// The sandbox is off: it would hide a hole in the walk.
fn node() -> Node {
    let node = Node::new().winglet("sandbox: false");
    fs::write(node.path().join("secret"), SECRET).unwrap();
    node
}

fn archive(server: &Server, path: &str, format: &str) -> Answer {
    let target = format!("{}&archive_format={format}", Token::directory(path).target());
    get(server.address(), &target)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_is_no_file_is_left_out_and_named() {
    let node = node();
    node.file("world/good", b"good");
    let world = node.volume().join("world");
    for (name, target) in [
        ("loop", "loop"),
        ("up", ".."),
        ("out", "../../../secret"),
        ("absolute", "/etc/passwd"),
        ("magic", "/proc/self/root/etc/passwd"),
        ("dangling", "nothing"),
    ] {
        symlink(target, world.join(name)).unwrap();
    }
    assert!(Command::new("mkfifo").arg(world.join("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(world.join("socket")).unwrap();
    fs::write(world.join(OsStr::from_bytes(b"caf\xe9")), b"latin").unwrap();
    fs::write(world.join("locked"), SECRET).unwrap();
    fs::set_permissions(world.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let node = if is_root() { node.as_user(65_534) } else { node };
    let server = node.start();
    for format in ["zip", "tar"] {
        let answer = archive(&server, "world", format);
        assert_eq!(answer.status, 200, "{}", answer.raw);
        assert!(!holds(&answer.body, SECRET) && !holds(&answer.body, b"root:"));
        assert!(holds(&answer.body, b"latin") && holds(&answer.body, b"good"));
        assert!(holds(&answer.body, b".winglet-skipped.txt"));
        let left_out: &[&str] = match format {
            "zip" => &["loop: a symbolic link to loop", "caf%E9: stored as caf%E9"],
            _ => &[],
        };
        let both =
            ["fifo: neither a file", "socket: neither a file", "locked: could not be opened"];
        for line in left_out.iter().chain(&both) {
            assert!(holds(&answer.body, line.as_bytes()), "{format}: {line}");
        }
        // A tar holds links as links.
        assert!(holds(&answer.body, b"/etc/passwd"));
    }
}

#[test]
fn no_swap_during_walk_or_send_leads_outside() {
    let node = node();
    let world = node.volume().join("world");
    for number in 0..40 {
        node.file(&format!("world/{number}/a"), &pattern(20_000));
        node.file(&format!("world/{number}/secret"), b"inside");
    }
    fs::create_dir(node.volume().join("away")).unwrap();
    let mut server = node.start();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Files and directories become links that lead outside, and directories again.
        let swap = || {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                let directory = world.join((swaps % 40).to_string());
                let away = node.volume().join("away/directory");
                fs::rename(&directory, &away).unwrap();
                symlink(node.path(), &directory).unwrap();
                fs::remove_file(&directory).unwrap();
                fs::rename(&away, &directory).unwrap();
                let (file, aside) = (directory.join("secret"), node.volume().join("away/file"));
                fs::rename(&file, &aside).unwrap();
                symlink("/etc/passwd", &file).unwrap();
                fs::rename(&aside, &file).unwrap();
                swaps += 1;
            }
        };
        let swapper = scope.spawn(swap);
        let mut complete = 0;
        for round in 0..30 {
            let format = if round % 2 == 0 { "zip" } else { "tar" };
            let target = format!("{}&archive_format={format}", Token::directory("world").target());
            let mut client = Client::connect(server.address());
            client.request("GET", &target, "Connection: close\r\n");
            // Cut off if a member is gone when it is due.
            let bytes = client.read_to_end();
            assert!(!holds(&bytes, SECRET) && !holds(&bytes, b"root:x:"), "round {round}");
            complete += usize::from(bytes.starts_with(b"HTTP/1.1 200"));
        }
        done.store(true, Ordering::Relaxed);
        assert!(complete > 0);
        swapper.join().unwrap();
    });
    server.may_log_errors();
    assert_eq!(archive(&server, "world", "zip").status, 200);
}

/// Sends the beginning of an archive of `world`, does something to the tree, and reads on.
fn interrupted(node: &Node, server: &Server, format: &str, harm: impl FnOnce(&Path)) {
    let target = format!("{}&archive_format={format}", Token::directory("world").target());
    let mut client = Client::connect(server.address());
    client.request("GET", &target, "");
    let answer = client.head().unwrap();
    client.read_some(MIB);
    harm(&node.volume().join("world"));
    let left = answer.length().unwrap() - MIB as u64;
    assert!((client.read_to_end().len() as u64) < left);
}

#[test]
fn a_member_that_shrinks_or_vanishes_ends_the_connection() {
    let node = node();
    let server = node.start();
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("a", |world| {
            File::options().write(true).open(world.join("a")).unwrap().set_len(9).unwrap()
        }),
        ("b", |world| fs::remove_file(world.join("b")).unwrap()),
        ("b", |world| {
            fs::remove_file(world.join("b")).unwrap();
            symlink("a", world.join("b")).unwrap();
        }),
    ];
    let both = harms.iter().flat_map(|harm| ["zip", "tar"].map(|format| (harm, format)));
    for (round, ((name, harm), format)) in both.enumerate() {
        let _ = fs::remove_dir_all(node.volume().join("world"));
        // More than all buffers on the way hold.
        fs::create_dir_all(node.volume().join("world")).unwrap();
        node.sparse("world/a", 64 << 20);
        node.file("world/b", b"12345");
        interrupted(&node, &server, format, harm);
        let lines = server.wait_for_logs(round + 1, "interrupted: read: ");
        assert!(lines[round].contains(&format!("read: {name}: ")), "{}", lines[round]);
    }
}

#[test]
fn a_member_that_grows_is_cut_at_its_length() {
    let node = node();
    let server = node.start();
    fs::create_dir_all(node.volume().join("world")).unwrap();
    for (round, format) in ["zip", "tar"].into_iter().enumerate() {
        let path = node.sparse("world/a", 64 << 20);
        let target = format!("{}&archive_format={format}", Token::directory("world").target());
        let mut client = Client::connect(server.address());
        client.request("GET", &target, "");
        let length = client.head().unwrap().length().unwrap();
        File::options().write(true).open(path).unwrap().set_len(1 << 30).unwrap();
        client.each_chunk(length, |_, _| {});
        drop(client);
        server.wait_for_logs(round + 1, "delivered");
    }
}

#[test]
fn too_many_files_are_refused_in_words() {
    let node = node();
    for directory in 0..30 {
        let directory = node.volume().join(format!("world/{directory}"));
        fs::create_dir_all(&directory).unwrap();
        let first = directory.join("0");
        fs::write(&first, b"").unwrap();
        for number in 1..10_000 {
            fs::hard_link(&first, directory.join(number.to_string())).unwrap();
        }
    }
    let server = node.start();
    let mut client = Client::connect(server.address());
    let target = Token::directory("").target();
    let json = client.get(&target);
    assert_eq!(json.status, 413, "{}", json.raw);
    assert!(json.text().contains("200,000 files"), "{}", json.text());
    let page = client.get_with(&target, "Accept: text/html\r\n").text();
    assert!(page.contains("This folder is too large for one download"), "{page}");
    // Most of it is not too much, and nothing of what was refused stays in memory.
    let files: Vec<String> = (0..19).map(|number| format!("world/{number}")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    client.request("HEAD", &Token::files("", &files).target(), "");
    assert_eq!(client.bodiless_answer().status, 200);
    let page = client.get(&format!("{}&page", Token::directory("world/5").target()));
    assert_eq!(page.status, 200);
    let explained = node.run(&["explain", &format!("http://node{target}")]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("refused with 413"), "{text}");
}

#[test]
fn a_tree_may_be_as_deep_as_it_likes() {
    let node = node();
    // Deeper than any path: made from within.
    let script = "import os\nfor n in range(5000):\n os.mkdir('d'); os.chdir('d')\nopen('end','w')";
    if !have("python3") {
        return;
    }
    let mut python = Command::new("python3");
    assert!(python.args(["-c", script]).current_dir(node.volume()).status().unwrap().success());
    node.file("good", b"good");
    let server = node.start();
    let answer = archive(&server, "/", "tar");
    assert_eq!(answer.status, 200, "{}", answer.raw);
    assert!(holds(&answer.body, b"its path is longer than 3840 bytes"));
    let download = Download::new();
    fs::write(download.path(), &answer.body).unwrap();
    let _ = Command::new("rm").arg("-rf").arg(node.volume().join("d")).status();
    download.run(Command::new("tar").arg("-tf").arg(download.path()));
}

#[test]
fn a_folder_that_may_not_be_read_is_a_failure_and_tells_no_path() {
    let node = node();
    node.file("locked/file", b"1");
    fs::set_permissions(node.volume().join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let node = if is_root() { node.as_user(65_534) } else { node };
    let mut server = node.start();
    let answer = archive(&server, "locked", "zip");
    assert_eq!(answer.status, 500, "{}", answer.raw);
    assert!(!answer.text().contains("locked"), "{}", answer.text());
    server.may_log_errors();
    fs::set_permissions(node.volume().join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}
