//! The resolved configuration: what the program uses, every value checked.
//!
//! `raw.rs` turns a `config.yml` into this type and reports everything that is wrong with it at
//! once. After a [`Config`] exists, nothing checks a setting again. All defaults stand in
//! [`defaults`]; the sample `config.yml` documents each of them.

pub mod defaults;
mod findings;
mod listen;
mod raw;
#[cfg(test)]
mod tests;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use findings::{Finding, Findings, Severity};
pub use listen::Listen;
pub use raw::load;

/// How often one link may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The first `GET` answered with content spends the link; ranges are not offered.
    Once,
    /// One complete delivery to one client, with resume and ranges.
    Resume,
    /// Good until it expires.
    Unlimited,
}

/// Deadlines of the phases of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it came from, absolute.
    pub file: PathBuf,
    /// The key of the tokens' signatures: at least [`defaults::MIN_TOKEN_BYTES`] long.
    pub token: String,
    /// Where the token was read from, if it has a file of its own.
    pub token_file: Option<PathBuf>,
    /// The Panel's URL without a trailing slash, where one is set.
    pub remote: Option<String>,
    /// Origins beside `remote` that may read answers from a page's script; `*` allows every one.
    pub allowed_origins: Vec<String>,
    /// Log at debug level.
    pub debug: bool,
    /// Directory of the servers' volumes, absolute.
    pub data: PathBuf,
    /// Directory of the backups, absolute.
    pub backup_directory: PathBuf,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where to listen; never empty.
    pub listen: Vec<Listen>,
    /// Certificate and key: present where any of `listen` is TLS.
    pub tls: Option<TlsFiles>,
    /// Permissions of a listening Unix socket.
    pub unix_mode: u32,
    /// Size of the pool.
    pub threads: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Waiting connections of one address (IPv4 or IPv6 /64).
    pub max_waiting_per_address: usize,
    /// Workers that one address may hold.
    pub max_streams_per_address: usize,
    /// Requests answered on one connection before it is closed.
    pub max_requests_per_connection: u32,
    /// How often a link may be used.
    pub reuse: Reuse,
    /// How long after its first use a link may be resumed.
    pub resume_window: Duration,
    /// How long after its last stream a link that may have delivered everything stays open.
    pub settle_time: Duration,
    /// Bind a link to the address that used it first.
    pub bind_address: bool,
    /// Refuse tokens without a `scope` claim.
    pub require_scope: bool,
    /// Longest remaining life of an acceptable token.
    pub max_token_lifetime: Duration,
    /// How far in the future `nbf` and `iat` may lie.
    pub clock_skew: Duration,
    /// Bound of the table of used tokens.
    pub max_tracked_tokens: usize,
    /// Where the journal lives; memory only where none.
    pub state_directory: Option<PathBuf>,
    /// Bytes a second for one download; 0 is none.
    pub rate_limit: u64,
    /// Bytes a second below which a client is cut off; 0 is none.
    pub min_rate: u64,
    /// Size of the copy buffer of one download, in bytes.
    pub copy_buffer: usize,
    /// Confine the process with Landlock after start-up.
    pub sandbox: bool,
    /// Deadlines.
    pub timeouts: Timeouts,
}

impl Config {
    /// Token, certificate and key: files beside the configuration that a reload reads again.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        tls.chain(&self.token_file).cloned().collect()
    }

    /// Whether `address` is a proxy whose `X-Forwarded-For` is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}
