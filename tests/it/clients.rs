//! Real clients with one `resume` link each that are cut and retry: whole in the end, and the link spent.
//! In `matrix.rs` each client downloads on each path, and is killed and continued.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::client::{Client as Connection, get};
use crate::harness::{Node, PATIENCE, Scratch, Server, have, pattern};
use crate::mint::Token;
use crate::proxy::Proxy;

const MIB: usize = 1 << 20;

/// Where a client downloads `file` to.
pub struct Download(Scratch);

impl Download {
    /// An empty directory.
    pub fn new() -> Download {
        Download(Scratch::new())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// The file in it.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }

    /// What arrived.
    pub fn content(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// Starts a client.
    pub fn start(&self, command: &mut Command) -> Client {
        let quiet = command.current_dir(self.directory()).stdin(Stdio::null());
        // A group of its own, since a browser is many processes.
        Client(quiet.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap())
    }

    /// Runs a client that must succeed.
    pub fn run(&self, command: &mut Command) {
        let output = command.current_dir(self.directory()).stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    }

    /// Waits until the file takes that much space, and says how much.
    pub fn wait_for_bytes(&self, bytes: usize) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = fs::metadata(self.path()).map_or(0, |data| data.blocks() * 512);
            if there >= bytes as u64 {
                return there;
            }
            assert!(Instant::now() < deadline, "{there} bytes have come");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A running client; killed when it goes out of scope.
pub struct Client(Child);

impl Client {
    /// Waits for its end.
    pub fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.0.wait()
    }

    /// Its process number.
    #[cfg(feature = "tls")]
    pub fn id(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Returns true if it has not ended yet.
    #[cfg(feature = "tls")]
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Kills it and everything that it started.
    pub fn kill(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

/// curl that writes into `download`.
pub fn curl(download: &Download) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--output"]).arg(download.path());
    command
}

/// A node with `file` of `length` bytes, its content, and a link to it.
pub fn node(length: usize) -> (Node, Vec<u8>, String) {
    let node = Node::new().winglet("settle_time: 1s");
    let content = pattern(length);
    node.file("file", &content);
    (node, content, Token::file("file").target())
}

/// The download is whole, and so was its last connection: its link is spent at once.
pub fn assert_spent(server: &Server, download: &Download, content: &[u8], target: &str) {
    assert!(download.content() == content, "the file differs");
    server.wait_for_log(&format!("link={0}/{0}", content.len()));
    let again = get(server.address(), target);
    assert_eq!((again.status, again.text().contains("already used")), (401, true));
}

/// The download is whole and came in parts: nobody else can use its link, and after `settle_time`
/// its own client cannot either.
fn assert_settles(server: &Server, download: &Download, content: &[u8], target: &str) {
    assert!(download.content() == content, "the file differs");
    server.wait_for_log(&format!("link={0}/{0}", content.len()));
    assert_eq!(Connection::connect_from("127.0.0.2", server.address()).get(target).status, 401);
    wait_until_spent(server.address(), target);
}

/// The download is whole, and so is what the server has seen acknowledged, on whichever connections:
/// nobody else can use the link.
fn assert_whole(server: &Server, download: &Download, content: &[u8], target: &str) {
    assert!(download.content() == content, "the file differs");
    server.wait_for_log(&format!("link={0}/{0}", content.len()));
    assert_eq!(Connection::connect_from("127.0.0.2", server.address()).get(target).status, 401);
}

/// Waits until a link whose parts were all delivered has settled.
pub fn wait_until_spent(address: SocketAddr, target: &str) {
    let deadline = Instant::now() + PATIENCE;
    // A HEAD, which is refused like a GET, and does not begin the time anew.
    loop {
        let mut client = Connection::connect(address);
        client.request("HEAD", target, "");
        if client.bodiless_answer().status == 401 {
            return;
        }
        assert!(Instant::now() < deadline, "it is never spent");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn curl_that_retries_from_the_start() {
    if !have("curl") {
        return;
    }
    let (node, content, target) = node(4 * MIB);
    let server = node.start();
    let download = Download::new();
    let proxy = Proxy::start(server.address(), vec![MIB, 3 * MIB, 100_000]);
    let retry = ["--retry", "5", "--retry-all-errors", "--retry-delay", "1"];
    download.run(curl(&download).args(retry).arg(proxy.base() + &target));
    assert_eq!(proxy.cut(), 3);
    assert_spent(&server, &download, &content, &target);
}

#[test]
fn ten_interruptions_in_a_row() {
    if !have("curl") {
        return;
    }
    let (node, content, target) = node(8 * MIB);
    let node = node.with_state();
    let server = node.start();
    let download = Download::new();
    // Anywhere, twice before the first byte and in the head, too.
    let mut seed = u64::from(std::process::id());
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let cuts: Vec<usize> =
        (0..10).map(|i| if i < 2 { 1 + random(600) } else { random(MIB) + 1 }).collect();
    println!("cuts: {cuts:?}");
    let proxy = Proxy::start(server.address(), cuts);
    for _ in 0..10 {
        let mut client =
            download.start(curl(&download).args(["-C", "-"]).arg(proxy.base() + &target));
        assert!(!client.wait().unwrap().success());
    }
    assert_eq!(proxy.cut(), 10);
    download.run(curl(&download).args(["-C", "-"]).arg(proxy.base() + &target));
    assert_settles(&server, &download, &content, &target);
}

#[test]
fn wget_that_retries_by_itself() {
    if !have("wget") {
        return;
    }
    let (node, content, target) = node(8 * MIB);
    let server = node.start();
    let download = Download::new();
    let proxy = Proxy::start(server.address(), vec![MIB, MIB, MIB]);
    let mut wget = Command::new("wget");
    wget.args(["--quiet", "--tries=10", "--waitretry=0", "--no-hsts", "--output-document"]);
    download.run(wget.arg(download.path()).arg(proxy.base() + &target));
    assert_eq!(proxy.cut(), 3);
    assert_settles(&server, &download, &content, &target);
}

fn aria2c(download: &Download) -> Command {
    let mut command = Command::new("aria2c");
    command.args(["-x8", "-s8", "--min-split-size=1M", "--quiet", "--file-allocation=none"]);
    command.args(["--retry-wait=0", "--max-tries=20", "--no-conf", "--out=file", "--dir"]);
    command.arg(download.directory());
    command
}

#[test]
fn aria2c_in_eight_parts_that_are_cut() {
    if !have("aria2c") {
        return;
    }
    let (node, content, target) = node(32 * MIB);
    let node = node.winglet("rate_limit: 16");
    let server = node.start();
    let download = Download::new();
    let cuts = vec![2 * MIB, 100_000, MIB, 700_000, 300, MIB, 2 * MIB, 50_000];
    let proxy = Proxy::start(server.address(), cuts);
    download.run(aria2c(&download).arg(proxy.base() + &target));
    assert!(proxy.cut() > 0);
    assert_whole(&server, &download, &content, &target);
}

/// curl's own `-C -` names no version: of a file that has been replaced it must not take the rest.
#[test]
fn curl_continues_no_file_that_was_replaced() {
    if !have("curl") {
        return;
    }
    let node = Node::new();
    let content = pattern(4 * MIB);
    node.file("file", &content);
    let target = Token::file("file").target();
    let server = node.start();
    let download = Download::new();
    let proxy = Proxy::start(server.address(), vec![MIB]);
    let first = curl(&download).arg(proxy.base() + &target).stderr(Stdio::null()).status();
    assert!(!first.unwrap().success());
    let kept = download.content();
    assert!(!kept.is_empty() && content.starts_with(&kept));
    let changed: Vec<u8> = content.iter().rev().copied().collect();
    node.file("new", &changed);
    fs::rename(node.volume().join("new"), node.volume().join("file")).unwrap();
    let mut again = curl(&download);
    let again = again.args(["-C", "-"]).arg(server.base() + &target).stderr(Stdio::null()).status();
    assert!(!again.unwrap().success(), "curl has joined two files");
    assert!(download.content() == kept);
    // Anew, it gets all of the new one.
    fs::remove_file(download.path()).unwrap();
    download.run(curl(&download).args(["-C", "-"]).arg(server.base() + &target));
    assert!(download.content() == changed);
}
