//! The agreement in a Redis: one key per link holds its owner's name, or that it is spent.
//!
//! A claim is one script, and so one round trip: it finds the owner, looks whether that is alive, and
//! claims or takes over, all in one step. One worker asks at a time, the others wait their turn, and
//! whatever happens, a second after it came a worker has its answer. After a time-out nobody asks
//! until the keeper (`keeper.rs`) has been answered again.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, RedisError, RedisResult};

use super::connection::{Connection, Target, is_broken};
use super::tasks::Tasks;
use super::{Agreement, Counts, Wish, verdict};
use crate::config::{Config, SharedState, is_node_name};
use crate::error::StartError;
use crate::replay::{ClaimError, Key, make_directory};

/// Nobody waits for an answer for longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// One kind of complaint goes to the log so often.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// So many workers stay away from Redis, for the links that need none of it.
const SPARED: usize = 2;
/// The file in the state directory that keeps the name.
const NAME_FILE: &str = "node";

/// KEYS: the link. ARGV: our name; what to write; for how many seconds; whether the token has
/// expired. Answers with 1 (ours), 2 (taken over), 0 (not ours) or 3 (nothing is claimed by a front
/// end that has not entered: everything may have been lost), and what stands there now. The owner is
/// looked at first: a full Redis refuses the first write, and those who only ask need none.
const CLAIM: &str = "\
local owner = redis.call('GET', KEYS[1])
if redis.call('EXISTS', 'winglet:node:' .. ARGV[1]) == 0 then return {3, owner or ''} end
if not owner then
  if ARGV[4] == '1' then return {0, ''} end
  redis.call('SET', KEYS[1], ARGV[2], 'NX', 'EX', ARGV[3])
  return {1, ARGV[1]}
end
if owner == ARGV[1] or owner == 'spent' then return {owner == 'spent' and 0 or 1, owner} end
if redis.call('EXISTS', 'winglet:node:' .. owner) == 1 then return {0, owner} end
redis.call('SET', KEYS[1], ARGV[2], 'XX', 'KEEPTTL')
return {2, ARGV[1]}";

/// As above, changing nothing: what stands there, and whether that is a front end which is alive.
const LOOK: &str = "\
local owner = redis.call('GET', KEYS[1])
if not owner then return {0, ''} end
return {redis.call('EXISTS', 'winglet:node:' .. owner), owner}";

/// The connection that workers share.
#[derive(Debug, Default)]
struct Turn {
    connection: Option<Connection>,
    busy: bool,
    waiting: usize,
}

/// A worker's turn, over when it is dropped.
struct Asking<'a> {
    redis: &'a Redis,
    connection: Option<Connection>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // After a panic, half an answer may be under way on it.
        let connection = self.connection.take().filter(|_| !std::thread::panicking());
        let mut turn = self.redis.turn();
        (turn.connection, turn.busy) = (connection, false);
        drop(turn);
        self.redis.turn_over.notify_all();
    }
}

/// The shared state of this front end.
#[derive(Debug)]
pub struct Redis {
    pub(super) target: Target,
    /// What this front end is called.
    pub(super) node: String,
    /// Its links are others' once it was silent for so long.
    pub(super) silence: Duration,
    /// Links are remembered for so many seconds.
    pub(super) window: u64,
    /// Workers that may be here at a time.
    room: usize,
    turn: Mutex<Turn>,
    turn_over: Condvar,
    /// It answers.
    pub(super) up: AtomicBool,
    pub(super) tasks: Tasks,
    round_trips: AtomicU64,
    failures: AtomicU64,
    take_overs: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

/// Who has a link, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody yet.
    Nobody,
    /// It is spent.
    Spent,
    /// A front end, and whether that is alive.
    Node(String, bool),
}

