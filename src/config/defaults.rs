//! Every default and fixed bound of the configuration, in one place.
//!
//! The sample `config.yml` shows the same values; a test compares the two.

use std::time::Duration;

/// Wings' own default of `api.host`.
pub const API_HOST: &str = "0.0.0.0";
/// Wings' own default of `api.port`.
pub const API_PORT: u16 = 8080;
/// Wings' own default of `system.data`.
pub const DATA: &str = "/var/lib/pterodactyl/volumes";
/// Wings' own default of `system.backup_directory`.
pub const BACKUP_DIRECTORY: &str = "/var/lib/pterodactyl/backups";
/// A shorter key is refused: jwt-simple does not sign or verify with one.
pub const MIN_TOKEN_BYTES: usize = 12;

/// The token of the sample `config.yml`, which works on this machine only.
pub const SAMPLE_TOKEN: &str = "sample-token-sample-token-sample-token-never-use-this-on-a-node";

/// `winglet.threads`.
pub const THREADS: usize = 8;
/// `winglet.max_connections`.
pub const MAX_CONNECTIONS: usize = 4096;
/// `winglet.max_connections_per_address`.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;
/// `winglet.resume_window`.
pub const RESUME_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// `winglet.settle_time`.
pub const SETTLE_TIME: Duration = Duration::from_secs(10 * 60);
/// `winglet.max_token_lifetime`.
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// `winglet.clock_skew`.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// `winglet.max_tracked_tokens`.
pub const MAX_TRACKED_TOKENS: usize = 65_536;
/// `winglet.take_over_after`.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(15);
/// `winglet.min_rate`, in bytes per second.
pub const MIN_RATE: u64 = 1024;
/// `winglet.unix_mode`.
pub const UNIX_MODE: u32 = 0o660;
/// `winglet.timeouts.head`.
pub const HEAD: Duration = Duration::from_secs(10);
/// `winglet.timeouts.idle`.
pub const IDLE: Duration = Duration::from_secs(15);
/// `winglet.timeouts.queue`.
pub const QUEUE: Duration = Duration::from_secs(10);
/// `winglet.timeouts.stall`.
pub const STALL: Duration = Duration::from_secs(60);
/// `winglet.timeouts.drain`.
pub const DRAIN: Duration = Duration::from_secs(60);
