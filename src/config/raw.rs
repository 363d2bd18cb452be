//! From configuration files to a [`Config`], with everything that is wrong reported at once.
//!
//! The file is Wings' own: only the keys named here are looked at, whatever the others hold. The
//! `winglet` section is ours, so there an unknown key is a mistake. Nothing is opened for use;
//! directories and the token's file are only looked at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::addresses::AddressKeys;
use super::file::reason;
use super::findings::{Finding, Notes, Setting};
use super::values::Section;
use super::{
    Config, Listen, LogFormat, PageCache, Priority, Reuse, Timeouts, WhenDown, defaults, file,
    keys, shared, token,
};

const REUSE: &[(&str, Reuse)] =
    &[("once", Reuse::Once), ("resume", Reuse::Resume), ("unlimited", Reuse::Unlimited)];
const PAGE_CACHE: &[(&str, PageCache)] = &[("spare", PageCache::Spare), ("keep", PageCache::Keep)];
const PRIORITY: &[(&str, Priority)] = &[("low", Priority::Low), ("normal", Priority::Normal)];
const LOG_FORMAT: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const MIB: f64 = 1024.0 * 1024.0;
const INSTANT: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As humantime counts one, so that `1year` is within it and a message can name it.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// What became of the files that were named.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The configuration, unless a finding is an error.
    pub config: Option<Config>,
    /// What is wrong, in the order of the checks.
    pub findings: Vec<Finding>,
    /// Every setting in force, section by section.
    pub settings: Vec<Setting>,
}

