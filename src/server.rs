//! Puts the parts together, keeps house while they run, and takes them apart again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::acceptor::{Acceptor, Parts};
use crate::clock::Clock;
use crate::config::{self, Config, Listen, Loaded};
use crate::download;
use crate::error::StartError;
use crate::logging;
use crate::net::listener::{self, Listener};
#[cfg(feature = "tls")]
use crate::net::tls::Certificates;
use crate::pool::Pool;
use crate::pool::private::PrivateSocket;
use crate::process::descriptors;
use crate::process::notify::Notifier;
use crate::process::signals::Signals;
use crate::replay::Replay;
#[cfg(feature = "shared-state")]
use crate::replay::shared::{Membership, Redis};
use crate::shared::{Chore, Settings, Shared};
use crate::sys;

/// The housekeeper looks after expiry and certificates this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Chores that may wait; what does not fit waits where it comes from.
const CHORES: usize = 1024;
/// Records are gathered for this long.
const GATHER: Duration = Duration::from_millis(2);
/// Free memory goes back to the kernel this often.
const TRIMMING: Duration = Duration::from_secs(10);
/// The acceptor's stack in bytes.
const STACK: usize = 512 * 1024;
/// The longest path that a Unix socket address holds, less what we append to the directory.
const MAX_BASE: usize = 107 - "/winglet-0123456789abcdef/s".len();

/// What is opened before the process confines itself.
#[derive(Debug)]
pub struct Opened {
    listeners: Vec<Listener>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Certificates>>,
    #[cfg(feature = "shared-state")]
    redis: Option<Arc<Redis>>,
}

