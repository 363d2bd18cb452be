//! What a link must not show, by its token or by the configuration: in no file, no archive, no length
//! and no word, whatever way leads there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::thread;

use crate::client::{Answer, Client, get};
use crate::harness::{Node, Server, have};
use crate::mint::{Panel, Token};

const SECRET: &[u8] = b"must never be served";
const PATTERNS: [&str; 4] = ["secret.txt", "/plugins/", "*.pem", "!/world/public.pem"];

/// Everything that must not be seen holds [`SECRET`].
fn node() -> Node {
    let node = Node::new().with_state();
    plant(&node, true);
    node
}

/// The files of a server; what is hidden of them only if `all`.
fn plant(node: &Node, all: bool) {
    for path in ["world/level.dat", "world/region/r.mca", "world/public.pem", "server.properties"] {
        node.file(path, path.as_bytes());
    }
    fs::create_dir_all(node.volume().join("world/empty")).unwrap();
    symlink("level.dat", node.volume().join("world/link")).unwrap();
    if !all {
        return;
    }
    for path in [
        "secret.txt",
        "world/secret.txt",
        "world/region/secret.txt",
        "world/key.pem",
        "world/empty/secret.txt/inside",
        "plugins/auth/config.yml",
        "plugins/public.pem",
    ] {
        node.file(path, SECRET);
    }
    for (target, path) in [
        ("secret.txt", "world/alias"),
        ("../plugins/auth", "world/folder"),
        ("/home/container/secret.txt", "world/absolute"),
        ("alias", "world/chain"),
        ("world", "way"),
    ] {
        symlink(target, node.volume().join(path)).unwrap();
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The names in an archive.
fn names(format: &str, archive: &[u8]) -> Vec<String> {
    let path = std::env::temp_dir().join(format!("winglet-hidden-{}.{format}", std::process::id()));
    let name = format!("{}-{:?}", path.display(), thread::current().id()).replace(['(', ')'], "");
    fs::write(&name, archive).unwrap();
    let script = match format {
        "zip" => "import sys,zipfile; print('\\n'.join(zipfile.ZipFile(sys.argv[1]).namelist()))",
        _ => "import sys,tarfile; print('\\n'.join(tarfile.open(sys.argv[1]).getnames()))",
    };
    let output = Command::new("python3").args(["-c", script, &name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(name).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<String> =
        text.lines().map(|name| name.trim_end_matches('/').to_owned()).collect();
    names.sort();
    names
}

fn archive(server: &Server, token: &Token, format: &str) -> Answer {
    get(server.address(), &format!("{}&archive_format={format}", token.target()))
}

/// What an answer says apart from the request's own id.
fn said(answer: &Answer) -> (u16, String) {
    let text = answer.text();
    (answer.status, text.split("request_id").next().unwrap().to_owned())
}

/// By the token and by the configuration, the same patterns do the same.
fn each_way(check: impl Fn(&Node, &Server, &dyn Fn(Token) -> Token)) {
    let node = node();
    check(&node, &node.start(), &|token| token.hiding(&PATTERNS));
    let list: Vec<String> = PATTERNS.iter().map(|pattern| format!("'{pattern}'")).collect();
    let node = self::node().winglet(&format!("hidden: [{}]", list.join(", ")));
    check(&node, &node.start(), &|token| token);
}

#[test]
fn no_path_leads_to_a_hidden_file_or_folder() {
    each_way(|_, server, hiding| {
        let ask = |token: Token| get(server.address(), &hiding(token).target());
        for panel in Panel::ALL {
            let missing = said(&ask(panel.file("world/none")));
            for path in [
                "secret.txt",
                "/secret.txt",
                "./secret.txt",
                "world//secret.txt",
                "world/./secret.txt",
                "world/../secret.txt",
                "world/region/../secret.txt",
                "world/key.pem",
                "plugins/public.pem",
                "plugins/auth/config.yml",
                "world/empty/secret.txt/inside",
                "world/alias",
                "world/chain",
                "way/secret.txt",
                "way/../secret.txt",
                "way/chain",
                "world/folder/config.yml",
            ] {
                assert_eq!(said(&ask(panel.file(path))), missing, "{panel:?} {path}");
            }
            for path in ["world/level.dat", "way/level.dat", "world/link", "world/public.pem"] {
                assert_eq!(ask(panel.file(path)).status, 200, "{panel:?} {path}");
            }
            let missing = said(&ask(panel.directory("none")));
            let paths = [
                "plugins",
                "/plugins/",
                "plugins/auth",
                "world/folder",
                "way/folder",
                "world/../plugins",
            ];
            for path in paths {
                assert_eq!(said(&ask(panel.directory(path))), missing, "{panel:?} {path}");
                let some = panel.files(path, &["config.yml", "public.pem"]);
                assert_eq!(said(&ask(some)), missing, "{panel:?} {path}");
            }
            let missing = said(&ask(panel.files("world", &["none"])));
            let some = panel.files("world", &["secret.txt", "alias", "key.pem"]);
            assert_eq!(said(&ask(some)), missing, "{panel:?}");
        }
        // Lines that one address causes are bounded.
        let target = hiding(Panel::Calagopus.file("plugins/auth/config.yml")).target();
        let answer = Client::connect_from("127.0.0.2", server.address()).get(&target);
        let line = server.wait_for_log(&format!("id={}", answer.field("X-Request-Id").unwrap()));
        assert!(
            line.contains("hidden by the token's ignored_files or by winglet.hidden"),
            "{line}"
        );
    });
}

#[test]
fn a_backup_is_served_whole() {
    each_way(|node, server, hiding| {
        node.backup(b"content");
        assert_eq!(get(server.address(), &hiding(Token::backup()).target()).body, b"content");
    });
}

/// The archives of a server's files are those of one that does not have what is hidden.
#[test]
fn archives_are_as_if_hidden_files_were_not_there() {
    if !have("python3") {
        return;
    }
    let plain = Node::new();
    plant(&plain, false);
    let plain = plain.start();
    let tokens: [fn() -> Token; 5] = [
        || Panel::Calagopus.directory(""),
        || Panel::Calagopus.directory("/world/"),
        || Panel::Calagopus.directory("world/empty"),
        || Panel::Calagopus.files("world", &["region", "level.dat", "empty", "link"]),
        || Panel::Calagopus.files("", &["world/region", "server.properties"]),
    ];
    each_way(|node, server, hiding| {
        // Removed again: a link that leads nowhere hidden is no secret.
        fs::remove_file(node.volume().join("way")).unwrap();
        for (token, format) in tokens.iter().flat_map(|token| ["zip", "tar"].map(|f| (token, f))) {
            let expected = archive(&plain, &token(), format);
            let found = archive(server, &hiding(token()), format);
            assert_eq!((expected.status, found.status), (200, 200), "{}", found.raw);
            assert_eq!(names(format, &found.body), names(format, &expected.body), "{format}");
            assert_eq!(found.length(), expected.length(), "{format}");
            for word in [SECRET, b"secret", b"plugins", b"alias", b"key.pem"] {
                assert!(!holds(&found.body, word), "{} in {format}", String::from_utf8_lossy(word));
            }
        }
    });
}

#[test]
fn what_is_left_out_for_other_reasons_is_not_named_if_it_is_hidden() {
    each_way(|node, server, hiding| {
        let volume = node.volume();
        for path in ["world/fifo", "world/fifo.pem", "world/region/secret.txt.d"] {
            assert!(Command::new("mkfifo").arg(volume.join(path)).status().unwrap().success());
        }
        fs::set_permissions(volume.join("world/key.pem"), fs::Permissions::from_mode(0o000))
            .unwrap();
        symlink("../../../etc/passwd", volume.join("world/out.pem")).unwrap();
        symlink("key.pem", volume.join("world/loop.pem")).unwrap();
        for format in ["zip", "tar"] {
            let found = archive(server, &hiding(Token::directory("world")), format);
            assert!(holds(&found.body, b".winglet-skipped.txt"), "{}", found.raw);
            assert!(holds(&found.body, b"fifo: neither"), "{format}");
            for word in [&b"fifo.pem"[..], b"key.pem", b"out.pem", b"loop.pem", b"alias"] {
                assert!(!holds(&found.body, word), "{} in {format}", String::from_utf8_lossy(word));
            }
        }
        let chosen = Token::files("world", &["level.dat", "secret.txt", "nothing.pem", "none"]);
        let found = archive(server, &hiding(chosen), "tar");
        assert!(holds(&found.body, b"none: there is no such file"), "{}", found.raw);
        assert!(!holds(&found.body, b"secret") && !holds(&found.body, b"nothing"));
    });
}

#[test]
fn two_links_with_other_patterns_never_share_an_archive() {
    let node = node();
    let server = node.start();
    let of = |patterns: &[&str]| Panel::Calagopus.directory("world").hiding(patterns);
    let kinds: [&[&str]; 4] = [&[], &["secret.txt"], &["*.pem"], &["nothing-like-it"]];
    let ask = |patterns: &[&str]| {
        let answer = archive(&server, &of(patterns), "tar");
        assert_eq!(answer.status, 200, "{}", answer.raw);
        let named = (holds(&answer.body, b"region/secret.txt"), holds(&answer.body, b"key.pem"));
        (answer.field("ETag").unwrap().to_owned(), answer.length(), named)
    };
    let first: Vec<_> = kinds.iter().map(|patterns| ask(patterns)).collect();
    assert_eq!(
        first.iter().map(|found| found.2).collect::<Vec<_>>(),
        [(true, true), (false, true), (true, false), (true, true)]
    );
    for (index, found) in first.iter().enumerate() {
        assert!(first[..index].iter().all(|other| other.0 != found.0), "{first:?}");
    }
    assert_ne!(first[0].1, first[1].1);
    // One after the other again, and all at the same time.
    for (patterns, found) in kinds.iter().zip(&first) {
        assert_eq!(ask(patterns), *found);
    }
    let ask = &ask;
    thread::scope(|scope| {
        let runs: Vec<_> = (0..16)
            .map(|number| (number % kinds.len(), scope.spawn(move || ask(kinds[number % 4]))))
            .collect();
        for (kind, run) in runs {
            assert_eq!(run.join().unwrap(), first[kind]);
        }
    });
}

#[test]
fn a_reload_changes_what_is_hidden() {
    let node = node().winglet("reuse: unlimited\nhidden: []");
    let server = node.start();
    let (folder, file) = (Token::directory("world"), Token::file("world/key.pem"));
    let etag = || {
        let mut client = Client::connect(server.address());
        client.request("HEAD", &folder.target(), "");
        let head = client.bodiless_answer();
        (head.field("ETag").unwrap().to_owned(), head.length().unwrap())
    };
    let status = || get(server.address(), &file.target()).status;
    let (all, whole) = (etag(), status());
    let reload = |count: usize, hidden: &str| {
        let config = fs::read_to_string(node.config()).unwrap();
        let lines = config.lines().map(|line| match line.trim_start().starts_with("hidden:") {
            true => format!("  hidden: {hidden}\n"),
            false => format!("{line}\n"),
        });
        fs::write(node.config(), lines.collect::<String>()).unwrap();
        server.signal("HUP");
        server.wait_for_logs(count, "reload: done");
    };
    reload(1, "['*.pem', 'secret.txt']");
    let (some, hidden) = (etag(), status());
    assert_eq!((whole, hidden), (200, 404));
    assert!(some.0 != all.0 && some.1 < all.1, "{some:?} {all:?}");
    let resumed = format!("Range: bytes=100-\r\nIf-Range: {}\r\n", all.0);
    let answer = Client::connect(server.address()).get_with(&folder.target(), &resumed);
    assert!(answer.status == 200 && !holds(&answer.body, SECRET), "{}", answer.raw);
    reload(2, "[]");
    assert_eq!((etag(), status()), (all, 200));
}

#[test]
fn explain_says_what_is_hidden() {
    let node = node();
    node.start();
    let explained = |token: Token| {
        let output = node.run(&["explain", &format!("http://node{}", token.target())]);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = explained(Panel::Calagopus.file("world/secret.txt").hiding(&["secret.txt"]));
    assert!(text.contains("hides        secret.txt\n"), "{text}");
    assert!(text.contains("refused with 404: hidden by"), "{text}");
    let text = explained(Panel::Calagopus.file("world/level.dat").hiding(&["secret.txt"]));
    assert!(text.contains("it would be served"), "{text}");
    let malformed = Panel::Calagopus.file("world/level.dat").with("ignored_files", "secret.txt");
    assert!(explained(malformed).contains("refused with 401: token malformed"));
}
