//! What the acceptor, the pool and the housekeeper share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::record::Records;
use crate::download::body::Pace;
use crate::link::storage::Storage;
use crate::link::token::Verifier;
use crate::logging::throttle::LogThrottle;
use crate::pool::exchange::{Handed, Returns};
use crate::replay::{Replay, Rules};

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
    /// Governs streams.
    pub pace: Pace,
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
            },
            pace: Pace::of(&config),
            config,
        }
    }
}

/// Lines in ten seconds about tokens that nobody signed: enough to see that a key is wrong.
const UNSIGNED: u32 = 200;

/// Shared by all threads.
#[derive(Debug)]
pub struct Shared {
    settings: RwLock<Arc<Settings>>,
    /// The table of used links.
    pub replay: Arc<Replay>,
    /// The time of day.
    pub clock: Clock,
    /// Exchanges on their way to a worker.
    pub handed: Handed,
    /// Connections on their way back to the acceptor.
    pub returns: Arc<Returns>,
    /// Streams that have ended and are still to be recorded.
    pub records: Records,
    stopping: AtomicBool,
    ids: Ids,
    unsigned: Mutex<LogThrottle>,
    sabotage: AtomicBool,
    panic: AtomicBool,
}

impl Shared {
    /// Shares `settings` and `replay`.
    ///
    /// # Errors
    /// Where no descriptor is left for waking the acceptor.
    pub fn new(settings: Settings, replay: Replay, clock: Clock) -> std::io::Result<Shared> {
        Ok(Shared {
            settings: RwLock::new(Arc::new(settings)),
            replay: Arc::new(replay),
            clock,
            handed: Handed::default(),
            returns: Arc::new(Returns::new()?),
            records: Records::default(),
            stopping: AtomicBool::new(false),
            ids: Ids::new(),
            unsigned: Mutex::new(LogThrottle::new("requests without a signed token", UNSIGNED)),
            sabotage: AtomicBool::new(false),
            panic: AtomicBool::new(false),
        })
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
        self.stopping.store(true, Ordering::Release);
        self.records.call();
    }

    /// Whether the server drains.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a request whose token nobody signed may have its line in the log now: strangers can
    /// send any number of them.
    pub fn logs_unsigned(&self) -> bool {
        self.unsigned.lock().unwrap_or_else(PoisonError::into_inner).allows(Instant::now())
    }

    /// Makes the acceptor end its private socket to tiny_http, for the test that sees it rebuilt.
    #[doc(hidden)]
    pub fn sabotage_private_socket(&self) {
        self.sabotage.store(true, Ordering::Release);
        self.returns.wake();
    }

    /// Whether the private socket is to be ended; asking clears it.
    #[doc(hidden)]
    pub fn take_sabotage(&self) -> bool {
        self.sabotage.load(Ordering::Relaxed) && self.sabotage.swap(false, Ordering::AcqRel)
    }

    /// Makes the next worker panic, for the test that sees the pool survive it.
    #[doc(hidden)]
    pub fn provoke_panic(&self) {
        self.panic.store(true, Ordering::Release);
    }

    /// Whether a worker is to panic; asking clears it.
    #[doc(hidden)]
    pub fn take_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed) && self.panic.swap(false, Ordering::AcqRel)
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
