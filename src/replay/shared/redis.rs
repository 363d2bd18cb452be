//! The agreement in a Redis, as the workers see it.
//!
//! A claim is one script, and so one round trip: it finds the owner, looks whether that is there, and
//! claims or takes over, all in one step. One worker asks at a time, the others wait their turn, and
//! whatever happens, a second after it came a worker has its answer. After a time-out nobody asks
//! until the keeper (`keeper.rs`) has been answered again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, RedisError, RedisResult};

use super::connection::{Connection, Target, is_broken};
use super::pulse::Pulse;
use super::scripts::{self, Place, Process, Reply};
use super::tasks::Tasks;
use super::{Agreement, Claimed, Counts, Mark, When, Wish, name};
use crate::config::{Config, Secret, SharedState};
use crate::error::StartError;
use crate::net::address::ClientKey;
use crate::replay::grant::MAX_HOLDERS;
use crate::replay::{ClaimError, Key};

/// Longest wait for a reply.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// One kind of complaint goes to the log so often.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// Workers that never talk to Redis, so that links that don't need it keep moving.
const SPARED: usize = 2;

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
    pub(super) process: Process,
    pub(super) pulse: Pulse,
    /// The node's token, by which the others know an address.
    pub(super) token: RwLock<Secret>,
    /// Workers that may be here at a time.
    room: usize,
    turn: Mutex<Turn>,
    turn_over: Condvar,
    pub(super) tasks: Tasks,
    round_trips: AtomicU64,
    failures: AtomicU64,
    take_overs: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

impl Redis {
    /// The shared state that `config` names, if it names one. Nothing is connected to yet.
    ///
    /// # Errors
    /// If the host has no address, or its certificate could not be judged.
    pub fn of(config: &Config) -> Result<Option<Redis>, StartError> {
        let made = || name::make(config.state_directory.as_deref());
        let named = |shared| Redis::named(config, shared, name::kept(config).unwrap_or_else(made));
        config.shared_state.as_ref().map(named).transpose()
    }

    /// As [`Redis::of`], for commands that only ask: a front end without a name gets none.
    ///
    /// # Errors
    /// As there.
    pub fn for_query(config: &Config) -> Result<Option<Redis>, StartError> {
        let named = |shared| Redis::named(config, shared, name::kept(config).unwrap_or_default());
        config.shared_state.as_ref().map(named).transpose()
    }

    fn named(config: &Config, shared: &SharedState, node: String) -> Result<Redis, StartError> {
        Ok(Redis {
            target: Target::resolve(shared)?,
            process: Process { node, number: format!("{:016x}", name::random()) },
            pulse: Pulse::new(shared.take_over_after),
            token: RwLock::new(config.token.clone()),
            room: config.threads.saturating_sub(SPARED).max(1),
            turn: Mutex::default(),
            turn_over: Condvar::new(),
            tasks: Tasks::default(),
            round_trips: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            take_overs: AtomicU64::new(0),
            complained: Mutex::default(),
        })
    }

