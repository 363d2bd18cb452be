//! Tests of the table: who may use a link, and who not.

mod bounds;
mod clock;
mod holders;
mod properties;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::live::{Phase, Stop};
use super::*;
use crate::link::storage::EntityTag;
use crate::link::token::Used;
use crate::net::address::ClientKey;

pub(super) const NOW: u64 = 1_800_000_000;
/// The same moment by the steady clock. Ahead of what really is, so that there is a time before.
static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(3600));
const LENGTH: u64 = 1000;
const TAG: EntityTag = 7;
const SETTLE: u64 = 600;
pub(super) const RULES: Rules =
    Rules { reuse: Reuse::Resume, window: 86_400, settle: SETTLE, bind: true, alone: false };

/// The table of `directory`, which nobody else has. A child that another test starts has its lock, too,
/// from fork to exec.
pub(super) fn open(bound: usize, directory: &Path, rules: &Rules, now: u64) -> Replay {
    for _ in 0..1000 {
        match Replay::with_journal(bound, directory, rules, now) {
            Err(error) if error.to_string().contains("in use by another server") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.unwrap(),
        }
    }
    panic!("somebody else has {}", directory.display());
}

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
        self.open_at(rules, NOW)
    }

    pub(super) fn open_at(&self, rules: &Rules, now: u64) -> Arc<Replay> {
        Arc::new(open(65_536, &self.0, rules, now))
    }

    /// The table as a server has it that starts after a crash now.
    fn after_a_crash(&self, now: u64) -> (State, Arc<Replay>) {
        let copy = State::new();
        std::fs::create_dir(&copy.0).unwrap();
        std::fs::copy(self.0.join("journal"), copy.0.join("journal")).unwrap();
        let replay = copy.open_at(&RULES, now);
        (copy, replay)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A download of `span` that has just begun.
pub(crate) fn live(span: Range<u64>, tag: EntityTag) -> Live {
    live_of([1; 16], span, tag, Instant::now())
}

/// A download of `span` of the link `link` that began at `began`.
pub(super) fn live_of(link: Key, span: Range<u64>, tag: EntityTag, began: Instant) -> Live {
    let link = LinkId { link, server: Some([2; 16]), user: None, jti: None, issued: None };
    let entry = crate::logging::access::Entry {
        client: None,
        method: "GET",
        endpoint: "file",
        status: 200,
        part: false,
        resource: None,
        began,
        id: String::new(),
    };
    Live::new(entry, link, tag, span, began)
}

/// A stream, with what its sender and everyone else see of it.
struct Run {
    stream: Stream,
    live: Arc<Live>,
}

impl Run {
    /// So many bytes were sent, and so many of them acknowledged `seconds` after the start of all.
    fn note(&self, sent: u64, acknowledged: u64, seconds: u64) {
        self.live.note_sent(sent);
        self.live.note_acknowledged(acknowledged, at(seconds));
        self.live.enter(Phase::Parked);
    }

    /// Ends with `bytes` sent and acknowledged at [`START`].
    fn end(self, bytes: u64, by: EndedBy) -> Progress {
        self.note(bytes, bytes, 0);
        self.stream.finish(by, NOW).record().unwrap()
    }
}

/// `seconds` after the start.
fn at(seconds: u64) -> Instant {
    *START + Duration::from_secs(seconds)
}

fn client(address: &str) -> Option<ClientKey> {
    Some(ClientKey::of(address.parse().unwrap()))
}

pub(super) fn request(link: u64) -> ClaimRequest {
    ClaimRequest {
        key: key_of(&link.to_string()),
        resource: [1; 16],
        server: key_of(&(link % 8).to_string()),
        client: client("192.0.2.1"),
        expires: NOW + 900,
        expired: false,
        at: *START,
    }
}

/// Link 1, from the address 192.0.2.`last`, `seconds` after the start.
fn from(last: u8, seconds: u64) -> ClaimRequest {
    let client = client(&format!("192.0.2.{last}"));
    ClaimRequest { client, at: at(seconds), ..request(1) }
}

fn memory() -> Arc<Replay> {
    Arc::new(Replay::in_memory(65_536))
}

/// Claims `span` of version `tag` of a file.
fn claim_of(
    replay: &Arc<Replay>,
    request: &ClaimRequest,
    (tag, length): (EntityTag, u64),
    span: Range<u64>,
) -> Result<Run, ClaimError> {
    claim_at(replay, request, (tag, length), span, NOW)
}

fn claim_at(
    replay: &Arc<Replay>,
    request: &ClaimRequest,
    (tag, length): (EntityTag, u64),
    span: Range<u64>,
    now: u64,
) -> Result<Run, ClaimError> {
    // Whatever a claim says, a check before it has said.
    let checked = replay.check(request, &RULES, now).err();
    let live = Arc::new(live_of(request.key, span, tag, request.at));
    let claimed = replay.claim(request, &RULES, now, length, &live).map(Option::unwrap);
    assert_eq!(claimed.as_ref().err(), checked.as_ref());
    claimed.map(|stream| Run { stream, live })
}

fn claim(replay: &Arc<Replay>, request: &ClaimRequest, now: u64) -> Result<Run, ClaimError> {
    claim_at(replay, request, (TAG, LENGTH), 0..LENGTH, now)
}

/// Claims a link and drops the stream with one byte acknowledged.
fn touch(replay: &Arc<Replay>, request: &ClaimRequest, now: u64) {
    let run = claim(replay, request, now).unwrap();
    run.note(1, 1, 0);
    let _ = run.stream.finish(EndedBy::Reset, now);
}

/// Why a link is refused for good.
fn used<T>(result: Result<T, ClaimError>) -> Used {
    match result.map(drop) {
        Err(ClaimError::Used(used)) => used,
        other => panic!("{other:?}"),
    }
}

/// For how many seconds it is refused.
fn in_use<T>(result: Result<T, ClaimError>) -> u32 {
    match result.map(drop) {
        Err(ClaimError::InUse(seconds)) => seconds,
        other => panic!("{other:?}"),
    }
}

pub(super) fn deliver(replay: &Arc<Replay>, request: &ClaimRequest) {
    assert!(claim(replay, request, NOW).unwrap().end(LENGTH, EndedBy::Client).spent);
}

/// Lets time pass for the table, in the steps that a housekeeper takes.
fn pass(replay: &Replay, span: Range<u64>) {
    span.step_by(LEAP as usize).for_each(|now| replay.maintain(&RULES, now));
}

#[test]
fn a_link_is_bound_to_its_first_client_and_its_resource() {
    let replay = memory();
    let first = request(1);
    let run = claim(&replay, &first, NOW).unwrap();
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..first };
    assert_eq!(in_use(claim(&replay, &elsewhere, NOW)), 10);
    let unknown = ClaimRequest { client: None, ..first };
    assert_eq!(used(claim(&replay, &unknown, NOW)), Used::OtherAddress);
    let other = ClaimRequest { resource: [2; 16], ..first };
    assert_eq!(used(claim(&replay, &other, NOW)), Used::OtherResource);
    assert_eq!(replay.check(&first, &RULES, NOW).unwrap().version, Some(TAG));
    run.end(LENGTH, EndedBy::Client);
    for request in [first, elsewhere] {
        assert_eq!(used(claim(&replay, &request, NOW)), Used::Spent);
    }
}

