//! From a `config.yml` to a [`Config`], with everything that is wrong reported at once.
//!
//! The file is Wings' own: only the keys named here are looked at, whatever the others hold. The
//! `winglet` section is ours, so there an unknown key is a mistake. Nothing is opened for use;
//! directories and the token's file are only looked at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::findings::Findings;
use super::listen::Places;
use super::values::{Section, describe};
use super::{Config, Reuse, Timeouts, defaults};

/// The keys of `winglet`, for the nearest one to a misspelt one.
pub(super) const KEYS: &[&str] = &[
    "listen",
    "threads",
    "max_connections",
    "max_waiting_per_address",
    "max_streams_per_address",
    "max_requests_per_connection",
    "reuse",
    "resume_window",
    "settle_time",
    "bind_address",
    "require_scope",
    "max_token_lifetime",
    "clock_skew",
    "max_tracked_tokens",
    "state_directory",
    "rate_limit",
    "min_rate",
    "unix_mode",
    "copy_buffer",
    "sandbox",
    "timeouts",
];
/// The keys of `winglet.timeouts`.
pub(super) const TIMEOUT_KEYS: &[&str] = &["head", "idle", "queue", "stall", "drain"];

const REUSE: &[(&str, Reuse)] =
    &[("once", Reuse::Once), ("resume", Reuse::Resume), ("unlimited", Reuse::Unlimited)];
const MIB: f64 = 1024.0 * 1024.0;
const INSTANT: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As humantime counts one, so that `1year` is within it and a message can name it.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Reads and resolves the configuration file at `path`.
///
/// `listen` (the command line's) replaces the file's addresses where it is not empty.
/// `environment` looks up `WINGS_TOKEN` and the variables that `token` names. There is a
/// [`Config`] exactly where no finding is an error; warnings may stand beside it.
pub fn load(
    path: &Path,
    listen: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> (Option<Config>, Findings) {
    let mut findings = Findings::default();
    let config = match read(path) {
        Ok((file, document)) => {
            let base = file.parent().unwrap_or(Path::new("/"));
            let root = Section::root(&document);
            let winglet = root.section("winglet", &mut findings);
            let source = Source { base, root, winglet, listen, environment };
            Some(source.resolve(&file, &mut findings))
        }
        Err(message) => {
            findings.error(path.display().to_string(), message);
            None
        }
    };
    (config.filter(|_| !findings.has_errors()), findings)
}

/// The file's absolute path and its top level.
fn read(path: &Path) -> Result<(PathBuf, Mapping), String> {
    let unreadable = |error: io::Error| {
        format!(
            "cannot be read ({}); name the node's configuration with --config FILE",
            reason(&error)
        )
    };
    let file = std::path::absolute(path).map_err(unreadable)?;
    let text = fs::read_to_string(&file).map_err(unreadable)?;
    match serde_yaml::from_str(&text) {
        Ok(Value::Mapping(document)) => Ok((file, document)),
        Ok(other) => {
            Err(format!("holds {}; write a configuration: keys and values", describe(&other)))
        }
        Err(error) => Err(not_yaml(&error)),
    }
}

/// The parser's words, which give the line, unless they would show a value: it may be the token.
fn not_yaml(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) if text.contains("invalid type") || text.contains("invalid value") => {
            format!(
                "holds a number that is too large, at line {} column {}; put it in quotes",
                at.line(),
                at.column()
            )
        }
        _ => format!("is not YAML: {text}"),
    }
}

