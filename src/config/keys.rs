//! The table of keys: what each is called, what it defaults to, how it is read, whether a change of
//! it needs a restart, and what it does.
//!
//! To add one, add an entry here and the field of [`Config`] that it fills. Everything else follows:
//! parsing, suggestions for misspelt keys, `check --print`, and what a reload keeps. So do config.yml
//! and the lists of keys in README.md and winglet.yml(5): `UPDATE_DOCS=1 cargo test --test it keys::`
//! writes them anew, and the same test fails if they differ.

use super::written::Written;
use super::{
    Config, LogFormat, PageCache, Priority, Reuse, WhenDown, addresses, shared, token, urls,
};

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The key with its sections, such as `winglet.timeouts.head`.
    pub name: &'static str,
    /// Its value if no file sets it, as a file would write it; empty if it has none.
    pub default: &'static str,
    /// Reads the key into its field.
    pub(super) read: fn(&mut Config, &Written<'_>),
    /// What a reload does with a new value.
    pub change: Change,
    /// What it does, with literals in backticks. The first sentence can stand alone. A space comes
    /// before it.
    pub about: &'static str,
}

/// What a reload does with a new value.
#[derive(Debug)]
pub enum Change {
    /// It counts from then on.
    AtOnce,
    /// It needs a restart.
    Restart(Keep),
    /// It needs a restart if the process confined itself: Landlock's rules can't be widened.
    Confined(Keep),
}

/// Puts the old value back. Returns true if the new one was another.
pub(super) type Keep = fn(&mut Config, &Config) -> bool;

impl Key {
    const fn restart(mut self, keep: Keep) -> Key {
        self.change = Change::Restart(keep);
        self
    }

    const fn confined(mut self, keep: Keep) -> Key {
        self.change = Change::Confined(keep);
        self
    }
}

/// The key is read together with a later one.
const WITH_ANOTHER: fn(&mut Config, &Written<'_>) = |_, _| {};
/// The key is a part of what another one keeps.
const KEPT_WITH_ANOTHER: Keep = |_, _| false;

pub(super) fn keep<T: PartialEq + Clone>(now: &mut T, before: &T) -> bool {
    let changed = now != before;
    if changed {
        now.clone_from(before);
    }
    changed
}

/// Puts back what only a restart can change, and returns the keys that had another value.
pub fn keep_fixed(now: &mut Config, before: &Config, confined: bool) -> Vec<&'static str> {
    let mut changed = Vec::new();
    for key in KEYS {
        match key.change {
            Change::Restart(keep) if keep(now, before) => changed.push(key.name),
            Change::Confined(keep) if confined && keep(now, before) => changed.push(key.name),
            _ => {}
        }
    }
    changed
}

/// One MiB, the unit of a rate without one.
const MIB: u64 = 1 << 20;