impl Opened {
    /// Opens listeners and certificates, and finds the shared state.
    ///
    /// # Errors
    /// Which address or file, what is wrong with it, and what to do.
    pub fn open(
        config: &Config,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Opened, StartError> {
        Ok(Opened {
            listeners: listener::open(config, environment)?,
            #[cfg(feature = "tls")]
            tls: config.tls.as_ref().map(Certificates::load).transpose()?.map(Arc::new),
            #[cfg(feature = "shared-state")]
            redis: Redis::of(config)?.map(Arc::new),
        })
    }
}

/// Where private sockets are bound: the state directory if it can be written to, else the directory
/// for temporary files.
pub fn private_base(config: &Config) -> PathBuf {
    match &config.state_directory {
        Some(directory)
            if directory.as_os_str().len() <= MAX_BASE && PrivateSocket::fits_into(directory) =>
        {
            directory.clone()
        }
        _ => std::env::temp_dir(),
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    acceptor: JoinHandle<io::Result<()>>,
    chores: Receiver<Chore>,
    addresses: Vec<String>,
    control: Option<String>,
    reload: Arc<AtomicBool>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Certificates>>,
    sandboxed: bool,
    /// Says goodbye to the other front ends when it is dropped.
    #[cfg(feature = "shared-state")]
    membership: Option<Membership>,
}

impl Server {
    /// Starts all threads. When this returns, downloads are served.
    ///
    /// # Errors
    /// If the journal cannot be used, or threads or descriptors are exhausted.
    pub fn start(
        config: Config,
        opened: Opened,
        signals: Signals,
        clock: Clock,
        sandboxed: bool,
    ) -> Result<Server, StartError> {
        let descriptor_room = raise_descriptors(&config);
        let settings = Settings::new(config);
        let config = &settings.config;
        #[allow(unused_mut)] // without shared-state there is nothing to join
        let mut replay = open_replay(&settings, clock.unix())?;
        #[cfg(feature = "shared-state")]
        if let Some(redis) = &opened.redis {
            replay.share(Arc::clone(redis) as _);
        }
        let (tiny, private) = open_private(config)?;
        let threads = config.threads;
        let (sender, chores) = sync_channel(CHORES);
        let shared = Arc::new(Shared::new(settings, replay, clock, sender)?);
        #[cfg(feature = "shared-state")]
        let membership = opened.redis.map(|redis| {
            Membership::begin(redis, Arc::clone(&shared.replay), shared.clock.clone())
        });
        let worker = Arc::clone(&shared);
        let handler = move |exchange| download::serve(&worker, exchange);
        let pool = Pool::start(threads, tiny, Arc::clone(&shared.handed), handler)?;
        let reload = signals.reload_flag();
        let (control, addresses) = addresses(&opened.listeners);
        let acceptor = Acceptor::new(Parts {
            shared: Arc::clone(&shared),
            listeners: opened.listeners,
            private,
            pool,
            signals,
            descriptor_room,
            #[cfg(feature = "tls")]
            tls: opened.tls.clone(),
        })?;
        Ok(Server {
            acceptor: run_acceptor(acceptor, &shared)?,
            shared,
            chores,
            addresses,
            control,
            reload,
            #[cfg(feature = "tls")]
            tls: opened.tls,
            sandboxed,
            #[cfg(feature = "shared-state")]
            membership: membership.transpose()?,
        })
    }

    /// Where it listens, as URLs.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where it answers about itself, if anywhere.
    pub fn control(&self) -> Option<&str> {
        self.control.as_deref()
    }

    /// Does what the other threads must not wait for, until the server has stopped: records ended
    /// deliveries, removes what has expired, carries out reloads. `read` reads the configuration
    /// again.
    ///
    /// # Errors
    /// What the acceptor died of.
    pub fn run_housekeeping(
        self,
        read: &dyn Fn(&[Listen]) -> Loaded,
        notifier: &Notifier,
    ) -> io::Result<()> {
        let mut looked = Instant::now();
        let mut trimmed = looked;
        let mut told = false;
        while !self.acceptor.is_finished() {
            self.do_chores(HOUSEKEEPING);
            if self.reload.swap(false, Ordering::AcqRel) {
                notifier.reloading();
                let before = self.shared.settings();
                let known = before.config.listen.iter().chain(&before.config.control);
                self.reload(read(&known.cloned().collect::<Vec<_>>()));
                notifier.ready();
            }
            if self.shared.is_stopping() && !std::mem::replace(&mut told, true) {
                notifier.stopping();
            }
            if looked.elapsed() >= HOUSEKEEPING {
                looked = Instant::now();
                self.look_after(false);
            }
            if trimmed.elapsed() >= TRIMMING {
                trimmed = Instant::now();
                sys::return_free_memory();
            }
        }
        let result = self.acceptor.join();
        self.chores.try_iter().for_each(Chore::carry_out);
        #[cfg(feature = "shared-state")]
        drop(self.membership);
        result.unwrap_or_else(|_| Err(io::Error::other("the acceptor panicked")))
    }

    /// Waits up to `timeout` for chores, and does them all.
    fn do_chores(&self, timeout: Duration) {
        match self.chores.recv_timeout(timeout) {
            Ok(chore @ Chore::Record(_)) => {
                // Gathered, so that a busy server does not wake a thread per request.
                thread::sleep(GATHER);
                chore.carry_out();
            }
            Ok(Chore::Look) | Err(_) => {}
        }
        self.chores.try_iter().take(CHORES).for_each(Chore::carry_out);
    }

    /// `reload`: an operator has asked for it, and is told again of what is wrong.
    fn look_after(&self, reload: bool) {
        #[cfg(not(feature = "tls"))]
        let _ = reload;
        self.shared.throttle.report(Instant::now());
        self.shared.downloads.sample(Instant::now());
        let settings = self.shared.settings();
        self.shared.replay.maintain(&settings.rules, self.shared.clock.unix());
        self.shared.shelf.sweep(Instant::now(), |link| self.shared.replay.is_open(link));
        #[cfg(feature = "tls")]
        if let (Some(certificates), Some(files)) = (&self.tls, &settings.config.tls) {
            match certificates.refresh(files, reload) {
                Ok(true) => log::info!("api.ssl: certificate loaded again"),
                Ok(false) => {}
                Err(error) => log::error!("{error}; the certificate in force stays"),
            }
            if let Some(warning) = certificates.daily_warning(self.shared.clock.unix()) {
                log::warn!("api.ssl.cert: {warning}");
            }
        }
    }

    fn reload(&self, Loaded { config, findings, .. }: Loaded) {
        for finding in &findings {
            match finding.severity {
                config::Severity::Error => log::error!("{finding}"),
                config::Severity::Warning => log::warn!("{finding}"),
            }
        }
        let Some(mut config) = config else {
            log::error!("reload: the configuration has errors; the one in force stays");
            return;
        };
        let before = self.shared.settings();
        keep_fixed(&mut config, &before.config, self.sandboxed);
        logging::configure(&config);
        self.shared.replace(Settings::new(config));
        self.look_after(true);
        log::info!("reload: done");
    }
}

/// Raises the limit on descriptors; how many connections it leaves room for.
fn raise_descriptors(config: &Config) -> usize {
    let (available, needed) = (descriptors::raise(), descriptors::needed(config));
    if available < needed {
        log::warn!(
            "descriptors: {available} allowed, {needed} needed for max_connections and threads; raise the hard limit (ulimit -Hn) to {needed}"
        );
    }
    descriptors::room(config, available)
}

/// The control listener's address, and those of the others.
fn addresses(listeners: &[Listener]) -> (Option<String>, Vec<String>) {
    let (control, public): (Vec<_>, Vec<_>) =
        listeners.iter().partition(|listener| listener.is_control());
    (control.first().map(ToString::to_string), public.iter().map(ToString::to_string).collect())
}

fn open_replay(settings: &Settings, now: u64) -> Result<Replay, StartError> {
    let bound = settings.config.max_tracked_tokens;
    match &settings.config.state_directory {
        Some(directory) => {
            let replay = Replay::with_journal(bound, directory, &settings.rules, now)?;
            // Nobody else uses the directory: the journal's lock is ours.
            PrivateSocket::tidy(directory);
            Ok(replay)
        }
        None => {
            log::info!(
                "state_directory is not set: used links are remembered in memory only, and a restart forgets them"
            );
            Ok(Replay::in_memory(bound))
        }
    }
}

fn open_private(config: &Config) -> Result<(tiny_http::Server, PrivateSocket), StartError> {
    let base = private_base(config);
    PrivateSocket::open(&base).map_err(|error| {
        StartError::new("winglet.state_directory", format!(
            "cannot bind a private socket in {}: {error}; set state_directory, or TMPDIR, to a directory that the server may write",
            base.display()
        ))
    })
}

fn run_acceptor(
    acceptor: Acceptor,
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("acceptor".into()).stack_size(STACK).spawn(move || {
        let result = acceptor.run();
        shared.call_housekeeper();
        result
    })
}

/// Keeps what only a restart can change, and says so.
fn keep_fixed(config: &mut Config, before: &Config, sandboxed: bool) {
    fn keep<T: PartialEq + Clone>(key: &str, now: &mut T, before: &T) {
        if now != before {
            log::warn!("reload: {key} has changed; that takes a restart, and the old one stays");
            *now = before.clone();
        }
    }
    keep("winglet.threads", &mut config.threads, &before.threads);
    keep("winglet.listen", &mut config.listen, &before.listen);
    // The old addresses may need a certificate that the new ones do not name.
    if config.tls.is_none() {
        config.tls.clone_from(&before.tls);
    }
    keep("winglet.control", &mut config.control, &before.control);
    keep("winglet.unix_mode", &mut config.unix_mode, &before.unix_mode);
    keep("winglet.state_directory", &mut config.state_directory, &before.state_directory);
    keep("winglet.max_tracked_tokens", &mut config.max_tracked_tokens, &before.max_tracked_tokens);
    keep("winglet.shared_state", &mut config.shared_state, &before.shared_state);
    keep("winglet.sandbox", &mut config.sandbox, &before.sandbox);
    keep("winglet.priority", &mut config.priority, &before.priority);
    if sandboxed {
        // Landlock cannot be widened again.
        keep("system.data", &mut config.data, &before.data);
        keep("winglet.extra_read_paths", &mut config.extra_read_paths, &before.extra_read_paths);
        keep("system.backup_directory", &mut config.backup_directory, &before.backup_directory);
        let directories = |config: &Config| {
            config.tls.as_ref().map(|tls| {
                (tls.certificate.parent().map(Path::to_owned), tls.key.parent().map(Path::to_owned))
            })
        };
        if directories(config) != directories(before) {
            keep("api.ssl", &mut config.tls, &before.tls);
        }
    }
}