/// All that a configuration is made of.
struct Source<'a> {
    /// What relative paths count from: the file's own directory.
    base: &'a Path,
    root: Section<'a>,
    winglet: Section<'a>,
    listen: &'a [String],
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    fn resolve(&self, file: &Path, findings: &mut Findings) -> Config {
        self.unknown_keys(findings);
        let (token, token_file) = self.token().unwrap_or_else(|message| {
            findings.error("token", message);
            Default::default()
        });
        let remote = self.remote(findings);
        let allowed_origins = self.root.strings("allowed_origins", findings).into_iter();
        let api = self.root.section("api", findings);
        let (data, backup_directory) = self.directories(findings);
        let trusted_proxies = api.networks("trusted_proxies", findings);
        let places =
            Places { base: self.base, api: &api, winglet: &self.winglet, given: self.listen };
        let (listen, tls) = places.resolve(findings);
        let w = &self.winglet;
        // A table, one setting a line: rustfmt would take five for each of the longer ones.
        #[rustfmt::skip]
        let config = Config {
            file: file.to_owned(),
            token,
            token_file,
            remote,
            allowed_origins: allowed_origins.map(|(_, origin)| without_slash(&origin)).collect(),
            debug: self.root.bool("debug", false, findings),
            data,
            backup_directory,
            trusted_proxies,
            listen,
            tls,
            unix_mode: w.octal("unix_mode", defaults::UNIX_MODE, findings),
            threads: w.integer("threads", defaults::THREADS, 1..=1024, findings),
            max_connections: w.integer("max_connections", defaults::MAX_CONNECTIONS, 1..=1_000_000, findings),
            max_waiting_per_address:
                w.integer("max_waiting_per_address", defaults::MAX_WAITING_PER_ADDRESS, 1..=1_000_000, findings),
            max_streams_per_address:
                w.integer("max_streams_per_address", defaults::MAX_STREAMS_PER_ADDRESS, 1..=1024, findings),
            max_requests_per_connection:
                w.integer("max_requests_per_connection", defaults::MAX_REQUESTS_PER_CONNECTION, 1..=1_000_000, findings),
            reuse: w.one_of("reuse", Reuse::Resume, REUSE, findings),
            resume_window: w.duration("resume_window", defaults::RESUME_WINDOW, SECOND..=YEAR, findings),
            settle_time: w.duration("settle_time", defaults::SETTLE_TIME, INSTANT..=DAY, findings),
            bind_address: w.bool("bind_address", true, findings),
            require_scope: w.bool("require_scope", false, findings),
            max_token_lifetime: w.duration("max_token_lifetime", defaults::MAX_TOKEN_LIFETIME, SECOND..=YEAR, findings),
            clock_skew: w.duration("clock_skew", defaults::CLOCK_SKEW, INSTANT..=HOUR, findings),
            max_tracked_tokens: w.integer("max_tracked_tokens", defaults::MAX_TRACKED_TOKENS, 1..=10_000_000, findings),
            state_directory: w.string("state_directory", findings).map(|path| self.base.join(path)),
            // Rounded up: a tiny limit must not become 0, which is none.
            rate_limit: (w.decimal("rate_limit", 0.0, 0.0..=1_048_576.0, findings) * MIB).ceil() as u64,
            min_rate: w.integer("min_rate", defaults::MIN_RATE, 0..=1 << 30, findings),
            copy_buffer: w.integer("copy_buffer", defaults::COPY_BUFFER_KIB, 8..=4096, findings) * 1024,
            sandbox: w.bool("sandbox", true, findings),
            timeouts: self.timeouts(findings),
        };
        rates_agree(&config, findings);
        config
    }

    /// Names each key of our section that we do not know, with the nearest that we do.
    fn unknown_keys(&self, findings: &mut Findings) {
        for key in self.root.keys() {
            if key != "winglet" && strsim::damerau_levenshtein(&key.to_lowercase(), "winglet") <= 2
            {
                findings.warning(
                    key,
                    "is ignored, as every key of Wings' that is not needed; did you mean winglet?",
                );
            }
        }
        let nearby: Vec<_> = TIMEOUT_KEYS.iter().map(|key| format!("timeouts.{key}")).collect();
        let nearby: Vec<_> = nearby.iter().map(String::as_str).collect();
        self.winglet.unknown_keys(KEYS, &nearby, findings);
        // Its own type is reported where its values are read.
        let timeouts = self.winglet.section("timeouts", &mut Findings::default());
        timeouts.unknown_keys(TIMEOUT_KEYS, &[], findings);
    }

    /// The tokens' key, from wherever it stands, and the file that holds it if it has one of its
    /// own. No message repeats any part of the key.
    fn token(&self) -> Result<(String, Option<PathBuf>), String> {
        let remedy = "copy the whole of `token` from the node's Configuration tab in the Panel";
        let written = match (self.environment)("WINGS_TOKEN").filter(|token| !token.is_empty()) {
            Some(token) => token,
            None => match self.root.value("token") {
                Some(Value::String(text)) => text.clone(),
                Some(_) => return Err("is not a text; put it in quotes".to_owned()),
                None => return Err(format!("is missing; {remedy}")),
            },
        };
        let mut token = expand(&written, self.environment)?;
        let file = token.strip_prefix("file://").map(|path| self.base.join(path));
        if let Some(path) = &file {
            let text = fs::read_to_string(path).map_err(|error| {
                format!(
                    "names the file {}, which cannot be read: {}",
                    path.display(),
                    reason(&error)
                )
            })?;
            token = text.trim().to_owned();
        }
        match token.len() {
            0 => Err(format!("is empty; {remedy}")),
            length if length < defaults::MIN_TOKEN_BYTES => Err(format!(
                "has {length} bytes and needs at least {}; {remedy}",
                defaults::MIN_TOKEN_BYTES
            )),
            _ => Ok((token, file)),
        }
    }

    fn remote(&self, findings: &mut Findings) -> Option<String> {
        let remote = without_slash(&self.root.string("remote", findings)?);
        if !remote.starts_with("http://") && !remote.starts_with("https://") {
            // No error: Wings alone cannot work with it, we only know no origin by it.
            findings.warning(
                "remote",
                format!("is the text {remote:?}; write the Panel's URL, such as https://panel.example.com"),
            );
        }
        Some(remote)
    }

    fn timeouts(&self, findings: &mut Findings) -> Timeouts {
        let t = self.winglet.section("timeouts", findings);
        Timeouts {
            head: t.duration("head", defaults::HEAD, MILLISECOND..=HOUR, findings),
            idle: t.duration("idle", defaults::IDLE, MILLISECOND..=HOUR, findings),
            queue: t.duration("queue", defaults::QUEUE, MILLISECOND..=HOUR, findings),
            stall: t.duration("stall", defaults::STALL, MILLISECOND..=DAY, findings),
            drain: t.duration("drain", defaults::DRAIN, INSTANT..=DAY, findings),
        }
    }

    /// Volumes and backups. A node may well have only one of the two.
    fn directories(&self, findings: &mut Findings) -> (PathBuf, PathBuf) {
        let system = self.root.section("system", findings);
        let mut path_of = |key, default: &str| {
            self.base.join(system.string(key, findings).unwrap_or_else(|| default.to_owned()))
        };
        let data = path_of("data", defaults::DATA);
        let backups = path_of("backup_directory", defaults::BACKUP_DIRECTORY);
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
                true => findings
                    .error(*key, format!("{message}; name the directory of the node's {what}")),
                false => findings.warning(*key, format!("{message}; {endpoint} will answer 404")),
            }
        }
        (data, backups)
    }
}

/// A client that is held to the limit must not be cut off for being slow.
fn rates_agree(config: &Config, findings: &mut Findings) {
    let (limit, least) = (config.rate_limit, config.min_rate);
    if limit > 0 && least >= limit {
        let message = format!(
            "is {least} bytes/s, and winglet.rate_limit allows {limit}: every download would be cut off; \
             lower min_rate or set it to 0"
        );
        findings.error("winglet.min_rate", message);
    }
}

/// Puts the environment's values in place of `${NAME}` and `$NAME`, as Wings does.
///
/// Wings makes an unset variable an empty text; here it is an error, since the key that comes out
/// of it would verify nothing.
fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("has a ${ without its closing }")?,
            None => after.split_at(after.find(|c| !is_variable(c)).unwrap_or(after.len())),
        };
        match name {
            "" => expanded.push('$'),
            _ => expanded.push_str(&environment(name).ok_or_else(|| {
                format!("names the environment variable {name}, which is not set; set it")
            })?),
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_variable(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
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

/// The system's words for an error, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
