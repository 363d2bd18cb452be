//! Tests of the table: who may use a link, how many links there may be, and what a restart keeps.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::Clock;
use crate::config::Reuse;
use crate::link::token::Used;
use crate::net::address::ClientKey;

const NOW: u64 = 1_800_000_000;
const LENGTH: u64 = 1000;
const SUBJECT: FileVersion = FileVersion { tag: 7, length: LENGTH };
const RULES: Rules = Rules { reuse: Reuse::Resume, window: 86_400, bind: true };
const ALL: StreamEnd = StreamEnd { sent: LENGTH, acknowledged: LENGTH, orderly: true };

/// A state directory of its own, removed in the end.
pub(super) struct State(pub(super) PathBuf);

impl State {
    pub(super) fn new() -> State {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("winglet-replay-{}-{count}", std::process::id());
        State(std::env::temp_dir().join(name))
    }

    pub(super) fn open(&self, rules: &Rules) -> Arc<Replay> {
        Arc::new(Replay::with_journal(65_536, &self.0, rules, NOW).unwrap())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn client(address: &str) -> Option<ClientKey> {
    Some(ClientKey::of(address.parse().unwrap()))
}

pub(super) fn request(link: u64) -> ClaimRequest {
    ClaimRequest {
        key: key_of(&link.to_string()),
        resource: [1; 16],
        client: client("192.0.2.1"),
        expires: NOW + 900,
        expired: false,
    }
}

fn memory() -> Arc<Replay> {
    Arc::new(Replay::in_memory(65_536))
}

fn claim(replay: &Arc<Replay>, request: &ClaimRequest, now: u64) -> Result<Stream, Refusal> {
    replay.claim(request, &RULES, now, &SUBJECT, &(0..LENGTH)).map(Option::unwrap)
}

/// Why a link is refused.
fn used(result: Result<Stream, Refusal>) -> Used {
    match result.map(|_| ()) {
        Err(Refusal::Token(TokenFault::Used(used))) => used,
        other => panic!("{other:?}"),
    }
}

pub(super) fn deliver(replay: &Arc<Replay>, request: &ClaimRequest) {
    let stream = claim(replay, request, NOW).unwrap();
    assert!(stream.finish(&ALL).record().unwrap().spent);
}

#[test]
fn a_link_is_bound_to_its_first_client_and_its_resource() {
    let replay = memory();
    let first = request(1);
    let stream = claim(&replay, &first, NOW).unwrap();
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..first };
    assert_eq!(used(claim(&replay, &elsewhere, NOW)), Used::OtherAddress);
    assert_eq!(
        used(claim(&replay, &ClaimRequest { client: None, ..first }, NOW)),
        Used::OtherAddress
    );
    let other = ClaimRequest { resource: [2; 16], ..first };
    assert_eq!(used(claim(&replay, &other, NOW)), Used::OtherResource);
    assert!(replay.check(&first, &RULES, NOW).is_ok());
    stream.finish(&ALL).record();
    assert_eq!(used(claim(&replay, &first, NOW)), Used::Spent);
    assert!(replay.check(&first, &RULES, NOW).is_err());
}

#[test]
fn one_64_is_one_client_and_the_next_is_another() {
    let replay = memory();
    let first = ClaimRequest { client: client("2001:db8::1"), ..request(1) };
    drop(claim(&replay, &first, NOW).unwrap());
    let neighbour = ClaimRequest { client: client("2001:db8::ffff:2"), ..first };
    drop(claim(&replay, &neighbour, NOW).unwrap());
    let stranger = ClaimRequest { client: client("2001:db8:0:1::1"), ..first };
    assert_eq!(used(claim(&replay, &stranger, NOW)), Used::OtherAddress);
}

#[test]
fn without_binding_or_an_address_nothing_is_bound() {
    let replay = memory();
    let rules = Rules { bind: false, ..RULES };
    let first = request(1);
    let claim_with = |rules: &Rules, request: &ClaimRequest| {
        replay.claim(request, rules, NOW, &SUBJECT, &(0..LENGTH)).map(drop)
    };
    claim_with(&rules, &first).unwrap();
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..first };
    claim_with(&rules, &elsewhere).unwrap();
    let unknown = ClaimRequest { client: None, ..request(2) };
    claim_with(&RULES, &unknown).unwrap();
    claim_with(&RULES, &ClaimRequest { client: client("192.0.2.2"), ..unknown }).unwrap();
}

