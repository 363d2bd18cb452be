//! A node made for one test: volumes, backups, a configuration, and the real binary serving it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The server that tests download from.
pub const SERVER: &str = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";
/// Another server on the same node.
pub const OTHER_SERVER: &str = "11111111-2222-4333-8444-555555555555";
/// The backup that tests download.
pub const BACKUP: &str = "3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6";
/// The key of the node's tokens.
pub const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A directory of its own, removed with everything in it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory.
    pub fn new() -> Scratch {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("winglet-it-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node before and between runs of its server.
pub struct Node {
    scratch: Scratch,
    /// Lines of the `winglet:` section, without indentation.
    winglet: String,
    /// Top-level lines of the configuration.
    extra: String,
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<u32>,
}

impl Node {
    /// A node with one empty volume and no backups.
    pub fn new() -> Node {
        let node = Node {
            scratch: Scratch::new(),
            winglet: String::new(),
            extra: String::new(),
            launcher: Vec::new(),
            environment: Vec::new(),
            user: None,
        };
        fs::create_dir_all(node.volume()).unwrap();
        fs::create_dir_all(node.backups()).unwrap();
        node
    }

    /// Adds lines to the `winglet:` section, such as `reuse: once`.
    pub fn winglet(mut self, lines: &str) -> Node {
        writeln!(self.winglet, "{lines}").unwrap();
        self
    }

    /// Adds top-level lines, such as `remote: https://panel.example`.
    pub fn top_level(mut self, lines: &str) -> Node {
        writeln!(self.extra, "{lines}").unwrap();
        self
    }

    /// Keeps used links in a state directory of the node.
    pub fn with_state(self) -> Node {
        let state = self.state();
        self.winglet(&format!("state_directory: {}", state.display()))
    }

    /// Runs the server through another command, such as `prlimit --nofile=64`.
    pub fn through(mut self, launcher: &[&str]) -> Node {
        self.launcher = launcher.iter().map(ToString::to_string).collect();
        self
    }

    /// Sets a variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Node {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs the server as this user, where the test itself is root. The node's files are made
    /// accessible to it.
    #[allow(clippy::wrong_self_convention)] // it reads as what it does: a node, as this user
    pub fn as_user(mut self, user: u32) -> Node {
        self.user = Some(user);
        self
    }

    /// The node's directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The volume of [`SERVER`].
    pub fn volume(&self) -> PathBuf {
        self.path().join("volumes").join(SERVER)
    }

    /// The backup directory.
    pub fn backups(&self) -> PathBuf {
        self.path().join("backups")
    }

    /// The state directory, where [`Node::with_state`] was called.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("config.yml")
    }

    /// Writes a file into the volume.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.volume().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a file of `length` zero bytes that takes no space.
    pub fn sparse(&self, name: &str, length: u64) -> PathBuf {
        let path = self.volume().join(name);
        File::create(&path).unwrap().set_len(length).unwrap();
        path
    }

    /// Writes the backup in the usual layout.
    pub fn backup(&self, content: &[u8]) -> PathBuf {
        let path = self.backups().join(SERVER).join(format!("{BACKUP}.tar.gz"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes the configuration file, as [`Node::start`] does.
    pub fn write_config(&self) -> PathBuf {
        let mut config = format!("token: {KEY}\n{}", self.extra);
        if !self.extra.lines().any(|line| line.starts_with("system:")) {
            config.push_str("system:\n  data: volumes\n  backup_directory: backups\n");
        }
        config.push_str("winglet:\n");
        if !self.winglet.lines().any(|line| line.starts_with("listen:")) {
            config.push_str("  listen: [\"127.0.0.1:0\"]\n");
        }
        for line in self.winglet.lines() {
            writeln!(config, "  {line}").unwrap();
        }
        fs::write(self.config(), config).unwrap();
        self.config()
    }

    /// A `winglet` command with `arguments`, in the node's directory and environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let binary = self.binary();
        let mut words: Vec<&str> = self.launcher.iter().map(String::as_str).collect();
        words.push(&binary);
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.path()).stdin(Stdio::null());
        command.env_remove("WINGS_TOKEN").envs(self.environment.iter().cloned());
        if let Some(user) = self.user {
            let owned =
                Command::new("chown").arg("-R").arg(user.to_string()).arg(self.path()).status();
            assert!(owned.unwrap().success());
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs a `winglet` command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts the server and waits until it serves.
    pub fn start(&self) -> Server {
        self.write_config();
        self.start_with(&[])
    }

    /// Starts the server on the configuration as it lies there, with more arguments.
    pub fn start_with(&self, arguments: &[&str]) -> Server {
        let server = self.launch(arguments);
        server.wait_for_log("listening on ");
        server
    }

    /// Starts the server without waiting for anything.
    pub fn launch(&self, arguments: &[&str]) -> Server {
        let mut all = vec!["serve", "--config", "config.yml"];
        all.extend(arguments);
        let command = self.command(&all);
        Server::over(command, fs::read_to_string(self.config()).unwrap_or_default())
    }

    /// The binary; a copy of its own for another user, who may not reach the build directory.
    fn binary(&self) -> String {
        let built = env!("CARGO_BIN_EXE_winglet");
        if self.user.is_none() {
            return built.into();
        }
        let copy = self.path().join("winglet");
        if !copy.exists() {
            // Not by this process: a child that another test forks meanwhile would hold the copy
            // open for writing, and running it would fail.
            assert!(Command::new("cp").arg(built).arg(&copy).status().unwrap().success());
        }
        copy.display().to_string()
    }
}

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
        line.rsplit("://").next().unwrap().parse().unwrap()
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

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.unwrap().success());
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

    /// Stops it in order and asserts that it ends with status 0.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Whether the process is there.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
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

    /// Runs a `winglet serve` that no [`Node`] made, and waits until it serves.
    pub fn spawn(command: Command, config: String) -> Server {
        let server = Server::over(command, config);
        server.wait_for_log("listening on ");
        server
    }

    fn over(mut command: Command, config: String) -> Server {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = thread::spawn(move || sink.follow(BufReader::new(stderr)));
        Server { child, log, reader: Some(reader), config, clean: true, dead: false }
    }

    /// Processor time that the process has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux counts in hundredths of a second for everybody who reads this file.
        Duration::from_millis(ticks * 10)
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

/// Whether a program that a test wants is there. Prints why a test is skipped where it is not.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Whether the test runs as root. Prints why a test is skipped where it does not.
pub fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

/// `length` bytes in which every position is recognisable.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 11).to_le_bytes()[..6]);
    }
    bytes.truncate(length);
    bytes
}
