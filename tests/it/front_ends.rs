//! Several front ends over one directory, and the real Redis that they share.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Answer, Client};
use crate::harness::{Node, PATIENCE, Scratch, Server, have};
use crate::mint::Token;

/// Silence after which a front end counts as gone.
pub const SILENCE: &str = "take_over_after: 2s";

/// A Redis of one test.
pub struct Redis {
    /// A directory of its own.
    pub scratch: Scratch,
    /// Where it listens.
    pub port: u16,
    options: Vec<String>,
    /// The process, unless it was killed.
    pub child: Option<Child>,
}

impl Redis {
    /// Starts one; `None` is a skip.
    pub fn start(options: &[&str]) -> Option<Redis> {
        if !have("redis-server") {
            return None;
        }
        let options = options.iter().map(ToString::to_string).collect();
        let mut redis = Redis { scratch: Scratch::new(), port: free_port(), options, child: None };
        redis.run();
        // As if it had not just been emptied: nobody waits for other front ends.
        redis.ask("SET winglet:since 1");
        Some(redis)
    }

    /// Starts it, empty, where it was.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(&self.options).current_dir(self.scratch.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let child = self.child.insert(child);
        let pid = child.id().to_string();
        // Not another one's that has taken the port meanwhile.
        until("our Redis answers", || self.info("process_id").is_some_and(|found| found == pid));
    }

    /// For `shared_state`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The first line of the answer to an inline command.
    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        (!line.is_empty()).then(|| line.trim().to_owned())
    }

    /// One of the facts of `INFO`.
    fn info(&self, name: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned()))
    }

    /// As `try_ask`, of one that answers.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    /// What it keeps of the link of `token` under `field`.
    pub fn field(&self, token: &Token, field: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let command = format!("HGET {} {field}\r\nQUIT\r\n", key(token));
        stream.write_all(command.as_bytes()).unwrap();
        BufReader::new(stream).lines().nth(1).unwrap().unwrap()
    }

    /// Waits until no front end is called n`number`, for the others.
    pub fn wait_for_end_of(&self, number: usize) {
        until("it is gone", || self.ask(&format!("EXISTS winglet:node:n{number}")) == ":0");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it is asked from here on, line by line.
    pub fn monitor(&self) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(next_line(&mut reader), "+OK");
        reader
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The key of the link of `token`.
pub fn key(token: &Token) -> String {
    let hash = hmac_sha256::Hash::hash(token.claims["unique_id"].as_str().unwrap().as_bytes());
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("winglet:{hex}")
}

/// A line without its end.
pub fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A port that no connection and no other test's port 0 takes while Redis is down: one below those.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 10_000).unwrap();
    let next = || 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
    let mut ports = std::iter::repeat_with(next).take(10_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Waits until `condition` holds.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Front ends over the volumes of the first.
pub struct Fleet {
    /// Their servers, which end before their directories are removed.
    pub servers: Vec<Server>,
    /// Their nodes.
    pub nodes: Vec<Node>,
}

impl Fleet {
    /// `count` front ends with more lines of configuration, ready for links.
    pub fn start(redis: &Redis, count: usize, lines: &str) -> Fleet {
        Fleet::through(&vec![redis.url(); count], lines)
    }

    /// A front end for each of `urls`, which lead to one Redis.
    pub fn through(urls: &[String], lines: &str) -> Fleet {
        let mut fleet = Fleet { nodes: Vec::new(), servers: Vec::new() };
        for (number, url) in urls.iter().enumerate() {
            let mut node = Node::new().with_state().winglet(lines);
            if !lines.contains("take_over_after") {
                node = node.winglet(SILENCE);
            }
            node = node.winglet(&format!("shared_state: {url}"));
            node = node.winglet(&format!("node: n{number}"));
            if let Some(first) = fleet.nodes.first() {
                let system = format!(
                    "system:\n  data: {}\n  backup_directory: {}",
                    first.path().join("volumes").display(),
                    first.backups().display()
                );
                node = node.top_level(&system);
            }
            fleet.servers.push(node.start());
            fleet.nodes.push(node);
        }
        for server in &fleet.servers {
            server.wait_for_log("answers; this front end is");
        }
        fleet
    }

    /// Tells every front end where all are.
    pub fn introduce(&self) {
        let all = self.servers.iter().enumerate();
        let all: Vec<_> = all.map(|(n, server)| format!("n{n}: \"{}\"", server.base())).collect();
        for (node, server) in self.nodes.iter().zip(&self.servers) {
            let config = fs::read_to_string(node.config()).unwrap();
            fs::write(node.config(), format!("{config}  front_ends: {{{}}}\n", all.join(", ")))
                .unwrap();
            server.signal("HUP");
            server.wait_for_log("reload: done");
        }
    }

    /// A client of 127.0.0.`last` that has read `length` bytes of a download that goes on.
    pub fn begin(&self, number: usize, last: u8, token: &Token, length: usize) -> Client {
        let mut client = Client::connect_from(&format!("127.0.0.{last}"), self.address(number));
        client.request("GET", &token.target(), "");
        let head = client.head().unwrap();
        assert_eq!(head.status, 200, "{}", head.raw);
        client.read_some(length);
        client
    }

    /// Believes a proxy on this machine.
    pub fn trusting(self) -> Fleet {
        for (node, server) in self.nodes.iter().zip(&self.servers) {
            let config = fs::read_to_string(node.config()).unwrap();
            let api = "api: {trusted_proxies: [\"127.0.0.1\"]}\n";
            fs::write(node.config(), format!("{api}{config}")).unwrap();
            server.signal("HUP");
            server.wait_for_log("reload: done");
        }
        self
    }

    /// Where front end `number` listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.servers[number].address()
    }

    /// Asks for each of `targets` at all at the same moment, front end `n` from the address 127.0.1.1,
    /// or 127.0.1.n if `apart`. Returns the answers of each front end.
    pub fn all_at_once(&self, targets: &[String], apart: bool) -> Vec<Vec<Answer>> {
        let barrier = std::sync::Barrier::new(self.servers.len());
        thread::scope(|scope| {
            let ask = |number: usize| {
                let barrier = &barrier;
                let source = format!("127.0.1.{}", if apart { number + 1 } else { 1 });
                let address = self.address(number);
                scope.spawn(move || {
                    let mut client = Client::connect_from(&source, address);
                    let ask = |target: &String| {
                        barrier.wait();
                        let answer = client.get(target);
                        if answer.field("Connection") == Some("close") {
                            client = Client::connect_from(&source, address);
                        }
                        answer
                    };
                    targets.iter().map(ask).collect::<Vec<_>>()
                })
            };
            let runs: Vec<_> = (0..self.servers.len()).map(ask).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        })
    }

    /// The answer of front end `number` to 127.0.0.`last`, who asks for some of `token`'s link.
    pub fn part(&self, number: usize, last: u8, token: &Token, range: &str) -> Answer {
        let mut client = Client::connect_from(&format!("127.0.0.{last}"), self.address(number));
        client.get_with(&token.target(), &format!("Range: bytes={range}\r\n"))
    }
}

/// Follows a redirect: the address and the target that it leads to.
pub fn location(answer: &Answer) -> (SocketAddr, String) {
    assert_eq!(answer.status, 307, "{}", answer.raw);
    let (_, rest) = answer.field("Location").unwrap().split_once("://").unwrap();
    let (address, target) = rest.split_once('/').unwrap();
    (address.parse().unwrap(), format!("/{target}"))
}
