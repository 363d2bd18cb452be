//! Puts the parts together, keeps house while they run, and takes them apart again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::acceptor::{Acceptor, Parts};
use crate::archive::Shelf;
use crate::clock::Clock;
use crate::config::{self, Config, Listen, Loaded};
use crate::control::listener::Control;
use crate::desk::Operator;
use crate::download;
use crate::download::job::{Crew, Job};
use crate::error::StartError;
use crate::logging;
use crate::net::listener::{self, Listener};
#[cfg(feature = "tls")]
use crate::net::tls::Certificates;
use crate::pool::private::PrivateSocket;
use crate::pool::queue::Queue;
use crate::pool::returns::Returns;
use crate::pool::{Exchange, Pool};
use crate::process::notify::Notifier;
use crate::process::signals::Signals;
use crate::process::{descriptors, memory};
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
/// Listings of folders may take one part in this many of the memory.
const LISTINGS_SHARE: u64 = 8;
/// Downloads that the log lists after SIGUSR1.
const MOST_LINES: usize = 100;
/// Longest wait for the journal's disk at the end.
const LAST_RECORDS: Duration = Duration::from_secs(1);
/// The acceptor's stack in bytes.
const STACK: usize = 512 * 1024;
/// The longest path that a Unix socket address holds, less what we append to the directory.
const MAX_BASE: usize = 107 - "/winglet-0123456789abcdef/s".len();

/// What is opened before the process confines itself.
#[derive(Debug)]
pub struct Opened {
    listeners: Vec<Listener>,
    /// Bytes of memory that the process may have.
    memory: u64,
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
            memory: memory::available(),
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
    control_address: Option<String>,
    /// Answers until it is dropped.
    control: Option<Control>,
    operator: Operator,
    reload: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
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
        let mut shared = Shared::new(settings, replay, clock, sender)?;
        let share = opened.memory / LISTINGS_SHARE;
        shared.shelf = Arc::new(Shelf::new(usize::try_from(share).unwrap_or(usize::MAX)));
        let shared = Arc::new(shared);
        #[cfg(feature = "shared-state")]
        let membership = opened.redis.map(|redis| {
            let settings = Arc::clone(&shared);
            let reloaded = move || {
                let settings = settings.settings();
                (settings.rules.window, settings.config.token.clone())
            };
            Membership::begin(redis, Arc::clone(&shared.replay), shared.clock.clone(), reloaded)
        });
        let returns = Returns::new(Arc::clone(&shared.waker));
        let crew: Arc<Crew> = Arc::new(Exchange { queue: Queue::new(threads), returns });
        let (worker, workers) = (Arc::clone(&shared), Arc::clone(&crew));
        let work = move |_, job: Job| download::serve(&worker, &workers, job);
        let pool = Pool::start(threads, tiny, &crew, work)?;
        let (reload, report) = (signals.reload_flag(), signals.report_flag());
        let (control_address, addresses) = addresses(&opened.listeners);
        let (mut control, listeners): (Vec<_>, Vec<_>) =
            opened.listeners.into_iter().partition(Listener::is_control);
        let operator = Operator {
            shared: Arc::clone(&shared),
            crew: Arc::clone(&crew),
            #[cfg(feature = "tls")]
            tls: opened.tls.clone(),
        };
        let desk = operator.clone();
        let acceptor = Acceptor::new(Parts {
            shared: Arc::clone(&shared),
            crew,
            listeners,
            private,
            pool,
            signals,
            descriptor_room,
            #[cfg(feature = "tls")]
            tls: opened.tls,
        })?;
        Ok(Server {
            acceptor: run_acceptor(acceptor, &shared)?,
            shared,
            chores,
            addresses,
            control_address,
            control: control.pop().map(|at| Control::start(at, desk)).transpose()?,
            operator,
            reload,
            report,
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
        self.control_address.as_deref()
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
        // It is finished without having said so if it panicked.
        while !self.shared.has_ended() && !self.acceptor.is_finished() {
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
                #[cfg(feature = "shared-state")]
                self.membership.iter().for_each(Membership::begin_to_leave);
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
        drop(self.control);
        write_last_records(&self.chores, &self.shared);
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
        if self.report.swap(false, Ordering::AcqRel) {
            let status = self.operator.status(true);
            status.lines(MOST_LINES).iter().for_each(|line| log::info!("{line}"));
        }
        let settings = self.shared.settings();
        self.shared.replay.maintain(&settings.rules, self.shared.clock.unix());
        self.shared.shelf.sweep(Instant::now(), |link| self.shared.replay.is_open(link));
        #[cfg(feature = "tls")]
        if let (Some(certificates), Some(files)) = (&self.operator.tls, &settings.config.tls) {
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
            match finding.is_error {
                true => log::error!("{finding}"),
                false => log::warn!("{finding}"),
            }
        }
        let Some(mut config) = config else {
            log::error!("reload: the configuration has errors; the one in force stays");
            return;
        };
        let before = self.shared.settings();
        for key in config::keep_fixed(&mut config, &before.config, self.sandboxed) {
            log::warn!("reload: {key} needs a restart; keeping the old value");
        }
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

/// Writes what is still to be recorded: to the log in any case, to the journal if its disk answers.
fn write_last_records(chores: &Receiver<Chore>, shared: &Shared) {
    let waiting = chores.try_iter().filter_map(|chore| match chore {
        Chore::Record(record) => Some(record),
        Chore::Look => None,
    });
    let records: Vec<_> = waiting.chain(shared.take_records()).collect();
    let finished: Vec<_> = records.into_iter().filter_map(|record| record.write_log()).collect();
    let (done, wait) = sync_channel(1);
    let journal = thread::Builder::new().name("journal".into()).spawn(move || {
        for end in finished {
            end.record();
        }
        let _ = done.try_send(());
    });
    if journal.is_err() || wait.recv_timeout(LAST_RECORDS).is_err() {
        log::error!(
            "state_directory: the disk did not answer; the last downloads are not in the journal"
        );
    }
}

fn run_acceptor(
    acceptor: Acceptor,
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("acceptor".into()).stack_size(STACK).spawn(move || {
        let result = acceptor.run();
        shared.end();
        result
    })
}
