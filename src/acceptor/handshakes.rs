//! TLS handshakes run on a thread of their own, one step at a time, in turns by address: a private
//! key operation takes milliseconds, for which the acceptor must not stand still.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Acceptor;
use super::connections::{Held, State};
use super::queue::Turns;
use crate::net::address::ClientKey;
use crate::pool::exchange::{Connection, Exchange, Next, Task};

/// Steps that are on their way to the thread at a time.
const AT_ONCE: usize = 2;
/// Handshakes that one address may begin at once…
const BURST: f64 = 64.0;
/// …and per second later on.
const RATE: f64 = 8.0;
/// Addresses that are remembered before those that have rested are forgotten.
const MANY: usize = 1024;
/// The thread's stack in bytes.
const STACK: usize = 256 * 1024;

/// What waits for the thread.
#[derive(Debug)]
pub(super) struct Handshakes {
    steps: SyncSender<Exchange>,
    turns: Turns,
    at_work: usize,
    buckets: HashMap<ClientKey, Bucket>,
}

/// Handshakes that an address may still begin.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * RATE).min(BURST);
        self.at = now;
    }
}

impl Handshakes {
    /// Starts the thread if there will be handshakes; it ends when the acceptor does.
    pub(super) fn start(has_tls: bool) -> io::Result<Handshakes> {
        let (steps, receiver) = sync_channel(AT_ONCE);
        let thread = thread::Builder::new().name("handshakes".into()).stack_size(STACK);
        if has_tls {
            thread.spawn(move || work(&receiver))?;
        }
        Ok(Handshakes { steps, turns: Turns::default(), at_work: 0, buckets: HashMap::new() })
    }

    /// Takes one handshake of `key` from its bucket; `Err` says how long there is none.
    fn take(&mut self, key: Option<ClientKey>, now: Instant) -> Result<(), Duration> {
        let Some(key) = key else { return Ok(()) };
        if self.buckets.len() >= MANY {
            self.buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.left < BURST
            });
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { left: BURST, at: now });
        bucket.refill(now);
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / RATE));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

fn work(steps: &Receiver<Exchange>) {
    for exchange in steps {
        let Some((mut work, Task::Handshake)) = exchange.open() else { continue };
        // A panic would lose that connection, and must not lose the thread.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let result = work.socket().map_or(Ok(()), |socket| socket.handshake());
            work.finish(Next::Handshake(result));
        }));
    }
}

impl Acceptor {
    /// A client has sent a part of its handshake.
    pub(super) fn carry_on_handshake(&mut self, connection: Box<Connection>, until: Instant) {
        let (id, now) = (connection.id, Instant::now());
        let (_, key) = self.connections.turn(id);
        if !connection.socket.has_greeted()
            && let Err(wait) = self.handshakes.take(key, now)
        {
            // Not armed: it is looked at again when the bucket has one.
            let held = Held { connection, state: State::Handshake { until } };
            return self.connections.put(held, Some(until.min(now + wait)));
        }
        self.connections.put(Held { connection, state: State::Handshake { until } }, Some(until));
        self.handshakes.turns.push(key, id);
    }

    /// Gives the thread what waits for it.
    pub(super) fn give_handshakes(&mut self) {
        while self.handshakes.at_work < AT_ONCE
            && let Some(id) = self.handshakes.turns.pop()
        {
            let Some(Held { connection, .. }) = self.connections.take(id) else { continue };
            let returns = self.parts.shared.returns.clone();
            let exchange = Exchange::new(0, connection, Task::Handshake, returns);
            // Cannot be full: there are no more than AT_ONCE.
            if self.handshakes.steps.try_send(exchange).is_ok() {
                self.handshakes.at_work += 1;
            }
        }
    }

    pub(super) fn handshake_returned(
        &mut self,
        id: u64,
        connection: Option<(Box<Connection>, Next)>,
    ) {
        self.handshakes.at_work -= 1;
        let until = self.connections.deadline(id).unwrap_or_else(Instant::now);
        let Some((connection, Next::Handshake(result))) = connection else {
            return self.connections.forget(id);
        };
        match result {
            Ok(()) => self.read_first_head(connection, until),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.hold(connection, State::Handshake { until }, Some(until));
            }
            Err(error) if crate::net::tls::is_plain_http(&error) => self.refuse_plain(connection),
            Err(error) => {
                log::debug!("handshake failed: {error}");
                self.drop_connection(connection);
            }
        }
    }

    /// The time for the handshake is over, or its address may begin another one.
    pub(super) fn handshake_deadline(&mut self, connection: Box<Connection>, until: Instant) {
        if Instant::now() >= until {
            self.drop_connection(connection);
        } else {
            self.carry_on_handshake(connection, until);
        }
    }
}
