//! What the threads share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::archive::{Hidden, Patterns, Shelf};
use crate::clock::Clock;
use crate::config::{Config, WhenDown};
use crate::control::counters::Counters;
use crate::control::downloads::Downloads;
use crate::control::gauges::Gauges;
use crate::disk::readers::Readers;
use crate::link::storage::Storage;
use crate::link::token::{Claims, Verifier};
use crate::logging::throttle::LogThrottle;
use crate::pool::returns::Waker;
use crate::replay::{Finished, Replay, Rules};

/// A configuration and what follows from it. Replaced as a whole by a reload.
#[derive(Debug)]
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// Judges tokens.
    pub verifier: Verifier,
    /// Finds files.
    pub storage: Storage,
    /// Governs links.
    pub rules: Rules,
    /// What no link may open.
    hidden: Arc<Patterns>,
}

impl Settings {
    /// The settings that follow from `config`.
    pub fn new(config: Config) -> Settings {
        Settings {
            verifier: Verifier::new(&config),
            storage: Storage::new(&config),
            rules: Rules {
                reuse: config.reuse,
                window: config.resume_window.as_secs(),
                settle: config.settle_time.as_secs(),
                bind: config.bind_address,
                alone: config.shared_state_down == WhenDown::Serve,
            },
            hidden: Arc::new(Patterns::new(config.hidden.iter().map(String::as_str))),
            config,
        }
    }

    /// What a link with `claims` must not open.
    pub fn hidden(&self, claims: &Claims) -> Option<Arc<Hidden>> {
        let all = Arc::clone(&self.hidden);
        let own = match claims.ignored_files.as_slice() {
            [] => None,
            lines => Some(Arc::new(Patterns::new(lines.iter().map(String::as_str)))),
        };
        Hidden::new([all].into_iter().chain(own)).map(Arc::new)
    }
}

/// The end of a download, on its way to the journal and the log.
pub trait Record: fmt::Debug + Send {
    /// Writes to the journal, then to the log.
    fn write(self: Box<Self>);

    /// Writes to the log only. Returns what is left for the journal, whose disk may never answer.
    fn write_log(self: Box<Self>) -> Option<Finished>;
}

/// Something for the housekeeper to do.
#[derive(Debug)]
pub enum Chore {
    /// Write the end of a download.
    Record(Box<dyn Record>),
    /// Look whether there is something to reload or to report.
    Look,
}

impl Chore {
    /// Does it; whoever looks around does that anyway.
    pub fn carry_out(self) {
        if let Chore::Record(record) = self {
            record.write();
        }
    }
}

/// Shared by all threads.
#[derive(Debug)]
pub struct Shared {
    settings: RwLock<Arc<Settings>>,
    /// The table of used links.
    pub replay: Arc<Replay>,
    /// The time of day.
    pub clock: Clock,
    /// Wakes the acceptor.
    pub waker: Arc<Waker>,
    /// The state of the acceptor.
    pub gauges: Arc<Gauges>,
    /// Who reads which file.
    pub readers: Arc<Readers>,
    /// The archives that are being downloaded.
    pub shelf: Arc<Shelf>,
    /// Downloads that are under way.
    pub downloads: Arc<Downloads>,
    /// What is counted from the start on.
    pub counters: Counters,
    /// When the server was started, in seconds since the epoch and by the steady clock.
    pub started: (u64, Instant),
    /// True if downloads were told to stop that the acceptor may hold.
    stops: AtomicBool,
    chores: SyncSender<Chore>,
    /// Records of downloads that workers held when the server stopped.
    abandoned: Mutex<Vec<Box<dyn Record>>>,
    stopping: AtomicBool,
    ended: AtomicBool,
    ids: Ids,
    /// Bounds the log lines that strangers can cause.
    pub throttle: LogThrottle,
}

impl Shared {
    /// Shares `settings` and `replay`; `chores` leads to the housekeeper.
    ///
    /// # Errors
    /// If no descriptor is left for waking the acceptor.
    pub fn new(
        settings: Settings,
        replay: Replay,
        clock: Clock,
        chores: SyncSender<Chore>,
    ) -> std::io::Result<Shared> {
        Ok(Shared {
            settings: RwLock::new(Arc::new(settings)),
            replay: Arc::new(replay),
            started: (clock.unix(), Instant::now()),
            downloads: Arc::default(),
            counters: Counters::default(),
            clock,
            waker: Arc::new(Waker::new()?),
            gauges: Arc::default(),
            readers: Arc::default(),
            shelf: Arc::default(),
            stops: AtomicBool::new(false),
            abandoned: Mutex::default(),
            chores,
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            ids: Ids::new(),
            throttle: LogThrottle::default(),
        })
    }

    /// Leaves `record` to the housekeeper, without waiting.
    ///
    /// # Errors
    /// The record, if the housekeeper has too many already.
    pub fn record(&self, record: Box<dyn Record>) -> Result<(), Box<dyn Record>> {
        match self.chores.try_send(Chore::Record(record)) {
            Err(TrySendError::Full(Chore::Record(record))) => Err(record),
            Err(TrySendError::Disconnected(Chore::Record(record))) => {
                record.write();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Leaves what is still to be recorded when the acceptor ends.
    pub fn leave_records(&self, records: Vec<Box<dyn Record>>) {
        self.abandoned().extend(records);
    }

    /// Takes what [`Shared::leave_records`] left.
    pub fn take_records(&self) -> Vec<Box<dyn Record>> {
        std::mem::take(&mut self.abandoned())
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Box<dyn Record>>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the acceptor end the downloads that it holds and that were told to stop.
    pub fn note_stops(&self) {
        self.stops.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns true if [`Shared::note_stops`] was called since [`Shared::take_stops`].
    pub fn has_stops(&self) -> bool {
        self.stops.load(Ordering::Acquire)
    }

    /// As [`Shared::has_stops`], and forgets it.
    pub fn take_stops(&self) -> bool {
        self.has_stops() && self.stops.swap(false, Ordering::AcqRel)
    }

    /// Lets the housekeeper look around. With chores waiting it does so anyway.
    pub fn call_housekeeper(&self) {
        let _ = self.chores.try_send(Chore::Look);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other settings in force.
    pub fn replace(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The server drains from here on.
    pub fn stop(&self) {
        self.gauges.draining.store(true, Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        self.call_housekeeper();
    }

    /// Returns true if the server drains.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The acceptor does nothing any more. Its thread may take a moment longer, and whoever looked at
    /// that alone would look again a second later.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.call_housekeeper();
    }

    /// Returns true after [`Shared::end`].
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A new `X-Request-Id`.
    pub fn next_id(&self) -> String {
        self.ids.next()
    }
}

/// Request ids: unlike those of any other run, and telling nothing of how many came before.
#[derive(Debug)]
struct Ids {
    run: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Ids {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Ids { run: RandomState::new().build_hasher().finish(), count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        // A bijection (splitmix64), so that no two ids of a run are equal.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut mixed = self.run.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016x}", mixed ^ (mixed >> 31))
    }
}
