//! Tests of the table: who may use a link, how many links there may be, and what a restart keeps.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::link::token::Used;
use crate::net::address::ClientKey;

pub(super) const NOW: u64 = 1_800_000_000;
const LENGTH: u64 = 1000;
const SUBJECT: FileVersion = FileVersion { tag: 7, length: LENGTH };
const SETTLE: u64 = 600;
pub(super) const RULES: Rules =
    Rules { reuse: Reuse::Resume, window: 86_400, settle: SETTLE, bind: true };
const ALL: StreamEnd = end(LENGTH, EndedBy::Client);

/// A stream of which everything that was sent was acknowledged.
const fn end(bytes: u64, by: EndedBy) -> StreamEnd {
    StreamEnd { sent: bytes, acknowledged: bytes, by }
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
        Arc::new(Replay::with_journal(65_536, &self.0, rules, now).unwrap())
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
        server: key_of(&(link % 8).to_string()),
        client: client("192.0.2.1"),
        expires: NOW + 900,
        expired: false,
    }
}

fn memory() -> Arc<Replay> {
    Arc::new(Replay::in_memory(65_536))
}

fn claim(replay: &Arc<Replay>, request: &ClaimRequest, now: u64) -> Result<Stream, ClaimError> {
    // Whatever a claim says, a check before it has said.
    let checked = replay.check(request, &RULES, now).err();
    let claimed = replay.claim(request, &RULES, now, &SUBJECT, &(0..LENGTH)).map(Option::unwrap);
    assert_eq!(claimed.as_ref().err(), checked.as_ref());
    claimed
}

/// Claims a link and drops the stream with one byte acknowledged.
fn touch(replay: &Arc<Replay>, request: &ClaimRequest, now: u64) {
    let stream = claim(replay, request, now).unwrap();
    let _ = stream.finish(&StreamEnd { sent: 1, acknowledged: 1, by: EndedBy::Reset }, now);
}

/// Why a link is refused.
fn used(result: Result<Stream, ClaimError>) -> Used {
    match result.map(drop) {
        Err(ClaimError::Used(used)) => used,
        other => panic!("{other:?}"),
    }
}

pub(super) fn deliver(replay: &Arc<Replay>, request: &ClaimRequest) {
    let stream = claim(replay, request, NOW).unwrap();
    assert!(stream.finish(&ALL, NOW).record().unwrap().spent);
}

/// Lets time pass for the table, in the steps that a housekeeper takes.
fn pass(replay: &Replay, span: Range<u64>) {
    span.step_by(LEAP as usize).for_each(|now| replay.maintain(&RULES, now));
}

#[test]
fn a_link_is_bound_to_its_first_client_and_its_resource() {
    let replay = memory();
    let first = request(1);
    let stream = claim(&replay, &first, NOW).unwrap();
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..first };
    assert_eq!(used(claim(&replay, &elsewhere, NOW)), Used::OtherAddress);
    let unknown = ClaimRequest { client: None, ..first };
    assert_eq!(used(claim(&replay, &unknown, NOW)), Used::OtherAddress);
    let other = ClaimRequest { resource: [2; 16], ..first };
    assert_eq!(used(claim(&replay, &other, NOW)), Used::OtherResource);
    assert_eq!(replay.check(&first, &RULES, NOW), Ok(Some(SUBJECT.tag)));
    let _ = stream.finish(&ALL, NOW).record();
    for request in [first, elsewhere] {
        assert_eq!(used(claim(&replay, &request, NOW)), Used::Spent);
    }
}

#[test]
fn the_check_knows_the_file_of_the_last_stream() {
    let replay = memory();
    assert_eq!(replay.check(&request(1), &RULES, NOW), Ok(None));
    touch(&replay, &request(1), NOW);
    let changed = FileVersion { tag: 8, length: LENGTH };
    let _ = replay.claim(&request(1), &RULES, NOW, &changed, &(0..LENGTH)).unwrap();
    assert_eq!(replay.check(&request(1), &RULES, NOW), Ok(Some(8)));
    let unlimited = Rules { reuse: Reuse::Unlimited, ..RULES };
    assert_eq!(replay.check(&request(1), &unlimited, NOW), Ok(None));
    let late = ClaimRequest { expired: true, ..request(1) };
    assert_eq!(replay.check(&late, &unlimited, NOW), Err(ClaimError::Expired));
    assert_eq!(replay.check(&late, &RULES, NOW), Ok(Some(8)), "a grant outlives its token");
}

