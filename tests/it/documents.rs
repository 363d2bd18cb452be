//! What is documented is true: help, sample configuration, demo, manual, completions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use winglet::cli::args::Cli;

use crate::client::get;
use crate::harness::{BACKUP, Node, SERVER, Scratch, Server, have};

const BINARY: &str = env!("CARGO_BIN_EXE_winglet");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn winglet(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(root()).env_remove("WINGS_TOKEN");
    command.env("WINGLET_CONFIG", "config.yml").output().unwrap()
}

/// Every subcommand with its words, such as `sign file`, in clap's own order.
fn subcommands() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(
        words: &[String],
        command: &clap::Command,
        all: &mut Vec<(Vec<String>, clap::Command)>,
    ) {
        for sub in command.get_subcommands() {
            let words = [words, &[sub.get_name().to_owned()]].concat();
            walk(&words, sub, all);
            all.push((words, sub.clone()));
        }
    }
    let mut all = Vec::new();
    walk(&[], &Cli::command(), &mut all);
    all
}

/// Every long option, with those that clap adds.
fn options() -> BTreeSet<String> {
    let of = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|option| option.get_long().map(String::from)).collect()
    };
    let mut all: BTreeSet<String> = subcommands().iter().flat_map(|(_, sub)| of(sub)).collect();
    all.extend(["help".to_owned(), "version".to_owned()]);
    all
}

#[test]
fn help_tells_of_every_subcommand_and_option() {
    let help = winglet(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    for (words, command) in subcommands() {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let output = winglet(&arguments);
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let about = command.get_about().expect("a subcommand says what it does").to_string();
        assert!(text.starts_with(&about), "{text}");
        assert!(text.contains(&format!("Usage: winglet {}", words.join(" "))), "{text}");
        for argument in command.get_arguments() {
            let long = argument.get_long().map_or_else(String::new, |long| format!("--{long}"));
            let said = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!said.is_empty(), "{words:?} {long}: no help");
            let first = said.split_whitespace().next().unwrap();
            assert!(text.contains(&long) && text.contains(first), "{words:?} {long}: {text}");
        }
    }
    let first = subcommands()[0].0[0].clone();
    assert!(String::from_utf8(help.stdout).unwrap().contains(&first));
}

