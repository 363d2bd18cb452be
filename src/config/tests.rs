//! The configuration as a whole: a node's real file, the sample file against the defaults, and
//! what an operator is told about each mistake.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::raw::{KEYS, TIMEOUT_KEYS};
use super::*;

const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ01";

/// A directory with `volumes` and `backups`, removed at the end.
pub(super) struct Node(pub(super) PathBuf);

impl Node {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("winglet-config-{}-{number}", std::process::id()));
        for name in ["volumes", "backups"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        Self(directory)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Loads exactly `text`, with `listen` from the command line and `variables` set.
    pub(super) fn load_with(
        &self,
        text: &str,
        listen: &[&str],
        variables: &[(&str, &str)],
    ) -> (Option<Config>, Findings) {
        let listen: Vec<String> = listen.iter().map(|text| text.to_string()).collect();
        load(&self.write("config.yml", text), &listen, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    /// Loads `rest` beneath a sound token and sound directories.
    pub(super) fn load(&self, rest: &str) -> (Option<Config>, Findings) {
        let text =
            format!("token: {TOKEN}\nsystem: {{data: volumes, backup_directory: backups}}\n{rest}");
        self.load_with(&text, &[], &[])
    }

    fn config(&self, rest: &str) -> Config {
        let (config, findings) = self.load(rest);
        assert!(findings.is_empty(), "{findings}");
        config.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As the Panel writes it and Wings completes it.
pub(super) const WINGS: &str = include_str!("../../tests/wings.yml");

#[test]
#[cfg(feature = "tls")]
fn the_file_of_a_node_loads_without_a_finding() {
    let node = Node::new();
    let (config, findings) = node.load_with(WINGS, &[], &[]);
    assert!(findings.is_empty(), "{findings}");
    let config = config.unwrap();
    assert_eq!(config.token, TOKEN);
    assert_eq!(config.remote.as_deref(), Some("https://panel.example.com"));
    assert_eq!(config.allowed_origins, ["https://shop.example.com"]);
    assert_eq!(config.listen, ["tls:0.0.0.0:443".parse().unwrap()]);
    assert!(config.tls.unwrap().key.ends_with("live/node.example.com/privkey.pem"));
    assert_eq!(config.data, node.0.join("volumes"));
    assert_eq!(config.state_directory, None);
}

#[test]
fn keys_of_wings_that_are_not_read_may_hold_anything() {
    Node::new().config("docker: 5\nthrottles: [a, b]\nallowed_mounts: {x: !tag y}\n12: {}\napi:\n  upload_limit: none");
}

#[test]
fn the_sample_documents_every_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yml");
    let text = fs::read_to_string(&path).unwrap();
    for key in KEYS.iter().chain(TIMEOUT_KEYS) {
        let documented = text
            .lines()
            .any(|line| line.trim_start_matches([' ', '#']).starts_with(&format!("{key}:")));
        assert!(documented, "config.yml does not show winglet's {key}");
    }
    let (config, findings) = load(&path, &[], &|_| None);
    assert!(findings.is_empty(), "{findings}");
    let sample = config.unwrap();
    // What the sample sets for itself, and nothing else.
    let node = Node::new();
    let expected = Config {
        file: sample.file.clone(),
        token: sample.token.clone(),
        remote: sample.remote.clone(),
        data: sample.data.clone(),
        backup_directory: sample.backup_directory.clone(),
        listen: vec!["127.0.0.1:8080".parse().unwrap()],
        ..node.config("")
    };
    assert_eq!(sample, expected);
    let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(document["api"]["host"], defaults::API_HOST);
    assert_eq!(document["api"]["port"], defaults::API_PORT);
    assert!(text.contains(defaults::DATA) && text.contains(defaults::BACKUP_DIRECTORY));
}

#[test]
fn what_is_not_set_is_at_its_default() {
    let config = Node::new().config("");
    assert_eq!(
        config.listen,
        [format!("{}:{}", defaults::API_HOST, defaults::API_PORT).parse().unwrap()]
    );
    assert_eq!(
        (config.threads, config.max_connections),
        (defaults::THREADS, defaults::MAX_CONNECTIONS)
    );
    assert_eq!(config.max_waiting_per_address, defaults::MAX_WAITING_PER_ADDRESS);
    assert_eq!(config.max_streams_per_address, defaults::MAX_STREAMS_PER_ADDRESS);
    assert_eq!(config.max_requests_per_connection, defaults::MAX_REQUESTS_PER_CONNECTION);
    assert_eq!((config.reuse, config.resume_window), (Reuse::Resume, defaults::RESUME_WINDOW));
    assert!(config.bind_address && config.sandbox && !config.require_scope && !config.debug);
    assert_eq!(config.max_token_lifetime, defaults::MAX_TOKEN_LIFETIME);
    assert_eq!(
        (config.clock_skew, config.max_tracked_tokens),
        (defaults::CLOCK_SKEW, defaults::MAX_TRACKED_TOKENS)
    );
    assert_eq!((config.rate_limit, config.min_rate), (0, defaults::MIN_RATE));
    assert_eq!(
        (config.unix_mode, config.copy_buffer),
        (defaults::UNIX_MODE, defaults::COPY_BUFFER_KIB * 1024)
    );
    let Timeouts { head, idle, queue, stall, drain } = config.timeouts;
    assert_eq!((head, idle, queue), (defaults::HEAD, defaults::IDLE, defaults::QUEUE));
    assert_eq!((stall, drain), (defaults::STALL, defaults::DRAIN));
    assert_eq!(config.tls, None);
    assert_eq!(config.state_directory, None);
}

#[test]
fn what_is_set_counts() {
    let node = Node::new();
    let config = node.config(
        "winglet:\n  listen: ['127.0.0.1:0', '127.0.0.1:0', 'unix:w.sock']\n  state_directory: state\n  rate_limit: 1.5\n  \
         reuse: once\n  copy_buffer: 8\n  unix_mode: '0600'\n  timeouts: {head: 200ms, drain: 0}\n  sandbox: false\n\
         api: {port: '9000', trusted_proxies: [10.1.2.3, '10.0.0.7/8', '::1', '::ffff:1.2.3.4']}",
    );
    let listen: Vec<_> = config.listen.iter().map(Listen::to_string).collect();
    assert_eq!(
        listen,
        ["127.0.0.1:0", "127.0.0.1:0", &format!("unix:{}/w.sock", node.0.display())]
    );
    assert_eq!(config.state_directory, Some(node.0.join("state")));
    assert_eq!((config.rate_limit, config.copy_buffer, config.unix_mode), (1_572_864, 8192, 0o600));
    assert_eq!(
        (config.timeouts.head, config.timeouts.drain),
        (Duration::from_millis(200), Duration::ZERO)
    );
    assert!(config.reuse == Reuse::Once && !config.sandbox);
    let proxies: Vec<_> = config.trusted_proxies.iter().map(IpNet::to_string).collect();
    assert_eq!(proxies, ["10.1.2.3/32", "10.0.0.0/8", "::1/128", "1.2.3.4/32"]);
    assert!(
        config.trusts("10.200.0.1".parse().unwrap()) && !config.trusts("11.0.0.1".parse().unwrap())
    );
    assert_eq!(
        node.config("api: {host: '::', port: '9000'}").listen,
        ["[::]:9000".parse().unwrap()]
    );
}

#[test]
fn a_token_may_come_from_elsewhere() {
    let node = Node::new();
    let file = node.write("token", &format!("\n{TOKEN}\r\n"));
    let text = |token: &str| {
        format!("token: '{token}'\nsystem: {{data: volumes, backup_directory: backups}}\n")
    };
    let in_file = format!("file://{}", file.display());
    let directory = node.0.display().to_string();
    for (token, variables) in [
        (TOKEN, &[][..]),
        (TOKEN, &[("WINGS_TOKEN", "")]),
        ("", &[("WINGS_TOKEN", TOKEN)]),
        ("short", &[("WINGS_TOKEN", &*in_file)]),
        (&in_file, &[]),
        ("file://token", &[]),
        ("file://${DIR}/token", &[("DIR", &*directory)]),
        ("${A}${B}", &[("A", &TOKEN[..20]), ("B", &TOKEN[20..])]),
        ("$A", &[("A", TOKEN)]),
    ] {
        let (config, findings) = node.load_with(&text(token), &[], variables);
        assert!(findings.is_empty(), "{token}: {findings}");
        assert_eq!(config.unwrap().token, TOKEN, "{token}");
    }
    let dollars = "a$-b$$c-dollars$";
    let told = "error: token: names the environment variable c, which is not set; set it";
    assert_eq!(node.load_with(&text(dollars), &[], &[]).1.to_string(), told);
    let (config, _) = node.load_with(&text(dollars), &[], &[("c", "C")]);
    assert_eq!(config.unwrap().token, "a$-b$C-dollars$");
}

#[test]
fn a_token_that_cannot_work_is_told_without_showing_it() {
    let node = Node::new();
    node.write("empty", "\n");
    for (token, told) in [
        ("", "token: is missing; copy"),
        ("token:", "token: is missing; copy"),
        ("token: ''", "token: is empty; copy"),
        ("token: elevenbytes", "token: has 11 bytes and needs at least 12"),
        ("token: 123456789012345", "token: is not a text; put it in quotes"),
        (
            "token: file:///no/such/file",
            "token: names the file /no/such/file, which cannot be read: no such file",
        ),
        ("token: file://empty", "token: is empty"),
        ("token: ${MISSING}", "token: names the environment variable MISSING, which is not set"),
        ("token: '${MISSING'", "token: has a ${ without its closing }"),
    ] {
        let text = format!("{token}\nsystem: {{data: volumes, backup_directory: backups}}\n");
        let (config, findings) = node.load_with(&text, &[], &[]);
        let findings = findings.to_string();
        assert!(
            config.is_none() && findings.starts_with(&format!("error: {told}")),
            "{token}: {findings}"
        );
        assert!(!findings.contains("elevenbytes") && !findings.contains("12345"), "{findings}");
    }
}

#[test]
fn mistakes_name_the_key_and_the_remedy() {
    let node = Node::new();
    node.write("file", "");
    for (rest, told) in [
        (
            "winglet: {thread: 1}",
            "winglet.thread: is an unknown key; the nearest known one is threads",
        ),
        (
            "winglet: {Reuse: once}",
            "winglet.Reuse: is an unknown key; the nearest known one is reuse",
        ),
        (
            "winglet: {stall: 1s}",
            "winglet.stall: is an unknown key; the nearest known one is timeouts.stall",
        ),
        (
            "winglet: {timeouts: {ilde: 1s}}",
            "winglet.timeouts.ilde: is an unknown key; the nearest known one is idle",
        ),
        ("winglet: {timeouts: 10s}", "winglet.timeouts: is the text \"10s\"; write a section"),
        (
            "winglet: {timeouts: {head: 0}}",
            "winglet.timeouts.head: is the number 0; write a duration from 1ms to 1h",
        ),
        (
            "winglet: {threads: 0}",
            "winglet.threads: is the number 0; write a whole number from 1 to 1024",
        ),
        (
            "winglet: {threads: 1025}",
            "winglet.threads: is the number 1025; write a whole number from 1 to 1024",
        ),
        (
            "winglet: {copy_buffer: 7}",
            "winglet.copy_buffer: is the number 7; write a whole number from 8 to 4096",
        ),
        (
            "winglet: {reuse: twice}",
            "winglet.reuse: is the text \"twice\"; write one of once, resume, unlimited",
        ),
        (
            "winglet: {rate_limit: 0.0005}",
            "winglet.min_rate: is 1024 bytes/s, and winglet.rate_limit allows 525",
        ),
        ("api: 5", "api: is the number 5; write a section"),
        (
            "api: {trusted_proxies: [10.0.0.0/33]}",
            "api.trusted_proxies[0]: is the text \"10.0.0.0/33\"; write an address",
        ),
        ("winglet: []", "winglet: is a list; write a section"),
    ] {
        let (config, findings) = node.load(rest);
        let findings = findings.to_string();
        assert!(
            config.is_none() && findings.starts_with(&format!("error: {told}")),
            "{rest}: {findings}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let (config, findings) = Node::new().load_with(
        "winglet: {threads: x, sandbox: 3, typo: 1}\napi: {port: y}",
        &[],
        &[],
    );
    assert!(config.is_none());
    let keys: Vec<_> = findings.iter().map(|finding| finding.key.as_str()).collect();
    let expected = [
        "winglet.typo",
        "token",
        "system.data",
        "system.backup_directory",
        "api.port",
        "winglet.threads",
    ];
    assert_eq!(keys[..6], expected);
    assert_eq!(keys[6..], ["winglet.sandbox"]);
}

#[test]
fn warnings_leave_a_configuration() {
    let node = Node::new();
    fs::remove_dir(node.0.join("volumes")).unwrap();
    let (config, findings) = node.load("");
    assert!(config.is_some());
    let told = format!(
        "warning: system.data: {}/volumes does not exist; /download/file will answer 404",
        node.0.display()
    );
    assert_eq!(findings.to_string(), told);

    fs::remove_dir(node.0.join("backups")).unwrap();
    node.write("backups", "a file");
    let (config, findings) = node.load("");
    assert!(config.is_none());
    assert!(
        findings.to_string().contains("backups is not a directory; name the directory"),
        "{findings}"
    );

    let (config, findings) = Node::new().load("winglt: {threads: 1}\nremote: panel.example.com");
    assert!(config.is_some() && !findings.has_errors());
    let keys: Vec<_> = findings.into_iter().map(|finding| finding.key).collect();
    assert_eq!(keys, ["winglt", "remote"]);
}

#[test]
fn a_file_that_is_no_configuration() {
    let node = Node::new();
    for (text, told) in [
        ("", "config.yml: holds nothing; write a configuration"),
        ("- a\n- b\n", "config.yml: holds a list; write a configuration"),
        ("a: [1\nb: 2\n", "at line 2"),
        ("a: 1\na: 2\n", "duplicate entry"),
        (
            "a: 1\ntoken: 99999999999999999999\n",
            "holds a number that is too large, at line 2 column 8; put it in quotes",
        ),
    ] {
        let (config, findings) = node.load_with(text, &[], &[]);
        let findings = findings.to_string();
        assert!(config.is_none() && findings.contains(told), "{text:?}: {findings}");
    }
    let (config, findings) = load(&node.0.join("absent.yml"), &[], &|_| None);
    assert!(config.is_none());
    assert!(findings.to_string().ends_with("absent.yml: cannot be read (no such file or directory); name the node's configuration with --config FILE"));
    assert!(load(Path::new(""), &[], &|_| None).1.has_errors());
}
