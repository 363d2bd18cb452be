//! The keeper: a thread that says to the others that this front end is alive, passes on what is
//! spent, and asserts this front end's links if the shared state has lost them or could not be asked.
//!
//! It alone decides that the shared state answers again, so that workers never wait to find out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Pipeline, RedisResult};

use super::SPENT;
use super::connection::{Connection, is_broken};
use super::redis::{PATIENCE, Redis, link, random};
use crate::clock::Clock;
use crate::replay::{Key, Replay};

/// Links in one round trip.
const BATCH: usize = 128;
/// While it does not answer, it is asked this often.
const RETRY: Duration = Duration::from_secs(1);
/// One key remembers that the shared state was not emptied since the first front end came, another
/// one for how many milliseconds (ARGV) everybody waits if it was. Answers with what is left of them.
const ENTER: &str = "\
if redis.call('SET', 'winglet:since', 1, 'NX') then
  redis.call('SET', 'winglet:wait', 1, 'PX', ARGV[1])
end
return redis.call('PTTL', 'winglet:wait')";

/// The thread's own.
struct Keeper {
    redis: Arc<Redis>,
    table: Arc<Replay>,
    clock: Clock,
    connection: Option<Connection>,
    /// Tells this process from another one of the same name.
    instance: String,
    /// It has said that it is there.
    entered: bool,
    /// All links are to be asserted.
    behind: bool,
    /// The shared state was empty: until then, the others may assert theirs.
    open_at: Instant,
}

/// This front end's place among the others, given up when it is dropped.
#[derive(Debug)]
pub struct Membership {
    redis: Arc<Redis>,
    keeper: Option<JoinHandle<()>>,
}

impl Membership {
    /// Joins the other front ends with the links of `table`. When this returns, the shared state has
    /// been asked once, if it answered within two seconds.
    ///
    /// # Errors
    /// If there is no thread for what keeps up the membership.
    pub fn begin(redis: Arc<Redis>, table: Arc<Replay>, clock: Clock) -> io::Result<Membership> {
        let keeper = Keeper {
            redis: Arc::clone(&redis),
            table,
            clock,
            connection: None,
            instance: format!("{:016x}", random()),
            entered: false,
            // What the journal remembers may be another's by now.
            behind: true,
            open_at: Instant::now(),
        };
        let (looked, first_look) = sync_channel(1);
        let run = move || keeper.run(&looked);
        let keeper = thread::Builder::new().name("shared".into()).spawn(run)?;
        // Usually it is done by now; if not, new links wait for it, and nothing else.
        let _ = first_look.recv_timeout(PATIENCE + PATIENCE);
        Ok(Membership { redis, keeper: Some(keeper) })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.redis.tasks.stop();
        // It has seconds to do at most. If it panicked, the others wait a little longer.
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}

impl Keeper {
    fn run(mut self, looked: &SyncSender<()>) {
        self.look(&[]);
        // Whoever waited for it may have given up.
        let _ = looked.try_send(());
        loop {
            let up = self.redis.up.load(Ordering::Acquire);
            let tasks = self.redis.tasks.wait(match up {
                true => self.redis.silence / 3,
                false => RETRY.min(self.redis.silence / 3),
            });
            self.behind |= tasks.all;
            if tasks.stop {
                self.leave(&tasks.spent);
                return;
            }
            self.look(&tasks.spent);
        }
    }

    /// Does all there is to do, and notes whether the shared state answers.
    fn look(&mut self, spent: &[Key]) {
        // What could not be passed on is asserted with all the rest.
        self.behind |= self.pass_on(spent).is_err();
        let result = self.beat();
        let was_up = self.redis.up.load(Ordering::Acquire);
        let up = result.is_ok() && Instant::now() >= self.open_at;
        self.redis.up.store(up, Ordering::Release);
        match result {
            Ok(()) if up && !was_up => {
                self.redis.content();
                log::info!(
                    "shared_state: {} answers; this front end is {}",
                    self.redis.target,
                    self.redis.node
                );
            }
            Ok(()) => {}
            Err(error) => {
                self.behind = true;
                if is_broken(&error) {
                    self.connection = None;
                }
                self.redis.complain(&error);
            }
        }
    }

