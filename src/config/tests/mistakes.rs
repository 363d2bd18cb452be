//! What an operator is told about each mistake.

use super::*;

#[test]
fn a_token_that_cannot_work_is_told_without_showing_it() {
    let node = Node::new();
    node.write("empty", "\n");
    for (token, told) in [
        ("", "token: is missing; copy"),
        ("token:", "token: is missing; copy"),
        ("token: ''", "token: is empty; copy"),
        ("token: fifteenletters!", "token: has 15 characters and needs at least 16"),
        ("token: 123456789012345", "token: is not a text; put it in quotes"),
        (
            "token: file:///no/such/file",
            "token: names the file /no/such/file, which cannot be read: no such file",
        ),
        ("token: file://empty", "token: is empty"),
        ("token: ${MISSING}", "token: names the environment variable MISSING, which is not set"),
        ("token: file:///${DIR}/x", "token: names the environment variable DIR, which is not set"),
        (
            "token: 12345$secret",
            "token: holds a $ and after it the name of no environment variable",
        ),
        ("token: 12345${secret}", "token: holds a $ and after it"),
        ("token: ${Secret}", "token: holds a $ and after it"),
        ("token: $SECRET", "token: holds a $ and after it"),
        ("token: ${A}$secret", "token: holds a $ and after it"),
        ("token: '${MISSING'", "token: has a ${ without its closing }"),
        ("token: /etc/winglet/token-of-secret", "token: looks like a path or a reference"),
        ("token: file:/etc/winglet/secret-token", "token: looks like a path or a reference"),
        ("token: File:secret-token-secret-token", "token: looks like a path or a reference"),
        ("token: env:SECRET", "token: looks like a path or a reference"),
        ("token: ~/secret-token-secret-token", "token: looks like a path or a reference"),
        ("token: changemechangeme", "token: is a placeholder"),
        ("token: Change-Me-Change-Me-Change-Me", "token: is a placeholder"),
    ] {
        let text = format!("{token}\nsystem: {{data: volumes, backup_directory: backups}}\n");
        let (config, findings) = node.load_with(&text, &[], &[]);
        assert!(
            config.is_none() && findings.starts_with(&format!("error: {told}")),
            "{token}: {findings}"
        );
        let shown = findings.to_lowercase();
        for part in ["fifteen", "12345", "secret"] {
            assert!(!shown.contains(part), "{findings}");
        }
    }
}

