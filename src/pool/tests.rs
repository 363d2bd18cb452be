//! The pool with jobs of the tests' own.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::buckets::Flow;
use super::private::PrivateSocket;
use super::queue::{AWAKE, Calls, Kind, Lane, Ticket};
use super::returns::Waker;
use super::*;
use crate::net::address::ClientKey;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a job does.
enum Job {
    Answer,
    Panic,
    /// Says that it runs, and waits to be told that it may end.
    Stand(Sender<u64>, Receiver<()>),
}

struct Bench {
    pool: Pool,
    private: PrivateSocket,
    exchange: Arc<Exchange<Job, ()>>,
}

fn bench(workers: usize) -> Bench {
    let (server, private) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
    let returns = Returns::new(Arc::new(Waker::new().unwrap()));
    let exchange = Arc::new(Exchange { queue: Queue::new(workers), returns });
    let work = |id, job| match job {
        Job::Answer => {}
        Job::Panic => panic!("provoked"),
        Job::Stand(begun, end) => {
            begun.send(id).unwrap();
            let _ = end.recv();
        }
    };
    let pool = Pool::start(workers, server, &exchange, work).unwrap();
    Bench { pool, private, exchange }
}

impl Bench {
    fn push(&self, ticket: Ticket, job: Job) {
        self.exchange.queue.push(ticket, job);
    }

    /// Calls workers for what waits, as the acceptor does.
    fn call(&mut self) -> Calls {
        let calls = self.exchange.queue.calls(Instant::now());
        self.private.call(calls.count).unwrap();
        calls
    }

    /// Calls workers until `count` jobs have come back.
    fn finish(&mut self, count: usize) -> Vec<(u64, bool)> {
        let end = Instant::now() + PATIENCE;
        let mut returned = Vec::new();
        while returned.len() < count {
            assert!(Instant::now() < end, "{returned:?}");
            self.call();
            returned.extend(self.exchange.returns.take().iter().map(|(id, r)| (*id, r.is_some())));
            thread::yield_now();
        }
        returned
    }
}

fn ticket(id: u64, kind: Kind, lane: Lane) -> Ticket {
    Ticket { id, kind, lane, client: Some(ClientKey::V4(id as u32)) }
}

fn answer(id: u64) -> Ticket {
    ticket(id, Kind::Answer, Lane::Files)
}

#[test]
fn a_panic_costs_one_job_and_no_worker() {
    let mut bench = bench(1);
    bench.push(answer(1), Job::Panic);
    bench.push(answer(2), Job::Answer);
    assert_eq!(bench.finish(2), [(1, false), (2, true)]);
}