#[test]
fn one_64_is_one_client_and_the_next_is_another() {
    let replay = memory();
    let first = ClaimRequest { client: client("2001:db8::1"), ..request(1) };
    let _one = claim(&replay, &first, NOW).unwrap();
    let neighbour = ClaimRequest { client: client("2001:db8::ffff:2"), ..first };
    let _two = claim(&replay, &neighbour, NOW).unwrap();
    let stranger = ClaimRequest { client: client("2001:db8:0:1::1"), ..first };
    assert_eq!(used(claim(&replay, &stranger, NOW)), Used::OtherAddress);
}

#[test]
fn without_binding_or_an_address_nothing_is_bound() {
    let replay = memory();
    let rules = Rules { bind: false, ..RULES };
    let first = request(1);
    let claim_with = |rules: &Rules, request: &ClaimRequest| {
        replay.claim(request, rules, NOW, &SUBJECT, &(0..LENGTH)).unwrap().unwrap()
    };
    let _one = claim_with(&rules, &first);
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..first };
    let two = claim_with(&rules, &elsewhere);
    let unknown = ClaimRequest { client: None, ..request(2) };
    let three = claim_with(&RULES, &unknown);
    let _four = claim_with(&RULES, &ClaimRequest { client: client("192.0.2.2"), ..unknown });
    assert!(two.is_current() && three.is_current(), "nobody took anything over");
}

#[test]
fn previews_from_three_addresses_leave_the_link_to_the_person() {
    let replay = memory();
    let large = FileVersion { tag: 7, length: 1 << 20 };
    let claim = |last: u8, span: Range<u64>| {
        let client = client(&format!("192.0.2.{last}"));
        let request = ClaimRequest { client, ..request(1) };
        replay.claim(&request, &RULES, NOW, &large, &span).map(Option::unwrap)
    };
    let one_byte = claim(1, 0..1).unwrap();
    let _ = one_byte.finish(&end(1, EndedBy::Client), NOW).record();
    let cut = claim(2, 0..large.length).unwrap();
    assert!(claim(3, 0..1).is_err(), "it may be sending");
    let peek = StreamEnd { sent: 900_000, acknowledged: 200_000, by: EndedBy::Reset };
    let _ = cut.finish(&peek, NOW).record();
    let mut kept_alive = claim(3, 0..65_536).unwrap();
    kept_alive.progress(65_536, 60_000);
    assert_eq!(used(claim(4, 0..1)), Used::OtherAddress);
    kept_alive.progress(65_536, 65_536);
    let person = claim(4, 0..large.length).unwrap();
    assert!(!kept_alive.is_current() && person.is_current());
    assert_eq!(kept_alive.reserve(0), None);
    let _ = kept_alive.finish(&end(65_536, EndedBy::Client), NOW).record();
    assert_eq!(used(claim(3, 0..1)), Used::OtherAddress);
    let whole = person.finish(&end(large.length, EndedBy::Client), NOW).record().unwrap();
    assert!(whole.spent);
}

#[test]
fn who_has_more_than_a_peek_keeps_the_link_over_a_restart() {
    let state = State::new();
    let replay = state.open(&RULES);
    let file = FileVersion { tag: 7, length: 1 << 20 };
    let mut claimed = Vec::new();
    for (link, bytes) in [(1, 255 << 10), (2, 256 << 10)] {
        // The same bytes again and again count: they are a client's, not a preview's.
        for _ in 0..2 {
            let span = 0..bytes / 2;
            let stream = replay.claim(&request(link), &RULES, NOW, &file, &span).unwrap().unwrap();
            let _ = stream.finish(&end(bytes / 2, EndedBy::Other), NOW).record();
        }
        claimed.push(link);
    }
    drop(replay);
    let replay = state.open(&RULES);
    let stranger = |link| ClaimRequest { client: client("192.0.2.2"), ..request(link) };
    assert!(replay.check(&stranger(1), &RULES, NOW).is_ok());
    assert_eq!(used(claim(&replay, &stranger(2), NOW)), Used::OtherAddress);
}

