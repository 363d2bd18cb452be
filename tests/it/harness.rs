//! A node made for one test: volumes, backups, a configuration, and the real binary serving it.

mod server;
mod skips;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use server::Server;
pub use skips::{descriptors_for, have, is_quiet, is_root, may_take, must_be_root, skip};

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

    /// Runs the server as this user, if the test itself is root. The node's files are made
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

    /// The state directory, if [`Node::with_state`] was called.
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
        // Not what may be installed on this machine.
        command.env_remove("WINGS_TOKEN").env("WINGLET_CONFIG", "config.yml");
        command.envs(self.environment.iter().cloned());
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

/// Numbers that look random, the same in every run.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}
