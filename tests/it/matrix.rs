//! Every client that is installed, on every path: whole, and killed in the middle and continued.
//!
//! Bytes are right, nobody who lacks some is refused, and the link is spent: at once after a whole
//! download over one direct connection, and else once it has settled. Prints a table of it.

use std::collections::VecDeque;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::certs::{Authority, Kind, SSL};
use crate::client::{Client, connect_from};
use crate::clients::{Client as Process, Download};
use crate::fronts::Front;
use crate::harness::{Node, Server, have, pattern};
use crate::mint::Token;

const LENGTH: usize = 4 << 20;
/// Bytes per second of a download that is to be killed.
const SLOW: usize = 3 << 20;
/// Runs at a time.
const RUNS: usize = 6;

/// What resumes with `Range`, as scripts do: `python3 SCRIPT URL CA RATE`.
const URLLIB: &str = r#"
import os, ssl, sys, time, urllib.request
url, ca, rate = sys.argv[1], sys.argv[2], int(sys.argv[3])
have = os.path.getsize("file") if os.path.exists("file") else 0
request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
with urllib.request.urlopen(request, context=context) as answer, open("file", "ab", 0) as file:
    assert answer.status == (206 if have else 200), answer.status
    while piece := answer.read(65536):
        file.write(piece)
        time.sleep(len(piece) / rate if rate else 0)
"#;
const REQUESTS: &str = r#"
import os, requests, sys, time
url, ca, rate = sys.argv[1], sys.argv[2], int(sys.argv[3])
have = os.path.getsize("file") if os.path.exists("file") else 0
headers = {"Range": f"bytes={have}-"} if have else {}
answer = requests.get(url, headers=headers, stream=True, verify=ca)
assert answer.status_code == (206 if have else 200), answer.status_code
with open("file", "ab", 0) as file:
    for piece in answer.iter_content(65536):
        file.write(piece)
        time.sleep(len(piece) / rate if rate else 0)
"#;

/// A client and what is known of it.
struct Kin {
    name: &'static str,
    program: &'static str,
    /// Downloads `url` to `file`, at so many bytes per second, continuing what is there.
    command: fn(&mut Command, &Run),
    /// Uses several connections, and ends some of them early.
    parallel: bool,
    /// What it is killed by: some note only what they have when they are asked to end.
    signal: Signal,
}

/// What a client is told.
struct Run<'a> {
    url: &'a str,
    ca: &'a str,
    /// 0 is without a limit.
    rate: usize,
    again: bool,
}

fn aria2c(command: &mut Command, run: &Run, connections: usize) {
    command.args([format!("-x{connections}"), format!("-s{connections}")]);
    command.args(["-k1M", "-q", "--no-conf", "--file-allocation=none", "--retry-wait=0", "-o"]);
    command.args(["file", "-c", "--auto-save-interval=1", "--ca-certificate", run.ca]);
    command.arg(format!("--max-overall-download-limit={}", run.rate)).arg(run.url);
}

fn wget(command: &mut Command, run: &Run) {
    command.args(["-q", "--tries=1", "--no-hsts", "-c", "-O", "file", "--ca-certificate", run.ca]);
    command.arg(format!("--limit-rate={}", run.rate)).arg(run.url);
}

fn python(command: &mut Command, script: &str, run: &Run) {
    command.args(["-c", script, run.url, run.ca, &run.rate.to_string()]);
}

fn clients() -> Vec<Kin> {
    let kin = |name, command: fn(&mut Command, &Run)| {
        let program = match name {
            "urllib" | "requests" => "python3",
            name => name.split(' ').next().unwrap_or(name),
        };
        Kin { name, program, command, parallel: false, signal: Signal::KILL }
    };
    let parallel = |name, command: fn(&mut Command, &Run)| Kin {
        parallel: true,
        signal: Signal::INT,
        ..kin(name, command)
    };
    vec![
        kin("curl", |command, run| {
            command.args(["-sSf", "-C", "-", "-o", "file", "--cacert", run.ca]);
            command.arg("--limit-rate").arg(run.rate.to_string()).arg(run.url);
        }),
        kin("wget", wget),
        kin("wget --no-http-keep-alive", |command, run| {
            command.arg("--no-http-keep-alive");
            wget(command, run);
        }),
        kin("wget2", |command, run| {
            if run.again {
                command.arg("-c");
            }
            command.args([
                "-q",
                "--tries=1",
                "--no-hsts",
                "-O",
                "file",
                "--ca-certificate",
                run.ca,
            ]);
            command.arg(format!("--limit-rate={}", run.rate)).arg(run.url);
        }),
        kin("urllib", |command, run| python(command, URLLIB, run)),
        kin("requests", |command, run| python(command, REQUESTS, run)),
        parallel("aria2c -x8", |command, run| aria2c(command, run, 8)),
        parallel("aria2c -x16", |command, run| aria2c(command, run, 16)),
        parallel("axel", |command, run| {
            command.args(["-q", "-k", "-n", "4", "-o", "file"]);
            if run.rate > 0 {
                command.arg(format!("--max-speed={}", run.rate));
            }
            command.arg(run.url);
        }),
        parallel("lftp pget", |command, run| {
            let again = if run.again { "-c " } else { "" };
            let set = format!(
                "set net:limit-rate {}; set ssl:ca-file {}; set pget:save-status 0.1s; \
                 set net:max-retries 1; set xfer:clobber yes; set cmd:fail-exit yes; \
                 pget -n 4 {again}-o file \"{}\"",
                run.rate, run.ca, run.url
            );
            command.args(["-e", &format!("{set}; exit")]);
        }),
    ]
}