#[test]
fn of_two_first_requests_at_once_one_wins() {
    for round in 0..200 {
        let replay = memory();
        let barrier = std::sync::Barrier::new(4);
        let wins: usize = std::thread::scope(|scope| {
            let racer = |address: String| {
                let (replay, barrier) = (&replay, &barrier);
                scope.spawn(move || {
                    let request = ClaimRequest { client: client(&address), ..request(round) };
                    barrier.wait();
                    claim(replay, &request, NOW).map(drop).is_ok() as usize
                })
            };
            let racers: Vec<_> = (1..=4).map(|i| racer(format!("192.0.2.{i}"))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(wins, 1);
        assert_eq!(replay.tracked(), 1);
    }
}

#[test]
fn expiry_and_window() {
    let replay = memory();
    let late = ClaimRequest { expired: true, ..request(1) };
    let refused = claim(&replay, &late, NOW + 900).map(drop);
    assert!(matches!(refused, Err(Refusal::Token(TokenFault::Expired))));
    assert_eq!(replay.tracked(), 0);
    drop(claim(&replay, &request(1), NOW).unwrap());
    drop(claim(&replay, &late, NOW + 86_399).unwrap());
    assert_eq!(used(claim(&replay, &late, NOW + 86_400)), Used::WindowOver);
    replay.maintain(&RULES, NOW + 86_400 + AFTERLIFE - 1);
    assert_eq!(used(claim(&replay, &late, NOW + 86_400 + AFTERLIFE - 1)), Used::WindowOver);
    replay.maintain(&RULES, NOW + 86_400 + AFTERLIFE);
    assert_eq!(replay.tracked(), 0);
}

#[test]
fn a_spent_link_outlives_its_token_by_an_hour() {
    let replay = memory();
    deliver(&replay, &request(1));
    replay.maintain(&RULES, NOW + 900 + AFTERLIFE - 1);
    assert_eq!(used(claim(&replay, &request(1), NOW)), Used::Spent);
    replay.maintain(&RULES, NOW + 900 + AFTERLIFE);
    assert_eq!((replay.tracked(), replay.standing(&request(1).key)), (0, LinkStatus::Unused));
}

#[test]
fn running_streams_keep_their_entry_whatever_expires() {
    let replay = memory();
    let subject = FileVersion { tag: 7, length: 100 << 20 };
    let claim = || replay.claim(&request(1), &RULES, NOW, &subject, &(0..subject.length));
    let (mut first, mut second) = (claim().unwrap().unwrap(), claim().unwrap().unwrap());
    let mut reserved = 0;
    while reserved < subject.length {
        reserved = first.reserve(reserved).unwrap();
    }
    let all = StreamEnd { sent: subject.length, acknowledged: subject.length, orderly: true };
    assert!(first.finish(&all).record().unwrap().spent);
    let late = NOW + 900 + AFTERLIFE + 1;
    replay.maintain(&RULES, late);
    assert!(second.reserve(STEP_BYTES).is_some(), "an overlapping download may complete");
    second.finish(&all).record();
    replay.maintain(&RULES, late + RUNNING_KEPT);
    assert_eq!(replay.tracked(), 0);
}

#[test]
fn a_link_has_sixteen_streams() {
    let replay = memory();
    let mut streams: Vec<_> =
        (0..MAX_STREAMS).map(|_| claim(&replay, &request(1), NOW).unwrap()).collect();
    let refused = claim(&replay, &request(1), NOW).map(drop);
    assert!(matches!(refused, Err(Refusal::Busy(Busy::LinkShare))));
    streams.pop();
    drop(claim(&replay, &request(1), NOW).unwrap());
}

#[test]
fn once_and_resume_read_each_others_journals() {
    let once = Rules { reuse: Reuse::Once, ..RULES };
    let state = State::new();
    let replay = state.open(&RULES);
    let stream = claim(&replay, &request(1), NOW).unwrap();
    stream.finish(&StreamEnd { sent: 500, acknowledged: 500, orderly: false }).record();
    deliver(&replay, &request(2));
    drop(replay);
    let replay = state.open(&once);
    for link in [1, 2] {
        let again = replay.claim(&request(link), &once, NOW, &SUBJECT, &(0..LENGTH));
        assert!(matches!(again, Err(Refusal::Token(TokenFault::Used(Used::Spent)))), "{link}");
    }
    let first = replay.claim(&request(3), &once, NOW, &SUBJECT, &(0..LENGTH));
    assert!(matches!(first, Ok(None)));
    drop(replay);
    let replay = state.open(&RULES);
    for link in [2, 3] {
        assert_eq!(used(claim(&replay, &request(link), NOW)), Used::Spent);
    }
    let rest = replay.claim(&request(1), &RULES, NOW, &SUBJECT, &(500..LENGTH));
    let ending = StreamEnd { sent: 500, acknowledged: 500, orderly: true };
    assert!(rest.unwrap().unwrap().finish(&ending).record().unwrap().spent);
}

#[test]
fn the_budget_holds_over_changes_of_the_file_and_restarts() {
    let state = State::new();
    let mut sent = 0;
    let budget = 3 * LENGTH + (64 << 20);
    let request = request(1);
    'runs: loop {
        let replay = state.open(&RULES);
        for round in 0..1000 {
            // The file changes and grows; the last byte is never fetched.
            let subject = FileVersion { tag: round, length: 100_000 + round };
            let subject = if sent == 0 { SUBJECT } else { subject };
            let span = 0..subject.length - 1;
            match replay.claim(&request, &RULES, NOW, &subject, &span) {
                Ok(stream) => {
                    let bytes = span.end;
                    sent += bytes;
                    let ending = StreamEnd { sent: bytes, acknowledged: bytes, orderly: true };
                    stream.unwrap().finish(&ending).record();
                }
                Err(Refusal::Token(TokenFault::Used(Used::BudgetSpent))) => break 'runs,
                Err(other) => panic!("{other:?}"),
            }
            if round % 100 == 99 {
                continue 'runs;
            }
        }
    }
    assert!(sent <= budget && sent > budget - budget / 50, "{sent} of {budget}");
}

#[test]
fn the_table_is_bounded_and_serves_again_as_links_expire() {
    const BOUND: u64 = 65_536;
    let replay = memory();
    let time = Arc::new(AtomicU64::new(NOW));
    let clock = Clock::Fixed(Arc::clone(&time));
    let before = resident_kib();
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    for link in 0..BOUND {
        let one = Instant::now();
        let request = ClaimRequest { expires: NOW + 900 + link % 100, ..request(link) };
        drop(claim(&replay, &request, clock.unix()).unwrap());
        slowest = slowest.max(one.elapsed());
    }
    let each = start.elapsed() / BOUND as u32;
    let grown = resident_kib().saturating_sub(before);
    println!("{BOUND} links: {grown} KiB, {each:?} a claim and end, slowest {slowest:?}");
    let refused = claim(&replay, &request(BOUND), clock.unix()).map(drop);
    assert!(matches!(refused, Err(Refusal::Busy(Busy::Tracked))), "{refused:?}");
    // Those in the table go on.
    drop(claim(&replay, &request(0), clock.unix()).unwrap());
    assert_eq!(replay.tracked() as u64, BOUND);

    let mut longest = Duration::ZERO;
    for second in 0..200 {
        time.store(NOW + RULES.window + AFTERLIFE - 100 + second, Ordering::Relaxed);
        let one = Instant::now();
        replay.maintain(&RULES, clock.unix());
        longest = longest.max(one.elapsed());
    }
    println!("longest round of housekeeping: {longest:?}");
    assert_eq!(replay.tracked(), 0);
    drop(claim(&replay, &request(BOUND), NOW).unwrap());
}

#[test]
fn claims_go_on_while_everything_expires_at_once() {
    let replay = memory();
    for link in 0..60_000 {
        drop(claim(&replay, &request(link), NOW).unwrap());
    }
    let end = NOW + RULES.window + AFTERLIFE;
    let done = AtomicBool::new(false);
    let (slowest, count) = std::thread::scope(|scope| {
        let claims = scope.spawn(|| {
            let (mut slowest, mut count) = (Duration::ZERO, 0u64);
            while !done.load(Ordering::Relaxed) && count < 5000 {
                let one = Instant::now();
                drop(claim(&replay, &request(1_000_000 + count), end).unwrap());
                slowest = slowest.max(one.elapsed());
                count += 1;
            }
            (slowest, count)
        });
        replay.maintain(&RULES, end);
        done.store(true, Ordering::Relaxed);
        claims.join().unwrap()
    });
    println!("{count} claims while 60000 links expired, slowest {slowest:?}");
    assert_eq!(replay.tracked() as u64, count);
}

#[test]
fn keys_tell_links_apart_and_resources_endpoints() {
    let keys: HashSet<Key> = (0..10_000).map(|i: u32| key_of(&i.to_string())).collect();
    assert_eq!(keys.len(), 10_000);
    let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
    let backup: crate::link::Uuid = "3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6".parse().unwrap();
    let path = backup.to_string();
    let server2: crate::link::Uuid = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
    let file = hash_of(&Resource::File { server, path });
    assert_ne!(file, hash_of(&Resource::Backup { server: server2, backup }));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
