//! Who gets the next free worker: addresses take turns, so that sixteen streams of one client weigh
//! as much as one stream of another; and no directory gets all workers, so that a disk which stalls
//! holds only its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::archive::shelf::WALKS;
use crate::net::address::ClientKey;

/// Which of the two directories a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// `system.data`
    Files,
    /// `system.backup_directory`
    Backups,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answer a request.
    Request,
    /// Send a piece of content.
    Piece,
    /// Answer a request for which a tree is walked.
    Walk,
}

/// In number order.
const KINDS: [Kind; 3] = [Kind::Request, Kind::Piece, Kind::Walk];

/// What waits, first come first served within an address, in turns among addresses.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: VecDeque<Option<ClientKey>>,
    waiting: HashMap<Option<ClientKey>, VecDeque<u64>>,
    length: usize,
}

impl Turns {
    /// Lets `id` wait for a turn of `key`.
    pub(super) fn push(&mut self, key: Option<ClientKey>, id: u64) {
        let waiting = self.waiting.entry(key).or_default();
        if waiting.is_empty() {
            self.order.push_back(key);
        }
        waiting.push_back(id);
        self.length += 1;
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let key = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&key)?;
        let id = waiting.pop_front()?;
        self.length -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.order.push_back(key);
        }
        Some(id)
    }

    /// Takes `id` out, if it waits.
    pub(super) fn remove(&mut self, key: Option<ClientKey>, id: u64) {
        let Some(waiting) = self.waiting.get_mut(&key) else { return };
        let Some(position) = waiting.iter().position(|other| *other == id) else { return };
        waiting.remove(position);
        self.length -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&key);
            self.order.retain(|other| *other != key);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

/// The queue for workers.
#[derive(Debug)]
pub(super) struct Queue {
    workers: usize,
    /// Workers that one lane may hold.
    most: usize,
    /// For each lane and kind, what waits.
    lanes: [[Turns; KINDS.len()]; 2],
    at_work: Vec<Work>,
    /// The lane, and the kind in it, that are asked first next time.
    first: (usize, usize),
}

/// What a worker was given.
#[derive(Debug)]
struct Work {
    id: u64,
    lane: usize,
    kind: Kind,
    since: Instant,
}

/// A small answer is complete within this time, and a piece that goes on has found its pace.
const MOMENT: Duration = Duration::from_millis(2);

impl Queue {
    /// A queue for `workers`.
    pub(super) fn new(workers: usize) -> Queue {
        Queue {
            workers,
            most: workers.saturating_sub(2).max(1),
            lanes: Default::default(),
            at_work: Vec::with_capacity(workers),
            first: (0, 0),
        }
    }

    /// Lets `id` wait for a worker.
    pub(super) fn push(&mut self, (lane, key): (Lane, Option<ClientKey>), kind: Kind, id: u64) {
        self.lanes[lane as usize][kind as usize].push(key, id);
    }

    /// What a free worker should do now; `pieces`: that may be sending content. It counts as given
    /// at `now`.
    pub(super) fn pop(&mut self, now: Instant, pieces: bool) -> Option<u64> {
        if self.is_exhausted() {
            return None;
        }
        let (first_lane, first_kind) = self.first;
        for lane in [first_lane, 1 - first_lane] {
            let held = self.at_work.iter().filter(|work| work.lane == lane).count();
            if held >= self.most {
                continue;
            }
            for number in (first_kind..first_kind + KINDS.len()).map(|kind| kind % KINDS.len()) {
                let kind = KINDS[number];
                if self.may_begin(kind, pieces)
                    && let Some(id) = self.lanes[lane][number].pop()
                {
                    self.at_work.push(Work { id, lane, kind, since: now });
                    self.first = (1 - lane, (number + 1) % KINDS.len());
                    return Some(id);
                }
            }
        }
        None
    }

    /// A walk may take long, and must not wait where a worker could do something else.
    fn may_begin(&self, kind: Kind, pieces: bool) -> bool {
        match kind {
            Kind::Request => true,
            Kind::Piece => pieces,
            Kind::Walk => {
                self.at_work.iter().filter(|work| work.kind == Kind::Walk).count() < WALKS
            }
        }
    }

    /// The worker that was given `id` is free again.
    pub(super) fn worker_is_free(&mut self, id: u64) {
        self.at_work.retain(|work| work.id != id);
    }

    /// Workers that are at something.
    pub(super) fn busy(&self) -> usize {
        self.at_work.len()
    }

    /// Whether every worker is at something.
    pub(super) fn is_exhausted(&self) -> bool {
        self.at_work.len() >= self.workers
    }