#[test]
fn the_check_knows_which_versions_a_link_was_used_for() {
    let state = State::new();
    let replay = state.open(&RULES);
    let seen = |replay: &Arc<Replay>| replay.check(&request(1), &RULES, NOW).unwrap();
    assert_eq!(seen(&replay).version, None);
    assert!(!seen(&replay).delivered_other(TAG));
    touch(&replay, &request(1), NOW);
    assert!(!seen(&replay).delivered_other(TAG) && seen(&replay).delivered_other(8));
    let _ = claim_of(&replay, &request(1), (8, LENGTH), 0..LENGTH).unwrap().end(1, EndedBy::Reset);
    // For good: what is there may have been joined from both.
    assert!(seen(&replay).delivered_other(TAG) && seen(&replay).delivered_other(8));
    drop(replay);
    let replay = state.open(&RULES);
    assert_eq!(seen(&replay).version, Some(8));
    assert!(seen(&replay).delivered_other(8), "over a restart, too");
    let unlimited = Rules { reuse: Reuse::Unlimited, ..RULES };
    assert_eq!(replay.check(&request(1), &unlimited, NOW), Ok(Seen::default()));
    let late = ClaimRequest { expired: true, ..request(1) };
    assert_eq!(replay.check(&late, &unlimited, NOW), Err(ClaimError::Expired));
    assert!(replay.check(&late, &RULES, NOW).is_ok(), "a grant outlives its token");
}

#[test]
fn one_64_is_one_client_and_the_next_is_another() {
    let replay = memory();
    let first = ClaimRequest { client: client("2001:db8::1"), ..request(1) };
    let _one = claim(&replay, &first, NOW).unwrap();
    let neighbour = ClaimRequest { client: client("2001:db8::ffff:2"), ..first };
    let _two = claim(&replay, &neighbour, NOW).unwrap();
    let stranger = ClaimRequest { client: client("2001:db8:0:1::1"), ..first };
    assert_eq!(in_use(claim(&replay, &stranger, NOW)), 10);
}

