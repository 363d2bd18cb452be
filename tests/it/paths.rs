//! Paths: nothing outside the volume, ever, and every name inside it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::client::{Answer, Client, get};
use crate::harness::{Node, Server, is_root, pattern, skip};
use crate::mint::Token;

const SECRET: &str = "must never be served";

/// A node with a secret next to the volumes, one in another volume, and a file inside. The sandbox
/// is off: it would hide a hole in the resolution itself.
fn node() -> Node {
    let node = Node::new().winglet("sandbox: false");
    fs::write(node.path().join("secret"), SECRET).unwrap();
    let neighbour = node.path().join("volumes").join(crate::harness::OTHER_SERVER);
    fs::create_dir_all(&neighbour).unwrap();
    fs::write(neighbour.join("secret"), SECRET).unwrap();
    node.file("inside", b"inside");
    node.file("dir/file", b"inside");
    node
}

fn link(target: impl AsRef<Path>, node: &Node, name: &str) {
    symlink(target, node.volume().join(name)).unwrap();
}

/// Asks for `path` over a fresh and a kept-alive connection: the status of both.
fn status(server: &Server, kept: &mut Client, path: &str) -> u16 {
    let target = || Token::file(path).target();
    let (first, second) = (get(server.address(), &target()), kept.get(&target()));
    for answer in [&first, &second] {
        assert!(!answer.text().contains(SECRET), "{path:?} led outside");
    }
    assert_eq!(first.status, second.status, "{path:?}");
    first.status
}

/// Paths that lead nowhere, or outside if anything in the way misreads them.
#[rustfmt::skip] // a path a line would take a screen
const HOSTILE_PATHS: [&str; 48] = [
    "..", ".", "/", "//", "", "./", "/..", "../..", "dir/..", "inside/", "inside/..", "inside/.",
    "../secret", "../../secret", "/../../secret", "./../../secret", "dir/../../../secret",
    "dir/../../../../secret", "//../..//secret", "..//..//secret", ".../.../secret",
    "..\\..\\secret", "\\..\\..\\secret", "dir\\file", "%2e%2e/%2e%2e/secret", "..%2f..%2fsecret",
    "%252e%252e%252fsecret", "..%c0%af..%c0%afsecret", "\u{ff0e}\u{ff0e}/\u{ff0e}\u{ff0e}/secret",
    "..;/..;/secret", "inside\0", "\0", "inside\0.png", "../../secret\0", "~/secret", "$HOME", "*",
    "in?ide", "INSIDE", "inside ", "file:///etc/passwd", "/etc/passwd", "/proc/self/environ",
    "proc/self/environ", "dir/inside", "dir", "dir/", "inside/inside",
];

#[test]
fn no_spelling_leads_outside() {
    let node = node();
    let server = node.start();
    let mut kept = Client::connect(server.address());
    let absolute = node.path().join("secret").display().to_string();
    let neighbour = format!("../{}/secret", crate::harness::OTHER_SERVER);
    let up = "../".repeat(40);
    let made = [
        absolute.as_str(),
        &neighbour,
        &format!("{up}etc/passwd"),
        &format!("{up}{absolute}"),
        &"a".repeat(256),
        &"a".repeat(5000),
        &"a/".repeat(2500),
        &format!("{}etc/passwd", "./".repeat(2490)),
    ];
    for path in HOSTILE_PATHS.into_iter().chain(made) {
        assert_eq!(status(&server, &mut kept, path), 404, "{path:?}");
    }
    for path in [
        "inside",
        "/inside",
        "///inside",
        "./inside",
        "dir/file",
        "dir//file",
        "dir/../inside",
        "dir/./../dir/file",
        "/dir/file",
    ] {
        assert_eq!(status(&server, &mut kept, path), 200, "{path:?}");
    }
}

