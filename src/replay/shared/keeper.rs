//! The keeper: a thread that says to the others that this front end is there, passes on what becomes of
//! its links, and asserts them if the shared state has lost them or could not be asked.
//!
//! It alone decides that the shared state answers again, so that workers never wait to find out.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Pipeline, RedisResult};

use super::connection::Connection;
use super::pulse::Pulse;
use super::redis::{REPLY_TIMEOUT, Redis};
use super::scripts::{self, ENTER, Hands, heart};
use super::{Agreement as _, Mark, When};
use crate::clock::Clock;
use crate::config::Secret;
use crate::net::address::ClientKey;
use crate::replay::{Key, Replay};

/// Links in one round trip.
const BATCH: usize = 128;
/// While it does not answer, it is asked this often.
const RETRY: Duration = Duration::from_secs(1);
/// While the server stops, links that are no longer in use are looked for this often.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(200);

/// What a reload may change: for how many seconds links can be resumed, and the node's token.
type Reloaded = Box<dyn Fn() -> (u64, Secret) + Send>;

/// The thread's own.
struct Keeper {
    redis: Arc<Redis>,
    table: Arc<Replay>,
    clock: Clock,
    reloaded: Reloaded,
    window: u64,
    connection: Option<Connection>,
    /// Milliseconds of the last try of a beat.
    tried: u64,
    /// It has said that it is there.
    entered: bool,
    /// All links are to be asserted.
    behind: bool,
    /// The server stops: links are given back as soon as nobody downloads them.
    leaving: bool,
    /// The log says that it has not been answered for so long that links may be others'.
    cut_off: bool,
}

/// This front end's place among the others, given up when it is dropped.
#[derive(Debug)]
pub struct Membership {
    redis: Arc<Redis>,
    keeper: Option<JoinHandle<()>>,
}

impl Membership {
    /// Joins the other front ends with the links of `table`. When this returns, the shared state has
    /// been asked once, if it answered within two seconds. `reloaded` says for how many seconds links
    /// can be resumed, and what the node's token is.
    ///
    /// # Errors
    /// If there is no thread for what keeps up the membership.
    pub fn begin(
        redis: Arc<Redis>,
        table: Arc<Replay>,
        clock: Clock,
        reloaded: impl Fn() -> (u64, Secret) + Send + 'static,
    ) -> io::Result<Membership> {
        let keeper = Keeper {
            redis: Arc::clone(&redis),
            table,
            clock,
            window: reloaded().0,
            reloaded: Box::new(reloaded),
            connection: None,
            tried: 0,
            entered: false,
            // What the journal remembers may be another's by now.
            behind: true,
            leaving: false,
            cut_off: false,
        };
        let (looked, first_look) = sync_channel(1);
        let run = move || keeper.run(&looked);
        let keeper = thread::Builder::new().name("shared".into()).spawn(run)?;
        // Usually it is done by now; if not, new links wait for it, and nothing else.
        let _ = first_look.recv_timeout(REPLY_TIMEOUT + REPLY_TIMEOUT);
        Ok(Membership { redis, keeper: Some(keeper) })
    }
}

