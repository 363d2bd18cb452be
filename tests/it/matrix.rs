//! Every client that is installed, on every path: whole, and killed in the middle and continued, from
//! the same address or another one.
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
use crate::harness::{Node, Server, have, may_take, pattern};
use crate::kin::{Kin, Run, clients};
use crate::mint::Token;
use crate::proxy::{ACKNOWLEDGED_BY, Plan, Proxy};

const LENGTH: usize = 4 << 20;
/// Bytes per second of a download that is to be killed.
const SLOW: usize = 3 << 20;
/// Runs at a time.
const RUNS: usize = 6;

/// A way to a server.
struct Way<'a> {
    name: &'a str,
    base: String,
    node: &'a Node,
    server: &'a Server,
}

/// How a download goes.
#[derive(Clone, Copy, PartialEq)]
enum Course {
    Whole,
    /// Killed in the middle, and continued.
    Killed,
    /// The same, from another address.
    Moved,
}

/// The other address.
const ELSEWHERE: &str = "127.0.0.7";

/// One download that is to be made.
struct Job<'a> {
    client: &'a Kin,
    way: &'a Way<'a>,
    course: Course,
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
        let killed = self.course != Course::Whole;
        if killed {
            let rate = if self.client.slow { 0 } else { SLOW };
            let run = Run { url: &url, ca, rate, again: false };
            let mut client = download.start(&mut self.command(&run));
            let there = wait_for_a_part(&download, content, &mut client)?;
            end(&mut client, self.client.signal);
            note = format!("killed at {:>2} %", there * 100 / LENGTH);
            if download.content() == content {
                return Ok("whole before it was killed".into());
            }
        }
        let moves = self.course == Course::Moved;
        let relay = if moves { self.relay(link)? } else { None };
        let moved = relay.as_ref().map(|(_, base)| format!("{base}{link}"));
        let url = moved.unwrap_or(url);
        note += if relay.is_some() { ", moved" } else { "" };
        let run = Run { url: &url, ca, rate: 0, again: killed };
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
        let once = self.way.name.starts_with("direct") && !killed && !self.client.parallel;
        if !once {
            return Ok(note);
        }
        self.way.server.wait_for_log(&format!("file=\"{}\" bytes={LENGTH}/{LENGTH}", self.file));
        match self.status(link, "127.0.0.1") {
            401 => Ok(format!("{note}, spent at once")),
            status => Err(format!("not spent at once: {status}")),
        }
    }

    /// A way that comes from another address, and what it begins with, once the link has passed
    /// there: a client of several connections may have ended them in order, and not all clients wait
    /// out a 503. `None` if a proxy already had everything when the client was killed.
    fn relay(&self, link: &str) -> Result<Option<(Proxy, String)>, String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut status = self.status(link, ELSEWHERE);
        while status == 503 {
            if Instant::now() > deadline {
                return Err("the link does not pass to another address".into());
            }
            thread::sleep(Duration::from_millis(50));
            status = self.status(link, ELSEWHERE);
        }
        if status == 401 && !self.way.name.starts_with("direct") {
            return Ok(None);
        }
        let (scheme, address) = self.way.base.split_once("://").unwrap();
        let plan = Plan { sources: vec![ELSEWHERE.into()], ..Plan::default() };
        let proxy = Proxy::with(address.parse().unwrap(), plan);
        let base = proxy.base().replacen("http", scheme, 1);
        Ok(Some((proxy, base)))
    }

    /// How the link's client is answered now at `source`; a HEAD changes nothing.
    fn status(&self, link: &str, source: &str) -> u16 {
        let mut client = Client::connect_from(source, self.way.server.address());
        client.request("HEAD", link, &format!("X-Forwarded-For: {source}\r\n"));
        client.bodiless_answer().status
    }

    /// The lines of the log about this download.
    fn log(&self) -> Vec<String> {
        let name = format!("file=\"{}\"", self.file);
        let log = self.way.server.log();
        log.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect()
    }

    /// How many of them contain `text`.
    fn lines(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }
}

