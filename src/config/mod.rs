//! The resolved configuration: what the program uses, every value checked.
//!
//! `load.rs` turns one or several files into this type and reports everything that is wrong with it at
//! once. After [`load()`] has returned a [`Config`], nothing checks a setting again. Every key stands in
//! the table of `keys.rs`.

mod addresses;
mod file;
mod findings;
mod keys;
mod listen;
mod load;
mod shared;
#[cfg(test)]
mod tests;
mod token;
mod unknown;
mod urls;
mod written;
mod yaml;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use file::files;
pub use findings::{Finding, Setting};
pub use keys::{Change, KEYS, Key, keep_fixed};
pub use listen::Listen;
pub use load::{Loaded, load};
pub use shared::{SharedState, WhenDown, is_node_name};
pub use token::{SAMPLE_TOKEN, Secret};
pub use urls::parse_base_url;

/// How often one link may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// The first `GET` answered with content spends the link; ranges are not offered.
    Once,
    /// One complete delivery to one client, with resume and ranges.
    #[default]
    Resume,
    /// Good until it expires.
    Unlimited,
}

/// What becomes of the system's page cache as files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCache {
    /// Backups and large files leave nothing in it.
    #[default]
    Spare,
    /// It fills with what is read, as the kernel sees fit.
    Keep,
}

/// Who comes first when others on the machine want processor or disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Processor and disk go to others first.
    #[default]
    Low,
    /// As the process was started.
    Normal,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// Deadlines of the phases of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first moment of a connection, or the first byte of a further request, to the end of the head.
    pub head: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// From a complete head to a free worker.
    pub queue: Duration,
    /// Without a byte acknowledged by the client.
    pub stall: Duration,
    /// For running downloads after SIGTERM.
    pub drain: Duration,
}

/// Certificate chain and private key, as paths to PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The private key that belongs to the leaf.
    pub key: PathBuf,
}

/// A validated configuration. An empty one is for [`load()`] to fill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The files that it came from, absolute.
    pub files: Vec<PathBuf>,
    /// The key of the tokens' signatures.
    pub token: Secret,
    /// Where the token was read from, if it has a file of its own.
    pub token_file: Option<PathBuf>,
    /// The Panel's URL without a trailing slash, if one is set.
    pub remote: Option<String>,
    /// Origins besides `remote` that may read answers from a page's script; `*` allows every one.
    pub allowed_origins: Vec<String>,
    /// Log at debug level.
    pub debug: bool,
    /// Log a line per request.
    pub access_log: bool,
    /// What a line of the log looks like.
    pub log_format: LogFormat,
    /// Directory of the servers' volumes, absolute.
    pub data: PathBuf,
    /// Directory of the backups, absolute.
    pub backup_directory: PathBuf,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where to listen; never empty.
    pub listen: Vec<Listen>,
    /// Certificate and key: present if any of `listen` is TLS.
    pub tls: Option<TlsFiles>,
    /// Where the server answers about itself, if anywhere: on this machine only, without TLS.
    pub control: Option<Listen>,
    /// What links begin with, without a trailing slash, if the listeners don't tell.
    pub base_url: Option<String>,
    /// Permissions of a listening Unix socket.
    pub unix_mode: u32,
    /// Size of the pool.
    pub threads: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections of one address (IPv4 or IPv6 /64) at a time.
    pub max_connections_per_address: usize,
    /// How often a link may be used.
    pub reuse: Reuse,
    /// How long after its first use a link may be resumed.
    pub resume_window: Duration,
    /// How long after its last stream a link counts as delivered, if every byte was seen to arrive.
    pub settle_time: Duration,
    /// Bind a link to the address that used it first.
    pub bind_address: bool,
    /// Refuse tokens without a `scope` claim.
    pub require_scope: bool,
    /// Longest remaining life of an acceptable token.
    pub max_token_lifetime: Duration,
    /// How far in the future `nbf` may lie.
    pub clock_skew: Duration,
    /// Bound of the table of used tokens.
    pub max_tracked_tokens: usize,
    /// Where the journal lives; memory only if there is none.
    pub state_directory: Option<PathBuf>,
    /// Patterns, as in a `.gitignore`, of files that no link opens.
    pub hidden: Vec<String>,
    /// Where several front ends agree on who owns a link; `None` if there is only this one.
    pub shared_state: Option<SharedState>,
    /// What becomes of new links while that cannot be asked.
    pub shared_state_down: WhenDown,
    /// The front ends that clients can be sent to, as pairs of a name and a URL without a path.
    pub front_ends: Vec<(String, String)>,
    /// Bytes per second of one link; 0 is no limit.
    pub rate_limit: u64,
    /// Bytes per second of the whole server; 0 is no limit.
    pub bandwidth: u64,
    /// Bytes per second of one client; 0 is no limit.
    pub bandwidth_per_address: u64,
    /// Bytes per second below which a client is cut off; 0 is none.
    pub min_rate: u64,
    /// What becomes of the page cache as files are read.
    pub page_cache: PageCache,
    /// Who comes first when others want processor or disk.
    pub priority: Priority,
    /// Confine the process with Landlock after start-up.
    pub sandbox: bool,
    /// Directories outside the two configured ones that volumes lead to, absolute.
    pub extra_read_paths: Vec<PathBuf>,
    /// Deadlines.
    pub timeouts: Timeouts,
}

impl Config {
    /// Token, certificate, key and password: files besides the configuration that a reload reads
    /// again.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let shared = self.shared_state.iter().flat_map(|shared| &shared.password_file);
        tls.chain(&self.token_file).chain(shared).cloned().collect()
    }

    /// Where a client is sent that asks for a link of the front end `name`.
    pub fn front_end(&self, name: &str) -> Option<&str> {
        let found = self.front_ends.iter().find(|(known, _)| known == name);
        found.map(|(_, url)| url.as_str())
    }

    /// Whether `address` is a proxy whose `X-Forwarded-For` is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}