#[test]
fn no_symlink_leads_outside() {
    let node = node();
    let absolute = node.path().join("secret");
    let volumes = node.path().join("volumes");
    link(&absolute, &node, "absolute");
    link("../../secret", &node, "relative");
    link("../..", &node, "up");
    link(node.path(), &node, "node");
    link("/", &node, "root");
    link("/proc/self/environ", &node, "environ");
    link("/proc/self", &node, "proc-self");
    link("/proc/self/root", &node, "proc-root");
    link("/proc/self/cwd", &node, "cwd");
    link("/dev/stdin", &node, "stdin");
    link("relative", &node, "chain");
    link(volumes.join(crate::harness::OTHER_SERVER), &node, "neighbour");
    link("loop-b", &node, "loop-a");
    link("loop-a", &node, "loop-b");
    link("nothing", &node, "dangling");
    link(node.volume().join("inside"), &node, "absolute-inside");
    fs::create_dir_all(node.volume().join("deep/er")).unwrap();
    link("../../../../secret", &node, "deep/er/out");
    link("../../../..", &node, "deep/er/dir");
    let server = node.start();
    let mut kept = Client::connect(server.address());
    let real = format!("root{}", absolute.display());
    for path in [
        "absolute",
        "relative",
        "up/secret",
        "node/secret",
        "environ",
        "proc-self/environ",
        "proc-self/root/etc/passwd",
        "proc-root/etc/passwd",
        "cwd/secret",
        "cwd/config.yml",
        "stdin",
        "chain",
        "neighbour/secret",
        "loop-a",
        "dangling",
        "absolute-inside",
        "deep/er/out",
        "deep/er/dir/secret",
        "root/proc/self/environ",
        "up/volumes/../secret",
        &real,
    ] {
        assert_eq!(status(&server, &mut kept, path), 404, "{path:?}");
    }
    server.wait_for_log("refused: the path leads outside the volume");
}

#[test]
fn symlinks_inside_work() {
    let node = node();
    link("inside", &node, "plain");
    link("plain", &node, "chain");
    link("dir", &node, "by-dir");
    link("./dir/../dir/./file", &node, "winding");
    link("../inside", &node, "dir/up");
    let server = node.start();
    let mut kept = Client::connect(server.address());
    for path in
        ["plain", "chain", "by-dir/file", "winding", "dir/up", "by-dir/up", "by-dir/../inside"]
    {
        assert_eq!(status(&server, &mut kept, path), 200, "{path:?}");
    }
}

/// Replaces a symlink as fast as it can: it leads inside, outside, and through a directory.
fn swap_links(node: &Node, done: &AtomicBool) -> usize {
    let (link, fresh) = (node.volume().join("swapped"), node.volume().join("swapped.new"));
    let outside = node.path().join("secret");
    let targets =
        [Path::new("inside"), &outside, Path::new("../../secret"), Path::new("swapped-dir/secret")];
    let (dir, fresh_dir) =
        (node.volume().join("swapped-dir"), node.volume().join("swapped-dir.new"));
    let mut turns = 0;
    while !done.load(Ordering::Relaxed) {
        for target in targets {
            symlink(target, &fresh).unwrap();
            fs::rename(&fresh, &link).unwrap();
            let elsewhere: &Path = if turns % 2 == 0 { node.path() } else { Path::new("real") };
            symlink(elsewhere, &fresh_dir).unwrap();
            fs::rename(&fresh_dir, &dir).unwrap();
            turns += 1;
        }
    }
    turns
}

#[test]
fn a_symlink_that_is_swapped_during_10_000_requests_never_leads_outside() {
    const CLIENTS: usize = 4;
    let node = node();
    node.file("real/secret", b"inside");
    link("inside", &node, "swapped");
    link("real", &node, "swapped-dir");
    let server = node.start();
    let done = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let targets: Vec<String> = ["swapped", "swapped-dir/secret", "swapped-dir/../swapped"]
        .map(|path| Token::file(path).without("unique_id").target())
        .into();
    thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_links(&node, &done));
        let ask = || {
            let mut client = Client::connect(server.address());
            for count in 0..10_000 / CLIENTS {
                let answer = client.get(&targets[count % targets.len()]);
                match answer.status {
                    200 => assert_eq!(answer.body, b"inside"),
                    status => assert_eq!(status, 404, "{}", answer.text()),
                }
                served.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
                if answer.field("Connection") == Some("close") {
                    client = Client::connect(server.address());
                }
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(swapper.join().unwrap() > 100);
        assert!(results.iter().all(Result::is_ok));
    });
    let served = served.into_inner();
    assert!((1..10_000).contains(&served), "{served} served: nothing was raced");
}

#[test]
fn only_regular_files_are_served_and_nothing_hangs() {
    let node = node().winglet("threads: 1");
    let fifo = node.volume().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = UnixListener::bind(node.volume().join("socket")).unwrap();
    let mut paths = vec!["fifo", "socket", "dir", "dir/", "by-link"];
    link("fifo", &node, "by-link");
    if is_root() {
        for (name, major, minor) in [("zero", "1", "5"), ("tty", "5", "0"), ("null", "1", "3")] {
            let device = node.volume().join(name);
            let made =
                Command::new("mknod").arg(device).args(["c", major, minor]).status().unwrap();
            if made.success() {
                paths.push(name);
            } else {
                skip(format!("{name}: device nodes may not be made here"));
            }
        }
    }
    let server = node.start();
    let mut kept = Client::connect(server.address());
    for path in paths {
        assert_eq!(status(&server, &mut kept, path), 404, "{path:?}");
    }
    // The only worker is free, and its descriptors are closed.
    assert_eq!(status(&server, &mut kept, "inside"), 200);
}