impl Membership {
    /// Gives links back from here on, as soon as nobody downloads them: the server takes no more
    /// requests.
    pub fn begin_to_leave(&self) {
        self.redis.tasks.begin_to_leave();
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
            let tasks = self.redis.tasks.wait(self.pause());
            self.behind |= tasks.all;
            self.leaving |= tasks.leaving;
            if tasks.stop {
                self.leave(&tasks.changed);
                return;
            }
            self.look(&tasks.changed);
        }
    }

    /// Time between two beats.
    fn rhythm(&self) -> Duration {
        self.redis.pulse.silence / 3
    }

    /// For how long there is nothing to do unless somebody calls.
    fn pause(&self) -> Duration {
        if !self.redis.pulse.is_up() {
            return RETRY.min(self.rhythm());
        }
        if self.leaving {
            return LOOK_FOR_IDLE.min(self.rhythm());
        }
        let since = Duration::from_millis(Pulse::now().saturating_sub(self.tried));
        self.rhythm().saturating_sub(since)
    }

    /// Does all there is to do, and notes whether the shared state answers.
    fn look(&mut self, changed: &[Key]) {
        self.reload();
        // What could not be passed on is asserted with all the rest.
        self.behind |= self.tell(changed, Hands::Ours).is_err();
        if self.leaving && !self.behind {
            self.behind = self.tell(&self.table.let_go(), Hands::Back).is_err();
        }
        let is_due = self.behind || !self.redis.pulse.is_up() || self.pause().is_zero();
        if !is_due {
            return;
        }
        self.tried = Pulse::now();
        let result = self.beat();
        let up = result.is_ok() && self.redis.pulse.shut() == 0;
        let was_up = self.redis.pulse.set_up(up);
        if let Err(error) = result {
            self.behind = true;
            self.redis.complain(&error);
            self.say_if_cut_off();
        } else if up && !was_up {
            self.cut_off = false;
            self.redis.reset_complaints();
            log::info!(
                "shared_state: {} answers; this front end is {}",
                self.redis.target,
                self.redis.process.node
            );
        }
    }

    /// Says once that others may take this front end's links over.
    fn say_if_cut_off(&mut self) {
        if self.entered && self.redis.pulse.is_stale() && !self.cut_off {
            self.cut_off = true;
            log::warn!(
                "shared_state: {}: no answer for {} s, so that other front ends may take links over; {} running downloads may finish beside them, and further requests wait for an answer",
                self.redis.target,
                self.redis.pulse.silence.as_secs(),
                self.table.streams()
            );
        }
    }

    /// Takes over what was reloaded. Links are remembered for another time then, or their holders have
    /// other marks.
    fn reload(&mut self) {
        let (window, token) = (self.reloaded)();
        self.behind |= std::mem::replace(&mut self.window, window) != window;
        let mut known = self.redis.token.write().unwrap_or_else(PoisonError::into_inner);
        self.behind |= *known != token;
        *known = token;
    }

    /// Says that this front end is there. If the shared state does not know it, it enters.
    fn beat(&mut self) -> RedisResult<()> {
        let heart = heart(&self.redis.process.node);
        let silence = u64::try_from(self.redis.pulse.silence.as_millis()).unwrap_or(u64::MAX);
        let sent = Pulse::now();
        let mut ask = redis::pipe();
        // Not SET: a full Redis refuses that, and this front end would count as gone.
        ask.cmd("GET").arg(&heart).cmd("PEXPIRE").arg(&heart).arg(silence);
        let (found, renewed): (Option<String>, bool) = self.ask(&ask)?;
        let ours = found.as_ref() == Some(&self.redis.process.number) && renewed;
        if ours && !self.behind {
            self.redis.pulse.note_beat(sent);
            return Ok(());
        }
        if self.entered && found.is_some() && !ours {
            let node = &self.redis.process.node;
            self.redis.complain(&format_args!("another front end is called {node}, too: links may be served twice; give each its own winglet.node"));
        }
        if found.is_none() {
            self.wait_if_empty()?;
        }
        // Before links are asserted: nobody takes over what has just been.
        if !ours {
            let number = &self.redis.process.number;
            let mut enter = redis::pipe();
            enter.cmd("SET").arg(&heart).arg(number).arg("PX").arg(silence).ignore();
            self.ask::<()>(&enter)?;
            self.entered = true;
            // A claim that was made before counts no more, unless the table has its link by now.
            self.redis.pulse.begin_term();
        } else {
            self.redis.pulse.note_beat(sent);
        }
        self.tell(&self.table.links(), Hands::Ours)?;
        self.behind = false;
        self.redis.pulse.note_beat(sent);
        Ok(())
    }

    /// If the shared state has lost everything, the others notice within a third of the silence, and
    /// assert their links; until then, any link may be theirs, and nobody claims a new one.
    fn wait_if_empty(&mut self) -> RedisResult<()> {
        let whole = u64::try_from(self.redis.pulse.silence.as_millis()).unwrap_or(u64::MAX);
        let mut ask = redis::pipe();
        ask.cmd("EVAL").arg(ENTER).arg(0).arg(whole / 3 * 2);
        let (wait,): (i64,) = self.ask(&ask)?;
        if let Ok(wait @ 1..) = u64::try_from(wait) {
            let wait = Duration::from_millis(wait);
            self.redis.pulse.shut_for(wait);
            log::warn!(
                "shared_state: {} was found empty, as after its first start or a restart without its data; for {} s new links wait, so that every front end can assert its own",
                self.redis.target,
                wait.as_secs_f32().ceil()
            );
        }
        Ok(())
    }

    /// Tells the others how `keys` are, and learns which of them are others' by now.
    fn tell(&mut self, keys: &[Key], hands: Hands) -> RedisResult<()> {
        let now = self.clock.unix();
        let redis = Arc::clone(&self.redis);
        let mark = |client: ClientKey| -> Mark { redis.mark(client) };
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let mut ended = 0;
        for batch in keys.chunks(BATCH) {
            let standing = |key: &Key| Some((*key, self.table.standing(key, self.window, now)?));
            let links: Vec<_> = batch.iter().filter_map(standing).collect();
            if links.is_empty() {
                continue;
            }
            let mut commands = redis::pipe();
            commands.add_command(scripts::tell(&redis.process, &links, now, hands, mark));
            let (answers,): (Vec<[String; 2]>,) = self.ask(&commands)?;
            for ((key, standing), [owner, state]) in links.iter().zip(answers) {
                let spent = state == scripts::SPENT;
                if spent || owner != redis.process.node {
                    ended += self.table.lose(key, standing.origin, spent);
                } else if hands == Hands::Ours {
                    self.table.keep(key);
                } else if self.table.owns(key) {
                    // Somebody has asked for it meanwhile.
                    redis.tasks.push(*key, When::Now);
                }
            }
        }
        if ended > 0 {
            log::warn!(
                "shared_state: {}: other front ends have taken links over; {ended} running downloads of this one end",
                redis.target
            );
        }
        Ok(())
    }

    /// Gives this front end's links back and says goodbye, so that others need not wait for them.
    fn leave(&mut self, changed: &[Key]) {
        let changed = if self.behind { self.table.links() } else { changed.to_vec() };
        let told = self.tell(&changed, Hands::Ours);
        let told = told.and_then(|()| self.tell(&self.table.let_go(), Hands::Back));
        let mut leave = redis::pipe();
        leave.cmd("DEL").arg(heart(&self.redis.process.node)).ignore();
        if let Err(error) = told.and_then(|()| self.ask::<()>(&leave)) {
            self.redis.complain(&error);
        }
    }

    fn ask<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let ask = |on: &mut Connection| on.ask_all(commands, deadline);
        self.redis.ask_on(&mut self.connection, deadline, ask)
    }
}
