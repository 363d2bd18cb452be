//! Tables that agree through a fake.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::replay::live::{Live, Stop};
use crate::replay::tests::{NOW, RULES, State, live_of, open, request};
use crate::replay::{EndedBy, LinkStatus, STEP_BYTES, Seen, Stream};

const LENGTH: u64 = 1 << 20;

/// Answers what it is told to, and remembers what it was asked and told.
#[derive(Debug)]
struct Fake {
    answer: Mutex<Result<Claimed, ClaimError>>,
    asked: Mutex<Vec<Wish>>,
    told: Mutex<Vec<(Key, When)>>,
    /// 0 is none.
    term: AtomicU64,
    /// The term ends while the next answer is on its way.
    freezes: AtomicBool,
}

impl Fake {
    fn set(&self, answer: Result<Claimed, ClaimError>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn told(&self) -> Vec<When> {
        std::mem::take(&mut *self.told.lock().unwrap()).into_iter().map(|(_, when)| when).collect()
    }
}

impl Agreement for Fake {
    fn claim(&self, wish: &Wish) -> Result<Claimed, ClaimError> {
        self.asked.lock().unwrap().push(*wish);
        if self.freezes.swap(false, Ordering::SeqCst) {
            self.term.fetch_add(1, Ordering::SeqCst);
        }
        self.answer.lock().unwrap().clone()
    }

    fn look(&self, wish: &Wish) -> Result<(), ClaimError> {
        self.claim(wish).map(drop)
    }

    fn term(&self) -> Option<u64> {
        Some(self.term.load(Ordering::SeqCst)).filter(|term| *term > 0)
    }

    fn changed(&self, key: Key, when: When) {
        self.told.lock().unwrap().push((key, when));
    }

    fn claimed_alone(&self) {}

    fn mark(&self, client: ClientKey) -> Mark {
        let mut mark = Mark::default();
        let ClientKey::V4(bits) = client else { return mark };
        mark[..4].copy_from_slice(&bits.to_be_bytes());
        mark
    }

