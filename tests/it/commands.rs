//! The commands besides `serve`, and how `serve` refuses to start.

use std::process::Output;

use crate::client::{Client, connect_from, get};
use crate::harness::{BACKUP, KEY, Node, OTHER_SERVER, SERVER};
use crate::mint::{Token, now};

/// A configuration as Wings writes it, down to the keys that Winglet has never heard of.
const WINGS: &str = include_str!("../wings.yml");

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is said there besides which files were read.
fn stderr(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("winglet: reading /"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_real_wings_configuration_passes_and_serves() {
    let node = Node::new().top_level(WINGS);
    node.file("a", b"content");
    node.write_config();
    let checked = node.run(&["check"]);
    let text = stdout(&checked);
    assert!(checked.status.success(), "{text}");
    assert!(text.contains("config.yml: ok\n"), "{text}");
    assert!(!text.contains("error") && !text.contains("warning"), "{text}");
    let server = node.start();
    assert_eq!(get(server.address(), &Token::file("a").target()).body, b"content");
}

const BROKEN: &str = r#"
token: ""
debug: perhaps
api:
  trusted_proxies: [10.0.0.0/40]
system:
  data: missing/volumes
  backup_directory: missing/backups
winglet:
  listen: [nowhere]
  treads: 4
  max_conections: 5
  threads: 0
  reuse: twice
  resume_window: soon
  max_tracked_tokens: -1
  timeouts: { hed: 1s, stall: never }
"#;

/// The beginning of each line that `check` prints on [`BROKEN`].
const FINDINGS: [&str; 14] = [
    "error: token: is empty; ",
    "error: debug: is the text \"perhaps\"; ",
    "error: api.trusted_proxies[0]: is the text \"10.0.0.0/40\"; ",
    "error: system.data: ",
    "error: system.backup_directory: ",
    "error: winglet.listen[0]: ",
    "error: winglet.treads: is an unknown key; the nearest known one is threads",
    "error: winglet.max_conections: is an unknown key; the nearest known one is max_connections",
    "error: winglet.threads: is the number 0; ",
    "error: winglet.reuse: is the text \"twice\"; write one of once, resume, unlimited",
    "error: winglet.resume_window: is the text \"soon\"; write a duration from 1s to 1year, such",
    "error: winglet.max_tracked_tokens: is the number -1; ",
    "error: winglet.timeouts.hed: is an unknown key; the nearest known one is head",
    "error: winglet.timeouts.stall: is the text \"never\"; ",
];

#[test]
fn everything_wrong_is_said_at_once() {
    let node = Node::new();
    std::fs::write(node.config(), BROKEN).unwrap();
    let checked = node.run(&["check", "--config", "config.yml"]);
    assert_eq!(checked.status.code(), Some(1));
    let mut server = node.launch(&[]);
    assert_eq!(server.wait().code(), Some(1));
    for (command, text) in [("check", stdout(&checked)), ("serve", server.log())] {
        for finding in FINDINGS {
            let there = text.lines().any(|line| line.starts_with(finding));
            assert!(there, "{command} does not say {finding:?}:\n{text}");
        }
        let errors = text.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, FINDINGS.len(), "{text}");
    }
    assert!(stdout(&checked).ends_with("config.yml: not usable\n"));
    assert!(server.log().contains("nothing was started"));
}

#[test]
fn a_configuration_that_cannot_be_read_says_why() {
    let node = Node::new();
    for (content, words) in [
        (None, "cannot be read (no such file or directory)"),
        (Some("token: [unclosed"), "is not YAML"),
        (Some("just a text"), "write a configuration"),
    ] {
        content.inspect(|content| std::fs::write(node.config(), content).unwrap());
        for arguments in [&["check"][..], &["serve"], &["explain", "x"]] {
            let output = node.run(arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            let text = stdout(&output) + &stderr(&output);
            assert!(text.contains(words) && text.contains("config.yml"), "{text}");
        }
    }
}

#[test]
fn one_missing_directory_is_a_warning() {
    let node = Node::new();
    std::fs::remove_dir(node.backups()).unwrap();
    node.write_config();
    let checked = node.run(&["check"]);
    let text = stdout(&checked);
    assert!(checked.status.success(), "{text}");
    assert!(text.starts_with("warning: system.backup_directory: "), "{text}");
    assert!(text.contains("/download/backup will answer 404"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let node = Node::new();
    let server = node.start();
    let address = server.address().to_string();
    let mut second = node.launch(&["--listen", &address]);
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    let log = second.log();
    assert!(log.contains(&address) && log.contains("in use"), "{log}");
    assert_eq!(get(server.address(), "/health").status, 200);
}

fn sign_file<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["sign", "file", "--server", SERVER, "--path", "a b/é.log"], more].concat()
}

#[test]
fn sign_prints_one_url_that_works_and_nothing_else() {
    let node = Node::new();
    node.file("a b/é.log", b"content");
    node.backup(b"content");
    let server = node.start();
    let base = server.base();
    let backup = ["sign", "backup", "--server", SERVER, "--backup", BACKUP, "--base-url", &base];
    let slash = format!("{base}/");
    for (arguments, uses) in [
        (sign_file(&["--base-url", &base]), 1),
        (sign_file(&["--base-url", &slash, "--expires", "24h"]), 1),
        (sign_file(&["--base-url", &base, "--no-unique-id"]), 3),
        (backup.to_vec(), 1),
    ] {
        let signed = node.run(&arguments);
        let (url, said) = (stdout(&signed), stderr(&signed));
        assert!(signed.status.success() && said.is_empty(), "{said}");
        assert!(url.ends_with('\n') && url.lines().count() == 1, "{url:?}");
        let target = url.trim_end().strip_prefix(&base).unwrap();
        assert!(target.starts_with("/download/"), "{target}");
        for _ in 0..uses {
            let answer = get(server.address(), target);
            assert_eq!((answer.status, answer.body.as_slice()), (200, b"content".as_slice()));
        }
    }
}

#[test]
fn sign_refuses_what_would_not_work() {
    let node = Node::new();
    node.write_config();
    let long = "a".repeat(9000);
    let too_long = vec!["sign", "file", "--server", SERVER, "--path", &long];
    for (arguments, code, words) in [
        (too_long, 1, "the link would be refused: token longer than"),
        (sign_file(&["--expires", "25h"]), 1, "longer than winglet.max_token_lifetime lets"),
        (sign_file(&["--expires", "0s"]), 2, "valid for at least one second"),
        (sign_file(&["--expires", "soon"]), 2, "such as 15m or 2h"),
        (sign_file(&["--base-url", "node.example.com"]), 2, "does not begin with http"),
        (sign_file(&["--base-url", "ftp://node"]), 2, "does not begin with http"),
        (sign_file(&["--base-url", "https://"]), 2, "such as https://node.example.com:8080"),
        (sign_file(&["--base-url", "https://n/?a=b"]), 2, "has a query of its own"),
        (sign_file(&["--base-url", "https://n/#a"]), 2, "has a query of its own"),
        (
            sign_file(&["--base-url", "https://n/a b"]),
            2,
            "has a character that an address does not have",
        ),
        (
            sign_file(&["--base-url", "https://[::1]:99999"]),
            2,
            "has a port that is no number up to 65535",
        ),
        (vec!["sign", "file", "--server", "../x", "--path", "a"], 2, "--server <UUID>"),
        (vec!["sign", "backup", "--server", SERVER], 2, "--backup <UUID>"),
        (vec!["sign"], 2, "Usage: winglet sign"),
    ] {
        let signed = node.run(&arguments);
        assert_eq!(signed.status.code(), Some(code), "{arguments:?}");
        assert!(signed.stdout.is_empty(), "{arguments:?}");
        assert!(stderr(&signed).contains(words), "{}", stderr(&signed));
    }
}

#[test]
fn sign_says_what_is_doubtful_about_a_link() {
    let signed = |node: &Node, more: &[&str]| {
        let output = node.run(&sign_file(more));
        assert!(output.status.success(), "{output:?}");
        (stdout(&output), stderr(&output))
    };
    let node = Node::new();
    node.write_config();
    let (url, said) = signed(&node, &["--base-url", "https://n:1/x/"]);
    assert!(url.starts_with("https://n:1/x/download/file?token="), "{url}");
    assert_eq!(said, "winglet: warning: the link would be refused now: no such file\n");
    node.file("a b/é.log", b"content");
    assert_eq!(signed(&node, &["--base-url", "https://n", "--expires", "2"]).1, "");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    for (listen, api, base, warned) in [
        ("127.0.0.1:80", "0.0.0.0", "http://127.0.0.1/", "only to itself"),
        ("[::1]:81", "0.0.0.0", "http://[::1]:81/", "only to itself"),
        ("unix:w", "0.0.0.0", "http://localhost/", "no address that people can reach"),
        ("192.0.2.1:80", "0.0.0.0", "http://192.0.2.1/", ""),
        ("0.0.0.0:80", "node.example.com", "http://node.example.com/", ""),
        ("0.0.0.0:8080", "192.0.2.7", "http://192.0.2.7:8080/", ""),
        ("[::]:443", "'2001:db8::1'", "http://[2001:db8::1]:443/", ""),
        ("0.0.0.0:82", "127.0.0.1", &format!("http://{host}:82/"), "?"),
        ("0.0.0.0:82", "0.0.0.0", &format!("http://{host}:82/"), "?"),
        ("127.0.0.1:80, 192.0.2.1:81", "0.0.0.0", "http://192.0.2.1:81/", ""),
    ] {
        let listen: Vec<_> = listen.split(", ").map(|one| format!("'{one}'")).collect();
        let text = format!(
            "token: {KEY}\nsystem: {{data: volumes, backup_directory: backups}}\napi: {{host: {api}}}\nwinglet: {{listen: [{}]}}\n",
            listen.join(", ")
        );
        std::fs::write(node.config(), text).unwrap();
        let (url, said) = signed(&node, &[]);
        assert!(url.starts_with(&format!("{base}download/file?")), "{url}");
        // Whether a host's name is known elsewhere shows in its having a domain.
        let warned = match warned {
            "?" if host.contains('.') => "",
            "?" => "others may not know it",
            told => told,
        };
        assert!(
            said.contains(warned) && said.is_empty() == warned.is_empty(),
            "{listen:?}: {said}"
        );
    }
}

/// What `explain` says of a link, which repeats neither its signature nor the key.
fn explain(node: &Node, link: &str, served: bool) -> String {
    let output = node.run(&["explain", link]);
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(i32::from(!served)), "{text}");
    let verdict = if served { "it would be served" } else { "it would be refused with " };
    assert!(text.lines().last().unwrap().contains(verdict), "{text}");
    let signature = link.rsplit('.').next().unwrap();
    assert!(signature.len() < 20 || !text.contains(signature), "{text}");
    assert!(!text.contains(KEY), "{text}");
    text
}

#[test]
fn explain_says_why_a_link_does_not_work() {
    let node = Node::new().with_state();
    node.file("a", b"content");
    std::os::unix::fs::symlink("/etc/passwd", node.volume().join("out")).unwrap();
    node.write_config();
    let at_backup = format!("http://n/download/backup?token={}", Token::file("a").sign());
    let other = Token::file("a").with("server_uuid", OTHER_SERVER);
    for (link, words) in [
        (Token::file("a").with("exp", now() - 5).sign(), "token expired"),
        (at_backup, "scope does not cover this endpoint"),
        (Token::file("a").signed_with(b"another key of good length").sign(), "signature is wrong"),
        (Token::file("a").with("nbf", now() + 500).sign(), "not valid yet: nbf"),
        (Token::file("a").without("exp").sign(), "token without exp"),
        (Token::file("missing").sign(), "no such file"),
        (Token::file("out").sign(), "the path leads outside the volume"),
        (format!("http://n{}", Token::file("").target()), "not a regular file"),
        (other.sign(), "no volume of this server"),
        ("garbage".into(), "token malformed"),
        ("http://n/download/file?x=y".into(), "no token in the request"),
    ] {
        let text = explain(&node, &link, false);
        assert!(text.lines().last().unwrap().contains(words), "{words:?} not in:\n{text}");
    }
}

#[test]
fn explain_takes_a_link_as_it_was_copied_and_a_token_for_what_it_opens() {
    let node = Node::new();
    node.file("world/region/a", b"content");
    node.file("b", b"content");
    node.write_config();
    let file = format!("https://n{}", Token::file("b").target());
    for link in
        [format!("<{file}>"), format!(" '{file}'\n"), format!("({file}),"), format!("{file}.")]
    {
        assert!(explain(&node, &link, true).contains("7 bytes, offered as b"), "{link}");
    }
    for (path, offered) in [("world", "world.zip"), ("", &*format!("{SERVER}.zip")), ("b", "b")] {
        let text = explain(&node, &Token::file(path).sign(), true);
        assert!(text.contains(&format!("offered as {offered}\n")), "{path}: {text}");
    }
}

#[test]
fn the_version_and_the_short_option_are_what_people_type() {
    let node = Node::new();
    node.write_config();
    let said = |arguments: &[&str]| stdout(&node.run(arguments));
    assert_eq!(said(&["version"]), said(&["--version"]));
    assert!(said(&["check", "-c", "config.yml"]).contains("config.yml: ok\n"));
    let signed = node.run(&sign_file(&["--expires", "7d"]));
    let told = "--expires: 7days is longer than winglet.max_token_lifetime lets a link live (1day)";
    assert!(stderr(&signed).contains(told), "{}", stderr(&signed));
}

#[test]
fn base_url_is_what_links_begin_with() {
    let node = Node::new().winglet("base_url: https://node.example.com/download/file");
    node.file("a b/é.log", b"content");
    node.write_config();
    let signed = |more: &[&str]| {
        let output = node.run(&sign_file(more));
        (stdout(&output), stderr(&output))
    };
    let (url, said) = signed(&[]);
    assert!(url.starts_with("https://node.example.com/download/file?token=") && said.is_empty());
    let (url, _) = signed(&["--base-url", "https://other.example.com/download/file/"]);
    assert!(url.starts_with("https://other.example.com/download/file?token="), "{url}");
}

#[test]
fn explain_names_each_backup_layout() {
    let node = Node::new();
    node.write_config();
    let link = format!("https://n:8080{}", Token::backup().target());
    let text = explain(&node, &link, false);
    let layouts = [
        format!("{SERVER}/{BACKUP}.tar.gz"),
        format!("{BACKUP}.tar.gz"),
        format!("{SERVER}/backup-{BACKUP}.tar.gz"),
        format!("backup-{BACKUP}.tar.gz"),
    ];
    for layout in &layouts {
        assert!(text.contains(&format!(" {layout}: not there\n")), "{text}");
    }
    std::fs::write(node.backups().join(&layouts[3]), b"archive").unwrap();
    let text = explain(&node, &link, true);
    assert!(text.contains(&format!(" {}: there\n", layouts[3])), "{text}");
    assert!(text.contains(&format!("7 bytes, offered as backup-{BACKUP}.tar.gz")), "{text}");
}

#[test]
fn explain_follows_a_link_through_its_life_and_spends_nothing() {
    let node = Node::new().with_state();
    node.file("a", b"content");
    node.sparse("big", 64 << 20);
    let server = node.start();
    let (small, big) = (Token::file("a"), Token::file("big"));
    for _ in 0..3 {
        assert!(explain(&node, &small.sign(), true).contains("one-time, never used"));
    }
    assert_eq!(get(server.address(), &small.target()).status, 200);
    server.wait_for_log("delivered");
    let text = explain(&node, &small.sign(), false);
    assert!(text.contains("spent: its download is complete"), "{text}");
    let mut slow = Client::over(connect_from("127.0.0.1", server.address(), Some(4096)));
    slow.request("GET", &big.target(), "");
    assert_eq!(slow.head().unwrap().status, 200);
    let text = explain(&node, &big.sign(), true);
    let length = 64 << 20;
    for words in ["in progress: 0 of ", &format!(" {length} bytes"), "127.0.0.1", "resumable"] {
        assert!(text.contains(words), "{words:?} not in:\n{text}");
    }
    let from = |address: &str| {
        let output = node.run(&["explain", "--from", address, &big.sign()]);
        (output.status.code(), stdout(&output))
    };
    assert_eq!(from("127.0.0.1").0, Some(0));
    assert_eq!(from("::ffff:127.0.0.1").0, Some(0));
    let (code, text) = from("192.0.2.1");
    assert_eq!(code, Some(1));
    assert!(text.contains("it would be refused with 503: ") && text.contains("another address"));
    assert_eq!(node.run(&["explain", "--from", "somewhere", "x"]).status.code(), Some(2));
    let plain = Token::file("a").without("unique_id");
    assert!(explain(&node, &plain.sign(), true).contains("not one-time"));
}