#[test]
fn twenty_addresses_taking_turns_share_one_budget() {
    let replay = memory();
    let file = FileVersion { tag: 7, length: 1 << 20 };
    let (mut bytes, mut refused) = (0, None);
    for turn in 0..2000u64 {
        let client = client(&format!("192.0.2.{}", turn % 20));
        let request = ClaimRequest { client, ..request(1) };
        match replay.claim(&request, &RULES, NOW, &file, &(0..255 << 10)) {
            Ok(stream) => {
                let stream = stream.unwrap();
                let sent = stream.flow.reserved();
                bytes += sent;
                let _ = stream.finish(&end(sent, EndedBy::Client), NOW).record();
            }
            Err(error) => refused = Some(error),
        }
    }
    let budget = (3 << 20) + (64 << 20);
    assert_eq!(refused, Some(ClaimError::Used(Used::BudgetSpent)));
    assert!(bytes <= budget && bytes > budget - (1 << 20), "{bytes} of {budget}");
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
                    barrier.wait();
                    replay.claim(&request, &RULES, NOW, &SUBJECT, &(0..LENGTH))
                })
            };
            let racers: Vec<_> = (1..=4).map(|i| racer(format!("192.0.2.{i}"))).collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap().ok()?).collect()
        });
        assert_eq!((winners.len(), replay.tracked()), (1, 1));
    }
}

#[test]
fn a_link_that_may_be_delivered_is_spent_after_a_while_and_for_good() {
    let state = State::new();
    let replay = state.open(&RULES);
    let stream = claim(&replay, &request(1), NOW).unwrap();
    replay.maintain(&RULES, NOW + 5);
    let progress = stream.finish(&end(LENGTH, EndedBy::Other), NOW + 5).record().unwrap();
    assert_eq!((progress.delivered, progress.spent), (LENGTH, false));
    pass(&replay, NOW + 5..NOW + 604);
    assert!(replay.check(&request(1), &RULES, NOW + 604).is_ok());
    let LinkStatus::Open { settles, sure, .. } = replay.status(&request(1).key, &RULES, NOW) else {
        panic!("it is open");
    };
    assert_eq!((settles, sure), (Some(NOW + 605), 0));
    drop(replay);
    // The end of the last stream has survived.
    let replay = state.open_at(&RULES, NOW + 604);
    assert!(replay.check(&request(1), &RULES, NOW + 604).is_ok());
    let spent = Err(ClaimError::Used(Used::Spent));
    replay.maintain(&RULES, NOW + 605);
    assert_eq!(replay.check(&request(1), &RULES, NOW + 605), spent);
    // Whoever was told so is not told otherwise when the clock steps back.
    assert_eq!(replay.check(&request(1), &RULES, NOW), spent);
    drop(replay);
    assert_eq!(state.open(&RULES).check(&request(1), &RULES, NOW), spent);
}

#[test]
fn a_crash_keeps_what_was_acknowledged_and_waits_from_the_start() {
    let state = State::new();
    let file = FileVersion { tag: 7, length: 20 << 20 };
    let replay = state.open(&RULES);
    let rest = 4 << 20..file.length;
    let mut stream = replay.claim(&request(1), &RULES, NOW, &file, &rest).unwrap().unwrap();
    let mut first = replay.claim(&request(1), &RULES, NOW, &file, &(0..4 << 20)).unwrap().unwrap();
    first.progress(4 << 20, 4 << 20);
    stream.progress(8 << 20, 7 << 20);
    assert_eq!(stream.reserve(8 << 20), Some(16 << 20));
    assert_eq!(first.reserve(4 << 20), Some(4 << 20));
    // A crash: neither stream ends.
    let status = |state: &State, now| {
        let replay = Replay::read_only(10, &state.0, &RULES, now).unwrap();
        replay.status(&request(1).key, &RULES, now)
    };
    let LinkStatus::Open { delivered, charged, .. } = status(&state, NOW + 9) else {
        panic!("it is open");
    };
    assert_eq!(delivered, ((11 << 20) - 1, file.length), "short of the first part's last byte");
    assert_eq!(charged.0, (20 << 20) + 2 * 1024, "all that was reserved may have been sent");
    std::mem::forget((stream, first));
}

#[test]
fn a_client_that_a_crash_cut_off_keeps_its_link() {
    let state = State::new();
    let replay = state.open(&RULES);
    // One that has everything and fetches it again, and one that has only begun.
    for link in [1, 2] {
        let bytes = if link == 1 { LENGTH } else { 0 };
        let stream = claim(&replay, &request(link), NOW).unwrap();
        let _ = stream.finish(&end(bytes, EndedBy::Other), NOW).record();
        std::mem::forget(claim(&replay, &request(link), NOW).unwrap());
    }
    let journal = state.0.join("journal");
    let after_a_crash = std::fs::read(&journal).unwrap();
    drop(replay);
    std::fs::remove_dir_all(&state.0).unwrap();
    std::fs::create_dir(&state.0).unwrap();
    std::fs::write(&journal, after_a_crash).unwrap();
    let replay = state.open_at(&RULES, NOW + 1000);
    let stranger = ClaimRequest { client: client("192.0.2.2"), ..request(2) };
    assert_eq!(used(claim(&replay, &stranger, NOW + 1000)), Used::OtherAddress);
    assert!(replay.check(&request(1), &RULES, NOW + 1000).is_ok(), "it may have run until now");
    pass(&replay, NOW + 1000..NOW + 1000 + SETTLE + 2 * LEAP);
    let late = NOW + 1000 + SETTLE + LEAP;
    assert_eq!(used(claim(&replay, &request(1), late)), Used::Spent);
    assert!(replay.check(&request(2), &RULES, late).is_ok());
}