    fn name(&self) -> &str {
        "a"
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }
}

fn shared(mut replay: Replay, answer: Result<Claimed, ClaimError>) -> (Arc<Replay>, Arc<Fake>) {
    let fake = Arc::new(Fake {
        answer: Mutex::new(answer),
        asked: Mutex::default(),
        told: Mutex::default(),
        term: AtomicU64::new(1),
        freezes: AtomicBool::new(false),
    });
    replay.share(Arc::clone(&fake) as _);
    (Arc::new(replay), fake)
}

fn table(answer: Result<Claimed, ClaimError>) -> (Arc<Replay>, Arc<Fake>) {
    shared(Replay::in_memory(100), answer)
}

/// Link 1, asked for from 192.0.2.`last` `seconds` after the start.
fn from(last: u8, seconds: u64) -> ClaimRequest {
    let request = request(1);
    let client = ClientKey::of([192, 0, 2, last].into());
    let at = request.at + Duration::from_secs(seconds);
    ClaimRequest { client: Some(client), at, ..request }
}

fn mark(last: u8) -> Mark {
    let mut mark = Mark::default();
    mark[..4].copy_from_slice(&[192, 0, 2, last]);
    mark
}

fn late(request: ClaimRequest) -> ClaimRequest {
    ClaimRequest { expires: NOW - 10, expired: true, ..request }
}

fn claim_with(
    replay: &Arc<Replay>,
    request: &ClaimRequest,
    rules: &Rules,
) -> Result<(Option<Stream>, Arc<Live>), ClaimError> {
    let live = Arc::new(live_of(request.key, 0..LENGTH, 7, request.at));
    let stream = replay.claim(request, rules, NOW, LENGTH, &live)?;
    Ok((stream, live))
}

fn claim(replay: &Arc<Replay>, request: &ClaimRequest) -> Result<(Stream, Arc<Live>), ClaimError> {
    claim_with(replay, request, &RULES).map(|(stream, live)| (stream.unwrap(), live))
}

/// Claims the link and delivers all of it.
fn deliver(replay: &Arc<Replay>, request: &ClaimRequest, by: EndedBy) {
    let (stream, live) = claim(replay, request).unwrap();
    live.note_sent(LENGTH);
    live.note_acknowledged(LENGTH, request.at);
    stream.finish(by, NOW).record();
}

fn inherited(stage: Stage, holders: &[u8], by_holder: bool) -> Result<Claimed, ClaimError> {
    let holders = holders.iter().map(|last| mark(*last)).collect();
    let (charged, opened) = (LENGTH, NOW - 100);
    Ok(Claimed::Inherited(Inherited { stage, holders, by_holder, charged, opened }))
}

fn lose(replay: &Replay) {
    let origin = replay.entries.get(&request(1).key).unwrap().origin;
    replay.lose(&request(1).key, origin, false);
    assert_eq!(replay.tracked(), 0);
}

fn elsewhere() -> ClaimError {
    ClaimError::Elsewhere("b".into())
}

#[test]
fn a_link_is_asked_for_once_and_each_news_is_told_once() {
    let (replay, fake) = table(Ok(Claimed::New));
    // Nothing of the first, which the claim has said; then it is covered, and spent.
    for (by, told) in [(EndedBy::Reset, 0), (EndedBy::Other, 1), (EndedBy::Client, 1)] {
        deliver(&replay, &from(1, 0), by);
        assert_eq!(fake.told(), vec![When::Now; told]);
    }
    assert_eq!(fake.asked(), 1);
    let spent = Err(ClaimError::Used(Used::Spent));
    assert_eq!(replay.look(&from(1, 0), &RULES, NOW), Ok(()), "the check refuses it");
    assert_eq!(replay.check(&from(1, 0), &RULES, NOW), spent);
    assert_eq!((fake.asked(), fake.told()), (1, Vec::new()), "what is spent is known");
}

#[test]
fn a_new_holder_is_told_of_and_ranges_are_not() {
    let (replay, fake) = table(Ok(Claimed::New));
    for seconds in 0..5 {
        let (stream, live) = claim(&replay, &from(1, seconds)).unwrap();
        live.note_acknowledged(LENGTH / 2, from(1, seconds).at);
        stream.finish(EndedBy::Other, NOW).record();
    }
    assert_eq!(fake.told(), []);
    claim(&replay, &from(2, 5)).unwrap();
    assert_eq!(fake.told(), [When::Now]);
    assert_eq!(fake.asked(), 1);
}

#[test]
fn what_a_link_has_paid_for_is_told_with_a_beat_and_in_large_steps() {
    let (replay, fake) = table(Ok(Claimed::New));
    let request = from(1, 0);
    let length = 80 << 20;
    let live = Arc::new(live_of(request.key, 0..length, 7, request.at));
    let mut stream = replay.claim(&request, &RULES, NOW, length, &live).unwrap().unwrap();
    for step in 1..10 {
        live.note_sent(step * STEP_BYTES);
        assert_eq!(stream.reserve(step * STEP_BYTES), Some((step + 1) * STEP_BYTES));
    }
    assert_eq!(fake.told(), [When::WithBeat]);
}

#[test]
fn an_expired_token_is_good_for_a_link_that_was_held_elsewhere() {
    let (replay, fake) = table(inherited(Stage::Open, &[], true));
    let request = late(from(1, 0));
    assert_eq!(replay.check(&request, &RULES, NOW), Ok(Seen::default()));
    claim(&replay, &request).unwrap();
    assert!(fake.asked.lock().unwrap()[0].expired, "nothing new is claimed for it");
    for answer in [ClaimError::Expired, elsewhere()] {
        let (replay, _) = table(Err(answer.clone()));
        assert_eq!(claim(&replay, &request).unwrap_err(), answer);
        assert_eq!(replay.tracked(), 0);
    }
}

#[test]
fn while_nobody_answers_new_links_wait_or_go_through() {
    let (replay, fake) = table(Err(ClaimError::Away));
    let alone = Rules { alone: true, ..RULES };
    let claim = |request: &ClaimRequest, rules| claim_with(&replay, request, rules).map(|_| ());
    let (request, empty) = (from(1, 0), ClaimError::Emptied(7));
    assert_eq!(claim(&request, &RULES), Err(ClaimError::Away));
    assert_eq!(claim(&late(request), &alone), Err(ClaimError::Expired));
    fake.set(Err(empty.clone()));
    assert_eq!(claim(&request, &RULES), Err(empty));
    assert_eq!(claim(&request, &alone), Ok(()));
    // From here on it is in use.
    assert_eq!(claim(&request, &RULES), Ok(()));
    assert_eq!(claim(&late(request), &RULES), Ok(()));
}

#[test]
fn an_owner_that_was_silent_asks_again_and_ends_what_is_anothers() {
    let (replay, fake) = table(Ok(Claimed::New));
    let (stream, live) = claim(&replay, &from(1, 0)).unwrap();
    fake.term.store(0, Ordering::SeqCst);
    fake.set(Ok(Claimed::Kept));
    claim(&replay, &from(1, 0)).unwrap();
    assert_eq!((fake.asked(), live.stopped()), (2, None));
    fake.set(Err(ClaimError::Away));
    assert_eq!(claim(&replay, &from(1, 0)).unwrap_err(), ClaimError::Away);
    assert_eq!((replay.tracked(), live.stopped()), (1, None), "what runs may finish");
    fake.set(Err(elsewhere()));
    assert_eq!(claim(&replay, &from(1, 0)).unwrap_err(), elsewhere());
    assert_eq!((replay.tracked(), live.stopped()), (0, Some(Stop::TakenOver)));
    assert_eq!(stream.finish(EndedBy::Other, NOW).record(), None);
}

#[test]
fn a_claim_does_not_outlive_its_term() {
    let (replay, fake) = table(Ok(Claimed::New));
    fake.freezes.store(true, Ordering::SeqCst);
    assert_eq!(claim(&replay, &from(1, 0)).unwrap_err(), ClaimError::Away);
    assert_eq!(replay.tracked(), 0);
    claim(&replay, &from(1, 0)).unwrap();
}

#[test]
fn a_link_goes_on_where_another_front_end_left_it() {
    let (replay, _) = table(inherited(Stage::Open, &[2, 3], true));
    let (stream, live) = claim(&replay, &from(1, 0)).unwrap();
    live.note_sent(10);
    live.note_acknowledged(10, from(1, 0).at);
    stream.finish(EndedBy::Other, NOW).record();
    let LinkStatus::Open { opened, delivered, charged, .. } =
        replay.status(&from(1, 0).key, &RULES, NOW)
    else {
        panic!("not open");
    };
    assert_eq!((opened, delivered), (NOW - 100, (10, LENGTH)));
    assert_eq!(charged.0, LENGTH + 1024 + 10, "what was paid for elsewhere is gone");
    // It broke, so that others may have it; with a token that has expired, who held it before.
    assert_eq!(claim(&replay, &late(from(9, 0))).unwrap_err(), ClaimError::Expired);
    claim(&replay, &late(from(3, 0))).unwrap();
}

#[test]
fn requests_that_come_together_take_a_link_over_together() {
    let (replay, fake) = table(inherited(Stage::Open, &[2], true));
    let (wish, _) = {
        let (agreement, wish) = replay.question(&from(1, 0), &RULES, NOW).unwrap();
        (wish, agreement)
    };
    let (_stream, live) = claim(&replay, &from(1, 0)).unwrap();
    // The others were asked before the first had its entry.
    replay.lose_known(&wish, false);
    replay.not_ours(&wish, &RULES, ClaimError::InUse(10));
    assert_eq!((live.stopped(), replay.tracked()), (None, 1));
    // One that was asked of an entry that is gone means that.
    let stale = Wish { known: Some(u64::MAX), ..wish };
    replay.not_ours(&stale, &RULES, elsewhere());
    assert_eq!((live.stopped(), fake.asked()), (None, 1));
}

#[test]
fn a_holder_that_asks_for_little_elsewhere_has_not_only_peeked() {
    for (by_holder, wait) in [(true, Some(10)), (false, None)] {
        let (replay, _) = table(inherited(Stage::Open, &[2], by_holder));
        let request = from(1, 0);
        let live = Arc::new(live_of(request.key, 0..1, 7, request.at));
        let stream = replay.claim(&request, &RULES, NOW, LENGTH, &live).unwrap().unwrap();
        live.note_sent(1);
        live.note_acknowledged(1, request.at);
        stream.finish(EndedBy::Client, NOW).record();
        let next = claim(&replay, &from(9, 0)).map(drop).err();
        assert_eq!(next, wait.map(ClaimError::InUse), "the holder: {by_holder}");
    }
}

#[test]
fn a_covered_link_stays_its_holders_wherever_it_goes() {
    let (replay, _) = table(inherited(Stage::Covered(NOW - 60), &[2], false));
    deliver(&replay, &from(1, 0), EndedBy::Other);
    let strange = ClaimError::Used(Used::OtherAddress);
    assert_eq!(claim(&replay, &from(9, 60)).unwrap_err(), strange);
    deliver(&replay, &from(2, 60), EndedBy::Other);
    // One that has settled there is not revived here.
    let (replay, _) = table(inherited(Stage::Covered(NOW - 600), &[2], false));
    let spent = ClaimError::Used(Used::Spent);
    assert_eq!(claim(&replay, &from(1, 0)).unwrap_err(), spent);
    assert_eq!(replay.tracked(), 0);
}

#[test]
fn a_link_that_was_lost_and_comes_again_is_spent_for_good() {
    let state = State::new();
    let open = || open(100, &state.0, &RULES, NOW);
    let (replay, fake) = shared(open(), Ok(Claimed::New));
    for _ in 0..20 {
        let (stream, _) = claim(&replay, &from(1, 0)).unwrap();
        stream.finish(EndedBy::Other, NOW).record();
    }
    lose(&replay);
    fake.set(inherited(Stage::Open, &[], true));
    deliver(&replay, &from(1, 0), EndedBy::Client);
    drop(replay);
    let spent = Err(ClaimError::Used(Used::Spent));
    assert_eq!(open().check(&from(1, 0), &RULES, NOW), spent);
}

#[test]
fn a_restart_does_not_bring_a_lost_link_back() {
    let state = State::new();
    let open = || open(100, &state.0, &RULES, NOW);
    let (replay, _) = shared(open(), Ok(Claimed::New));
    let (stream, _) = claim(&replay, &from(1, 0)).unwrap();
    lose(&replay);
    stream.finish(EndedBy::Other, NOW).record();
    drop(replay);
    let replay = open();
    assert_eq!((replay.tracked(), replay.is_open(&from(1, 0).key)), (0, false));
}
