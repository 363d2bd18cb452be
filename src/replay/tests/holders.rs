//! Who holds a link, when it passes to another address, and to whom it is open once it is delivered.

use super::*;

const MIB: u64 = 1 << 20;
const FILE: (EntityTag, u64) = (TAG, 8 * MIB);

/// Claims `span` for 192.0.2.`last`, `seconds` after the start.
fn claim(
    replay: &Arc<Replay>,
    last: u8,
    seconds: u64,
    span: Range<u64>,
) -> Result<Run, ClaimError> {
    claim_of(replay, &from(last, seconds), FILE, span)
}

/// What of the file was delivered.
fn delivered(replay: &Replay) -> u64 {
    match replay.status(&request(1).key, &RULES, NOW) {
        LinkStatus::Open { delivered, .. } => delivered.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_stream_gives_the_link_up_at_once() {
    for (by, acknowledged) in [
        (EndedBy::Other, MIB),
        (EndedBy::Reset, MIB),
        (EndedBy::Reset, 8 * MIB),
        (EndedBy::Other, 8 * MIB - 1),
    ] {
        let replay = memory();
        claim(&replay, 1, 0, 0..FILE.1).unwrap().end(acknowledged, by);
        let next = claim(&replay, 2, 0, acknowledged - 1..FILE.1).unwrap();
        assert_eq!(delivered(&replay), acknowledged - 1, "what it asks for it lacks");
        assert_eq!(in_use(claim(&replay, 1, 0, 0..1)), 10, "and now it is its own");
        assert!(!next.end(FILE.1 - acknowledged + 1, EndedBy::Client).spent);
    }
}

#[test]
fn a_delivered_part_leaves_ten_seconds_for_the_next() {
    let replay = memory();
    let run = claim(&replay, 1, 0, 0..MIB).unwrap();
    run.note(MIB, MIB, 3);
    run.stream.finish(EndedBy::Client, NOW).record();
    for (seconds, left) in [(3, 10), (4, 9), (12, 1)] {
        assert_eq!(in_use(claim(&replay, 2, seconds, MIB..FILE.1)), left, "{seconds}");
    }
    // The holder has its next part meanwhile, and nobody has disturbed it.
    let next = claim(&replay, 1, 12, MIB..2 * MIB).unwrap();
    assert_eq!(in_use(claim(&replay, 2, 13, 2 * MIB..FILE.1)), 9);
    next.note(MIB, MIB, 14);
    next.stream.finish(EndedBy::Client, NOW).record();
    assert!(claim(&replay, 2, 24, 2 * MIB..FILE.1).is_ok());
    assert_eq!(delivered(&replay), 2 * MIB);
}

#[test]
fn ten_seconds_without_an_acknowledged_byte_give_the_link_up() {
    let replay = memory();
    let (one, two) = (claim(&replay, 1, 0, 0..FILE.1), claim(&replay, 1, 0, 4 * MIB..FILE.1));
    let (one, two) = (one.unwrap(), two.unwrap());
    one.note(2 * MIB, MIB, 5);
    two.note(2 * MIB, MIB, 8);
    assert_eq!(in_use(claim(&replay, 2, 17, 0..1)), 1, "the last of all its streams counts");
    // While the server makes it wait, the clock stands still.
    two.live.pause(at(10));
    assert_eq!(in_use(claim(&replay, 2, 60, 0..1)), 8);
    two.live.resume(at(60));
    assert_eq!(in_use(claim(&replay, 2, 67, 0..1)), 1);
    let next = claim(&replay, 2, 68, MIB..4 * MIB).unwrap();
    for former in [&one, &two] {
        assert_eq!(former.live.stopped(), Some(Stop::HandedOver));
    }
    assert_eq!(delivered(&replay), 2 * MIB, "what they had acknowledged stays");
    let charged = |replay: &Replay| match replay.status(&request(1).key, &RULES, NOW) {
        LinkStatus::Open { charged, .. } => charged.0,
        other => panic!("{other:?}"),
    };
    let before = charged(&replay);
    let mut one = one;
    assert_eq!(one.stream.reserve(2 * MIB), None);
    // The end of a former holder's stream says nothing, but what was not sent is given back.
    one.note(2 * MIB, 2 * MIB, 68);
    one.stream.finish(EndedBy::Client, NOW).record();
    assert_eq!((delivered(&replay), charged(&replay)), (2 * MIB, before - 6 * MIB));
    next.note(MIB, MIB, 69);
    assert_eq!(in_use(claim(&replay, 1, 70, 0..1)), 9);
}

#[test]
fn previews_leave_the_link_to_the_person() {
    let replay = memory();
    claim(&replay, 1, 0, 0..1).unwrap().end(1, EndedBy::Client);
    let cut = claim(&replay, 2, 0, 0..FILE.1).unwrap();
    assert_eq!(in_use(claim(&replay, 3, 0, 0..1)), 10, "it may be sending");
    cut.live.enter(Phase::Limited);
    assert_eq!(in_use(claim(&replay, 3, 0, 0..1)), 10, "it waits for its share");
    cut.end(200_000, EndedBy::Reset);
    let kept_alive = claim(&replay, 3, 0, 0..65_536).unwrap();
    kept_alive.note(65_536, 60_000, 0);
    assert_eq!(in_use(claim(&replay, 4, 0, 0..1)), 10, "something is on its way");
    kept_alive.note(65_536, 65_536, 0);
    let person = claim(&replay, 4, 0, 0..FILE.1).unwrap();
    assert_eq!(kept_alive.live.stopped(), Some(Stop::HandedOver));
    kept_alive.end(65_536, EndedBy::Client);
    let LinkStatus::Open { holders, .. } = replay.status(&request(1).key, &RULES, NOW) else {
        panic!("it is open");
    };
    assert_eq!(holders, [client("192.0.2.4").unwrap()], "nobody remembers the others");
    assert!(person.end(FILE.1, EndedBy::Client).spent);
}

#[test]
fn who_has_more_than_a_peek_holds_the_link_over_a_restart() {
    let state = State::new();
    let replay = state.open(&RULES);
    for (link, bytes) in [(1, 255 << 10), (2, 256 << 10)] {
        // The same bytes again and again count: they are a client's, not a preview's.
        for _ in 0..2 {
            let run = claim_of(&replay, &request(link), FILE, 0..bytes / 2).unwrap();
            run.end(bytes / 2, EndedBy::Other);
        }
    }
    drop(replay);
    let stranger = |link| ClaimRequest { client: client("192.0.2.2"), ..request(link) };
    let replay = Replay::with_journal(100, &state.0, &RULES, NOW + 4).unwrap();
    let check =
        |link| replay.check(&ClaimRequest { at: Instant::now(), ..stranger(link) }, &RULES, NOW);
    assert!(check(1).is_ok());
    let left = in_use(check(2));
    assert!((5..=6).contains(&left), "{left} s are left of ten");
}

#[test]
fn the_last_four_holders_have_a_delivered_link_and_nobody_else() {
    let state = State::new();
    let mut replay = state.open(&RULES);
    for last in 1..=5 {
        let part = u64::from(last - 1) * MIB..u64::from(last) * MIB;
        claim(&replay, last, 0, part.start..FILE.1).unwrap().end(MIB, EndedBy::Other);
    }
    let rest = claim(&replay, 6, 0, 5 * MIB..FILE.1).unwrap();
    assert!(!rest.end(3 * MIB, EndedBy::Client).spent, "one stream did not carry all of it");
    for restarted in [false, true] {
        for last in [1, 2, 7] {
            let refused = claim(&replay, last, 0, 0..FILE.1);
            assert_eq!(used(refused), Used::OtherAddress, "{last}, {restarted}");
        }
        // At the same time, and without any wait.
        let all = [3, 4, 5, 6].map(|last| claim(&replay, last, 0, 0..FILE.1).unwrap());
        for run in all {
            assert_eq!(run.live.stopped(), None);
            run.end(MIB, EndedBy::Reset);
        }
        drop(replay);
        replay = state.open(&RULES);
    }
    let late = ClaimRequest { expired: true, ..from(3, 0) };
    assert!(replay.check(&late, &RULES, NOW + SETTLE - 1).is_ok());
    pass(&replay, NOW..NOW + SETTLE + LEAP);
    assert_eq!(used(replay.check(&late, &RULES, NOW + SETTLE)), Used::Spent);
}

/// Sixty of a hundred to one address, the rest to another, in both orders.
#[test]
fn each_of_two_holders_gets_what_it_lacks() {
    let cut = FILE.1 * 6 / 10;
    for (first, second) in [(0..cut, cut..FILE.1), (cut..FILE.1, 0..cut)] {
        let state = State::new();
        let replay = state.open(&RULES);
        let length = first.end - first.start;
        claim(&replay, 1, 0, first.start..FILE.1).unwrap().end(length, EndedBy::Other);
        claim(&replay, 2, 10, second.clone())
            .unwrap()
            .end(second.end - second.start, EndedBy::Client);
        assert_eq!(used(claim(&replay, 3, 20, 0..FILE.1)), Used::OtherAddress);
        let (_copy, replay) = state.after_a_crash(NOW + 20);
        assert_eq!(used(claim(&replay, 3, 20, 0..FILE.1)), Used::OtherAddress);
        for (last, lacks) in [(1, second), (2, first)] {
            let run = claim(&replay, last, 20, lacks.clone()).unwrap();
            run.end(lacks.end - lacks.start, EndedBy::Client);
        }
        assert_eq!(used(claim(&replay, 3, 40, 0..FILE.1)), Used::OtherAddress);
    }
}

#[test]
fn after_exp_nobody_new_gets_the_link() {
    let replay = memory();
    let late = |last| ClaimRequest { expired: true, ..from(last, 60) };
    let check = |last| replay.check(&late(last), &RULES, NOW + 60).map(drop);
    claim(&replay, 1, 0, 0..FILE.1).unwrap().end(MIB, EndedBy::Reset);
    claim(&replay, 2, 1, MIB..FILE.1).unwrap().end(MIB, EndedBy::Reset);
    assert_eq!(check(3), Err(ClaimError::Expired));
    assert_eq!((check(1), check(2)), (Ok(()), Ok(())), "those that held it go on");
    // A peek makes no difference: without it, the link would not work any more.
    let replay = memory();
    claim(&replay, 1, 0, 0..1).unwrap().end(1, EndedBy::Client);
    assert_eq!(replay.check(&late(3), &RULES, NOW + 60), Err(ClaimError::Expired));
}

#[test]
fn a_link_is_nobodys_while_the_end_of_its_last_stream_is_to_come() {
    let replay = memory();
    let run = claim(&replay, 1, 0, 0..FILE.1).unwrap();
    run.note(FILE.1, FILE.1, 0);
    run.live.enter(Phase::Finishing);
    assert_eq!(in_use(claim(&replay, 2, 14, 0..FILE.1)), 1, "everything has been acknowledged");
    run.stream.finish(EndedBy::Other, NOW).record();
    assert_eq!(used(claim(&replay, 2, 15, 0..FILE.1)), Used::OtherAddress);
}

#[test]
fn a_changed_file_makes_a_delivered_link_an_open_one() {
    let replay = memory();
    claim(&replay, 1, 0, 0..FILE.1).unwrap().end(MIB, EndedBy::Other);
    claim(&replay, 2, 0, MIB..FILE.1).unwrap().end(7 * MIB, EndedBy::Other);
    // Who asks for the new version holds the link from here on.
    let new = claim_of(&replay, &from(1, 5), (8, FILE.1), 0..FILE.1).unwrap();
    new.note(MIB, MIB, 5);
    assert_eq!(in_use(claim(&replay, 2, 6, 0..FILE.1)), 9);
    assert_eq!(in_use(claim(&replay, 3, 6, 0..FILE.1)), 9);
}

#[test]
fn the_drains_end_comes_before_a_late_one() {
    let state = State::new();
    let replay = state.open(&RULES);
    let run = claim(&replay, 1, 0, 0..FILE.1).unwrap();
    run.note(4 * MIB, 3 * MIB, 0);
    let progress = replay.cut(&run.live, NOW).record().unwrap();
    assert_eq!(progress, Progress { delivered: 3 * MIB, length: FILE.1, spent: false });
    let before = std::fs::read(state.0.join("journal")).unwrap();
    let said = |replay: &Replay| replay.status(&request(1).key, &RULES, NOW);
    let status = said(&replay);
    let LinkStatus::Open { ended: Some(NOW), passes: Some(NOW), charged, .. } = status else {
        panic!("{status:?}");
    };
    assert_eq!(charged.0, 4 * MIB + 1024);
    // Its worker comes back from the disk.
    run.live.note_acknowledged(4 * MIB, at(1));
    run.stream.finish(EndedBy::Client, NOW + 1).record();
    assert_eq!(said(&replay), status);
    drop(replay);
    std::fs::write(state.0.join("journal"), before).unwrap();
    assert_eq!(said(&state.open(&RULES)), status);
}
