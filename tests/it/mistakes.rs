//! What an operator who makes a mistake in the configuration is told, by `check` and by `serve`.

use std::fs;
use std::process::Output;

use winglet::config::{KEYS, SAMPLE_TOKEN};

use crate::harness::{KEY, Node, have, must_be_root, skip};

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    texts.concat()
}

/// A configuration that nothing is wrong with, and `more`.
fn sound(more: &str) -> String {
    format!(
        "token: {KEY}\nsystem: {{data: volumes, backup_directory: backups}}\nwinglet:\n  listen: ['127.0.0.1:0']\n{more}"
    )
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn serve_refuses_what_check_calls_an_error_in_the_same_words() {
    let node = Node::new();
    fs::write(node.path().join("file"), "").unwrap();
    let listening = |listen: &str| sound("").replace("'127.0.0.1:0'", listen).into_bytes();
    let sample = sound("").replace(KEY, SAMPLE_TOKEN).replace("127.0.0.1:0", "0.0.0.0:0");
    let table: &[(Vec<u8>, &str)] = &[
        ([sound("# caf").as_bytes(), b"\xe9\n"].concat(), "config.yml: is not UTF-8, at line 5"),
        (wide(&sound("")), "config.yml: is UTF-16; save it as UTF-8"),
        (sound("  reuse: once\n  reuse: once\n").into(), "second time at line 6; keep one"),
        (sound("\ttab: 1\n").into(), "has a tab at the beginning of line 5"),
        (sound("  treads: 8\n").into(), "winglet.treads: is an unknown key; the nearest known one"),
        (sound("  state_directory: file\n").into(), "winglet.state_directory: "),
        (sound("  state_directory: file/below\n").into(), "/file is not a directory; name another"),
        (listening("8081"), "winglet.listen[0]: is the number 8081; write a text, such as"),
        (listening("'8081'"), "\"8081\" is not an address; write ADDR:PORT"),
        (listening("'127.0.0.1:1', '127.0.0.1:1'"), "127.0.0.1:1 and 127.0.0.1:1 meet"),
        (
            listening("'127.0.0.1:1', '0.0.0.0:1'"),
            "0.0.0.0:1 and 127.0.0.1:1 meet, and the system refuses one",
        ),
        (listening("'192.0.2.1:1'"), "cannot listen on 192.0.2.1:1"),
        (sample.into(), "token: is the sample's, and 0.0.0.0:0 is open"),
        (sound("").replace("token", "tokne").into(), "did you mean token?"),
    ];
    for (text, told) in table {
        fs::write(node.config(), text).unwrap();
        let [check, serve] = [&["check"], &["serve"]].map(|arguments| node.run(arguments));
        for output in [check, serve] {
            assert_eq!(output.status.code(), Some(1), "{told}: {output:?}");
            assert!(said(&output).contains(told), "{told}:\n{}", said(&output));
            assert!(!said(&output).contains(KEY), "{told}");
        }
    }
}

/// A configuration in which `name` holds `value`, and nothing else is wrong.
fn with(name: &str, value: &str) -> String {
    let mut settings = vec![
        ("token", KEY.to_owned()),
        ("system.data", "volumes".into()),
        ("system.backup_directory", "backups".into()),
        ("winglet.listen", "['127.0.0.1:0']".into()),
    ];
    settings.retain(|(known, _)| *known != name);
    settings.push((name, value.to_owned()));
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in &settings {
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        let nest = |inner: String, part: &str| format!("{{{part}: {inner}}}");
        let mut parts: Vec<&str> = key.split('.').collect();
        let first = parts.remove(0);
        let line = format!("{first}: {}", parts.into_iter().rev().fold(value.clone(), nest));
        match sections.iter_mut().find(|(known, _)| known == section) {
            Some((_, lines)) => lines.push(line),
            None => sections.push((section.to_owned(), vec![line])),
        }
    }
    let whole = sections.iter().map(|(section, lines)| match section.as_str() {
        "" => lines.join("\n") + "\n",
        _ => format!("{section}:\n  {}\n", lines.join("\n  ")),
    });
    whole.collect()
}

#[test]
fn whatever_a_key_holds_check_and_serve_say_the_same() {
    let node = Node::new();
    let (mut refused, mut served) = (0, 0);
    for key in KEYS {
        for value in ["-1", "'no such thing'", "[1]", "{a: 1}"] {
            let text = with(key.name, value);
            fs::write(node.config(), &text).unwrap();
            let errors = |text: &str| -> Vec<String> {
                let errors = text.lines().filter(|line| line.starts_with("error: "));
                errors.map(str::to_owned).collect()
            };
            let checked = node.run(&["check", "--quiet"]);
            let told = errors(&said(&checked));
            if checked.status.success() {
                let mut server = node.start_with(&[]);
                server.may_log_errors();
                served += 1;
                continue;
            }
            assert!(told[0].starts_with(&format!("error: {}", key.name)), "{told:?}\n{text}");
            let serve = node.run(&["serve"]);
            assert_eq!(serve.status.code(), Some(1), "{text}");
            assert_eq!(errors(&said(&serve)), told, "{text}");
            refused += 1;
        }
    }
    assert!(refused > 160 && served > 3, "{refused} refused, {served} served");
}

#[test]
fn check_warns_of_what_serve_starts_with() {
    let node = Node::new();
    for (text, told) in [
        (format!("\u{feff}{}", sound("")), ""),
        (sound("reuse: once\n"), "reuse: is ignored here; it belongs under winglet:"),
        (sound("listen: ['[::]:0']\n"), "listen: is ignored here; it belongs under winglet:"),
        (
            sound("").replace("backups}", "backups, state_directory: x}"),
            "system.state_directory: is ignored here; it belongs under winglet:",
        ),
        (
            sound("").replace("data:", "datas:"),
            "system.datas: is a key that is not read; did you mean data?",
        ),
        (sound("api: {trusted_proxies: ['0.0.0.0/0']}\n"), "is everybody, so any client"),
    ] {
        fs::write(node.config(), text).unwrap();
        let output = node.run(&["check", "--quiet"]);
        assert_eq!(output.status.code(), Some(0), "{told}: {output:?}");
        let lines = said(&output);
        assert!(lines.contains(told) && lines.is_empty() == told.is_empty(), "{told}: {lines}");
        assert!(lines.lines().all(|line| line.starts_with("warning: ")), "{lines}");
        let mut server = node.start_with(&[]);
        assert!(server.log().contains(told), "{told}:\n{}", server.log());
        server.stop();
    }
}

#[test]
fn one_port_in_both_families_is_told_before_serve_fails() {
    let Ok(v6only) = fs::read("/proc/sys/net/ipv6/bindv6only") else {
        return skip("this machine has no IPv6");
    };
    let node = Node::new();
    // Free a moment ago; no test depends on its staying so.
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let both = format!("'0.0.0.0:{port}', '[::]:{port}'");
    fs::write(node.config(), sound("").replace("'127.0.0.1:0'", &both)).unwrap();
    let output = node.run(&["check", "--quiet"]);
    let code = if v6only.starts_with(b"0") { 1 } else { 0 };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(said(&output).contains("meet, and the system refuses one"), "{}", said(&output));
}

#[test]
fn whoever_may_not_read_the_configuration_is_told_to_use_sudo() {
    if !must_be_root() || !have("setpriv") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new().as_user(65534);
    fs::write(node.config(), sound("")).unwrap();
    node.run(&["check"]);
    std::os::unix::fs::chown(node.config(), Some(0), Some(0)).unwrap();
    fs::set_permissions(node.config(), fs::Permissions::from_mode(0o600)).unwrap();
    for command in [&["check"][..], &["serve"], &["explain", "x.y.z"]] {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(node.path().join("winglet"))
            .args(command)
            .current_dir(node.path())
            .output()
            .unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("cannot be read (permission denied); run this as root (sudo)"),
            "{text}"
        );
    }
}
