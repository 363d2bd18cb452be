//! What is ready for a worker, and who gets the next one.
//!
//! Clients take turns, so that sixteen streams of one weigh as much as one stream of another; no
//! directory gets all workers, so that a disk which stalls holds only its own; and what may take
//! long has a limit of its own.
//!
//! A worker that has finished takes the next job itself. Only when none is ready does it go back to
//! sleep in tiny_http, from where a call brings it back: see [`Queue::calls`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::buckets::{Bucket, Flow};
use super::turns::Turns;
use super::walks::Walks;
use crate::archive::shelf::WALKS;
use crate::net::address::ClientKey;

/// Workers that are awake at a time: as many as the processors keep busy beside the acceptor.
pub(super) static AWAKE: LazyLock<usize> = LazyLock::new(|| {
    thread::available_parallelism().map_or(1, |count| count.get().saturating_sub(1).max(1))
});

/// A worker that has been busy for longer may stand at a disk: another one is let in for it.
const LONG: Duration = Duration::from_millis(2);
/// TLS handshakes that workers carry on at a time: a private key operation takes milliseconds.
const HANDSHAKES: usize = 1;
/// The acceptor rests for this long at most.
const REST: Duration = Duration::from_millis(1);

/// Which directory a job reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// `system.data`
    Files,
    /// `system.backup_directory`
    Backups,
    /// Neither.
    None,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer a request.
    Answer,
    /// Send a piece of a download, of this many bytes at most.
    Step(u64),
    /// Carry on a walk through a folder of this server.
    Walk(u128),
    /// Carry on a TLS handshake.
    Handshake,
}

/// A job's place in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// The id of the connection that it is for.
    pub id: u64,
    /// What it comes to.
    pub kind: Kind,
    /// Where its bytes come from.
    pub lane: Lane,
    /// Whose turn it takes.
    pub client: Option<ClientKey>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug)]
struct Busy {
    worker: usize,
    kind: usize,
    lane: Lane,
    since: Instant,
}

/// The kinds that take turns by client, and the number of walks.
const ANSWERS: usize = 0;
const STEPS: usize = 1;
const HANDSHAKE: usize = 2;
const WALK: usize = 3;
const KINDS: usize = 4;
const LANES: [Lane; 3] = [Lane::Files, Lane::Backups, Lane::None];

/// The queue of jobs `J`.
#[derive(Debug)]
pub struct Queue<J> {
    inner: Mutex<Inner<J>>,
    /// Jobs that wait.
    waiting: AtomicUsize,
    /// The acceptor rests until few jobs wait.
    drained: Condvar,
    /// Walks that have begun, whoever carries them on.
    pub walks: Walks,
}

#[derive(Debug)]
struct Inner<J> {
    workers: usize,
    /// By kind and lane, what waits in turns.
    turns: [[Turns<(J, u64)>; LANES.len()]; WALK],
    walks: Vec<(Ticket, J)>,
    busy: Vec<Busy>,
    /// Workers that are awake or were called.
    awake: usize,
    /// The kind and the lane that are looked at first.
    first: (usize, usize),
    /// The bandwidth of all downloads together, if it is limited.
    bandwidth: Option<(Bucket, Flow)>,
    /// Bytes of one piece that the bandwidth is worth.
    piece: f64,
    resting: bool,
}

/// What has to happen for waiting jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Workers to be called now.
    pub count: usize,
    /// When to ask again.
    pub again: Option<Instant>,
}

impl<J> Queue<J> {
    /// An empty queue for `workers`.
    pub fn new(workers: usize) -> Queue<J> {
        let inner = Inner {
            workers,
            turns: Default::default(),
            walks: Vec::new(),
            busy: Vec::with_capacity(workers),
            awake: 0,
            first: (0, 0),
            bandwidth: None,
            piece: 0.0,
            resting: false,
        };
        Queue {
            inner: Mutex::new(inner),
            waiting: AtomicUsize::new(0),
            drained: Condvar::new(),
            walks: Walks::default(),
        }
    }

    /// Lets `job` wait for a worker.
    pub fn push(&self, ticket: Ticket, job: J) {
        let mut inner = self.lock();
        let Ticket { id, client, lane, .. } = ticket;
        match ticket.kind {
            Kind::Walk(_) => inner.walks.push((ticket, job)),
            Kind::Step(bytes) => inner.turns[STEPS][lane as usize].push(client, id, (job, bytes)),
            Kind::Answer => inner.turns[ANSWERS][lane as usize].push(client, id, (job, 0)),
            Kind::Handshake => inner.turns[HANDSHAKE][lane as usize].push(client, id, (job, 0)),
        }
        self.note(&inner);
    }