/// Reads and resolves the configuration files `paths`: a later one's keys win over an earlier
/// one's.
///
/// `listen` (the command line's) replaces the files' addresses unless it is empty. `environment`
/// looks up `WINGS_TOKEN` and the variables that `token` names.
pub fn load(
    paths: &[PathBuf],
    listen: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Loaded {
    load_after(paths, listen, environment, &[])
}

/// As [`load`], in a process that listens at `before` and may be confined since. A name that
/// `before` has an address for is not resolved again.
pub fn load_after(
    paths: &[PathBuf],
    listen: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
    before: &[Listen],
) -> Loaded {
    let mut notes = Notes::default();
    let entries = file::read(paths, &mut notes);
    let config = entries.map(|entries| {
        let root = Section::root(&entries, &notes);
        let config = resolve(&root, listen, environment, before);
        keys::unread(&root);
        config
    });
    let (findings, mut settings) = (notes.findings.into_inner(), notes.settings.into_inner());
    // Otherwise as they were read.
    settings.sort_by_key(|setting| setting.key.split_once('.').map(|(top, _)| top.to_owned()));
    let config = config.filter(|_| !findings.iter().any(Finding::is_error));
    Loaded { config, findings, settings }
}

/// The configuration, as far as it can be understood.
fn resolve(
    root: &Section<'_>,
    listen: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
    before: &[Listen],
) -> Config {
    let base = &root.notes.base(root.notes.files.len().saturating_sub(1));
    let (token, token_file) = token::read(root, base, environment).unwrap_or_default();
    let (remote, allowed_origins) = (remote(root), allowed_origins(root));
    let debug = root.bool("debug", false);
    let api = root.section("api");
    let (data, backup_directory) = directories(root);
    let trusted_proxies = trusted_proxies(&api);
    let w = &root.section("winglet");
    let addresses = AddressKeys { api: &api, winglet: w, given: listen, base, before };
    let (listen, tls) = addresses.resolve();
    let control = addresses.control(&listen);
    // A table, one setting per line: rustfmt would take five for each of the longer ones.
    #[rustfmt::skip]
    let config = Config {
        files: root.notes.files.clone(),
        token, token_file, remote, allowed_origins, debug, data, backup_directory, trusted_proxies,
        listen, tls, control,
        access_log: w.bool("access_log", true), log_format: w.one_of("log_format", LogFormat::Text, LOG_FORMAT),
        unix_mode: w.octal("unix_mode", defaults::UNIX_MODE),
        threads: w.integer("threads", defaults::THREADS, 1..=1024),
        max_connections: w.integer("max_connections", defaults::MAX_CONNECTIONS, 1..=1_000_000),
        max_connections_per_address: connections_per_address(w),
        reuse: w.one_of("reuse", Reuse::Resume, REUSE),
        resume_window: w.duration("resume_window", defaults::RESUME_WINDOW, SECOND..=YEAR),
        settle_time: w.duration("settle_time", defaults::SETTLE_TIME, INSTANT..=DAY),
        bind_address: w.bool("bind_address", true),
        require_scope: w.bool("require_scope", false),
        max_token_lifetime: w.duration("max_token_lifetime", defaults::MAX_TOKEN_LIFETIME, SECOND..=YEAR),
        clock_skew: w.duration("clock_skew", defaults::CLOCK_SKEW, INSTANT..=HOUR),
        max_tracked_tokens: w.integer("max_tracked_tokens", defaults::MAX_TRACKED_TOKENS, 1..=10_000_000),
        state_directory: state_directory(w),
        shared_state: shared::read(w),
        shared_state_down: w.one_of("shared_state_down", WhenDown::Refuse, shared::WHEN_DOWN),
        front_ends: shared::front_ends(w),
        rate_limit: rate(w, "rate_limit"),
        bandwidth: rate(w, "bandwidth"),
        bandwidth_per_address: rate(w, "bandwidth_per_address"),
        min_rate: w.integer("min_rate", defaults::MIN_RATE, 0..=1 << 30),
        page_cache: w.one_of("page_cache", PageCache::Spare, PAGE_CACHE),
        priority: w.one_of("priority", Priority::Low, PRIORITY),
        sandbox: w.bool("sandbox", true),
        extra_read_paths: extra_read_paths(w),
        timeouts: timeouts(w),
    };
    token::must_be_secret(&config, root.notes);
    config
}

fn allowed_origins(root: &Section<'_>) -> Vec<String> {
    let origins = root.strings("allowed_origins", "\"https://shop.example.com\"");
    origins.into_iter().map(|(_, origin)| without_slash(&origin)).collect()
}

fn remote(root: &Section<'_>) -> Option<String> {
    let remote = without_slash(&root.string("remote")?);
    if !remote.starts_with("http://") && !remote.starts_with("https://") {
        // No error: Wings alone cannot work with it, we only know no origin by it.
        let message = format!(
            "is the text {remote:?}; write the Panel's URL, such as https://panel.example.com"
        );
        root.notes.warning("remote", message);
    }
    Some(remote)
}

fn trusted_proxies(api: &Section<'_>) -> Vec<IpNet> {
    let networks = api.networks("trusted_proxies");
    if let Some(all) = networks.iter().find(|network| network.prefix_len() == 0) {
        let message = format!(
            "{all} believes X-Forwarded-For of everybody: any client can pass for another address; name the proxy's own"
        );
        api.notes.warning("api.trusted_proxies", message);
    }
    networks
}

/// The share of one address. Its predecessors had one share for waiting and one for downloads; the
/// larger of the two is closest to what was meant.
fn connections_per_address(w: &Section<'_>) -> usize {
    const KEY: &str = "max_connections_per_address";
    let mut default = defaults::MAX_CONNECTIONS_PER_ADDRESS;
    let old = ["max_waiting_per_address", "max_streams_per_address"];
    let old: Vec<&str> = old.into_iter().filter(|key| w.node(key).is_some()).collect();
    let values = old.iter().map(|key| {
        w.notes.warning(w.name_of(key), format!("is called {KEY} now; rename it"));
        w.integer(key, default, 1..=1_000_000)
    });
    default = values.max().unwrap_or(default);
    w.integer(KEY, default, 1..=1_000_000)
}

fn state_directory(w: &Section<'_>) -> Option<PathBuf> {
    let path = w.path("state_directory")?;
    // Of one that serve has yet to make, the nearest that is there.
    let there = path.ancestors().find(|path| path.exists());
    if let Some(file) = there.filter(|path| !path.is_dir()) {
        let message =
            format!("{} is not a directory; name one that the server may write", file.display());
        w.notes.error(w.name_of("state_directory"), message);
    }
    Some(path)
}

fn extra_read_paths(w: &Section<'_>) -> Vec<PathBuf> {
    let paths = w.paths("extra_read_paths", "\"/mnt/volumes\"");
    for path in paths.iter().filter(|path| !path.exists()) {
        let message = format!(
            "{} does not exist, so that the sandbox cannot let the server there",
            path.display()
        );
        w.notes.warning(w.name_of("extra_read_paths"), message);
    }
    paths
}

fn timeouts(w: &Section<'_>) -> Timeouts {
    let t = w.section("timeouts");
    Timeouts {
        head: t.duration("head", defaults::HEAD, MILLISECOND..=HOUR),
        idle: t.duration("idle", defaults::IDLE, MILLISECOND..=HOUR),
        queue: t.duration("queue", defaults::QUEUE, MILLISECOND..=HOUR),
        stall: t.duration("stall", defaults::STALL, MILLISECOND..=DAY),
        drain: t.duration("drain", defaults::DRAIN, INSTANT..=DAY),
    }
}

/// Volumes and backups. A node may well have only one of the two.
fn directories(root: &Section<'_>) -> (PathBuf, PathBuf) {
    let system = root.section("system");
    let data = system.path_or("data", defaults::DATA);
    let backups = system.path_or("backup_directory", defaults::BACKUP_DIRECTORY);
    let volumes = [
        ("system.data", &data, "/download/file", "volumes"),
        ("system.backup_directory", &backups, "/download/backup", "backups"),
    ];
    let broken: Vec<_> = volumes
        .iter()
        .filter_map(|entry| usable(entry.1).err().map(|problem| (entry, problem)))
        .collect();
    let both = broken.len() == volumes.len();
    for ((key, path, endpoint, what), problem) in broken {
        let message = format!("{} {problem}", path.display());
        match both {
            true => root
                .notes
                .error(*key, format!("{message}; name the directory of the node's {what}")),
            false => root.notes.warning(*key, format!("{message}; {endpoint} will answer 404")),
        }
    }
    (data, backups)
}

/// A rate in MiB per second, in bytes. Rounded up: a tiny limit must not become 0, which is none.
fn rate(section: &Section<'_>, key: &str) -> u64 {
    (section.decimal(key, 0.0, 0.0..=1_048_576.0) * MIB).ceil() as u64
}

/// Whether files beneath `path` can be reached; listing it is not needed.
fn usable(path: &Path) -> Result<(), String> {
    // The `.` asks for the right to search the directory, which a stat of itself does not.
    match fs::metadata(path.join(".")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err("is not a directory".to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("does not exist".to_owned()),
        Err(error) => Err(format!("cannot be read ({})", reason(&error))),
    }
}

fn without_slash(text: &str) -> String {
    text.trim_end_matches('/').to_owned()
}