/// Waits until a third of `content` is there, and says how many bytes are: some clients take the
/// space for all of the file at once.
fn wait_for_a_part(
    download: &Download,
    content: &[u8],
    client: &mut Process,
) -> Result<usize, String> {
    const BLOCK: usize = 16 << 10;
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let file = fs::read(download.path()).unwrap_or_default();
        let blocks = file.chunks_exact(BLOCK).zip(content.chunks_exact(BLOCK));
        let there = blocks.filter(|(there, wanted)| there == wanted).count() * BLOCK;
        if there >= LENGTH * 3 / 10 {
            return Ok(there);
        }
        if !client.is_running() || Instant::now() > deadline {
            return Err(format!("only {there} bytes have come"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a client in the middle. By then its kernel has acknowledged what it has: of bytes that it
/// has read and not acknowledged, a reset says nothing.
fn end(client: &mut Process, signal: Signal) {
    let pid = Pid::from_raw(client.id()).unwrap();
    if signal == Signal::KILL {
        let _ = kill_process(pid, Signal::STOP);
        thread::sleep(ACKNOWLEDGED_BY);
    } else {
        let _ = kill_process(pid, signal);
        let deadline = Instant::now() + Duration::from_secs(3);
        while client.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
    client.kill();
}

/// The section `api` for a server behind a proxy on this machine.
fn behind_proxy() -> String {
    SSL.replacen("api:\n", "api:\n  trusted_proxies: [127.0.0.1]\n", 1)
}

/// A node with the certificate `leaf` and these lines of configuration.
fn node(api: &str, winglet: &str) -> (Node, Authority) {
    let node = Node::new()
        .top_level(api)
        .winglet(winglet)
        .winglet("listen: [\"127.0.0.1:0\", \"tls:127.0.0.1:0\"]");
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
                    let busy = job.lines(" GET file 503 ");
                    done.lock().unwrap().push((job, link, result, refused, busy));
                }
            });
        }
    });
    let (mut table, mut wrong) = (Vec::new(), Vec::new());
    for (job, link, result, refused, busy) in done.into_inner().unwrap() {
        let name = format!("{:<26} {:<14}", job.client.name, job.way.name);
        // One of several connections may come when the others have brought everything.
        let late = job.client.parallel && result.is_ok();
        let note = match result {
            Ok(note) if note.ends_with("at once") => note,
            // What its first request from there asked for counts as delivered only once it is.
            Ok(note) if job.client.parallel && note.ends_with("moved") => note,
            Ok(note) => format!("{note}, {}", settled(&job, &link, &mut wrong)),
            Err(error) => {
                wrong.push(format!("{name} {error}"));
                error
            }
        };
        if refused > 0 && !late {
            wrong.push(format!("{name} was refused:\n{}", job.log().join("\n")));
        }
        table.push(format!("{name} {note}{}", if busy > 0 { ", met 503" } else { "" }));
    }
    table.sort();
    (table, wrong)
}

/// Waits until the link of `job` is spent. Of streams that a client resets, nobody knows what it had
/// and not yet acknowledged: a link that was read in parts may stay open then.
fn settled(job: &Job, link: &str, wrong: &mut Vec<String>) -> &'static str {
    let deadline = Instant::now() + Duration::from_secs(12);
    while job.status(link, "127.0.0.1") != 401 {
        if Instant::now() > deadline {
            if !job.client.parallel && job.course == Course::Whole {
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
    if !may_take("a minute") {
        return;
    }
    const SETTLES: &str = "settle_time: 7s\nmax_connections_per_address: 500";
    let slow = format!("{SETTLES}\nrate_limit: 3");
    let direct = [node(SSL, SETTLES), node(SSL, &slow)];
    let proxied = [node(&behind_proxy(), SETTLES), node(&behind_proxy(), &slow)];
    let (_, authority) = &direct[0];
    for (_, other) in direct.iter().chain(&proxied).skip(1) {
        // One authority for all.
        for leaf in ["leaf.pem", "leaf.key"] {
            fs::copy(authority.path(leaf), other.path(leaf)).unwrap();
        }
    }
    let near = direct.each_ref().map(|(node, _)| (node, node.start()));
    let behind = proxied.each_ref().map(|(node, _)| (node, node.start()));
    let mut ways = Vec::new();
    for tls in [false, true] {
        for (node, server) in &near {
            let base = if tls { tls_base(server) } else { server.base() };
            let name = if tls { "direct, TLS" } else { "direct" };
            ways.push(Way { name, base, node, server });
        }
    }
    let mut fronts = Vec::new();
    for (proxy, tls) in [("nginx", false), ("nginx", true), ("caddy", true), ("haproxy", true)] {
        for (node, server) in &behind {
            let front = Front::start(proxy, tls, server.address(), node.path());
            let name = format!("{proxy}{}", if tls { ", TLS" } else { "" });
            fronts.extend(front.map(|front| (name, front, *node, server)));
        }
    }
    let behind = fronts.iter().map(|(name, front, node, server)| Way {
        name,
        base: front.base.clone(),
        node,
        server,
    });
    ways.extend(behind);
    let content = pattern(LENGTH);
    let clients: Vec<Kin> = clients().into_iter().filter(|kin| have(kin.program)).collect();
    let mut jobs = Vec::new();
    for client in &clients {
        // In turns a server without a limit and one with.
        for (number, way) in ways.iter().enumerate() {
            for course in [Course::Whole, Course::Killed, Course::Moved] {
                // What a proxy has is delivered, and no other address gets it: the server has to be
                // slow for there to be a rest.
                let proxied = !way.name.starts_with("direct");
                let slow = client.slow || (proxied && course == Course::Moved);
                if (number % 2 == 1) == (course != Course::Whole && slow) {
                    let file = format!("f{}", jobs.len());
                    way.node.file(&file, &content);
                    jobs.push(Job { client, way, course, file });
                }
            }
        }
    }
    let (table, wrong) = make(jobs, &content, &authority.root().display().to_string());
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A person behind nginx whose connection broke at a tenth, when Winglet had long handed over all:
/// with nothing more to be heard, the link must wait for the rest to be asked for.
#[test]
fn who_broke_at_a_tenth_behind_nginx_resumes() {
    let (node, _authority) = node(&behind_proxy(), "");
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
