//! The shipped proxy examples, ports and paths substituted, in front of a node's server.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, have};

/// A running proxy; killed when it goes out of scope.
pub struct Front {
    child: Child,
    /// Such as `https://127.0.0.1:40000`.
    pub base: String,
}

/// Where the certificates of the examples lie.
const EXAMPLE: &str = "/etc/letsencrypt/live/node.example.com";

impl Front {
    /// Starts `proxy` in front of `server`, with its files and the certificate `leaf` in
    /// `directory`; `None` if it is not installed.
    pub fn start(proxy: &str, tls: bool, server: SocketAddr, directory: &Path) -> Option<Front> {
        if !have(proxy) {
            return None;
        }
        let port = free_port();
        let work = directory.join(format!("{proxy}-{port}"));
        fs::create_dir(&work).unwrap();
        let command = match proxy {
            "nginx" => nginx(tls, port, server, directory, &work),
            "caddy" => caddy(port, server, directory, &work),
            "haproxy" => haproxy(port, server, directory, &work),
            _ => panic!("no example for {proxy}"),
        };
        let child = spawn(command, &work);
        let scheme = if tls { "https" } else { "http" };
        let mut front = Front { child, base: format!("{scheme}://127.0.0.1:{port}") };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(work.join("log")).unwrap_or_default();
            assert!(front.child.try_wait().unwrap().is_none(), "{proxy}: {}", log());
            assert!(Instant::now() < deadline, "{proxy} does not start: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        Some(front)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Not by SIGKILL: nginx ends its workers.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(mut command: Command, work: &Path) -> Child {
    let log = fs::File::create(work.join("log")).unwrap();
    let errors = log.try_clone().unwrap();
    command.current_dir(work).stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap()
}

fn example(name: &str, server: SocketAddr) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/proxy").join(name);
    fs::read_to_string(path).unwrap().replace("127.0.0.1:8081", &server.to_string())
}

fn nginx(tls: bool, port: u16, server: SocketAddr, directory: &Path, work: &Path) -> Command {
    let work = work.display();
    let leaf = directory.join("tls/leaf");
    let listen = if tls { " ssl" } else { "" };
    let site = example("nginx.conf", server)
        .replace("    listen [::]:443 ssl;\n", "")
        .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port}{listen}"))
        .replace(&format!("{EXAMPLE}/fullchain.pem"), &format!("{}.pem", leaf.display()))
        .replace(&format!("{EXAMPLE}/privkey.pem"), &format!("{}.key", leaf.display()))
        .replace("/var/log/nginx", &work.to_string());
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {work}/{kind};\n"))
        .collect();
    // Its workers as whoever runs the tests, so that they reach the scratch directory.
    let user = if crate::harness::is_root() { "user root;\n" } else { "" };
    let config = format!(
        "{user}error_log {work}/error.log;\npid {work}/pid;\ndaemon off;\nevents {{}}\nhttp {{\n{temp}{site}}}\n"
    );
    let path = format!("{work}/nginx.conf");
    fs::write(&path, config).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-e", &format!("{work}/error.log"), "-p", &work.to_string(), "-c", &path]);
    command
}

fn caddy(port: u16, server: SocketAddr, directory: &Path, work: &Path) -> Command {
    let leaf = directory.join("tls/leaf");
    // No port 80, no administration port: this host may use them.
    let config = example("Caddyfile", server)
        .replacen("\n{\n", "\n{\nadmin off\nauto_https disable_redirects\n", 1)
        .replace("node.example.com:443 {", &format!("https://127.0.0.1:{port} {{\nbind 127.0.0.1"))
        .replace(&format!("{EXAMPLE}/fullchain.pem"), &format!("{}.pem", leaf.display()))
        .replace(&format!("{EXAMPLE}/privkey.pem"), &format!("{}.key", leaf.display()));
    fs::write(work.join("Caddyfile"), config).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
    command.env("HOME", work).env("XDG_DATA_HOME", work);
    command
}

fn haproxy(port: u16, server: SocketAddr, directory: &Path, work: &Path) -> Command {
    let read = |end| fs::read(directory.join(format!("tls/leaf.{end}"))).unwrap();
    let both = work.join("both.pem");
    fs::write(&both, [read("pem"), read("key")].concat()).unwrap();
    let config = example("haproxy.cfg", server)
        .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
        .replace("/etc/haproxy/certs/node.example.com.pem", &both.display().to_string())
        .replace("/etc/haproxy/winglet.lua", "haproxy.lua");
    fs::write(work.join("haproxy.lua"), example("haproxy.lua", server)).unwrap();
    fs::write(work.join("haproxy.cfg"), config).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", "haproxy.cfg"]);
    command
}
