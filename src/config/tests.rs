//! The configuration as a whole: a node's real file, several files, and the sample file against the
//! defaults.

mod mistakes;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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
    ) -> (Option<Config>, String) {
        let listen: Vec<String> = listen.iter().map(|text| text.to_string()).collect();
        let loaded = load(
            &[self.write("config.yml", text)],
            &listen,
            &|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
            },
            &[],
        );
        (loaded.config, told(&loaded.findings))
    }

    /// Loads `rest` beneath a valid token and directories that are there.
    pub(super) fn load(&self, rest: &str) -> (Option<Config>, String) {
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

/// An address to listen on.
pub(super) fn at(text: &str) -> Listen {
    Listen::parse(text, Path::new("/"), &[]).unwrap()
}

/// One finding per line, each after its severity.
pub(super) fn told(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| format!("{}: {finding}", finding.severity()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The keys of what was told.
fn keys(told: &str) -> Vec<&str> {
    told.lines().map(|line| line.split(": ").nth(1).unwrap()).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node's file, with a token and directories that are there.
pub(super) fn wings() -> String {
    format!("token: {TOKEN}\n{}", include_str!("../../tests/wings.yml"))
}

#[test]
#[cfg(feature = "tls")]
fn the_file_of_a_node_loads_without_a_finding() {
    let node = Node::new();
    let text = wings()
        .replace("port: 8080", "port: 443")
        .replace("enabled: false, cert", "enabled: true, cert");
    let (config, findings) = node.load_with(&text, &[], &[]);
    assert!(findings.is_empty(), "{findings}");
    let config = config.unwrap();
    assert_eq!(config.token.as_bytes(), TOKEN.as_bytes());
    assert_eq!(config.remote.as_deref(), Some("https://panel.example.com"));
    assert_eq!(config.allowed_origins, ["https://shop.example.com"]);
    assert_eq!(config.listen, [at("tls:0.0.0.0:443")]);
    assert!(config.tls.unwrap().key.ends_with("live/n/privkey.pem"));
    assert_eq!(config.data, node.0.join("volumes"));
    assert_eq!(config.state_directory, None);
}

#[test]
fn keys_of_wings_that_are_not_read_may_hold_anything() {
    Node::new().config("docker: 5\nthrottles: [a, b]\nallowed_mounts: {x: !tag y}\n12: {}\napi:\n  upload_limit: none");
}

#[test]
fn paths_of_calagopus_count_from_its_root() {
    let node = Node::new();
    let root = node.0.display();
    let system = "data: '{root_directory}/volumes', backup_directory: '{root_directory}/backups'";
    let text = format!("token: {TOKEN}\nsystem: {{root_directory: '{root}', {system}}}");
    let (config, findings) = node.load_with(&text, &["127.0.0.1:0"], &[]);
    assert_eq!(findings, "");
    assert_eq!(config.unwrap().data, node.0.join("volumes"));
    let (_, findings) = node.load_with(&format!("token: {TOKEN}\nsystem: {{{system}}}"), &[], &[]);
    assert!(findings.contains("/var/lib/calagopus-wings/volumes does not exist"), "{findings}");
}

#[test]
fn the_sample_documents_every_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yml");
    let text = fs::read_to_string(&path).unwrap();
    let loaded = load(&[path], &[], &|_| None, &[]);
    assert_eq!(loaded.findings, []);
    assert!(loaded.settings.len() > 30);
    for setting in &loaded.settings {
        let key = setting.key.rsplit('.').next().unwrap();
        let documented = text
            .lines()
            .any(|line| line.trim_start_matches([' ', '#']).starts_with(&format!("{key}:")));
        assert!(documented, "config.yml does not show {}", setting.key);
    }
    let sample = loaded.config.unwrap();
    // What the sample sets for itself, and nothing else.
    let node = Node::new();
    let expected = Config {
        files: sample.files.clone(),
        token: sample.token.clone(),
        remote: sample.remote.clone(),
        data: sample.data.clone(),
        backup_directory: sample.backup_directory.clone(),
        listen: vec![at("127.0.0.1:8080")],
        ..node.config("")
    };
    assert_eq!(sample, expected);
    assert!(sample.token.is_the_samples());
}

#[test]
fn what_is_not_set_is_at_the_tables_default() {
    let node = Node::new();
    let (path, nothing) = (node.write("config.yml", ""), node.write("nothing.yml", ""));
    let loaded = load(&[path, nothing], &[], &|_| None, &[]);
    let names: Vec<_> = loaded.settings.iter().map(|setting| setting.key).collect();
    assert_eq!(names, KEYS.iter().map(|key| key.name).collect::<Vec<_>>(), "each is read once");
    for (setting, key) in loaded.settings.iter().zip(KEYS) {
        let default = key.default.trim_matches('"');
        let shown = setting.value.as_deref().unwrap_or_default();
        assert!(shown == default || key.name == "winglet.listen", "{}: {shown}", key.name);
        assert!(!setting.fits.is_empty() && setting.origin == "default", "{}", key.name);
        assert!(key.about.ends_with('.') && key.about.matches('`').count() % 2 == 0);
    }
    let config = node.config("");
    assert_eq!(config.listen, [at("0.0.0.0:8080")]);
    assert_eq!((config.threads, config.max_connections_per_address), (8, 64));
    assert_eq!((config.reuse, config.resume_window), (Reuse::Resume, Duration::from_secs(86_400)));
    assert!(config.bind_address && config.sandbox && !config.require_scope && !config.debug);
    assert_eq!((config.rate_limit, config.min_rate, config.unix_mode), (0, 1024, 0o660));
    assert_eq!(config.timeouts.stall, Duration::from_secs(60));
    assert_eq!((config.tls, config.state_directory, config.base_url), (None, None, None));
}

#[test]
fn a_reload_keeps_what_only_a_restart_can_change() {
    let node = Node::new();
    let before = node.config("");
    let changed = node.config(
        "winglet: {threads: 9, listen: ['127.0.0.1:1'], sandbox: false, extra_read_paths: [/], reuse: once, \
         hidden: ['*.pem'], base_url: 'https://a'}",
    );
    let fixed = ["winglet.listen", "winglet.threads", "winglet.sandbox"];
    for confined in [false, true] {
        let mut now = changed.clone();
        let kept = keep_fixed(&mut now, &before, confined);
        let more: &[&str] = if confined { &["winglet.extra_read_paths"] } else { &[] };
        assert_eq!(kept, [&fixed[..], more].concat());
        let (reuse, hidden) = (changed.reuse, changed.hidden.clone());
        let mut expected = Config { reuse, hidden, ..before.clone() };
        expected.base_url.clone_from(&changed.base_url);
        if !confined {
            expected.extra_read_paths = vec!["/".into()];
        }
        assert_eq!(now, expected);
        assert!(keep_fixed(&mut now, &before, confined).is_empty());
    }
}

#[test]
fn what_is_set_counts() {
    let node = Node::new();
    let config = node.config(
        "winglet:\n  listen: ['127.0.0.1:0', '127.0.0.1:0', 'unix:w.sock']\n  state_directory: state\n  rate_limit: 1.5\n  \
         reuse: once\n  priority: normal\n  page_cache: keep\n  extra_read_paths: [/, volumes]\n  unix_mode: '0600'\n  timeouts: {head: 200ms, drain: 0}\n  sandbox: false\n\
         api: {port: '9000', trusted_proxies: [10.1.2.3, '10.0.0.7/8', '::1', '::ffff:1.2.3.4']}",
    );
    let listen: Vec<_> = config.listen.iter().map(Listen::to_string).collect();
    assert_eq!(
        listen,
        ["127.0.0.1:0", "127.0.0.1:0", &format!("unix:{}/w.sock", node.0.display())]
    );
    assert_eq!(config.state_directory, Some(node.0.join("state")));
    assert_eq!((config.rate_limit, config.unix_mode), (1_572_864, 0o600));
    assert_eq!((config.priority, config.page_cache), (Priority::Normal, PageCache::Keep));
    assert_eq!(config.extra_read_paths, [PathBuf::from("/"), node.0.join("volumes")]);
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
    assert_eq!(node.config("api: {host: '::', port: '9000'}").listen, [at("[::]:9000")]);
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
        assert_eq!(config.unwrap().token.as_bytes(), TOKEN.as_bytes(), "{token}");
    }
    let dollars = text("a$-b$$c-has-dollars$");
    let (config, _) = node.load_with(&dollars, &[], &[("c", "C")]);
    assert_eq!(config.unwrap().token.as_bytes(), b"a$-b$C-has-dollars$");
}

#[test]
fn a_configuration_shows_no_token() {
    let config = Node::new().config("");
    let shown = format!("{config:?}");
    assert!(shown.contains("[not shown]") && !shown.contains(&TOKEN[..12]), "{shown}");
}

#[test]
fn later_files_win_and_each_value_remembers_its_own() {
    let node = Node::new();
    let there = node.0.join("there");
    fs::create_dir_all(there.join("backups")).unwrap();
    let wings = node.write("wings.yml", &wings());
    let ours = node.write(
        "there/ours.yml",
        "system: {backup_directory: backups}\nremote:\nwinglet:\n  listen: ['unix:w.sock']\n  state_directory: state\n  timeouts: {head: 1s}",
    );
    let last = node.write("last.yml", "winglet: {timeouts: {head: 2s, idle: 3s}}");
    let files = [wings.clone(), ours.clone(), last.clone()];
    let loaded = load(&files, &[], &|_| None, &[]);
    assert_eq!(loaded.findings, []);
    let config = loaded.config.unwrap();
    assert_eq!(config.token.as_bytes(), TOKEN.as_bytes());
    assert_eq!(config.remote.as_deref(), Some("https://panel.example.com"));
    // Relative paths count from the file that holds them.
    assert_eq!(config.data, node.0.join("volumes"));
    assert_eq!(config.backup_directory, there.join("backups"));
    assert_eq!(config.state_directory, Some(there.join("state")));
    assert_eq!(config.listen[0].to_string(), format!("unix:{}/w.sock", there.display()));
    assert_eq!((config.timeouts.head.as_secs(), config.timeouts.idle.as_secs()), (2, 3));
    assert_eq!(config.files, files);
    let origin = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap();
        (setting.value.clone().unwrap_or_default(), setting.origin.clone())
    };
    for (key, value, from) in [
        ("token", "(64 bytes)", wings.display().to_string()),
        ("remote", "https://panel.example.com", wings.display().to_string()),
        ("system.backup_directory", "backups", ours.display().to_string()),
        ("winglet.listen", "[unix:w.sock]", ours.display().to_string()),
        ("winglet.timeouts.head", "2s", last.display().to_string()),
        ("winglet.timeouts.stall", "60s", "default".to_owned()),
        ("winglet.unix_mode", "0660", "default".to_owned()),
        ("winglet.reuse", "resume", "default".to_owned()),
    ] {
        assert_eq!(origin(key), (value.to_owned(), from), "{key}");
    }
}

#[test]
fn the_command_line_and_the_environment_are_named_too() {
    let node = Node::new();
    let file = node.write("config.yml", "system: {data: volumes, backup_directory: backups}");
    let listen = ["127.0.0.1:0".to_owned()];
    let loaded = load(&[file], &listen, &|name| (name == "WINGS_TOKEN").then(|| TOKEN.into()), &[]);
    let origin = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap();
        setting.origin.clone()
    };
    assert_eq!(
        (origin("token"), origin("winglet.listen")),
        ("environment".into(), "command line".into())
    );
    assert_eq!(origin("api.host"), "default");
}