/// A way to a server.
struct Way<'a> {
    name: &'a str,
    base: String,
    server: &'a Server,
    direct: bool,
}

/// One download that is to be made.
struct Job<'a> {
    client: &'a Kin,
    way: &'a Way<'a>,
    killed: bool,
    /// The file's name, by which the log tells the downloads apart.
    file: String,
}

impl Job<'_> {
    fn command(&self, run: &Run) -> Command {
        let mut command = Command::new(self.client.program);
        (self.client.command)(&mut command, run);
        // Nothing of the machine's own.
        command.env("HOME", "/nonexistent").env_remove("http_proxy").env_remove("https_proxy");
        command
    }

    /// Makes the download, and returns the line for the table without its end.
    fn run(&self, content: &[u8], ca: &str, link: &str) -> Result<String, String> {
        let download = Download::new();
        let url = format!("{}{link}", self.way.base);
        let mut note = "whole".to_owned();
        if self.killed {
            let run = Run { url: &url, ca, rate: SLOW, again: false };
            let mut client = download.start(&mut self.command(&run));
            let there = wait_for_a_part(&download, &mut client)?;
            end(&mut client, self.client.signal);
            note = format!("killed at {:>2} %", there * 100 / LENGTH);
        }
        let run = Run { url: &url, ca, rate: 0, again: self.killed };
        let mut command = self.command(&run);
        command.current_dir(download.directory());
        let output = command.output().map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&said)));
        }
        if download.content() != content {
            return Err("the bytes differ".into());
        }
        let once = self.way.direct && !self.killed && !self.client.parallel;
        if !once {
            return Ok(note);
        }
        self.way.server.wait_for_log(&format!("file=\"{}\" bytes={LENGTH}/{LENGTH}", self.file));
        match self.status(link) {
            401 => Ok(format!("{note}, spent at once")),
            status => Err(format!("not spent at once: {status}")),
        }
    }

    /// How the link's client is answered now; a HEAD changes nothing.
    fn status(&self, link: &str) -> u16 {
        let mut client = Client::connect(self.way.server.address());
        client.request("HEAD", link, "X-Forwarded-For: 127.0.0.1\r\n");
        client.bodiless_answer().status
    }

    /// Lines of the log about this download that contain `text`.
    fn lines(&self, text: &str) -> usize {
        let name = format!("file=\"{}\"", self.file);
        let log = self.way.server.log();
        log.lines().filter(|line| line.contains(&name) && line.contains(text)).count()
    }
}

/// Waits until the file is there by a third, and says how much of it is.
fn wait_for_a_part(download: &Download, client: &mut Process) -> Result<usize, String> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let there = download.bytes();
        if there >= LENGTH * 3 / 10 {
            return Ok(there);
        }
        if !client.is_running() || Instant::now() > deadline {
            let running = client.is_running();
            return Err(format!("{there} bytes have come, running: {running}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn end(client: &mut Process, signal: Signal) {
    if signal != Signal::KILL {
        let _ = kill_process(Pid::from_raw(client.id()).unwrap(), signal);
        let deadline = Instant::now() + Duration::from_secs(3);
        while client.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
    client.kill();
}

/// A node of `LENGTH` files, one for each job.
fn node(lines: &str) -> (Node, Authority) {
    let node = Node::new().top_level(lines).winglet(
        "listen: [\"127.0.0.1:0\", \"tls:127.0.0.1:0\"]\nsettle_time: 5s\n\
         max_connections_per_address: 500",
    );
    let authority = Authority::new(&node);
    authority.leaf("leaf", Kind::Ec, "30");
    (node, authority)
}

fn tls_base(server: &Server) -> String {
    let line = server.wait_for_log("listening on https");
    line.rsplit(' ').next().unwrap().to_owned()
}

/// Makes all of `jobs`, `RUNS` at a time; the lines of the table, and what went wrong.
fn make(jobs: Vec<Job>, content: &[u8], ca: &str) -> (Vec<String>, Vec<String>) {
    let queue: Mutex<VecDeque<Job>> = Mutex::new(jobs.into());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..RUNS {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().unwrap().pop_front() else { break };
                    let link = Token::file(&job.file).target();
                    let result = job.run(content, ca, &link);
                    // A HEAD of ours is refused on purpose.
                    let refused = job.lines(" GET file 401 ");
                    let busy = job.lines(" 503 ");
                    done.lock().unwrap().push((job, link, result, refused, busy));
                }
            });
        }
    });
    let (mut table, mut wrong) = (Vec::new(), Vec::new());
    for (job, link, result, refused, busy) in done.into_inner().unwrap() {
        let name = format!("{:<26} {:<14}", job.client.name, job.way.name);
        let note = match result {
            Ok(note) if note.ends_with("at once") => note,
            Ok(note) => format!("{note}, {}", settled(&job, &link, &mut wrong)),
            Err(error) => {
                wrong.push(format!("{name} {error}"));
                error
            }
        };
        if refused > 0 {
            wrong.push(format!("{name} was refused"));
        }
        table.push(format!("{name} {note}{}", if busy > 0 { ", met 503" } else { "" }));
    }
    table.sort();
    (table, wrong)
}

