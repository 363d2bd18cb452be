//! Who gets the next free worker: addresses take turns, so that sixteen streams of one client weigh
//! as much as one stream of another; and no directory gets all workers, so that a disk which stalls
//! holds only its own.

use std::collections::{HashMap, VecDeque};

use crate::net::address::ClientKey;

/// Which of the two directories a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// `system.data`
    Files,
    /// `system.backup_directory`
    Backups,
}

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
    free: usize,
    /// Workers that one lane may hold.
    most: usize,
    lanes: [Turns; 2],
    at_work: [usize; 2],
    /// The lane that is asked first next time.
    first: usize,
}

impl Queue {
    /// A queue for `workers`.
    pub(super) fn new(workers: usize) -> Queue {
        Queue {
            free: workers,
            most: workers.saturating_sub(2).max(1),
            lanes: Default::default(),
            at_work: [0; 2],
            first: 0,
        }
    }

    /// Lets `id` wait for a worker.
    pub(super) fn push(&mut self, (lane, key): (Lane, Option<ClientKey>), id: u64) {
        self.lanes[lane as usize].push(key, id);
    }

    /// What a free worker should do now. It counts as given.
    pub(super) fn pop(&mut self) -> Option<u64> {
        if self.free == 0 {
            return None;
        }
        for lane in [self.first, 1 - self.first] {
            if self.at_work[lane] < self.most
                && let Some(id) = self.lanes[lane].pop()
            {
                self.free -= 1;
                self.at_work[lane] += 1;
                self.first = 1 - lane;
                return Some(id);
            }
        }
        None
    }

    /// A worker of `lane` is free again.
    pub(super) fn worker_is_free(&mut self, lane: Lane) {
        self.free += 1;
        self.at_work[lane as usize] -= 1;
    }

    /// Takes `id` out, if it waits.
    pub(super) fn remove(&mut self, (lane, key): (Lane, Option<ClientKey>), id: u64) {
        self.lanes[lane as usize].remove(key, id);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(Turns::len).sum()
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
            queue.push((Lane::Files, A), id);
        }
        queue.push((Lane::Files, B), 5);
        queue.push((Lane::Files, B), 6);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 5, 2, 6, 3, 4]);
        assert_eq!((queue.len(), queue.free), (0, 3));
    }

    #[test]
    fn only_against_free_workers() {
        let mut queue = Queue::new(3);
        for id in 1..=3 {
            queue.push((Lane::Files, A), id);
        }
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
        queue.worker_is_free(Lane::Files);
        assert_eq!(queue.pop(), Some(2));
    }

    #[test]
    fn a_directory_that_stalls_leaves_two_workers_to_the_other() {
        let mut queue = Queue::new(8);
        for id in 0..20 {
            queue.push((Lane::Backups, A), id);
        }
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 6);
        queue.push((Lane::Files, B), 20);
        queue.push((Lane::Files, A), 21);
        queue.push((Lane::Files, A), 22);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(20), Some(21), None));
        assert_eq!(queue.free, 0);
    }

    #[test]
    fn what_left_is_not_given_out() {
        let mut queue = Queue::new(4);
        queue.push((Lane::Files, A), 1);
        queue.push((Lane::Files, A), 2);
        queue.remove((Lane::Files, A), 1);
        queue.remove((Lane::Files, A), 1);
        assert_eq!((queue.pop(), queue.pop()), (Some(2), None));
        queue.push((Lane::Files, A), 3);
        assert_eq!(queue.pop(), Some(3));
    }
}