#[test]
fn what_cannot_be_read_is_500_and_says_no_more() {
    let mut node = node();
    if is_root() {
        node = node.as_user(65_534);
    }
    let closed = node.file("closed", SECRET.as_bytes());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let shut = node.file("shut/file", SECRET.as_bytes());
    let open_again = Reopened(shut.parent().unwrap().to_owned());
    fs::set_permissions(&open_again.0, fs::Permissions::from_mode(0o000)).unwrap();
    let server = node.start();
    let mut kept = Client::connect(server.address());
    for path in ["closed", "shut/file"] {
        assert_eq!(status(&server, &mut kept, path), 500, "{path:?}");
        let text = get(server.address(), &Token::file(path).target()).text();
        assert!(text.contains("the file exists and could not be read"), "{text}");
        let node_path = node.path().display().to_string();
        assert!(!text.contains(&node_path) && !text.contains("denied"), "{text}");
    }
    server.wait_for_log("Permission denied");
    // It spent nothing: once the file is readable again, the same link works.
    let token = Token::file("closed");
    assert_eq!(get(server.address(), &token.target()).status, 500);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(get(server.address(), &token.target()).status, 200);
}

/// A directory that is made accessible again, so that it can be removed.
struct Reopened(std::path::PathBuf);

impl Drop for Reopened {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755));
    }
}

/// The name in `Content-Disposition`, after both forms were checked for what a header may contain.
fn offered_name(answer: &Answer) -> String {
    let value = answer.field("Content-Disposition").unwrap();
    assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{value:?}");
    let rest = value.strip_prefix("attachment; filename=\"").unwrap();
    let (plain, extended) = rest.split_once('"').unwrap();
    // Clients read these differently in the plain form.
    assert!(!plain.contains(['%', '\\']), "{value:?}");
    match extended.strip_prefix("; filename*=UTF-8''") {
        Some(extended) => {
            percent_encoding::percent_decode_str(extended).decode_utf8().unwrap().into_owned()
        }
        None => {
            assert_eq!(extended, "");
            plain.to_owned()
        }
    }
}

/// Names that a server's user may give a file.
#[rustfmt::skip] // a name a line would take a screen
const HOSTILE_NAMES: [&str; 34] = [
    "a b.txt", " lead", "trail ", "quo\"te", "back\\slash", "\"", "\\", "\\\"", "a\nb",
    "a\r\nX-Evil: 1\r\n\r\nx", "tab\there", "\u{1b}[2J", "\u{7f}", "é.txt", "e\u{301}.txt",
    "日本語.log", "🎮🗺️.zip", "%41%2e", "a;b=c", "a'b''c", "...", "..a", "-rf", "~", "$(x)", "a:b",
    "con", "\u{202e}gpj.exe", "<b>&amp;", "+", "#", "?x=y", "x*y", "\u{feff}bom",
];

#[test]
fn every_name_is_served_and_offered_exactly() {
    let long = "n".repeat(255);
    let names = HOSTILE_NAMES.into_iter().chain([long.as_str()]);
    let node = node();
    let content = pattern(2000);
    for name in names.clone() {
        node.file(name, &content);
    }
    let server = node.start();
    let mut kept = Client::connect(server.address());
    for name in names.clone() {
        for path in [name.to_owned(), format!("/{name}"), format!("dir/../{name}")] {
            let answer = kept.get(&Token::file(&path).target());
            assert_eq!(answer.status, 200, "{name:?}: {}", answer.text());
            assert!(answer.body == content && answer.field("X-Evil").is_none());
            // No name turns the text around it.
            assert_eq!(offered_name(&answer), name.replace('\u{202e}', "_"));
        }
    }
    drop(kept);
    let lines = server.wait_for_logs(3 * names.count(), "delivered");
    for line in lines {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn invalid_utf_8_on_disk_harms_nothing() {
    let node = node();
    let odd = node.volume().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("file"), SECRET).unwrap();
    fs::write(node.volume().join(OsStr::from_bytes(b"\xff\xfe.log")), SECRET).unwrap();
    symlink(OsStr::from_bytes(b"caf\xe9/file"), node.volume().join("by-link")).unwrap();
    let server = node.start();
    let mut kept = Client::connect(server.address());
    for path in ["café/file", "caf\u{fffd}/file", "caf", "\u{fffd}\u{fffd}.log", "caf%e9/file"] {
        assert_eq!(status(&server, &mut kept, path), 404, "{path:?}");
    }
    // No token can name it, but a symlink can.
    let answer = kept.get(&Token::file("by-link").target());
    assert_eq!((answer.status, offered_name(&answer).as_str()), (200, "by-link"));
}