impl Redis {
    /// The shared state that `config` names, if it names one. Nothing is connected to yet.
    ///
    /// # Errors
    /// If the host has no address, or its certificate could not be judged.
    pub fn of(config: &Config) -> Result<Option<Redis>, StartError> {
        let made = || make_name(config.state_directory.as_deref());
        let named = |shared| Redis::named(config, shared, kept_name(config).unwrap_or_else(made));
        config.shared_state.as_ref().map(named).transpose()
    }

    /// As [`Redis::of`], for commands that only ask: a front end without a name gets none.
    ///
    /// # Errors
    /// As there.
    pub fn to_ask(config: &Config) -> Result<Option<Redis>, StartError> {
        let named = |shared| Redis::named(config, shared, kept_name(config).unwrap_or_default());
        config.shared_state.as_ref().map(named).transpose()
    }

    fn named(config: &Config, shared: &SharedState, node: String) -> Result<Redis, StartError> {
        Ok(Redis {
            target: Target::resolve(shared)?,
            node,
            silence: shared.take_over_after,
            window: config.resume_window.as_secs(),
            room: config.threads.saturating_sub(SPARED).max(1),
            turn: Mutex::default(),
            turn_over: Condvar::new(),
            up: AtomicBool::new(false),
            tasks: Tasks::default(),
            round_trips: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            take_overs: AtomicU64::new(0),
            complained: Mutex::default(),
        })
    }

    /// Asks on a worker's behalf.
    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, ClaimError> {
        let deadline = Instant::now() + PATIENCE;
        let mut turn = self.take_turn(deadline).ok_or(ClaimError::Away)?;
        let connection = &mut turn.connection;
        let mut result = self.query(connection, command, deadline);
        // A connection that has lain idle may have been closed meanwhile. Asking twice does no harm.
        let again = |error: &RedisError| is_broken(error) && !error.is_timeout();
        if connection.is_some() && result.as_ref().is_err_and(again) {
            *connection = None;
            result = self.query(connection, command, deadline);
        }
        if result.as_ref().is_err_and(is_broken) {
            *connection = None;
            // Before the turn is over: whoever waits for it gives up, and does not find out anew.
            self.mistrust();
        }
        drop(turn);
        result.map_err(|error| {
            self.complain(&error);
            ClaimError::Away
        })
    }

    /// Nobody asks until the keeper has.
    fn mistrust(&self) {
        self.up.store(false, Ordering::Release);
        self.tasks.wake();
    }

    fn query<T: FromRedisValue>(
        &self,
        connection: &mut Option<Connection>,
        command: &Cmd,
        deadline: Instant,
    ) -> RedisResult<T> {
        self.counted(|| {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(Connection::open(&self.target, deadline)?),
            };
            connection.ask(command, deadline)
        })
    }

    /// Waits for the turn until `deadline`; `None` if it does not come, or nobody would answer.
    fn take_turn(&self, deadline: Instant) -> Option<Asking<'_>> {
        let mut turn = self.turn();
        if turn.waiting + usize::from(turn.busy) >= self.room {
            return None;
        }
        turn.waiting += 1;
        while turn.busy && self.is_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let wait = self.turn_over.wait_timeout(turn, left);
            turn = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        turn.waiting -= 1;
        if turn.busy || !self.is_up() {
            return None;
        }
        turn.busy = true;
        Some(Asking { redis: self, connection: turn.connection.take() })
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Does what asks one question, and counts it.
    pub(super) fn counted<T>(&self, ask: impl FnOnce() -> RedisResult<T>) -> RedisResult<T> {
        let result = ask();
        let count = if result.is_ok() { &self.round_trips } else { &self.failures };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Says in the log, once a minute, that something is wrong.
    pub(super) fn complain(&self, what: &dyn std::fmt::Display) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINTS) {
            *last = Some(Instant::now());
            drop(last);
            log::error!(
                "shared_state: {}: {what}; see shared_state_down for what becomes of new links",
                self.target
            );
        }
    }

    /// The next complaint goes to the log at once.
    pub(super) fn content(&self) {
        *self.complained.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Who has the link `key`, asked on a connection of its own.
    ///
    /// # Errors
    /// What is wrong with the connection, or with the server.
    pub fn owner(&self, key: &Key) -> RedisResult<Owner> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&self.target, deadline)?;
        let (alive, owner): (bool, String) = connection.ask(&self.looking(key), deadline)?;
        Ok(match owner.as_str() {
            "" => Owner::Nobody,
            super::SPENT => Owner::Spent,
            _ => Owner::Node(owner, alive),
        })
    }

    /// What the server says of itself (`INFO`), asked on a connection of its own.
    ///
    /// # Errors
    /// As [`Redis::owner`].
    pub fn info(&self) -> RedisResult<String> {
        let deadline = Instant::now() + PATIENCE;
        Connection::open(&self.target, deadline)?.ask(&redis::cmd("INFO"), deadline)
    }

    fn looking(&self, key: &Key) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(LOOK).arg(1).arg(link(key));
        command
    }
}

