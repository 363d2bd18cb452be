//! Configuration in layers: Wings' own file first, a small one of ours second.

use std::fs;
use std::process::Output;

use crate::client::get;
use crate::harness::{KEY, Node, SERVER, Server};
use crate::mint::Token;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn wings_file_first_and_ours_second() {
    let node = Node::new();
    node.file("a", b"content");
    let wings = format!("token: {KEY}\n{}", include_str!("../wings.yml"));
    fs::write(node.path().join("wings.yml"), &wings).unwrap();
    fs::create_dir(node.path().join("etc")).unwrap();
    let ours = "winglet:\n  listen: [\"127.0.0.1:0\"]\n  state_directory: state\n";
    fs::write(node.path().join("etc/ours.yml"), ours).unwrap();
    let files = ["--config", "wings.yml", "--config", "etc/ours.yml"];

    let printed = stdout(&node.run(&[&["check", "--print"], &files[..]].concat()));
    let [first, second] = ["wings.yml", "etc/ours.yml"].map(|name| node.path().join(name));
    let whole = format!("{}, {}", first.display(), second.display());
    assert!(printed.contains(&format!("{whole}: ok\n")), "{printed}");
    let line = |key: &str| {
        let line = printed.lines().find(|line| line.trim_start().starts_with(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{printed}")).to_owned()
    };
    assert!(line("token ").contains("(64 bytes)") && line("token ").ends_with("wings.yml)"));
    assert!(line("winglet.listen ").ends_with("/etc/ours.yml)"), "{printed}");
    assert!(line("winglet.threads ").ends_with("(default)"), "{printed}");
    assert!(!printed.contains(KEY), "{printed}");

    let server = Server::spawn(node.command(&[&["serve"], &files[..]].concat()), wings.clone());
    assert_eq!(get(server.address(), &Token::file("a").target()).body, b"content");
    assert!(node.path().join("etc/state").is_dir(), "beside the file that names it");
    // Wings writes its file anew: the token is read from there, and nothing else has to change.
    let fresh = "another-key-of-sixteen-bytes-and-more";
    fs::write(node.path().join("wings.yml"), wings.replace(KEY, fresh)).unwrap();
    server.wait_for_log(&format!("configuration: {whole}"));
    server.signal("HUP");
    server.wait_for_log("reload: done");
    let token = Token::file("a").signed_with(fresh.as_bytes());
    assert_eq!(get(server.address(), &token.target()).status, 200);
    for command in ["sign", "explain"] {
        let more: &[&str] = match command {
            "sign" => &["sign", "file", "--server", SERVER, "--path", "a"],
            _ => &["explain", "x.y.z"],
        };
        let output = node.run(&[more, &files[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(&format!("winglet: reading {whole}\n")), "{said}");
        assert!(!said.contains("cannot be read"), "{said}");
    }
}

#[test]
fn a_token_to_fill_in_does_not_take_the_place_of_wings() {
    let node = Node::new();
    node.file("a", b"content");
    let directories = "system: {data: volumes, backup_directory: backups}\n";
    fs::write(node.path().join("wings.yml"), format!("token: {KEY}\n{directories}")).unwrap();
    let ours = "token: \"\"\nwinglet: {listen: [\"127.0.0.1:0\"]}\n";
    fs::write(node.path().join("ours.yml"), ours).unwrap();
    let check = |files: &str| {
        let run = node.command(&["check", "--print"]).env("WINGLET_CONFIG", files).output();
        let output = run.unwrap();
        (output.status.code(), stdout(&output))
    };
    let (code, said) = check("wings.yml:ours.yml");
    let origin = format!("({})", node.path().join("wings.yml").display());
    let token = said.lines().find(|line| line.trim_start().starts_with("token ")).unwrap();
    assert!(code == Some(0) && token.ends_with(&origin), "{said}");
    // Alone, or if Wings has none, it is still to be filled in.
    fs::write(node.path().join("wings.yml"), directories).unwrap();
    for files in ["ours.yml", "wings.yml:ours.yml", "ours.yml:wings.yml"] {
        let (code, said) = check(files);
        assert!(code == Some(1) && said.starts_with("error: token: is "), "{said}");
    }
    let options = ["check", "--config", "no-such-file"];
    let output = node.command(&options).env("WINGLET_CONFIG", "ours.yml").output().unwrap();
    assert!(stdout(&output).contains("no-such-file: cannot be read"), "the option comes first");
}