    /// Says that this front end is alive. If the shared state does not know it, it enters.
    fn beat(&mut self) -> RedisResult<()> {
        let heart = self.heart();
        let seconds = self.redis.silence.as_secs();
        let mut ask = redis::pipe();
        // Not SET: a full Redis refuses that, and this front end would count as gone.
        ask.cmd("GET").arg(&heart).cmd("EXPIRE").arg(&heart).arg(seconds);
        let (found, _): (Option<String>, bool) = self.ask(&ask)?;
        let ours = found.as_ref() == Some(&self.instance);
        if self.entered && found.is_some() && !ours {
            let node = &self.redis.node;
            self.redis.complain(&format_args!("another front end is called {node}, too: links may be served twice; give each its own winglet.node"));
        }
        if found.is_none() {
            self.wait_if_empty()?;
        }
        if !ours || self.behind {
            self.assert_all()?;
            self.behind = false;
        }
        if !ours {
            let mut enter = redis::pipe();
            enter.cmd("SET").arg(&heart).arg(&self.instance).arg("EX").arg(seconds).ignore();
            self.ask::<()>(&enter)?;
            self.entered = true;
        }
        Ok(())
    }

    /// If the shared state has lost everything, the others notice within a third of the silence, and
    /// assert their links; until then, any link may be theirs, and nobody claims a new one.
    fn wait_if_empty(&mut self) -> RedisResult<()> {
        let whole = u64::try_from(self.redis.silence.as_millis()).unwrap_or(u64::MAX);
        let mut ask = redis::pipe();
        ask.cmd("EVAL").arg(ENTER).arg(0).arg(whole / 3 * 2);
        let (wait,): (i64,) = self.ask(&ask)?;
        if let Ok(wait @ 1..) = u64::try_from(wait) {
            let wait = Duration::from_millis(wait);
            self.open_at = Instant::now() + wait;
            log::warn!(
                "shared_state: {} was empty; for {} s new links wait, so that every front end can assert its own",
                self.redis.target,
                wait.as_secs_f32().ceil()
            );
        }
        Ok(())
    }

    /// Passes on what is spent.
    fn pass_on(&mut self, spent: &[Key]) -> RedisResult<()> {
        for batch in spent.chunks(BATCH) {
            let mut commands = redis::pipe();
            for key in batch {
                commands.cmd("SET").arg(link(key)).arg(SPENT).arg("XX").arg("KEEPTTL").ignore();
            }
            self.ask::<()>(&commands)?;
        }
        Ok(())
    }

    /// Claims every link of the table anew, and learns which were lost to others meanwhile.
    fn assert_all(&mut self) -> RedisResult<()> {
        let now = self.clock.unix();
        let links = self.table.links();
        for batch in links.chunks(BATCH) {
            let mut commands = redis::pipe();
            let mut asked = Vec::with_capacity(batch.len());
            for key in batch {
                let Some((spent, seconds)) = self.table.standing(key, self.redis.window, now)
                else {
                    continue;
                };
                let (name, value) = (link(key), if spent { SPENT } else { &self.redis.node });
                let set = commands.cmd("SET").arg(&name).arg(value).arg("EX").arg(seconds);
                if spent { set } else { set.arg("NX") }.ignore();
                commands.cmd("GET").arg(&name);
                asked.push(key);
            }
            let owners: Vec<Option<String>> = self.ask(&commands)?;
            for (key, owner) in asked.into_iter().zip(owners) {
                if owner.as_ref() == Some(&self.redis.node) {
                    self.table.keep(key);
                } else {
                    self.table.lose(key);
                }
            }
        }
        Ok(())
    }

    /// Says goodbye, so that others need not wait for this front end's links.
    fn leave(&mut self, spent: &[Key]) {
        let heart = self.heart();
        let mut leave = redis::pipe();
        leave.cmd("DEL").arg(&heart).ignore();
        if let Err(error) = self.pass_on(spent).and_then(|()| self.ask::<()>(&leave)) {
            self.redis.complain(&error);
        }
    }

    fn heart(&self) -> String {
        format!("winglet:node:{}", self.redis.node)
    }

    fn ask<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        let lay_idle = self.connection.is_some();
        let result = self.ask_once(commands);
        match &result {
            // It may have been closed meanwhile.
            Err(error) if lay_idle && is_broken(error) && !error.is_timeout() => {
                self.connection = None;
                self.ask_once(commands)
            }
            _ => result,
        }
    }

    fn ask_once<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        let deadline = Instant::now() + PATIENCE;
        let (redis, connection) = (&self.redis, &mut self.connection);
        redis.counted(|| {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(Connection::open(&redis.target, deadline)?),
            };
            connection.ask_all(commands, deadline)
        })
    }
}