#[test]
fn expiry_and_window() {
    let replay = memory();
    let late = ClaimRequest { expired: true, ..request(1) };
    assert_eq!(claim(&replay, &late, NOW + 900).unwrap_err(), ClaimError::Expired);
    assert_eq!(replay.tracked(), 0);
    touch(&replay, &request(1), NOW);
    let end = NOW + 86_400 + AFTERLIFE;
    pass(&replay, NOW..end);
    touch(&replay, &late, NOW + 86_399);
    assert_eq!(used(claim(&replay, &late, NOW + 86_400)), Used::WindowOver);
    pass(&replay, end..end + 2 * SWEEP);
    assert_eq!(replay.tracked(), 0);
}

#[test]
fn a_spent_link_outlives_its_token_by_an_hour() {
    let replay = memory();
    deliver(&replay, &request(1));
    let end = NOW + 900 + AFTERLIFE;
    pass(&replay, NOW..end);
    assert_eq!(used(claim(&replay, &request(1), NOW)), Used::Spent);
    pass(&replay, end..end + 2 * SWEEP);
    let status = replay.status(&request(1).key, &RULES, NOW);
    assert_eq!((replay.tracked(), status), (0, LinkStatus::Unused));
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
    let all = end(subject.length, EndedBy::Client);
    assert!(first.finish(&all, NOW).record().unwrap().spent);
    let late = NOW + 900 + AFTERLIFE;
    pass(&replay, NOW..late + 2 * SWEEP);
    assert!(second.reserve(STEP_BYTES).is_some(), "an overlapping download may complete");
    let _ = second.finish(&all, late).record();
    assert!(
        replay.entries.get(&request(1).key).unwrap().grant.is_none(),
        "nothing is left to keep"
    );
    pass(&replay, late + 2 * SWEEP..late + 5 * SWEEP);
    assert_eq!(replay.tracked(), 0);
}

#[test]
fn a_link_has_sixteen_streams() {
    let replay = memory();
    let mut streams: Vec<_> =
        (0..MAX_STREAMS).map(|_| claim(&replay, &request(1), NOW).unwrap()).collect();
    // Of its own client: what another one may not do is said first.
    assert_eq!(claim(&replay, &request(1), NOW).unwrap_err(), ClaimError::TooManyStreams);
    let elsewhere = ClaimRequest { client: client("192.0.2.2"), ..request(1) };
    assert_eq!(used(claim(&replay, &elsewhere, NOW)), Used::OtherAddress);
    streams.pop();
    let _ = claim(&replay, &request(1), NOW).unwrap();
    // All of them only peek: the next holder has its own sixteen.
    streams.iter().for_each(|stream| stream.progress(1, 1));
    let _person = claim(&replay, &elsewhere, NOW).unwrap();
    assert!(streams.iter().all(|stream| !stream.is_current()));
}