/// Makes [`KEYS`] of entries like `/// What it does.` `"name" = "default", reader;`, with
/// `, restart(field)` or `, confined(field)` before the semicolon if a reload keeps the old value.
macro_rules! keys {
    ($($(#[doc = $about:literal])+ $name:literal = $default:literal, $read:expr
        $(, $change:ident $(($($field:tt)+))? $(by $keep:path)?)?;)+) => {
        /// Every key, section by section.
        pub static KEYS: &[Key] = &[$(Key {
            name: $name,
            default: $default,
            read: $read,
            change: Change::AtOnce,
            about: concat!($($about),+),
        }$(.$change($(|now, old| keep(&mut now.$($field)+, &old.$($field)+))? $($keep)?))?),+];
    };
}

keys! {
    /// The key that signs download links: `token` on the node's Configuration tab in the Panel. At
    /// least 16 characters. `file:///PATH` reads it from a file, `${NAME}` stands for an
    /// environment variable, and the variable WINGS_TOKEN overrides it. If it has a `$` in it, put
    /// it into a file.
    "token" = "", |c, v| (c.token, c.token_file) = token::read(v);
    /// The Panel's URL. Scripts on its pages may read answers, and error pages link to it.
    "remote" = "", |c, v| c.remote = urls::remote(v);
    /// Further origins whose scripts may read answers; `"*"` allows all. Plain links work from
    /// anywhere.
    "allowed_origins" = "[]", |c, v| c.allowed_origins = urls::origins(v);
    /// Logs more.
    "debug" = "false", |c, v| c.debug = v.switch();
    /// The address to listen on, unless `winglet.listen` says otherwise. Wings listens here too.
    "api.host" = "0.0.0.0", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// The port to listen on, likewise.
    "api.port" = "8080", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// Speaks TLS on `api.host` and `api.port`.
    "api.ssl.enabled" = "false", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// The certificate chain as a PEM file. It is read again whenever it changes.
    "api.ssl.cert" = "", WITH_ANOTHER, confined by addresses::keep_tls;
    /// The private key that belongs to it, likewise.
    "api.ssl.key" = "", WITH_ANOTHER, confined by KEPT_WITH_ANOTHER;
    /// Addresses and blocks of proxies whose `X-Forwarded-For` is believed. It is read from the
    /// right, up to the first address that is no trusted proxy: that is the client's.
    "api.trusted_proxies" = "[]", |c, v| c.trusted_proxies = addresses::proxies(v);
    /// The servers' volumes, one directory per UUID. If it is missing, links to files get 404; so a
    /// backup server does without.
    "system.data" = "/var/lib/pterodactyl/volumes", |c, v| c.data = v.path().unwrap_or_default(),
        confined(data);
    /// The backups, as `SERVER/BACKUP.tar.gz` or `BACKUP.tar.gz`. The name may begin with
    /// `backup-`. If it is missing, links to backups get 404.
    "system.backup_directory" = "/var/lib/pterodactyl/backups", |c, v| c.backup_directory = v.path().unwrap_or_default(),
        confined(backup_directory);
    /// Where to listen, if not on `api.host` and `api.port`: `ADDR:PORT`, `tls:ADDR:PORT` (with the
    /// files of `api.ssl`) or `unix:PATH` (plain HTTP, for a proxy on this machine). Links work as
    /// the Panel makes them if it is left out. Port 0 picks a free one.
    "winglet.listen" = "", addresses::listen, restart by addresses::keep_listen;
    /// The address that people reach this server at, such as `https://node.example.com:8080`: links
    /// of `winglet sign` begin with it. Set it behind a proxy. Left out, `sign` takes the first
    /// address of `listen` that others reach.
    "winglet.base_url" = "", |c, v| c.base_url = urls::base_url(v);
    /// Permissions of a `unix:` socket.
    "winglet.unix_mode" = "\"0660\"", |c, v| c.unix_mode = v.mode(), restart(unix_mode);
    /// Where `winglet status` and `winglet revoke` find the server, and Prometheus its `/metrics`.
    /// Without it, the server can't be asked. Write `unix:/run/winglet/control.sock`, a socket for
    /// root and the server's own user, or a port of this machine such as `127.0.0.1:8082`, which
    /// all its users can read; to revoke there takes the token. None of it can be reached where
    /// downloads are.
    "winglet.control" = "", |c, v| c.control = addresses::control(c, v), restart(control);
    /// Logs a line per request.
    "winglet.access_log" = "true", |c, v| c.access_log = v.switch();
    /// `text` logs lines for people, `json` an object per line. winglet(8) lists the fields.
    "winglet.log_format" = "text", |c, v| c.log_format = v.word(&[
        ("text", LogFormat::Text), ("json", LogFormat::Json)
    ]);
    /// Threads that read files. A slow client holds none of them, so this is not the number of
    /// downloads: it covers processors, and waiting for disks.
    "winglet.threads" = "8", |c, v| c.threads = v.count(1..=1024), restart(threads);
    /// Connections at a time, downloads included. When all are taken, the address that has most of
    /// them gives one up: an idle one first, a running download last. Never more than the limit on
    /// open files has room for; a download takes two.
    "winglet.max_connections" = "4096", |c, v| c.max_connections = v.count(1..=1_000_000);
    /// Connections of one IPv4 address or IPv6 /64. An IPv6 /48 may have four times as many.
    /// Trusted proxies have no limit; their clients do.
    "winglet.max_connections_per_address" = "64",
        |c, v| c.max_connections_per_address = v.count(1..=1_000_000);
    /// How often a link may be used. `once`: as with Wings, the first request spends it, and
    /// nothing can be resumed. `resume`: one whole delivery to one client at a time, who may
    /// resume, restart and fetch parts in parallel, and gets at most three times the file plus
    /// 64 MiB. `unlimited`: until it expires.
    "winglet.reuse" = "resume", |c, v| c.reuse = v.word(&[
        ("once", Reuse::Once), ("resume", Reuse::Resume), ("unlimited", Reuse::Unlimited)
    ]);
    /// How long after its first use a link may be resumed, even if it has expired meanwhile.
    "winglet.resume_window" = "24h", |c, v| c.resume_window = v.time("1s", "1year");
    /// How long a link works on after its last connection, once all of its bytes have arrived.
    /// Whoever held it may ask again until then: over several connections, or through a proxy,
    /// nobody knows whether the client has everything.
    "winglet.settle_time" = "10m", |c, v| c.settle_time = v.time("0s", "1day");
    /// Binds a link to the address that uses it. Another one takes it over once the download there
    /// broke off or has been silent for ten seconds.
    "winglet.bind_address" = "true", |c, v| c.bind_address = v.switch();
    /// Refuses links without a `scope`. Older Panels write none.
    "winglet.require_scope" = "false", |c, v| c.require_scope = v.switch();
    /// Refuses links that are valid for longer than this.
    "winglet.max_token_lifetime" = "24h", |c, v| c.max_token_lifetime = v.time("1s", "1year");
    /// How far the Panel's clock may be ahead. A link's end is kept to the second.
    "winglet.clock_skew" = "60s", |c, v| c.clock_skew = v.time("0s", "1h");
    /// Used links remembered at a time, a quarter of them per server at most. While all are needed,
    /// new ones get 503.
    "winglet.max_tracked_tokens" = "65536", |c, v| c.max_tracked_tokens = v.count(1..=10_000_000),
        restart(max_tracked_tokens);
    /// Where used links are remembered over a restart. Without it, a restart makes the links of the
    /// last minutes usable again, and ends the resuming of older ones. The service files set up
    /// `/var/lib/winglet`; any directory that the server may write to will do.
    "winglet.state_directory" = "", |c, v| c.state_directory = v.directory(),
        restart(state_directory);
    /// Patterns, as in a `.gitignore`, of files that no link may open. They count from each
    /// server's root, such as `"*.pem"` or `"/config/secret/"`. A hidden file gets 404, and
    /// archives leave it out; backups are served whole.
    "winglet.hidden" = "[]", |c, v| c.hidden = v.list("\"*.pem\"");
    /// Where several front ends over one storage agree on who owns a link. One machine needs none
    /// of it. A Redis (6 or later) or Valkey: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or
    /// `rediss://` for TLS. A link belongs to the front end that is asked for it first.
    "winglet.shared_state" = "", |c, v| c.shared_state = shared::read(v), restart(shared_state);
    /// A file with its password, if the URL has none.
    "winglet.shared_state_password_file" = "", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// For `rediss://`, a PEM file of the authorities that vouch for its certificate. Left out, the
    /// system's.
    "winglet.shared_state_ca" = "", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// What happens to new links while it doesn't answer. `refuse`: they get 503. `serve`: they are
    /// served, and each front end may then serve the same one. Links in use go on.
    "winglet.shared_state_down" = "refuse", |c, v| c.shared_state_down = v.word(&[
        ("refuse", WhenDown::Refuse), ("serve", WhenDown::Serve)
    ]);
    /// This front end's name, unlike any other's. Left out, it is the host's name and a random
    /// part, which `state_directory` keeps.
    "winglet.node" = "", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// Names of front ends, and the URLs that clients reach them at, such as
    /// `{a: https://a.example.com}`. A client that asks for another front end's link is sent there,
    /// or gets 503 if it isn't listed.
    "winglet.front_ends" = "{}", |c, v| c.front_ends = shared::front_ends(v);
    /// A front end that was silent for this long is gone, and others take its links over.
    "winglet.take_over_after" = "15s", WITH_ANOTHER, restart by KEPT_WITH_ANOTHER;
    /// Limit of one link, all its connections together, in MiB/s or with a unit (`500KiB`, `10MB`);
    /// 0 is none. Within this limit and the next two every client gets an equal share, and what one
    /// doesn't use goes to the others.
    "winglet.rate_limit" = "0", |c, v| c.rate_limit = v.rate(MIB, "MiB/s");
    /// Limit of the whole server, likewise.
    "winglet.bandwidth" = "0", |c, v| c.bandwidth = v.rate(MIB, "MiB/s");
    /// Limit of one client, likewise.
    "winglet.bandwidth_per_address" = "0", |c, v| c.bandwidth_per_address = v.rate(MIB, "MiB/s");
    /// Clients slower than this many bytes per second are cut off. 0 never does. A client is first
    /// judged after half of `timeouts.stall`, and time that the server makes it wait doesn't count.
    "winglet.min_rate" = "1024", |c, v| c.min_rate = v.rate(1, "bytes/s");
    /// `spare`: backups and large files leave nothing in the page cache, whose memory the game
    /// servers need. That goes for files of 8 MiB or more, and files in use there stay. `keep`: the
    /// cache fills with what is downloaded.
    "winglet.page_cache" = "spare", |c, v| c.page_cache = v.word(&[
        ("spare", PageCache::Spare), ("keep", PageCache::Keep)
    ]);
    /// `low`: processor and disk go to the game servers first. It sets nice 10 and the lowest
    /// best-effort I/O priority. `normal`: as the process was started.
    "winglet.priority" = "low", |c, v| c.priority = v.word(&[
        ("low", Priority::Low), ("normal", Priority::Normal)
    ]), restart(priority);
    /// After start-up, gives up every right that a download doesn't need (Landlock, Linux 5.13).
    "winglet.sandbox" = "true", |c, v| c.sandbox = v.switch(), restart(sandbox);
    /// Directories that volumes lead to by symbolic links, such as a second disk. The sandbox lets
    /// the server read nothing else.
    "winglet.extra_read_paths" = "[]", |c, v| c.extra_read_paths = v.existing_paths("\"/mnt/volumes\""),
        confined(extra_read_paths);
    /// From the start of a connection to the end of the request's head.
    "winglet.timeouts.head" = "10s", |c, v| c.timeouts.head = v.time("1ms", "1h");
    /// Between two requests on one connection.
    "winglet.timeouts.idle" = "15s", |c, v| c.timeouts.idle = v.time("1ms", "1h");
    /// Until a worker is free; then 503.
    "winglet.timeouts.queue" = "10s", |c, v| c.timeouts.queue = v.time("1ms", "1h");
    /// Without a byte arriving at the client.
    "winglet.timeouts.stall" = "60s", |c, v| c.timeouts.stall = v.time("1ms", "1day");
    /// For running downloads after SIGTERM.
    "winglet.timeouts.drain" = "60s", |c, v| c.timeouts.drain = v.time("0s", "1day");
}