#[test]
fn without_binding_or_an_address_nothing_is_bound() {
    let replay = memory();
    let rules = Rules { bind: false, ..RULES };
    let claim_with = |rules: &Rules, request: &ClaimRequest| {
        let live = Arc::new(live_of(request.key, 0..LENGTH, TAG, request.at));
        let stream = replay.claim(request, rules, NOW, LENGTH, &live).unwrap().unwrap();
        Run { stream, live }
    };
    let one = claim_with(&rules, &from(1, 0));
    let two = claim_with(&rules, &from(2, 0));
    one.end(LENGTH, EndedBy::Other);
    let late = ClaimRequest { expired: true, ..from(3, 0) };
    let three = claim_with(&rules, &late);
    let unknown = ClaimRequest { client: None, ..request(2) };
    let four = claim_with(&RULES, &unknown);
    let five = claim_with(&RULES, &ClaimRequest { client: client("192.0.2.2"), ..unknown });
    for run in [two, three, four, five] {
        assert_eq!(run.live.stopped(), None, "nobody took anything over");
    }
}

#[test]
fn of_two_first_requests_at_once_one_wins() {
    for round in 0..200 {
        let replay = memory();
        let barrier = std::sync::Barrier::new(4);
        let winners: Vec<Stream> = std::thread::scope(|scope| {
            let racer = |address: String| {
                let (replay, barrier) = (&replay, &barrier);
                scope.spawn(move || {
                    let request = ClaimRequest { client: client(&address), ..request(round) };
                    let live = Arc::new(live_of(request.key, 0..LENGTH, TAG, request.at));
                    barrier.wait();
                    replay.claim(&request, &RULES, NOW, LENGTH, &live)
                })
            };
            let racers: Vec<_> = (1..=4).map(|i| racer(format!("192.0.2.{i}"))).collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap().ok()?).collect()
        });
        assert_eq!((winners.len(), replay.tracked()), (1, 1));
    }
}

#[test]
fn once_and_resume_read_each_others_journals() {
    let once = Rules { reuse: Reuse::Once, ..RULES };
    let state = State::new();
    let replay = state.open(&RULES);
    claim(&replay, &request(1), NOW).unwrap().end(500, EndedBy::Other);
    deliver(&replay, &request(2));
    drop(replay);
    let replay = state.open(&once);
    let claim_once = |link| {
        let live = Arc::new(live_of(request(link).key, 0..LENGTH, TAG, *START));
        replay.claim(&request(link), &once, NOW, LENGTH, &live)
    };
    for link in [1, 2] {
        assert_eq!(used(claim_once(link)), Used::Spent, "{link}");
    }
    assert!(matches!(claim_once(3), Ok(None)));
    assert_eq!(used(replay.check(&request(3), &once, NOW)), Used::Spent);
    drop(replay);
    let replay = state.open(&RULES);
    for link in [2, 3] {
        assert_eq!(used(claim(&replay, &request(link), NOW)), Used::Spent);
    }
    let rest = claim_of(&replay, &request(1), (TAG, LENGTH), 500..LENGTH).unwrap();
    let progress = rest.end(500, EndedBy::Client);
    assert_eq!((progress.delivered, progress.spent), (LENGTH, false));
}

/// Killed within milliseconds of the answer, 23 of 23 links came back.
#[test]
fn nobody_is_told_that_a_link_is_used_before_the_journal_knows() {
    let state = State::new();
    let replay = state.open(&RULES);
    let run = claim(&replay, &request(1), NOW).unwrap();
    run.note(LENGTH, LENGTH, 0);
    // The end is in memory, and its record with the housekeeper.
    let finished = run.stream.finish(EndedBy::Client, NOW);
    assert!(state.after_a_crash(NOW).1.check(&request(1), &RULES, NOW).is_ok());
    assert_eq!(used(replay.check(&request(1), &RULES, NOW)), Used::Spent);
    let (_copy, after) = state.after_a_crash(NOW);
    assert_eq!(used(after.check(&request(1), &RULES, NOW)), Used::Spent);
    assert!(finished.record().unwrap().spent);
    // A link that settles when a claim looks at it.
    claim(&replay, &request(2), NOW).unwrap().end(LENGTH, EndedBy::Other);
    let before = replay.spent();
    let late = NOW + SETTLE;
    pass(&replay, NOW..late + LEAP);
    let live = Arc::new(live_of(request(2).key, 0..LENGTH, TAG, *START));
    assert_eq!(used(replay.claim(&request(2), &RULES, late, LENGTH, &live)), Used::Spent);
    assert_eq!(replay.spent(), before + 1);
    let (_copy, after) = state.after_a_crash(NOW);
    assert_eq!(used(after.check(&request(2), &RULES, NOW)), Used::Spent);
    // One that is told to be delivered elsewhere.
    let run = claim(&replay, &request(3), NOW).unwrap();
    run.note(LENGTH, LENGTH, 0);
    let _finished = run.stream.finish(EndedBy::Other, NOW);
    let stranger = ClaimRequest { client: client("192.0.2.9"), ..request(3) };
    assert_eq!(used(replay.check(&stranger, &RULES, NOW)), Used::OtherAddress);
    let (_copy, after) = state.after_a_crash(NOW);
    assert_eq!(used(after.check(&stranger, &RULES, NOW)), Used::OtherAddress);
}
