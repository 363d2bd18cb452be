//! A running server: its log, its signals, what `/proc` says about it.
//!
//! It is killed when it goes out of scope. A test that fails prints its configuration and its log,
//! and one that passes fails all the same if the server logged an error.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    fn follow(&self, source: impl BufRead) {
        for line in source.split(b'\n').map_while(Result::ok) {
            self.lines.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
            self.more.notify_all();
        }
        self.lines.lock().unwrap().1 = true;
        self.more.notify_all();
    }

    /// Waits until `count` lines satisfy `wanted`, and returns them.
    fn wait(&self, count: usize, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.lines.lock().unwrap();
        loop {
            let found: Vec<String> = guard.0.iter().filter(|line| wanted(line)).cloned().collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || guard.1 {
                return Err(guard.0.join("\n"));
            }
            guard = self.more.wait_timeout(guard, left).unwrap().0;
        }
    }
}

/// A running server; killed when it goes out of scope.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    reader: Option<thread::JoinHandle<()>>,
    config: String,
    clean: bool,
    dead: bool,
}

impl Server {
    /// The address of its first TCP listener.
    pub fn address(&self) -> SocketAddr {
        let line = self.wait_for_log("listening on http");
        // A log of objects has the end of one there.
        line.rsplit("://").next().unwrap().trim_end_matches("\"}").parse().unwrap()
    }

    /// `http://ADDR:PORT`
    pub fn base(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text`, and returns the first.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_logs(1, text).remove(0)
    }

    /// Waits until `count` lines contain `text`, and returns all that do.
    pub fn wait_for_logs(&self, count: usize, text: &str) -> Vec<String> {
        self.log
            .wait(count, &|line| line.contains(text))
            .unwrap_or_else(|log| panic!("no {count} lines with {text:?} in the log:\n{log}"))
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// This run may log errors: otherwise one fails the test.
    pub fn may_log_errors(&mut self) {
        self.clean = false;
    }

    /// Sends a signal: `HUP`, `INT`, `TERM`, `USR1`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "USR1" => Signal::USR1,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            _ => panic!("{name} is not sent by any test"),
        };
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.dead = true;
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// Stops it by SIGTERM and asserts that it exits with status 0.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Whether the process is there.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether this process may count them; a skip if it may not. A process that leaves no core dump
    /// is root's to look into.
    pub fn shows_descriptors(&self) -> bool {
        let shown = fs::read_dir(format!("/proc/{}/fd", self.pid())).is_ok();
        if !shown {
            super::skip("the server's descriptors can be counted by root only");
        }
        shown
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // A worker keeps a pipe from its first large file on.
        let is_pipe = |entry: &fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
        };
        let (pipes, others): (Vec<_>, Vec<_>) = all.flatten().partition(is_pipe);
        assert!(pipes.len() <= 2 * self.threads(), "pipes are left behind");
        others.len()
    }

    /// Threads of the process.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Resident memory of the process in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits until `condition` holds.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "never came: {what}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has nothing to do: no thread was found at work, twenty times in a row. A thread
    /// that turns in circles is found at work nearly always, however little of a processor it gets.
    pub fn wait_until_asleep(&self) {
        let is_at_work = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'))
        };
        let works = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            tasks.map_while(Result::ok).any(is_at_work)
        };
        let looks = || {
            thread::sleep(Duration::from_millis(20));
            works()
        };
        self.wait_until("nothing to do", |_| !(0..20).any(|_| looks()));
    }

    /// Runs a `winglet serve` that no [`Node`] made, and waits until it serves.
    pub fn spawn(command: Command, config: String) -> Server {
        let server = Server::over(command, config);
        server.wait_for_log("listening on ");
        server
    }

    pub fn over(mut command: Command, config: String) -> Server {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = thread::spawn(move || sink.follow(BufReader::new(stderr)));
        Server { child, log, reader: Some(reader), config, clean: true, dead: false }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.dead {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reader.take().map(thread::JoinHandle::join);
        }
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- configuration ---\n{}\n--- log ---\n{log}", self.config);
        } else if self.clean {
            let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
            assert!(errors.is_empty(), "the server logged errors:\n{log}");
        }
    }
}