    /// Asks on a worker's behalf.
    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, ClaimError> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut turn = self.take_turn(deadline).ok_or_else(|| self.away())?;
        let result = self.ask_on(&mut turn.connection, deadline, |on| on.ask(command, deadline));
        if result.as_ref().is_err_and(is_broken) {
            // Before the turn is over: whoever waits for it gives up, and does not find out anew.
            self.mark_down();
        }
        drop(turn);
        result.map_err(|error| {
            self.complain(&error);
            ClaimError::Away
        })
    }

    /// Nobody asks until the keeper has.
    fn mark_down(&self) {
        self.pulse.set_up(false);
        self.tasks.wake();
    }

    /// Why nobody asks.
    fn away(&self) -> ClaimError {
        match self.pulse.shut() {
            0 => ClaimError::Away,
            wait => ClaimError::Emptied(u32::try_from(wait.div_ceil(1000)).unwrap_or(u32::MAX)),
        }
    }

    /// Asks on the connection that is `kept`, or a new one, and keeps it unless it is broken. If it
    /// breaks, that is tried once more: one that has lain idle may have been closed meanwhile, and if
    /// the answer was lost, the same claim is known again.
    pub(super) fn ask_on<T>(
        &self,
        kept: &mut Option<Connection>,
        deadline: Instant,
        ask: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let once = |kept: &mut Option<Connection>| {
            let connection = match kept {
                Some(connection) => connection,
                None => kept.insert(Connection::open(&self.target, deadline)?),
            };
            ask(connection)
        };
        let counted = |kept: &mut Option<Connection>| {
            let result = once(kept);
            let count = if result.is_ok() { &self.round_trips } else { &self.failures };
            count.fetch_add(1, Ordering::Relaxed);
            result
        };
        let mut result = counted(kept);
        let again = |error: &RedisError| is_broken(error) && !error.is_timeout();
        if kept.is_some() && result.as_ref().is_err_and(again) {
            *kept = None;
            result = counted(kept);
        }
        // Half an answer may be under way.
        if result.as_ref().is_err_and(is_broken) {
            *kept = None;
        }
        result
    }

    /// Waits for the turn until `deadline`; `None` if it does not come, or nobody would answer.
    fn take_turn(&self, deadline: Instant) -> Option<Asking<'_>> {
        let mut turn = self.turn();
        if turn.waiting + usize::from(turn.busy) >= self.room {
            return None;
        }
        turn.waiting += 1;
        while turn.busy && self.pulse.is_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let wait = self.turn_over.wait_timeout(turn, left);
            turn = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        turn.waiting -= 1;
        if turn.busy || !self.pulse.is_up() {
            return None;
        }
        turn.busy = true;
        Some(Asking { redis: self, connection: turn.connection.take() })
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn reset_complaints(&self) {
        *self.complained.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The mark of whoever makes `wish`, if the link is bound and they are known.
    fn mark_of(&self, wish: &Wish) -> Option<Mark> {
        wish.client.filter(|_| wish.bind).map(|client| self.mark(client))
    }

    /// Where the link of `wish` is, and why it cannot be used here, asked on a connection of its own.
    ///
    /// # Errors
    /// What is wrong with the connection, or with the server.
    pub fn find(&self, wish: &Wish) -> RedisResult<(Place, Option<ClaimError>)> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut connection = Connection::open(&self.target, deadline)?;
        let command = scripts::claim(&self.process, wish, self.mark_of(wish), true);
        let reply: Reply = connection.ask(&command, deadline)?;
        Ok((reply.place(), reply.result().err()))
    }

    /// What the server says of itself (`INFO`), asked on a connection of its own.
    ///
    /// # Errors
    /// As [`Redis::find`].
    pub fn info(&self) -> RedisResult<String> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        Connection::open(&self.target, deadline)?.ask(&redis::cmd("INFO"), deadline)
    }
}

impl Agreement for Redis {
    fn claim(&self, wish: &Wish) -> Result<Claimed, ClaimError> {
        let mark = self.mark_of(wish);
        let reply: Reply = self.ask(&scripts::claim(&self.process, wish, mark, false))?;
        if reply.is_absent() {
            self.mark_down();
        }
        let others = reply.owner != self.process.node;
        let mut claimed = reply.result()?;
        if let Claimed::Inherited(inherited) = &mut claimed {
            self.take_overs.fetch_add(u64::from(others), Ordering::Relaxed);
            // Whoever asks is the first of all from here on.
            inherited.holders.retain(|holder| Some(*holder) != mark);
            inherited.holders.truncate(MAX_HOLDERS - 1);
        }
        Ok(claimed)
    }

    fn look(&self, wish: &Wish) -> Result<(), ClaimError> {
        let command = scripts::claim(&self.process, wish, self.mark_of(wish), true);
        self.ask::<Reply>(&command)?.result().map(drop)
    }

    fn term(&self) -> Option<u64> {
        self.pulse.term()
    }

    fn changed(&self, key: Key, when: When) {
        self.tasks.push(key, when);
    }

    fn claimed_alone(&self) {
        self.tasks.assert_all();
    }

    fn mark(&self, client: ClientKey) -> Mark {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let whole = hmac_sha256::HMAC::mac(format!("holder {client}"), token.as_bytes());
        let mut mark = Mark::default();
        mark.copy_from_slice(&whole[..16]);
        mark
    }

    fn name(&self) -> &str {
        &self.process.node
    }

    fn counts(&self) -> Counts {
        Counts {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            take_overs: self.take_overs.load(Ordering::Relaxed),
            up: self.pulse.is_up(),
        }
    }
}
