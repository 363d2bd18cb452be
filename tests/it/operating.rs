//! A day's work of whoever runs a node: several configuration files, `check` against the machine,
//! output in pipes, priorities, and what is kept out of core dumps.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Output};

use serde_json::Value;
use winglet::process::sandbox::{self, Sandbox};

use crate::client::get;
use crate::harness::{KEY, Node, OTHER_SERVER, PATIENCE, SERVER, Server, have, must_be_root, skip};
use crate::mint::Token;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is said there besides which files were read.
fn stderr(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("winglet: reading /"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn commands_speak_json() {
    let node = Node::new().winglet("treads: 3\nreuse: once");
    node.file("a", b"content");
    node.write_config();
    let output = node.run(&["check", "--json"]);
    let said = json(&output);
    assert_eq!((output.status.code(), &said["ok"]), (Some(1), &Value::Bool(false)));
    let finding = &said["findings"][0];
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["key"], "winglet.treads");
    assert!(finding["message"].as_str().unwrap().contains("the nearest known one is threads"));
    assert!(said.get("settings").is_none());
    let quiet = stdout(&node.run(&["check", "--quiet"]));
    assert!(quiet.starts_with("error: winglet.treads") && quiet.lines().count() == 1, "{quiet}");

    fs::write(
        node.config(),
        fs::read_to_string(node.config()).unwrap().replace("treads", "threads"),
    )
    .unwrap();
    assert!(node.run(&["check", "--quiet"]).stdout.is_empty());
    let said = json(&node.run(&["check", "--json", "--print"]));
    assert_eq!(
        (&said["ok"], &said["files"][0]),
        (&Value::Bool(true), &node.config().to_str().unwrap().into())
    );
    assert_eq!(said["facts"]["listens_on"][0], "127.0.0.1:0");
    let settings = said["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["key"] == "winglet.threads").unwrap();
    assert_eq!(setting["value"], "3");
    assert_eq!(setting["origin"], node.config().to_str().unwrap());

    let sign =
        ["sign", "file", "--server", SERVER, "--path", "a", "--base-url", "http://n", "--json"];
    let said = json(&node.run(&sign));
    let url = said["url"].as_str().unwrap();
    assert!(url.starts_with("http://n/download/file?token=") && said["expires"].is_string());
    let said = json(&node.run(&["explain", "--json", url]));
    assert_eq!((&said["served"], &said["status"]), (&Value::Bool(true), &200.into()));
    let output = node.run(&["explain", "--json", &Token::file("missing").sign()]);
    let said = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((&said["status"], &said["cause"]), (&404.into(), &"no such file".into()));
    assert!(said["details"].as_array().unwrap().iter().any(|line| line["name"] == "expires"));
}

#[test]
fn a_closed_pipe_is_quiet_and_a_full_device_is_not() {
    let node = Node::new();
    node.file("a", b"content");
    node.write_config();
    let link = Token::file("a").sign();
    let missing = Token::file("missing").sign();
    let sign = ["sign", "file", "--server", SERVER, "--path", "a", "--base-url", "http://n"];
    for (arguments, code) in [
        (&["check", "--print"][..], 0),
        (&sign, 0),
        (&["explain", &link], 0),
        (&["explain", &missing], 1),
        (&["--help"], 0),
        (&["sign", "--help"], 0),
        (&["--version"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = node.command(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = node.command(arguments).stdout(full).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.starts_with("winglet: standard output: No space left"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // With nobody to hear of it either.
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = node.command(&["explain", "x"]).stdout(full()).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// What `check` says of `winglet.listen` on a node like `node`, and its status.
fn checked(node: &Node, listen: &str) -> (Option<i32>, String) {
    let config = node.write_config();
    let text = fs::read_to_string(&config).unwrap();
    let lines: Vec<_> = text
        .lines()
        .map(|line| match line.trim_start().starts_with("listen:") {
            true => format!("  listen: [\"{listen}\"]"),
            false => line.to_owned(),
        })
        .collect();
    fs::write(config, lines.join("\n") + "\n").unwrap();
    let output = node.run(&["check", "--quiet"]);
    (output.status.code(), stdout(&output))
}

#[test]
fn check_finds_an_address_that_cannot_be_used() {
    let node = Node::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let (code, said) = checked(&node, &address.to_string());
    let told = format!("cannot listen on {address}: Address already in use");
    assert!(
        code == Some(1) && said.starts_with(&format!("error: winglet.listen: {told}")),
        "{said}"
    );
    assert!(said.contains("something else listens there"), "{said}");
    let mut server = node.launch(&[]);
    assert!(!server.wait().success() && server.log().contains(&told), "{}", server.log());
    let socket = node.path().join("taken.sock");
    let _other = UnixListener::bind(&socket).unwrap();
    let unix = format!("unix:{}", socket.display());
    for (node, listen) in
        [(Node::new(), &*unix), (Node::new().winglet(&format!("control: {unix}")), "127.0.0.1:0")]
    {
        let (code, said) = checked(&node, listen);
        assert!(code == Some(1) && said.contains("something else listens there"), "{said}");
        let mut server = node.launch(&[]);
        assert!(!server.wait().success() && server.log().contains(&unix), "{}", server.log());
    }
    let (code, said) = checked(&node, "192.0.2.1:8080");
    assert!(code == Some(1) && said.contains("name an address that this machine has"), "{said}");
    let (code, said) = checked(&node, "unix:nowhere/w.sock");
    assert!(code == Some(1) && said.contains("nowhere does not exist"), "{said}");
    let (code, said) = checked(&node, "unix:config.yml");
    assert!(code == Some(1) && said.contains("a file that is no socket"), "{said}");
    // A socket that nobody listens on any more.
    drop(UnixListener::bind(node.path().join("stale.sock")).unwrap());
    assert_eq!(checked(&node, "unix:stale.sock"), (Some(0), String::new()));

    // While Winglet runs, its own address is taken as it should be.
    let server = node.start();
    let address = server.address().to_string();
    assert_eq!(checked(&node, &address), (Some(0), String::new()));
    let port = server.address().port();
    assert_eq!(checked(&node, &format!("0.0.0.0:{port}")), (Some(0), String::new()));
}

#[test]
#[cfg(feature = "tls")]
fn check_knows_its_own_tls_port() {
    if !have("openssl") {
        return;
    }
    let (node, _authority) = crate::certs::tls_node(crate::certs::Kind::Ec);
    let server = node.start();
    let address = server.wait_for_log("listening on https://");
    let address = address.rsplit("://").next().unwrap();
    assert_eq!(checked(&node, &format!("tls:{address}")), (Some(0), String::new()));
}

#[test]
fn check_finds_a_state_directory_that_cannot_be_used() {
    let said = |node: &Node| {
        let output = node.run(&["check", "--quiet"]);
        (output.status.code(), stdout(&output))
    };
    let node = Node::new().with_state();
    node.write_config();
    let (code, text) = said(&node);
    assert!(code == Some(0) && text.contains("does not exist yet; serve makes it"), "{text}");
    fs::write(node.state(), "").unwrap();
    let (code, text) = said(&node);
    let told = format!(
        "error: winglet.state_directory: {} is not a directory; name another",
        node.state().display()
    );
    assert!(code == Some(1) && text.starts_with(&told), "{text}");
    let mut server = node.launch(&[]);
    assert!(!server.wait().success() && server.log().contains(&told), "{}", server.log());
    fs::remove_file(node.state()).unwrap();
    fs::create_dir(node.state()).unwrap();
    assert_eq!(said(&node), (Some(0), String::new()));
    fs::write(node.state().join("journal"), "something else\n").unwrap();
    let (code, text) = said(&node);
    assert!(code == Some(1) && text.contains("not a journal of"), "{text}");
    assert_eq!(text.matches("state_directory").count(), 1, "{text}");

    if !must_be_root() || !have("setpriv") {
        return;
    }
    let node = Node::new().with_state().as_user(65534);
    node.write_config();
    fs::create_dir(node.state()).unwrap();
    node.run(&["check"]);
    Command::new("chown").arg("0").arg(node.state()).status().unwrap();
    // The harness would give it back.
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(node.path().join("winglet"))
        .args(["check", "--quiet"])
        .current_dir(node.path())
        .output()
        .unwrap();
    let text = stdout(&output);
    // It serves all the same, as tests in journal.rs have it.
    assert!(text.starts_with("warning: winglet.state_directory: "), "{text}");
    assert!(text.contains("is not writable by this user (Permission denied"), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_volume_on_another_disk_takes_extra_read_paths() {
    if sandbox::probe() == Sandbox::None {
        return skip("this kernel has no Landlock");
    }
    let disk = Node::new();
    disk.file("a", b"content");
    let node = Node::new();
    symlink(disk.volume(), node.path().join("volumes").join(OTHER_SERVER)).unwrap();
    let token = Token::file("a").with("server_uuid", OTHER_SERVER);
    node.write_config();
    let output = node.run(&["check", "--quiet"]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        said.starts_with("warning: system.data: ") && said.contains("extra_read_paths"),
        "{said}"
    );
    assert!(said.contains(&disk.volume().display().to_string()), "{said}");
    let mut server = node.start();
    server.may_log_errors();
    let explained = || {
        let output = node.run(&["explain", &token.sign()]);
        (output.status.code(), stdout(&output))
    };
    let (code, text) = explained();
    assert!(code == Some(1) && text.contains("the sandbox keeps the server from"), "{text}");
    let answer = get(server.address(), &token.target());
    assert!(text.contains(&format!("it would be refused with {}: ", answer.status)), "{text}");
    server.stop();

    let extra = format!("extra_read_paths: [\"{}\"]", disk.volume().parent().unwrap().display());
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}  {extra}\n")).unwrap();
    assert!(node.run(&["check", "--quiet"]).stdout.is_empty());
    let server = node.start_with(&[]);
    assert_eq!(explained().0, Some(0));
    assert_eq!(get(server.address(), &token.target()).body, b"content");
}

#[test]
fn a_name_that_is_listened_at_survives_a_reload_in_the_sandbox() {
    if std::net::ToSocketAddrs::to_socket_addrs("localhost:0").is_err() {
        return skip("this machine does not know localhost");
    }
    let node = Node::new().winglet("listen: [\"localhost:0\"]\nreuse: once");
    let server = node.start();
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("reuse: once", "reuse: resume")).unwrap();
    server.signal("HUP");
    server.wait_for_log("reload: done");
    assert!(!server.log().contains("needs a restart"), "{}", server.log());
}

#[test]
fn an_abstract_socket_of_a_service_manager_is_heard_in_the_sandbox() {
    let name = format!("winglet-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let node = Node::new().env("NOTIFY_SOCKET", &format!("@{name}"));
    let server = node.start();
    let mut buffer = [0; 64];
    for expected in ["READY=1", "RELOADING=1"] {
        let length = loop {
            match socket.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.unwrap(),
            }
        };
        assert!(buffer[..length].starts_with(expected.as_bytes()), "{:?}", &buffer[..length]);
        server.signal("HUP");
    }
}

/// The line of a file in `/proc` of the server that begins with `name`.
fn proc(server: &Server, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// The nice values of all threads.
fn nice(server: &Server) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let nice = |stat: String| -> i32 {
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    tasks.map(|task| nice(fs::read_to_string(task.unwrap().path().join("stat")).unwrap())).collect()
}

#[test]
fn it_stands_back_behind_others() {
    let own = fs::read_to_string("/proc/thread-self/stat").unwrap();
    if own.rsplit(')').next().unwrap().split_whitespace().nth(16) != Some("0") {
        return skip("this test does not run at nice 0");
    }
    let server = Node::new().start();
    assert!(
        nice(&server).len() > 8 && nice(&server).iter().all(|nice| *nice == 10),
        "every thread"
    );
    drop(server);
    let server = Node::new().winglet("priority: normal").start();
    assert!(nice(&server).iter().all(|nice| *nice == 0));
    drop(server);
    if !have("nice") || !have("setsid") || !have("ionice") {
        return;
    }
    let server = Node::new().through(&["nice", "-n", "15", "ionice", "-c", "3"]).start();
    assert!(nice(&server).iter().all(|nice| *nice == 15), "what was lower stays");
    assert_eq!(io_class(&server), "idle");
    drop(server);
    let server = Node::new().through(&["setsid"]).start();
    assert_eq!(io_class(&server), "best-effort: prio 7");
    let group = fs::read_to_string(format!("/proc/{}/autogroup", server.pid())).unwrap_or_default();
    match group.is_empty() {
        true => skip("this kernel has no autogroups"),
        false => assert!(group.ends_with(" nice 10\n"), "{group}"),
    }
}

/// As the first process of a container: its session belongs to outside and has no number here.
#[test]
fn it_starts_in_a_session_of_outside() {
    let container = ["unshare", "--pid", "--fork", "--kill-child"];
    if !have("unshare") || !must_be_root() {
        return;
    }
    let server = Node::new().through(&container).start();
    assert_eq!(get(server.address(), "/health").status, 200);
}

fn io_class(server: &Server) -> String {
    let output = Command::new("ionice").args(["-p", &server.pid().to_string()]).output().unwrap();
    stdout(&output).trim().to_owned()
}

#[test]
fn memory_stays_out_of_core_dumps() {
    let server = Node::new().start();
    let limit = proc(&server, "limits", "Max core file size");
    assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{limit}");
    // What is not dumpable belongs to root in /proc, whoever runs it.
    use std::os::unix::fs::MetadataExt;
    let memory = fs::metadata(format!("/proc/{}/mem", server.pid())).unwrap();
    assert_eq!(memory.uid(), 0);
}

#[test]
fn the_samples_token_is_refused_at_a_socket_that_was_passed() {
    const PASS: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#;
    let node = Node::new().through(&["sh", "-c", PASS]);
    node.write_config();
    let text = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), text.replace(KEY, winglet::config::SAMPLE_TOKEN)).unwrap();
    // Nobody is served at it.
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut command = node.command(&["serve"]);
    let output = command.stdin(std::os::fd::OwnedFd::from(socket)).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("token: is the sample's, and the socket http://0.0.0.0:"), "{said}");
}
