//! What an administrator installs: the scripts in `contrib`, run for real if the machine allows it.
//! Each script says what it skips and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::{Scratch, have, may_take, skip};

/// The worst exposure of the unit that is accepted; 10 is no protection at all, and 1.5 was reached.
const EXPOSURE: f64 = 1.9;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs `contrib/test/NAME.sh` on `binary`. What it skips is skipped here.
fn script(name: &str, binary: &Path) {
    if !may_take("up to half a minute") {
        return;
    }
    let path = root().join("contrib/test").join(name).with_extension("sh");
    let output = Command::new("sh")
        .arg(path)
        .arg(binary)
        // Small, and over this machine's own files: the large runs are made by hand.
        .envs([("WINGLET_TEST_MIB", "32"), ("WINGLET_TEST_OVERLAY", "1")])
        .env_remove("WINGS_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    assert!(said.lines().any(|line| line.starts_with("ok ") || line.starts_with("skip ")));
    for line in said.lines().filter(|line| line.starts_with("skip ")) {
        skip(line.trim_start_matches("skip - "));
    }
}

fn built() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_winglet"))
}

#[test]
fn the_init_script_of_system_v() {
    script("sysv", &built());
}

#[test]
fn make_install_and_uninstall() {
    script("install", &built());
}

#[test]
fn the_service_of_runit() {
    script("runit", &built());
}

#[test]
fn the_service_of_openrc() {
    script("openrc", &built());
}

#[test]
fn the_proxy_examples() {
    script("proxies", &built());
}

#[test]
fn the_debian_package() {
    // As a release build leaves it: without symbols, which lintian asks for.
    let scratch = Scratch::new();
    let stripped = scratch.path().join("winglet");
    if !have("strip") {
        return;
    }
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(built()).status().unwrap();
    assert!(status.success());
    script("deb", &stripped);
}

/// A reader that is not installed is a failure to the script itself where it has to be one.
#[test]
fn every_reader_unpacks_nasty_trees() {
    if !may_take("half a minute") || !have("python3") {
        return;
    }
    let path = root().join("contrib/test/readers.py");
    let output = Command::new("python3").arg(path).arg(built()).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Shell scripts of the project, by their first line or their name.
fn scripts(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scripts(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let first = text.lines().next().filter(|line| line.starts_with("#!"));
            let shell = first.is_some_and(|line| line.ends_with("sh") || line.contains("sh "));
            if shell || path.extension().is_some_and(|end| end == "sh") {
                found.push(path);
            }
        }
    }
}

#[test]
fn shellcheck_finds_nothing_in_any_script() {
    if !have("shellcheck") {
        return;
    }
    let mut found = vec![root().join("contrib/openrc/winglet")];
    scripts(&root().join("contrib"), &mut found);
    scripts(&root().join(".ci"), &mut found);
    for name in ["contrib/sysv/winglet", "contrib/runit/run", "contrib/install.sh", ".ci/run"] {
        assert!(found.contains(&root().join(name)), "{name} is not among {found:?}");
    }
    // -x: what a script sources is looked at with it.
    let mut run = Command::new("shellcheck");
    let output = run.arg("-x").args(&found).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_systemd_unit_is_valid_and_tight() {
    if !have("systemd-analyze") {
        return;
    }
    let scratch = Scratch::new();
    // The program need not be installed for this.
    let unit = fs::read_to_string(root().join("contrib/systemd/winglet.service")).unwrap();
    let unit = unit.replace("/usr/bin/winglet", env!("CARGO_BIN_EXE_winglet"));
    fs::write(scratch.path().join("winglet.service"), unit).unwrap();
    let socket = root().join("contrib/systemd/winglet.socket");
    fs::copy(socket, scratch.path().join("winglet.socket")).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).current_dir(scratch.path()).stdin(Stdio::null()).output().unwrap()
    };
    let output = analyze(&["verify", "--man=no", "./winglet.service", "./winglet.socket"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).trim(), "");

    let output = analyze(&["security", "--offline=yes", "--no-pager", "./winglet.service"]);
    let table = said(&output);
    assert!(output.status.success(), "{table}");
    let line = table.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let score = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    eprintln!("exposure of the systemd unit: {score}");
    assert!(score.parse::<f64>().unwrap() <= EXPOSURE, "{table}");
}

#[test]
fn manuals_completions_and_log_rotation_parse() {
    for command in [
        &["mandoc", "-T", "lint", "-W", "warning", "man/winglet.8", "man/winglet.yml.5"][..],
        &["bash", "-n", "completions/winglet.bash"],
        &["zsh", "-n", "completions/_winglet"],
        &["fish", "-n", "completions/winglet.fish"],
        &["logrotate", "--debug", "--state", "/dev/null", "logrotate/winglet"],
    ] {
        if !have(command[0]) {
            continue;
        }
        let mut run = Command::new(command[0]);
        let output = run.args(&command[1..]).current_dir(root().join("contrib")).output().unwrap();
        let said = said(&output);
        assert!(output.status.success() && !said.contains("error:"), "{command:?}:\n{said}");
    }
}