#[test]
fn of_several_files_one_may_be_empty() {
    let node = Node::new();
    let (wings, empty) =
        (node.write("wings.yml", &wings()), node.write("empty.yml", "# nothing\n"));
    let listen = ["127.0.0.1:0".to_owned()];
    let loaded = load(&[wings.clone(), empty.clone()], &listen, &|_| None, &[]);
    assert_eq!(told(&loaded.findings), "");
    // One that is missing is no empty one.
    let absent = node.0.join("absent.yml");
    let loaded = load(&[wings, absent.clone()], &[], &|_| None, &[]);
    assert!(loaded.config.is_none() && loaded.findings.len() == 1);
    assert!(
        told(&loaded.findings).starts_with(&format!("error: {}: cannot be read", absent.display()))
    );
    let loaded = load(&[empty.clone(), empty], &[], &|_| None, &[]);
    assert!(told(&loaded.findings).starts_with("error: token: is missing"));
}

#[test]
#[cfg(feature = "tls")]
fn a_reload_resolves_no_name_that_it_knows() {
    let node = Node::new();
    let file = node.write("config.yml", &wings().replace("host: 0.0.0.0", "host: name.invalid"));
    let text = "winglet: {listen: ['one.invalid:80', 'tls:two.invalid:81']}\n";
    let more = node.write("more.yml", text);
    let listen = |name: &str, port: u16, tls| Listen::Tcp {
        address: ([192, 0, 2, 1], port).into(),
        tls,
        name: Some(name.into()),
    };
    let before = [listen("name.invalid", 8080, false)];
    let loaded = load(std::slice::from_ref(&file), &[], &|_| None, &before);
    assert_eq!(loaded.config.unwrap().listen, before);
    let before = [listen("two.invalid", 81, true), listen("one.invalid", 80, false)];
    let config = load(&[file.clone(), more.clone()], &[], &|_| None, &before).config.unwrap();
    assert_eq!(config.listen, [before[1].clone(), before[0].clone()]);
    assert_eq!(config.listen[1].to_string(), "tls:two.invalid:81");
    let unknown = load(&[file, more], &[], &|_| None, &before[..1]);
    assert!(told(&unknown.findings).contains("\"one.invalid\" has no address"));
}