    /// Takes back the job of `ticket`'s connection, if no worker has it.
    pub fn take_back(&self, ticket: &Ticket) -> Option<J> {
        let mut inner = self.lock();
        let lane = ticket.lane as usize;
        let kind = match ticket.kind {
            Kind::Walk(_) => {
                let position = inner.walks.iter().position(|(other, _)| other.id == ticket.id)?;
                let (_, job) = inner.walks.remove(position);
                self.note(&inner);
                return Some(job);
            }
            Kind::Step(_) => STEPS,
            Kind::Answer => ANSWERS,
            Kind::Handshake => HANDSHAKE,
        };
        let removed = inner.turns[kind][lane].remove(ticket.client, ticket.id);
        self.note(&inner);
        removed.map(|(job, _)| job)
    }

    /// The next job for `worker`, which is done with the one before. `None`: it may sleep until it is
    /// called.
    pub(super) fn next(&self, worker: usize) -> Option<(u64, J)> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.busy.retain(|busy| busy.worker != worker);
        let next = inner.pop(worker, now, &self.walks);
        if next.is_none() {
            debug_assert!(inner.awake > 0, "it was called");
            inner.awake = inner.awake.saturating_sub(1);
        }
        self.note(&inner);
        if inner.resting && inner.len() < 2 {
            self.drained.notify_one();
        }
        next
    }

    /// How many workers have to be called at `now` for what waits.
    pub fn calls(&self, now: Instant) -> Calls {
        self.lock().calls(now, &self.walks)
    }

    /// Waits, for a millisecond at most, while workers have two jobs or more to take: what comes
    /// meanwhile is then looked at in one go.
    pub fn rest(&self) {
        let mut inner = self.lock();
        inner.resting = true;
        let many = |inner: &mut Inner<J>| inner.len() >= 2;
        let waited = self.drained.wait_timeout_while(inner, REST, many);
        waited.unwrap_or_else(PoisonError::into_inner).0.resting = false;
    }

    /// Limits the bandwidth of all downloads together to `rate` bytes per second, 0 for no limit;
    /// `flow` and `piece` follow from it.
    pub fn limit(&self, limit: Option<(Flow, f64)>, now: Instant) {
        let mut inner = self.lock();
        inner.piece = limit.map_or(0.0, |(_, piece)| piece);
        inner.bandwidth = limit.map(|(flow, _)| (Bucket::full(flow, now), flow));
    }

    /// Gives back `bytes` of the common bandwidth that were taken and not sent; negative: more was
    /// sent.
    pub fn settle(&self, bytes: f64) {
        if let Some((bucket, flow)) = &mut self.lock().bandwidth {
            bucket.give_back(bytes, *flow);
        }
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Busy workers.
    pub fn busy(&self) -> usize {
        self.lock().busy.len()
    }

    /// Returns true if every worker has been at the same job for `time`: the disks stall.
    pub fn is_stuck(&self, time: Duration, now: Instant) -> bool {
        let inner = self.lock();
        inner.busy.len() >= inner.workers && inner.busy.iter().all(|busy| busy.since + time <= now)
    }

    /// Takes out everything: no worker comes any more.
    pub fn clear(&self) -> Vec<J> {
        let mut inner = self.lock();
        let mut jobs: Vec<J> = inner.walks.drain(..).map(|(_, job)| job).collect();
        for turns in inner.turns.iter_mut().flatten() {
            jobs.extend(std::iter::from_fn(|| turns.pop().map(|(_, (job, _))| job)));
        }
        self.note(&inner);
        jobs
    }

    fn note(&self, inner: &Inner<J>) {
        self.waiting.store(inner.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Inner<J> {
    fn len(&self) -> usize {
        self.walks.len() + self.turns.iter().flatten().map(Turns::len).sum::<usize>()
    }

    fn pop(&mut self, worker: usize, now: Instant, walks: &Walks) -> Option<(u64, J)> {
        debug_assert!(self.busy.len() < self.workers);
        let steps_wait = self.bandwidth_wait(now).is_some();
        let first = self.first.0;
        for kind in (first..first + KINDS).map(|kind| kind % KINDS) {
            if self.is_full(kind) || (kind == STEPS && steps_wait) {
                continue;
            }
            let Some((lane, id, job)) = self.pop_kind(kind, walks) else { continue };
            self.busy.push(Busy { worker, kind, lane, since: now });
            self.first = ((kind + 1) % KINDS, (lane as usize + 1) % LANES.len());
            return Some((id, job));
        }
        None
    }

    fn pop_kind(&mut self, kind: usize, walks: &Walks) -> Option<(Lane, u64, J)> {
        if kind == WALK {
            if self.is_held(Lane::Files) {
                return None;
            }
            let position = self.walks.iter().position(|(ticket, _)| ticket.may_walk(walks))?;
            let (ticket, job) = self.walks.remove(position);
            return Some((ticket.lane, ticket.id, job));
        }
        let first = self.first.1;
        for lane in (first..first + LANES.len()).map(|lane| LANES[lane % LANES.len()]) {
            if !self.is_held(lane)
                && let Some((id, (job, bytes))) = self.turns[kind][lane as usize].pop()
            {
                // One that was queued while nothing was limited is one piece, and goes free.
                if let Some((bucket, _)) = self.bandwidth.as_mut().filter(|_| bytes < u64::MAX) {
                    bucket.take(bytes as f64);
                }
                return Some((lane, id, job));
            }
        }
        None
    }

    /// Returns true if as many workers are at a job of this kind as may be.
    fn is_full(&self, kind: usize) -> bool {
        let at_it = || self.busy.iter().filter(|busy| busy.kind == kind).count();
        match kind {
            WALK => at_it() >= WALKS,
            HANDSHAKE => at_it() >= HANDSHAKES,
            _ => false,
        }
    }

    /// Returns true if `lane` holds as many workers as it may.
    fn is_held(&self, lane: Lane) -> bool {
        let most = self.workers.saturating_sub(2).max(1);
        lane != Lane::None && self.busy.iter().filter(|busy| busy.lane == lane).count() >= most
    }

    /// How long the next piece has to wait for the common bandwidth.
    fn bandwidth_wait(&mut self, now: Instant) -> Option<Duration> {
        let (bucket, flow) = self.bandwidth.as_mut()?;
        bucket.fill(*flow, now);
        let wait = bucket.wait(self.piece, *flow);
        (!wait.is_zero()).then_some(wait)
    }

    fn calls(&mut self, now: Instant, walks: &Walks) -> Calls {
        let steps_wait = self.bandwidth_wait(now);
        let mut again =
            steps_wait.filter(|_| self.turns[STEPS].iter().any(|turns| turns.len() > 0));
        let ready = self.ready(steps_wait.is_some(), walks);
        if ready > 0 {
            let long = self.busy.iter().filter(|busy| busy.is_long(now)).count();
            let wanted = (*AWAKE + long).min(self.workers);
            let count = ready.min(wanted.saturating_sub(self.awake));
            self.awake += count;
            // Whoever is awake now may turn out to stand at a disk.
            if count < ready && self.awake < self.workers {
                again = Some(again.map_or(LONG, |wait| wait.min(LONG)));
            }
            return Calls { count, again: again.map(|wait| now + wait) };
        }
        Calls { count: 0, again: again.map(|wait| now + wait) }
    }

    /// How many jobs a worker could take now.
    fn ready(&self, steps_wait: bool, walks: &Walks) -> usize {
        let held = LANES.map(|lane| self.is_held(lane));
        let mut ready = 0;
        for (kind, turns) in self.turns.iter().enumerate() {
            let waits = self.is_full(kind) || (kind == STEPS && steps_wait);
            if !waits {
                let lanes = turns.iter().zip(held).filter(|(_, held)| !held);
                ready += lanes.map(|(turns, _)| turns.len()).sum::<usize>();
            }
        }
        if !self.is_full(WALK) && !held[Lane::Files as usize] {
            ready += self.walks.iter().filter(|(ticket, _)| ticket.may_walk(walks)).count();
        }
        ready
    }
}

impl Busy {
    /// Returns true if others need not wait for this to end, as it takes long or is known to.
    fn is_long(&self, now: Instant) -> bool {
        matches!(self.kind, HANDSHAKE | WALK) || self.since + LONG <= now
    }
}

impl Ticket {
    /// Returns true if this is a walk that may go on, or begin, now.
    fn may_walk(&self, walks: &Walks) -> bool {
        match self.kind {
            Kind::Walk(server) => walks.may_go_on(self.id, server, self.client),
            _ => false,
        }
    }
}
