//! Browsers with a `resume` link each, without a window: whole in the end, and the link spent.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, get};
use crate::clients::{Download, assert_spent, node};
use crate::harness::{Node, PATIENCE, Scratch, have, pattern};
use crate::mint::Token;
use crate::proxy::Proxy;

const MIB: usize = 1 << 20;

/// Headless Chromium that downloads `url` into `download`.
fn chromium(download: &Download, profile: &Scratch, url: &str) -> Command {
    let preferences = format!(
        r#"{{"download":{{"default_directory":"{}","prompt_for_download":false}}}}"#,
        download.directory().display()
    );
    fs::create_dir_all(profile.path().join("Default")).unwrap();
    fs::write(profile.path().join("Default/Preferences"), preferences).unwrap();
    let mut command = Command::new("chromium");
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args(["--disable-sync", "--disable-dev-shm-usage", "--disable-extensions"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    command.env("HOME", profile.path());
    command
}

/// Waits for a file of that length in the browser's directory, under its final name.
fn wait_for_browser(download: &Download, length: usize) {
    wait_for_file(download, &download.path(), length);
}

fn wait_for_file(download: &Download, path: &Path, length: usize) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while fs::metadata(path).map_or(0, |data| data.len()) != length as u64 {
        let there: Vec<_> = fs::read_dir(download.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(Instant::now() < deadline, "the browser has {there:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn chromium_downloads() {
    if !have("chromium") {
        return;
    }
    let (node, content, target) = node(16 * MIB);
    let server = node.start();
    let (download, profile) = (Download::new(), Scratch::new());
    let mut browser =
        download.start(&mut chromium(&download, &profile, &(server.base() + &target)));
    wait_for_browser(&download, content.len());
    browser.kill();
    assert_spent(&server, &download, &content, &target);
}

#[test]
fn chromium_downloads_a_folder() {
    if !have("chromium") || !have("unzip") {
        return;
    }
    let node = Node::new();
    node.file("world/region/r.0.0.mca", &pattern(16 * MIB));
    node.file("world/level.dat", b"level");
    let server = node.start();
    let target = Token::directory("world").target();
    let mut client = Client::connect(server.address());
    client.request("HEAD", &target, "");
    let length = client.bodiless_answer().length().unwrap();
    let (download, profile) = (Download::new(), Scratch::new());
    let mut browser =
        download.start(&mut chromium(&download, &profile, &(server.base() + &target)));
    let archive = download.directory().join("world.zip");
    wait_for_file(&download, &archive, length as usize);
    // It would keep the connection, and say nothing.
    browser.kill();
    server.wait_for_log("delivered");
    download.run(Command::new("unzip").arg("-tq").arg(&archive));
    assert_eq!(get(server.address(), &target).status, 401);
}

#[test]
fn chromium_that_was_cut_and_asked_again() {
    if !have("chromium") {
        return;
    }
    let (node, content, target) = node(16 * MIB);
    let server = node.start();
    let (download, profile) = (Download::new(), Scratch::new());
    let proxy = Proxy::start(server.address(), vec![5 * MIB]);
    let url = proxy.base() + &target;
    let mut browser = download.start(&mut chromium(&download, &profile, &url));
    server.wait_for_log("interrupted");
    browser.kill();
    // Without a person it does not resume; clicking the link again has to work.
    let profile = Scratch::new();
    let mut browser = download.start(&mut chromium(&download, &profile, &url));
    wait_for_browser(&download, content.len());
    browser.kill();
    assert_eq!(proxy.cut(), 1);
    assert_spent(&server, &download, &content, &target);
}

/// Headless Firefox that downloads `url` into `download`.
fn firefox(download: &Download, profile: &Scratch, url: &str) -> Command {
    let directory = download.directory().display();
    let preferences = format!(
        "user_pref(\"browser.download.dir\", \"{directory}\");\n\
         user_pref(\"browser.download.folderList\", 2);\n\
         user_pref(\"browser.download.useDownloadDir\", true);\n\
         user_pref(\"browser.download.always_ask_before_handling_new_types\", false);\n\
         user_pref(\"browser.helperApps.neverAsk.saveToDisk\", \"application/octet-stream\");\n\
         user_pref(\"browser.shell.checkDefaultBrowser\", false);\n\
         user_pref(\"browser.aboutwelcome.enabled\", false);\n\
         user_pref(\"datareporting.policy.dataSubmissionEnabled\", false);\n\
         user_pref(\"toolkit.telemetry.enabled\", false);\n\
         user_pref(\"app.update.enabled\", false);\n"
    );
    fs::write(profile.path().join("user.js"), preferences).unwrap();
    let mut command = Command::new("firefox-esr");
    command.args(["--headless", "--no-remote", "--profile"]).arg(profile.path()).arg(url);
    command.env("HOME", profile.path()).env("MOZ_CRASHREPORTER_DISABLE", "1");
    command
}

#[test]
fn firefox_downloads() {
    if !have("firefox-esr") {
        return;
    }
    let (node, content, target) = node(16 * MIB);
    let server = node.start();
    let (download, profile) = (Download::new(), Scratch::new());
    let mut browser = download.start(&mut firefox(&download, &profile, &(server.base() + &target)));
    wait_for_browser(&download, content.len());
    browser.kill();
    assert_spent(&server, &download, &content, &target);
}

#[test]
fn firefox_that_was_cut_and_asked_again() {
    if !have("firefox-esr") {
        return;
    }
    let (node, content, target) = node(16 * MIB);
    let server = node.start();
    let (download, profile) = (Download::new(), Scratch::new());
    let proxy = Proxy::start(server.address(), vec![5 * MIB]);
    let url = proxy.base() + &target;
    let mut browser = download.start(&mut firefox(&download, &profile, &url));
    server.wait_for_log("interrupted");
    browser.kill();
    // As with Chromium. What it had of the file it keeps under another name.
    for left in fs::read_dir(download.directory()).unwrap().flatten() {
        fs::remove_file(left.path()).unwrap();
    }
    let profile = Scratch::new();
    let mut browser = download.start(&mut firefox(&download, &profile, &url));
    wait_for_browser(&download, content.len());
    browser.kill();
    assert_eq!(proxy.cut(), 1);
    assert_spent(&server, &download, &content, &target);
}