/// Waits until the link of `job` is spent. Of streams that a client resets, nobody knows what it had
/// and not yet acknowledged: a link that was read in parts may stay open then.
fn settled(job: &Job, link: &str, wrong: &mut Vec<String>) -> &'static str {
    let deadline = Instant::now() + Duration::from_secs(8);
    while job.status(link) != 401 {
        if Instant::now() > deadline {
            if !job.client.parallel {
                wrong.push(format!("{} {} is never spent", job.client.name, job.way.name));
            }
            return "open to its client";
        }
        thread::sleep(Duration::from_millis(50));
    }
    "spent once it has settled"
}

#[test]
fn every_client_on_every_path() {
    let (near, authority) = node(SSL);
    let trusted = SSL.replacen("api:\n", "api:\n  trusted_proxies: [127.0.0.1]\n", 1);
    let (behind, behind_authority) = node(&trusted);
    let ca = authority.root().display().to_string();
    // One authority for all.
    for end in ["pem", "key"] {
        fs::copy(
            authority.path(&format!("leaf.{end}")),
            behind_authority.path(&format!("leaf.{end}")),
        )
        .unwrap();
    }
    let (direct, proxied) = (near.start(), behind.start());
    let content = pattern(LENGTH);
    let front = |proxy, tls| Front::start(proxy, tls, proxied.address(), behind.path());
    let fronts = [
        ("nginx", front("nginx", false)),
        ("nginx, TLS", front("nginx", true)),
        ("caddy, TLS", front("caddy", true)),
        ("haproxy, TLS", front("haproxy", true)),
    ];
    let mut ways = vec![
        Way { name: "direct", base: direct.base(), server: &direct, direct: true },
        Way { name: "direct, TLS", base: tls_base(&direct), server: &direct, direct: true },
    ];
    for (name, front) in &fronts {
        let base = front.as_ref().map(|front| front.base.clone());
        ways.extend(base.map(|base| Way { name, base, server: &proxied, direct: false }));
    }
    let clients: Vec<Kin> = clients().into_iter().filter(|kin| have(kin.program)).collect();
    let mut jobs = Vec::new();
    for client in &clients {
        for way in &ways {
            for killed in [false, true] {
                let file = format!("f{}", jobs.len());
                let node = if way.direct { &near } else { &behind };
                node.file(&file, &content);
                jobs.push(Job { client, way, killed, file });
            }
        }
    }
    let (table, wrong) = make(jobs, &content, &ca);
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A person behind nginx whose connection broke at a tenth, when Winglet had long handed over all:
/// with nothing more to be heard, the link must wait for the rest to be asked for.
#[test]
fn who_broke_at_a_tenth_behind_nginx_resumes() {
    let trusted = SSL.replacen("api:\n", "api:\n  trusted_proxies: [127.0.0.1]\n", 1);
    let (node, _authority) = node(&trusted);
    let server = node.start();
    let Some(front) = Front::start("nginx", false, server.address(), node.path()) else { return };
    let address = front.base.trim_start_matches("http://").parse().unwrap();
    thread::scope(|scope| {
        for length in [1_000_000, 3_000_000] {
            let (node, server) = (&node, &server);
            scope.spawn(move || {
                let content = pattern(length);
                node.file(&format!("{length}"), &content);
                let target = Token::file(&format!("{length}")).target();
                let mut client = Client::over(connect_from("127.0.0.1", address, Some(64 << 10)));
                let answer = client.get_part(&target, "", length / 10);
                assert!(answer.status == 200 && content.starts_with(&answer.body));
                // As long as an earlier version waited for silence, and longer.
                thread::sleep(Duration::from_secs(3));
                client.reset();
                server.wait_for_log(&format!("file=\"{length}\" bytes="));
                let mut client = Client::connect(address);
                let rest = client.get_with(&target, &format!("Range: bytes={}-\r\n", length / 10));
                assert_eq!(rest.status, 206, "{}", rest.text());
                assert!(rest.body == content[length / 10..]);
            });
        }
    });
}