#[test]
fn once_and_resume_read_each_others_journals() {
    let once = Rules { reuse: Reuse::Once, ..RULES };
    let state = State::new();
    let replay = state.open(&RULES);
    let stream = claim(&replay, &request(1), NOW).unwrap();
    let _ = stream.finish(&end(500, EndedBy::Other), NOW).record();
    deliver(&replay, &request(2));
    drop(replay);
    let replay = state.open(&once);
    for link in [1, 2] {
        let again = replay.claim(&request(link), &once, NOW, &SUBJECT, &(0..LENGTH));
        assert!(matches!(again, Err(ClaimError::Used(Used::Spent))), "{link}");
    }
    let first = replay.claim(&request(3), &once, NOW, &SUBJECT, &(0..LENGTH));
    assert!(matches!(first, Ok(None)));
    assert_eq!(replay.check(&request(3), &once, NOW), Err(ClaimError::Used(Used::Spent)));
    drop(replay);
    let replay = state.open(&RULES);
    for link in [2, 3] {
        assert_eq!(used(claim(&replay, &request(link), NOW)), Used::Spent);
    }
    let rest = replay.claim(&request(1), &RULES, NOW, &SUBJECT, &(500..LENGTH)).unwrap().unwrap();
    let progress = rest.finish(&end(500, EndedBy::Client), NOW).record().unwrap();
    assert_eq!((progress.delivered, progress.spent), (LENGTH, false));
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
                    let stream = stream.unwrap();
                    let bytes = stream.flow.reserved();
                    sent += bytes;
                    let _ = stream.finish(&end(bytes, EndedBy::Client), NOW).record();
                }
                Err(ClaimError::Used(Used::BudgetSpent)) => break 'runs,
                Err(other) => panic!("{other:?}"),
            }
            if round % 100 == 99 {
                continue 'runs;
            }
        }
    }
    assert!(sent <= budget && sent > budget - budget / 50, "{sent} of {budget}");
    let replay = Replay::read_only(10, &state.0, &RULES, NOW).unwrap();
    let refused = Err(ClaimError::Used(Used::BudgetSpent));
    assert_eq!(replay.check(&request, &RULES, NOW), refused, "explain says the same");
}

#[test]
fn a_server_takes_a_quarter_of_the_table() {
    let replay = Arc::new(Replay::in_memory(100));
    let of = |server: &str, link| ClaimRequest { server: key_of(server), ..request(link) };
    (0..25).for_each(|link| touch(&replay, &of("a", link), NOW));
    assert_eq!(claim(&replay, &of("a", 25), NOW).unwrap_err(), ClaimError::ServerShare);
    touch(&replay, &of("a", 0), NOW);
    (100..125).for_each(|link| touch(&replay, &of("b", link), NOW));
    // As links expire, the server has room again, and nothing remembers it.
    pass(&replay, NOW..NOW + RULES.window + AFTERLIFE + 2 * SWEEP);
    assert_eq!((replay.tracked(), replay.servers().len()), (0, 0));
    touch(&replay, &of("a", 25), NOW);
}

#[test]
fn a_servers_share_is_known_after_a_restart() {
    let state = State::new();
    let open = || Arc::new(Replay::with_journal(8, &state.0, &RULES, NOW).unwrap());
    let of = |link| ClaimRequest { server: key_of("a"), ..request(link) };
    let replay = open();
    (0..2).for_each(|link| touch(&replay, &of(link), NOW));
    drop(replay);
    let replay = open();
    assert_eq!(claim(&replay, &of(2), NOW).unwrap_err(), ClaimError::ServerShare);
    assert!(replay.check(&request(2), &RULES, NOW).is_ok(), "another server's");
}

#[test]
fn a_clock_that_leaps_and_comes_back_forgets_nothing() {
    let replay = memory();
    deliver(&replay, &request(1));
    touch(&replay, &request(2), NOW);
    replay.maintain(&RULES, NOW);
    let mut now = NOW;
    for leap in [3600, -3600, 86_400 * 3, -86_400 * 3, -3600, 3600] {
        now = now.wrapping_add_signed(leap);
        // An hour at each time, as its housekeeper sees it.
        pass(&replay, now..now + 600);
        now += 600;
        assert_eq!(replay.tracked(), 2, "after a leap of {leap} s");
    }
    // The clock is an hour of ticking ahead: the token's own time is over, and the hour on top not.
    assert_eq!(now, NOW + 3600);
    assert_eq!(used(claim(&replay, &request(1), NOW)), Used::Spent);
    let late = ClaimRequest { expired: true, ..request(2) };
    touch(&replay, &late, now);
    pass(&replay, now..now + AFTERLIFE);
    assert_eq!(replay.tracked(), 1, "the spent one is over by both clocks");
}

#[test]
fn a_clock_that_leaps_ahead_settles_and_ends_nothing_early() {
    let replay = memory();
    replay.maintain(&RULES, NOW);
    for link in [1, 2] {
        let stream = claim(&replay, &request(link), NOW).unwrap();
        let _ = stream.finish(&end(LENGTH, EndedBy::Other), NOW).record();
    }
    let late = |link| ClaimRequest { expired: true, ..request(link) };
    // By two days, and for good: both the window and the time to settle count from there.
    let now = NOW + 2 * 86_400;
    pass(&replay, now..now + SETTLE - 2 * LEAP);
    assert!(replay.check(&late(1), &RULES, now + SETTLE).is_ok());
    let again = claim(&replay, &late(2), now + SETTLE).unwrap();
    let _ = again.finish(&end(0, EndedBy::Reset), now + SETTLE).record();
    pass(&replay, now + SETTLE - 2 * LEAP..now + SETTLE + 2 * LEAP);
    assert_eq!(used(claim(&replay, &late(1), now + SETTLE + 2 * LEAP)), Used::Spent);
    assert!(replay.check(&late(2), &RULES, now + SETTLE + 2 * LEAP).is_ok());
}

