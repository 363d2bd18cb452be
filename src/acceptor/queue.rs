//! Who gets the next free worker: oldest request first, and no client more than its share.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::net::address::ClientKey;

/// Requests that wait for a worker, by the number of their connection.
#[derive(Debug)]
pub(super) struct Queue {
    /// Workers that wait for a request.
    free: usize,
    share: usize,
    ready: VecDeque<u64>,
    /// Requests that were given out a moment ago, oldest first.
    fresh: VecDeque<(Instant, u64)>,
    /// How many of those there may be.
    window: usize,
    /// Requests that have been at a worker for longer.
    long: HashSet<u64>,
    clients: HashMap<ClientKey, Client>,
}

#[derive(Debug, Default)]
struct Client {
    /// Workers that it holds, and requests of it in `ready`.
    streams: usize,
    /// Requests that wait for one of those to end.
    blocked: VecDeque<u64>,
}

/// A request counts as fresh this long: a small answer is complete by then, and a large one has
/// gone to waiting for its client.
const FRESH: Duration = Duration::from_millis(3);

impl Queue {
    /// A queue for `workers`, of which `window` at most are set to work at the same moment. More
    /// than the processors can run would only fight for locks and caches: with 32 connections on
    /// two cores that took a third of the speed away.
    pub(super) fn new(workers: usize, window: usize, share: usize) -> Queue {
        Queue {
            free: workers,
            share,
            ready: VecDeque::new(),
            fresh: VecDeque::with_capacity(window),
            window,
            long: HashSet::new(),
            clients: HashMap::new(),
        }
    }

    /// Changes the share of one client; what runs goes on.
    pub(super) fn set_share(&mut self, share: usize) {
        self.share = share;
    }

    /// Queues `number` for `client`. `None` where no address is known: nothing to share by.
    pub(super) fn push(&mut self, number: u64, client: Option<ClientKey>) {
        if let Some(key) = client {
            let client = self.clients.entry(key).or_default();
            if client.streams >= self.share {
                client.blocked.push_back(number);
                return;
            }
            client.streams += 1;
        }
        self.ready.push_back(number);
    }

    /// Requests of `client` that wait because it has its share of workers.
    pub(super) fn blocked_of(&self, client: ClientKey) -> usize {
        self.clients.get(&client).map_or(0, |client| client.blocked.len())
    }

    /// The request that a free worker should have now. It counts as given.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u64> {
        self.long(now);
        if self.free == 0 || self.fresh.len() >= self.window {
            return None;
        }
        let number = self.ready.pop_front()?;
        self.free -= 1;
        self.fresh.push_back((now, number));
        Some(number)
    }

    /// The worker that was given `number` is free again.
    pub(super) fn worker_is_free(&mut self, number: u64) {
        self.free += 1;
        if !self.long.remove(&number) {
            self.fresh.retain(|(_, fresh)| *fresh != number);
        }
    }

    /// How many requests have been at a worker for longer than a moment.
    pub(super) fn long(&mut self, now: Instant) -> usize {
        while self.fresh.front().is_some_and(|(given, _)| now >= *given + FRESH) {
            self.long.extend(self.fresh.pop_front().map(|(_, number)| number));
        }
        self.long.len()
    }

    /// When the oldest fresh request stops being fresh.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        self.fresh.front().map(|(given, _)| *given + FRESH)
    }

    /// A request of `client` is over, in the queue or at a worker.
    pub(super) fn end(&mut self, client: Option<ClientKey>) {
        let Some(key) = client else { return };
        let Some(client) = self.clients.get_mut(&key) else { return };
        match client.blocked.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => {
                client.streams -= 1;
                if client.streams == 0 {
                    self.clients.remove(&key);
                }
            }
        }
    }

    /// Takes `number` out, wherever it waits. Whether it waited for its client's other streams
    /// rather than for a worker.
    pub(super) fn remove(&mut self, number: u64, client: Option<ClientKey>) -> bool {
        if let Some(blocked) = client.and_then(|key| self.clients.get_mut(&key))
            && let Some(position) = blocked.blocked.iter().position(|other| *other == number)
        {
            blocked.blocked.remove(position);
            return true;
        }
        self.ready.retain(|other| *other != number);
        self.end(client);
        false
    }

    /// Whether anything waits that a free worker could have.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<ClientKey> = Some(ClientKey::V4(1));
    const B: Option<ClientKey> = Some(ClientKey::V4(2));

    #[test]
    fn oldest_first_against_free_workers() {
        let mut queue = Queue::new(2, 9, 16);
        for number in 1..=3 {
            queue.push(number, None);
        }
        let now = Instant::now();
        assert_eq!((queue.pop(now), queue.pop(now), queue.pop(now)), (Some(1), Some(2), None));
        queue.end(None);
        queue.worker_is_free(1);
        assert_eq!(queue.pop(now), Some(3));
    }

    #[test]
    fn a_burst_is_given_out_in_steps() {
        let mut queue = Queue::new(9, 2, 16);
        for number in 1..=5 {
            queue.push(number, None);
        }
        let now = Instant::now();
        assert_eq!((queue.pop(now), queue.pop(now), queue.pop(now)), (Some(1), Some(2), None));
        queue.worker_is_free(2);
        assert_eq!((queue.pop(now), queue.pop(now)), (Some(3), None));
        let turn = queue.next_turn().unwrap();
        assert_eq!((queue.pop(turn), queue.pop(turn)), (Some(4), Some(5)));
    }

    #[test]
    fn a_client_over_its_share_lets_others_pass() {
        let mut queue = Queue::new(9, 9, 2);
        for number in 1..=4 {
            queue.push(number, A);
        }
        queue.push(5, B);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(Instant::now())).collect();
        assert_eq!(order, [1, 2, 5]);
        queue.end(A);
        assert_eq!(queue.pop(Instant::now()), Some(3));
        assert!(queue.remove(4, A));
        for _ in 0..2 {
            queue.end(A);
        }
        queue.end(B);
        assert!(queue.clients.is_empty());
    }

    #[test]
    fn removing_a_queued_request_frees_its_place_in_the_share() {
        let mut queue = Queue::new(0, 9, 1);
        queue.push(1, A);
        queue.push(2, A);
        assert!(!queue.remove(1, A));
        queue.worker_is_free(0);
        assert_eq!(queue.pop(Instant::now()), Some(2));
    }
}