#[test]
fn mistakes_name_the_key_and_the_remedy() {
    let node = Node::new();
    node.write("file", "");
    for (rest, told) in [
        (
            "winglet: {thread: 1}",
            "winglet.thread: is an unknown key; the nearest known one is threads",
        ),
        (
            "winglet: {Reuse: once}",
            "winglet.Reuse: is an unknown key; the nearest known one is reuse",
        ),
        (
            "winglet: {stall: 1s}",
            "winglet.stall: is an unknown key; it belongs under winglet.timeouts:",
        ),
        (
            "winglet: {timeouts: {ilde: 1s}}",
            "winglet.timeouts.ilde: is an unknown key; the nearest known one is idle",
        ),
        ("winglet: {timeouts: 10s}", "winglet.timeouts: is the text \"10s\"; write a section"),
        (
            "winglet: {timeouts: {head: 0}}",
            "winglet.timeouts.head: is the number 0; write a duration from 1ms to 1h",
        ),
        (
            "winglet: {threads: 0}",
            "winglet.threads: is the number 0; write a whole number from 1 to 1024",
        ),
        (
            "winglet: {threads: 1025}",
            "winglet.threads: is the number 1025; write a whole number from 1 to 1024",
        ),
        (
            "winglet: {reuse: twice}",
            "winglet.reuse: is the text \"twice\"; write one of once, resume, unlimited",
        ),
        (
            "winglet: {bandwidth: -1}",
            "winglet.bandwidth: is the number -1; write a number of MiB/s or a rate, such as 500KiB",
        ),
        ("api: 5", "api: is the number 5; write a section"),
        (
            "api: {trusted_proxies: [10.0.0.0/33]}",
            "api.trusted_proxies[0]: is the text \"10.0.0.0/33\"; write an address",
        ),
        (
            "api: {trusted_proxies: 5}",
            "api.trusted_proxies: is the number 5; write a list of texts, such as [\"127.0.0.1\"]",
        ),
        (
            "winglet: {listen: 8081}",
            "winglet.listen: is the number 8081; write a list of texts, such as [\"0.0.0.0:8080\"]",
        ),
        (
            "winglet: {listen: [8081]}",
            "winglet.listen[0]: is the number 8081; write a text, such as \"0.0.0.0:8080\"",
        ),
        ("winglet: {listen: []}", "winglet.listen: is an empty list; name an address"),
        (
            "winglet: {priority: high}",
            "winglet.priority: is the text \"high\"; write one of low, normal",
        ),
        (
            "winglet: {settle_time: 2d}",
            "winglet.settle_time: is the text \"2d\"; write a duration from 0s to 1day",
        ),
        ("winglet: {state_directory: file}", "winglet.state_directory: "),
        (
            "winglet: {timeouts.stall: 1s}",
            "winglet.timeouts.stall: is not read with a dot in it; write winglet: {timeouts: {stall: ...}}",
        ),
        (
            "timeouts.stall: 1s",
            "timeouts.stall: is not read with a dot in it; write winglet: {timeouts: {stall: ...}}",
        ),
        (
            "winglet.reuse: once",
            "winglet.reuse: is not read with a dot in it; write winglet: {reuse: ...}",
        ),
        (
            "api.ssl.enabled: true",
            "api.ssl.enabled: is not read with a dot in it; write api: {ssl: {enabled: ...}}",
        ),
        (
            "api: {ssl.enabled: true}",
            "api.ssl.enabled: is not read with a dot in it; write api: {ssl: {enabled: ...}}",
        ),
        (
            "winglet.timeouts: {stall: 1s}",
            "winglet.timeouts: is not read with a dot in it; write winglet: {timeouts: ...}",
        ),
        (
            "winglet: {tls: true}",
            "winglet.tls: is an unknown key; set api.ssl, or write tls:ADDR:PORT in winglet.listen",
        ),
        ("winglet: {ssl: {}}", "winglet.ssl: is an unknown key; it belongs under api:"),
        (
            "winglet: {log: x}",
            "winglet.log: is an unknown key; what is logged is for winglet.access_log",
        ),
        ("winglet: {url: x}", "winglet.url: is an unknown key; the Panel's address is remote, and"),
        (
            "winglet: {volumes: x}",
            "winglet.volumes: is an unknown key; the directory of the servers' volumes is system.data",
        ),
        (
            "winglet: {backups: x}",
            "winglet.backups: is an unknown key; the directory of the backups is system.backup",
        ),
        (
            "winglet: {user: x}",
            "winglet.user: is an unknown key; the unit (User=) or the init script",
        ),
        (
            "winglet: {wombat: x}",
            "winglet.wombat: is an unknown key; winglet.yml(5) lists the known ones",
        ),
        (
            "winglet: {timeouts: {ssl: x}}",
            "winglet.timeouts.ssl: is an unknown key; it belongs under api:",
        ),
        (
            "api: {trusted_proxies: ['[::1]']}",
            "api.trusted_proxies[0]: is the text \"[::1]\"; write an address or a block, such as 127.0.0.1, ::1 or 10.0.0.0/8, without brackets",
        ),
        ("winglet: {data: x}", "winglet.data: is an unknown key; it belongs under system:"),
        ("winglet: {token: x}", "winglet.token: is an unknown key; it belongs at the top level"),
        ("winglet: {\"a\\e\": x}", "winglet.a\\u{1b}: is an unknown key; winglet.yml(5) lists"),
        ("winglet: []", "winglet: is a list; write a section"),
    ] {
        let (config, findings) = node.load(rest);
        assert!(
            config.is_none() && findings.starts_with(&format!("error: {told}")),
            "{rest}: {findings}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let (config, findings) = Node::new().load_with(
        "winglet: {threads: x, sandbox: 3, typo: 1}\napi: {port: y}",
        &[],
        &[],
    );
    assert!(config.is_none());
    let expected = [
        "token",
        "api.port",
        "winglet.threads",
        "winglet.sandbox",
        "system.data",
        "system.backup_directory",
        "winglet.typo",
    ];
    assert_eq!(keys(&findings), expected);
}

#[test]
fn warnings_leave_a_configuration() {
    let node = Node::new();
    fs::remove_dir(node.0.join("volumes")).unwrap();
    let (config, findings) = node.load("");
    assert!(config.is_some());
    let told = format!(
        "warning: system.data: {}/volumes does not exist; /download/file will answer 404",
        node.0.display()
    );
    assert_eq!(findings, told);

    fs::remove_dir(node.0.join("backups")).unwrap();
    node.write("backups", "a file");
    let (config, findings) = node.load("");
    assert!(config.is_none());
    assert!(findings.contains("backups is not a directory; name the directory"), "{findings}");

    let (config, findings) = Node::new().load("winglt: {threads: 1}\nremote: panel.example.com");
    assert!(config.is_some());
    assert_eq!(keys(&findings), ["remote", "winglt"]);

    let (config, findings) = Node::new().load("api: {trusted_proxies: [10.0.0.1, '0.0.0.0/0']}");
    assert!(config.is_some());
    let told = "warning: api.trusted_proxies: 0.0.0.0/0 is everybody, so any client can pass";
    assert!(findings.starts_with(told), "{findings}");
    assert!(Node::new().load("api: {trusted_proxies: ['::/0']}").1.contains("::/0 is everybody"));

    let (config, findings) = Node::new().load("winglet: {extra_read_paths: [/no/such]}");
    assert!(config.is_some());
    let told = "warning: winglet.extra_read_paths: /no/such does not exist";
    assert!(findings.starts_with(told), "{findings}");
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_belongs() {
    let node = Node::new();
    for (key, told) in [
        ("reuse: once", "reuse: is ignored here; it belongs under winglet:"),
        ("listen: [a]", "listen: is ignored here; it belongs under winglet:"),
        ("stall: 1s", "stall: is ignored here; it belongs under winglet.timeouts:"),
        ("timeouts: {}", "timeouts: is ignored here; it belongs under winglet:"),
        ("ssl: {}", "ssl: is ignored here; it belongs under api:"),
        (
            "log: x",
            "log: is ignored here; what is logged is for winglet.access_log, winglet.log_format and debug to say",
        ),
        ("docker: {tls: x}\nthrottles: {user: x}\nsystem.user: x", ""),
        ("trusted_proxies: []", "trusted_proxies: is ignored here; it belongs under api:"),
        ("tokne: x", ""),
        ("remot: x", "remot: is a key that is not read; did you mean remote?"),
        ("Api: {}", "Api: is a key that is not read; did you mean api?"),
        ("api: {prot: 1}", "api.prot: is a key that is not read; did you mean port?"),
        ("api: {ssl: {crt: 1}}", "api.ssl.crt: is a key that is not read; did you mean cert?"),
        (
            "api: {state_directory: x}",
            "api.state_directory: is ignored here; it belongs under winglet:",
        ),
        ("token_id: x\napp_name: y\nuuid: z\nremote_query: {}", ""),
    ] {
        let (config, findings) = node.load(key);
        assert!(config.is_some());
        let told = if told.is_empty() { String::new() } else { format!("warning: {told}") };
        assert_eq!(findings, told, "{key}");
    }
    let text = format!(
        "tokne: {TOKEN}\nsystem: {{datas: volumes, backup_directory: backups, reuse: once}}"
    );
    let (_, findings) = node.load_with(&text, &[], &[]);
    for told in [
        "error: token: is missing",
        "warning: tokne: is a key that is not read; did you mean token?",
        "warning: system.datas: is a key that is not read; did you mean data?",
        "warning: system.reuse: is ignored here; it belongs under winglet:",
    ] {
        assert!(findings.lines().any(|line| line.starts_with(told)), "{told}:\n{findings}");
    }
    assert!(!findings.contains(TOKEN), "{findings}");
}

#[test]
fn the_token_of_the_sample_stays_on_this_machine() {
    let node = Node::new();
    let text = |listen: &str| {
        format!(
            "token: {}\nsystem: {{data: volumes, backup_directory: backups}}\nwinglet: {{listen: [{listen}]}}",
            SAMPLE_TOKEN
        )
    };
    for listen in ["'127.0.0.2:80'", "'[::1]:80'", "'unix:w'", "'127.0.0.1:80', 'unix:w'"] {
        assert_eq!(node.load_with(&text(listen), &[], &[]).1, "", "{listen}");
    }
    let (config, findings) = node.load_with(&text("'127.0.0.1:80', '0.0.0.0:81'"), &[], &[]);
    let told = "error: token: is the sample's, and 0.0.0.0:81 is open to others";
    assert!(config.is_none() && findings.starts_with(told), "{findings}");
    assert!(node.load_with(&text("'127.0.0.1:80'"), &["[::]:0"], &[]).0.is_none());
}

#[test]
fn a_file_that_is_no_configuration() {
    let node = Node::new();
    for (text, told) in [
        ("", "config.yml: holds nothing; write a configuration"),
        ("- a\n- b\n", "config.yml: holds a list; write a configuration"),
        ("a: [1\nb: 2\n", "at line 2"),
        ("a: 1\nb: 2\na: 2\n", "has the key \"a\" twice in one section, the second time at line 3"),
        ("\u{feff}a: 1\n", "token: is missing"),
        (TOKEN, "config.yml: holds a text; write a configuration"),
        (
            "a: 1\ntoken: 99999999999999999999\n",
            "holds a number that is too large, at line 2 column 8; put it in quotes",
        ),
    ] {
        let (config, findings) = node.load_with(text, &[], &[]);
        assert!(config.is_none() && findings.contains(told), "{text:?}: {findings}");
    }
    fs::write(node.0.join("latin.yml"), b"a: 1\nb: caf\xe9\n").unwrap();
    fs::write(node.0.join("wide.yml"), b"\xff\xfea\0:\0").unwrap();
    fs::create_dir(node.0.join("directory.yml")).unwrap();
    for (name, ending) in [
        (
            "absent.yml",
            "cannot be read (no such file or directory); name the node's configuration with --config FILE",
        ),
        (
            "directory.yml",
            "cannot be read (is a directory); name the node's configuration with --config FILE",
        ),
        ("latin.yml", "is not UTF-8, at line 2; save it as UTF-8 (it may be Latin-1)"),
        ("wide.yml", "is UTF-16; save it as UTF-8"),
    ] {
        let loaded = load(&[node.0.join(name)], &[], &|_| None, &[]);
        let findings = told(&loaded.findings);
        assert!(
            loaded.config.is_none() && findings.ends_with(&format!("{name}: {ending}")),
            "{findings}"
        );
    }
    assert!(load(&[PathBuf::new()], &[], &|_| None, &[]).config.is_none());
    assert!(load(&[], &[], &|_| None, &[]).config.is_none());
}