impl Agreement for Redis {
    fn claim(&self, wish: &Wish) -> Result<(), ClaimError> {
        let mut command = redis::cmd("EVAL");
        let value = if wish.once { super::SPENT } else { &self.node };
        command.arg(CLAIM).arg(1).arg(link(&wish.key)).arg(&self.node).arg(value);
        command.arg(wish.seconds.max(1)).arg(u8::from(wish.expired));
        let (outcome, owner): (u8, String) = self.ask(&command)?;
        match outcome {
            2 => {
                self.take_overs.fetch_add(1, Ordering::Relaxed);
            }
            3 => {
                self.mistrust();
                return Err(ClaimError::Away);
            }
            _ => {}
        }
        match owner.as_str() {
            "" => Err(ClaimError::Expired),
            owner => verdict(owner, &self.node),
        }
    }

    fn look(&self, wish: &Wish) -> Result<(), ClaimError> {
        let (alive, owner): (bool, String) = self.ask(&self.looking(&wish.key))?;
        match owner.as_str() {
            "" if wish.expired => Err(ClaimError::Expired),
            "" => Ok(()),
            owner if !alive && owner != super::SPENT => Ok(()),
            owner => verdict(owner, &self.node),
        }
    }

    fn spent(&self, key: Key) {
        self.tasks.push(key);
    }

    fn claimed_alone(&self) {
        self.tasks.assert_all();
    }

    fn name(&self) -> &str {
        &self.node
    }

    fn counts(&self) -> Counts {
        Counts {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            take_overs: self.take_overs.load(Ordering::Relaxed),
            up: self.is_up(),
        }
    }
}

/// The key of a link. Only the hash of its `unique_id` leaves the machine.
pub(super) fn link(key: &Key) -> String {
    format!("winglet:{:032x}", u128::from_be_bytes(*key))
}

/// What this front end is called, if the configuration or the state directory says so.
fn kept_name(config: &Config) -> Option<String> {
    if let Some(node) = config.shared_state.as_ref().and_then(|shared| shared.node.clone()) {
        return Some(node);
    }
    let path = config.state_directory.as_ref()?.join(NAME_FILE);
    let kept = std::fs::read_to_string(path).ok()?.trim().to_owned();
    Some(kept).filter(|name| is_node_name(name))
}

/// A name for this front end: the host's with a random part, which `directory` keeps.
fn make_name(directory: Option<&Path>) -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let host = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40);
    let mut name: String = host.collect();
    let _ = write!(name, "-{:08x}", random() as u32);
    if let Some(directory) = directory
        && let Err(error) =
            make_directory(directory).and_then(|()| keep_name(&directory.join(NAME_FILE), &name))
    {
        log::warn!(
            "state_directory: cannot keep this front end's name: {error}; it has another one after a restart"
        );
    }
    name
}

fn keep_name(path: &Path, name: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    io::Write::write_all(&mut options.custom_flags(libc::O_NOFOLLOW).open(path)?, name.as_bytes())
}

/// A number unlike any other process's.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