#[test]
fn every_worker_ends_when_the_pool_is_closed() {
    let bench = bench(4);
    bench.pool.close();
    let end = Instant::now() + PATIENCE;
    while !bench.pool.workers.iter().all(thread::JoinHandle::is_finished) {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
}

#[test]
fn one_call_serves_many_jobs() {
    let mut bench = bench(1);
    for id in 0..100 {
        bench.push(answer(id), Job::Answer);
    }
    assert_eq!(bench.call().count, 1);
    bench.finish(100);
    assert_eq!(bench.call(), Calls::default());
}

/// Jobs that stand until they are dropped.
fn stand(bench: &Bench, tickets: &[Ticket]) -> (Receiver<u64>, Vec<Sender<()>>) {
    let (begun, begins) = channel();
    let ends = tickets.iter().map(|ticket| {
        let (end, ended) = channel();
        bench.push(*ticket, Job::Stand(begun.clone(), ended));
        end
    });
    (begins, ends.collect())
}

/// Calls until `count` jobs run, and then for a while until it is clear that no more will.
fn running(bench: &mut Bench, begins: &Receiver<u64>, count: usize) -> Vec<u64> {
    let end = Instant::now() + PATIENCE;
    let mut ids = Vec::new();
    while ids.len() < count {
        assert!(Instant::now() < end, "{ids:?}");
        bench.call();
        ids.extend(begins.try_iter());
        thread::yield_now();
    }
    let awake = Instant::now() + Duration::from_millis(20);
    while Instant::now() < awake {
        bench.call();
        thread::yield_now();
    }
    ids.extend(begins.try_iter());
    ids.sort_unstable();
    ids
}

#[test]
fn a_lane_leaves_two_workers_to_the_other() {
    let mut bench = bench(4);
    let files: Vec<_> = (0..4).map(answer).collect();
    let (begins, ends) = stand(&bench, &files);
    assert_eq!(running(&mut bench, &begins, 2), [0, 1]);
    bench.push(ticket(9, Kind::Answer, Lane::Backups), Job::Answer);
    assert_eq!(bench.finish(1), [(9, true)]);
    assert!(!bench.exchange.queue.is_stuck(Duration::ZERO, Instant::now()));
    let backups: Vec<_> = (10..12).map(|id| ticket(id, Kind::Answer, Lane::Backups)).collect();
    let (more, last) = stand(&bench, &backups);
    assert_eq!(running(&mut bench, &more, 2), [10, 11]);
    assert!(bench.exchange.queue.is_stuck(Duration::ZERO, Instant::now()));
    drop((ends, last));
    bench.finish(6);
}

#[test]
fn handshakes_and_walks_leave_the_other_workers_alone() {
    let mut bench = bench(8);
    let hands: Vec<_> = (0..3).map(|id| ticket(id, Kind::Handshake, Lane::None)).collect();
    let (begins, ends) = stand(&bench, &hands);
    assert_eq!(running(&mut bench, &begins, 1), [0]);
    let walk = |id| ticket(id, Kind::Walk(u128::from(id)), Lane::Files);
    let walks: Vec<_> = (10..14).map(walk).collect();
    let (walking, walk_ends) = stand(&bench, &walks);
    assert_eq!(running(&mut bench, &walking, 2), [10, 11]);
    bench.push(answer(20), Job::Answer);
    assert_eq!(bench.finish(1), [(20, true)]);
    drop((ends, walk_ends));
    bench.finish(7);
}

/// Sixteen addresses that complete handshakes made answers wait for two milliseconds more.
#[test]
fn answers_need_not_wait_for_a_handshake() {
    let (queue, now) = (Queue::new(8), Instant::now());
    let more = *AWAKE - 1;
    queue.push(ticket(0, Kind::Handshake, Lane::None), ());
    (1..=more as u64).for_each(|id| queue.push(answer(id), ()));
    assert_eq!(queue.calls(now).count, more + 1);
    (0..=more).for_each(|worker| assert!(queue.next(worker).is_some()));
    queue.push(answer(99), ());
    assert_eq!(queue.calls(now).count, 1);
}

#[test]
fn what_waits_can_be_taken_back() {
    let bench = bench(1);
    let kinds = [Kind::Answer, Kind::Step(1), Kind::Handshake, Kind::Walk(1)];
    for (id, kind) in kinds.into_iter().enumerate() {
        let ticket = ticket(id as u64, kind, Lane::Files);
        bench.push(ticket, Job::Answer);
        assert_eq!(bench.exchange.queue.waiting(), 1);
        assert!(bench.exchange.queue.take_back(&ticket).is_some());
        assert!(bench.exchange.queue.take_back(&ticket).is_none());
        assert_eq!(bench.exchange.queue.waiting(), 0);
    }
}

#[test]
fn pieces_wait_for_the_common_bandwidth_and_answers_do_not() {
    let mut bench = bench(2);
    let flow = Flow { rate: 1.0, depth: 10.0 };
    bench.exchange.queue.limit(Some((flow, 10.0)), Instant::now());
    bench.push(ticket(1, Kind::Step(10), Lane::Files), Job::Answer);
    assert_eq!(bench.finish(1), [(1, true)]);
    bench.push(ticket(2, Kind::Step(10), Lane::Files), Job::Answer);
    bench.push(answer(3), Job::Answer);
    assert_eq!(bench.finish(1), [(3, true)]);
    let calls = bench.call();
    assert!(calls.count == 0 && calls.again.is_some(), "{calls:?}");
    bench.exchange.queue.settle(10.0);
    assert_eq!(bench.finish(1), [(2, true)]);
}