#[test]
fn a_clock_that_leaps_over_a_restart_forgets_nothing() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(1));
    touch(&replay, &request(2), NOW);
    drop(replay);
    for leap in [3600, -3600, 86_400 * 3, 0] {
        let now = NOW.wrapping_add_signed(leap);
        let replay = state.open_at(&RULES, now);
        pass(&replay, now..now + 600);
        // The clock is put right.
        pass(&replay, NOW..NOW + 600);
        assert_eq!(used(claim(&replay, &request(1), NOW)), Used::Spent, "{leap}");
        assert!(replay.check(&request(2), &RULES, NOW).is_ok(), "{leap}");
    }
    let late = NOW + RULES.window + AFTERLIFE;
    let replay = state.open_at(&RULES, late);
    pass(&replay, late..late + AFTERLIFE + 2 * SWEEP);
    assert_eq!(replay.tracked(), 0, "what is really over goes after an hour");
}

#[test]
fn what_is_over_takes_no_room_after_a_restart() {
    let state = State::new();
    let replay = state.open(&RULES);
    (0..100).for_each(|link| deliver(&replay, &request(link)));
    drop(replay);
    let late = NOW + 900 + AFTERLIFE;
    let replay = Replay::with_journal(80, &state.0, &RULES, late).unwrap();
    assert_eq!(replay.tracked(), 40);
    drop(replay);
    // But what lives is never left out, though the table has become smaller.
    let replay = state.open(&RULES);
    (0..50).for_each(|link| deliver(&replay, &request(1000 + link)));
    drop(replay);
    assert_eq!(Replay::with_journal(10, &state.0, &RULES, NOW).unwrap().tracked(), 90);
}

#[test]
fn the_table_is_bounded_and_serves_again_as_links_expire() {
    const BOUND: u64 = 65_536;
    let replay = memory();
    let before = resident_kib();
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    for link in 0..BOUND {
        let one = Instant::now();
        touch(&replay, &request(link), NOW);
        slowest = slowest.max(one.elapsed());
    }
    let each = start.elapsed() / BOUND as u32;
    let grown = resident_kib().saturating_sub(before);
    println!("{BOUND} links: {grown} KiB, {each:?} a claim and end, slowest {slowest:?}");
    let new = ClaimRequest { server: key_of("another"), ..request(BOUND) };
    assert_eq!(claim(&replay, &new, NOW).unwrap_err(), ClaimError::TableFull);
    // Those in the table go on.
    touch(&replay, &request(0), NOW);
    assert_eq!(replay.tracked() as u64, BOUND);

    let end = NOW + RULES.window + AFTERLIFE;
    replay.steady.store(end - NOW, Ordering::Relaxed);
    let one = Instant::now();
    replay.sweep(&RULES, end - 1);
    println!("a sweep that finds nothing: {:?}", one.elapsed());
    assert_eq!(replay.tracked() as u64, BOUND);
    let one = Instant::now();
    replay.sweep(&RULES, end);
    println!("a sweep that finds everything: {:?}", one.elapsed());
    assert_eq!(replay.tracked(), 0);
    touch(&replay, &new, NOW);
}

#[test]
fn claims_go_on_while_everything_expires_at_once() {
    let replay = memory();
    for link in 0..60_000 {
        touch(&replay, &request(link), NOW);
    }
    let end = NOW + RULES.window + AFTERLIFE;
    let done = AtomicBool::new(false);
    let (slowest, count) = std::thread::scope(|scope| {
        let claims = scope.spawn(|| {
            let (mut slowest, mut count) = (Duration::ZERO, 0u64);
            while !done.load(Ordering::Relaxed) && count < 5000 {
                let one = Instant::now();
                touch(&replay, &request(1_000_000 + count), end);
                slowest = slowest.max(one.elapsed());
                count += 1;
            }
            (slowest, count)
        });
        replay.steady.store(end - NOW, Ordering::Relaxed);
        replay.sweep(&RULES, end);
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