    /// Takes `id` out, if it waits.
    pub(super) fn remove(&mut self, (lane, key): (Lane, Option<ClientKey>), id: u64) {
        self.lanes[lane as usize].iter_mut().for_each(|turns| turns.remove(key, id));
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().flatten().map(Turns::len).sum()
    }

    /// How many workers have been at something for more than a moment.
    pub(super) fn long(&self, now: Instant) -> usize {
        self.at_work.iter().filter(|work| now >= work.since + MOMENT).count()
    }

    /// When [`Queue::long`] grows next, if more than `pullers` workers are needed then.
    pub(super) fn next_long(&self, pullers: usize, now: Instant) -> Option<Instant> {
        let fresh = self.at_work.iter().map(|work| work.since + MOMENT).filter(|end| *end > now);
        fresh.min().filter(|_| self.at_work.len() > pullers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<ClientKey> = Some(ClientKey::V4(1));
    const B: Option<ClientKey> = Some(ClientKey::V4(2));

    #[test]
    fn addresses_take_turns() {
        let mut queue = Queue::new(9);
        for id in 1..=4 {
            queue.push((Lane::Files, A), Kind::Piece, id);
        }
        queue.push((Lane::Files, B), Kind::Piece, 5);
        queue.push((Lane::Files, B), Kind::Piece, 6);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(Instant::now(), true)).collect();
        assert_eq!(order, [1, 5, 2, 6, 3, 4]);
        assert_eq!((queue.len(), queue.at_work.len()), (0, 6));
    }

    #[test]
    fn only_against_free_workers() {
        let mut queue = Queue::new(3);
        for id in 1..=3 {
            queue.push((Lane::Files, A), Kind::Piece, id);
        }
        assert_eq!(
            (queue.pop(Instant::now(), true), queue.pop(Instant::now(), true)),
            (Some(1), None)
        );
        queue.worker_is_free(1);
        assert_eq!(queue.pop(Instant::now(), true), Some(2));
    }

    #[test]
    fn a_directory_that_stalls_leaves_two_workers_to_the_other() {
        let mut queue = Queue::new(8);
        for id in 0..20 {
            queue.push((Lane::Backups, A), Kind::Piece, id);
        }
        assert_eq!(std::iter::from_fn(|| queue.pop(Instant::now(), true)).count(), 6);
        queue.push((Lane::Files, B), Kind::Piece, 20);
        queue.push((Lane::Files, A), Kind::Piece, 21);
        queue.push((Lane::Files, A), Kind::Piece, 22);
        assert_eq!(
            (
                queue.pop(Instant::now(), true),
                queue.pop(Instant::now(), true),
                queue.pop(Instant::now(), true)
            ),
            (Some(20), Some(21), None)
        );
        assert_eq!(queue.at_work.len(), 8);
    }

    #[test]
    fn few_walks_run_at_a_time() {
        let mut queue = Queue::new(9);
        (1..=4).for_each(|id| queue.push((Lane::Files, A), Kind::Walk, id));
        queue.push((Lane::Files, A), Kind::Piece, 5);
        let all = |queue: &mut Queue| -> Vec<u64> {
            std::iter::from_fn(|| queue.pop(Instant::now(), true)).collect()
        };
        assert_eq!(all(&mut queue), [5, 1, 2]);
        queue.worker_is_free(2);
        queue.remove((Lane::Files, A), 3);
        assert_eq!((all(&mut queue), queue.len()), (vec![4], 0));
    }

    #[test]
    fn what_left_is_not_given_out() {
        let mut queue = Queue::new(4);
        queue.push((Lane::Files, A), Kind::Piece, 1);
        queue.push((Lane::Files, A), Kind::Piece, 2);
        queue.remove((Lane::Files, A), 1);
        queue.remove((Lane::Files, A), 1);
        assert_eq!(
            (queue.pop(Instant::now(), true), queue.pop(Instant::now(), true)),
            (Some(2), None)
        );
        queue.push((Lane::Files, A), Kind::Piece, 3);
        assert_eq!(queue.pop(Instant::now(), true), Some(3));
    }

    #[test]
    fn answers_do_not_wait_for_bandwidth() {
        let mut queue = Queue::new(9);
        queue.push((Lane::Files, A), Kind::Piece, 1);
        queue.push((Lane::Files, B), Kind::Request, 2);
        let now = Instant::now();
        assert_eq!((queue.pop(now, false), queue.pop(now, false)), (Some(2), None));
        assert_eq!(queue.pop(now, true), Some(1));
    }
}