#[test]
fn a_wrong_command_line_ends_with_2_and_the_version_is_the_crates() {
    for arguments in [&[][..], &["server"], &["serve", "--port", "1"], &["explain"]] {
        let output = winglet(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let version = winglet(&["--version"]);
    let expected = concat!("winglet ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

#[test]
fn the_sample_configuration_serves_the_sample_node() {
    let checked = winglet(&["check"]);
    assert!(checked.status.success());
    assert!(!String::from_utf8(checked.stdout).unwrap().contains("warning"));
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(root()).stdin(Stdio::null());
    command.env_remove("WINGS_TOKEN").env("WINGLET_CONFIG", "config.yml");
    let server = Server::spawn(command, read("config.yml"));
    let base = server.base();
    let volume = format!("contrib/sample/volumes/{SERVER}");
    let file = |path| ["sign", "file", "--server", SERVER, "--path", path, "--base-url", &base];
    let backup = ["sign", "backup", "--server", SERVER, "--backup", BACKUP, "--base-url", &base];
    for (arguments, path) in [
        (file("motd.txt"), format!("{volume}/motd.txt")),
        (file("config/règles du jeu.txt"), format!("{volume}/config/règles du jeu.txt")),
        (backup, format!("contrib/sample/backups/{SERVER}/{BACKUP}.tar.gz")),
    ] {
        let signed = winglet(&arguments);
        let url = String::from_utf8(signed.stdout).unwrap();
        let answer = get(server.address(), url.trim_end().strip_prefix(&base).unwrap());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == fs::read(root().join(path)).unwrap());
    }
}

/// Processes in whose command line `path` stands.
fn processes_with(path: &Path) -> Vec<PathBuf> {
    let path = path.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mentions = |entry: &PathBuf| {
        fs::read(entry.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(path))
    };
    entries.filter(mentions).collect()
}

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    if !have("curl") {
        return;
    }
    let scratch = Scratch::new();
    let demo = Command::new(root().join("contrib/demo.sh"))
        .arg(BINARY)
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(demo.stdout).unwrap();
    let errors = String::from_utf8(demo.stderr).unwrap();
    assert!(demo.status.success() && errors.is_empty(), "{text}\n{errors}");
    for words in [
        "HTTP/1.1 200 OK",
        "filename*=UTF-8''r%C3%A8gles",
        "backup.checksum",
        "(status 401)",
        "already used",
        "delivered",
        "ended with status 0",
    ] {
        assert!(text.contains(words), "{words:?} not in:\n{text}");
    }
    let tokens = text.split("token=").skip(1).map(|rest| rest.split(['\'', '\n']).next().unwrap());
    assert!(tokens.into_iter().all(|token| token.len() < 20), "a whole token:\n{text}");
    assert_eq!(processes_with(scratch.path()), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// The words that `prefix` stands before in `text`, such as the options of a shell script.
fn words_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let word = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect()
    };
    text.match_indices(prefix)
        .map(|(at, _)| word(&text[at + prefix.len()..]))
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn manual_and_completions_know_the_command_line_and_nothing_else() {
    let table = [
        ("contrib/man/winglet.8", "Fl -"),
        ("contrib/completions/winglet.bash", "--"),
        ("contrib/completions/winglet.fish", "-l "),
        ("contrib/completions/_winglet", "--"),
    ];
    for (path, prefix) in table {
        let text = read(path).replace(" , -", " Fl -");
        let mut found = words_after(&text, prefix);
        // The manual also has one-letter options, and fish its local variables.
        found.retain(|word| {
            word.len() > 1 && !["commands", "none", "sign", "kind", "archive"].contains(&&**word)
        });
        let text_words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        assert_eq!(found, options(), "{path}");
        for word in subcommands().iter().flat_map(|(words, _)| words) {
            assert!(text_words.contains(word.as_str()), "{path}: no {word}");
        }
    }
}

#[test]
fn the_readme_names_no_file_that_is_missing() {
    let readme = read("README.md");
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_file = |target: &&str| !target.contains("://") && !target.starts_with('#');
    let files: Vec<&str> = targets.filter(is_file).collect();
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        assert!(root().join(file).exists(), "{file}");
    }
    let version = concat!("winglet-", env!("CARGO_PKG_VERSION"), "-x86_64-linux");
    assert!(readme.contains(version), "the tarball of another version");
}

/// The fenced blocks of `language` in the README's chapter with this heading.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let readme = read("README.md");
    let chapter = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = chapter.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_scripts_that_fetch_backups_fetch_each_once() {
    if !have("curl") {
        return;
    }
    let node = Node::new();
    fs::create_dir_all(node.backups().join(SERVER)).unwrap();
    let another = "6c0e7a52-58a5-4d0c-8a51-5d8f3f2b0002";
    let names = [format!("{BACKUP}.tar.gz"), format!("{SERVER}/backup-{another}.tar.gz")];
    for name in &names {
        fs::write(node.backups().join(name), format!("content of {name}")).unwrap();
    }
    let server = node.start();
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}  base_url: {}\n", server.base())).unwrap();

    let offsite = node.path().join("offsite");
    fs::create_dir(&offsite).unwrap();
    let bin = node.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(BINARY, bin.join("winglet")).unwrap();
    let scripts = blocks("Backing up the backups", "sh");
    let [links, fetch] = ["backup-links", "fetch-backups"].map(|name| bin.join(name));
    fs::write(&links, &scripts[0]).unwrap();
    fs::write(&fetch, &scripts[1]).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // In place of ssh.
    let links = format!("sh {} {}", links.display(), node.backups().display());
    let run = || {
        let mut command = Command::new("sh");
        command.arg(&fetch).arg(&offsite).env("PATH", &path).env("LINKS", &links);
        let output = command.env("WINGLET_CONFIG", node.config()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    // One that broke off yesterday goes on.
    fs::write(offsite.join(format!("{BACKUP}.tar.gz.part")), "content").unwrap();
    for _ in 0..2 {
        run();
        for name in &names {
            let file = name.rsplit('/').next().unwrap();
            let got = fs::read_to_string(offsite.join(file)).unwrap();
            assert_eq!(got, format!("content of {name}"));
        }
        assert_eq!(fs::read_dir(&offsite).unwrap().count(), 2);
    }
    server.wait_for_logs(2, " delivered");
    assert_eq!(server.log().matches("GET backup ").count(), 2, "{}", server.log());
}
