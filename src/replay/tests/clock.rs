//! What time does: expiry, windows, settling, restarts and a clock that leaps.

use super::*;

#[test]
fn a_delivered_link_is_spent_after_a_while_and_for_good() {
    let state = State::new();
    let replay = state.open(&RULES);
    let run = claim(&replay, &request(1), NOW).unwrap();
    replay.maintain(&RULES, NOW + 5);
    run.note(LENGTH, LENGTH, 5);
    let progress = run.stream.finish(EndedBy::Other, NOW + 5).record().unwrap();
    assert_eq!((progress.delivered, progress.spent), (LENGTH, false));
    pass(&replay, NOW + 5..NOW + 604);
    assert!(replay.check(&request(1), &RULES, NOW + 604).is_ok());
    let LinkStatus::Open { settles, ended, passes, .. } =
        replay.status(&request(1).key, &RULES, NOW)
    else {
        panic!("it is open");
    };
    assert_eq!((settles, ended, passes), (Some(NOW + 605), Some(NOW + 5), None));
    drop(replay);
    // The end of the last stream has survived.
    let replay = state.open_at(&RULES, NOW + 604);
    assert!(replay.check(&request(1), &RULES, NOW + 604).is_ok());
    replay.maintain(&RULES, NOW + 605);
    assert_eq!(used(replay.check(&request(1), &RULES, NOW + 605)), Used::Spent);
    // Whoever was told so is not told otherwise when the clock steps back.
    assert_eq!(used(replay.check(&request(1), &RULES, NOW)), Used::Spent);
    drop(replay);
    assert_eq!(used(state.open(&RULES).check(&request(1), &RULES, NOW)), Used::Spent);
}

#[test]
fn a_crash_keeps_what_was_acknowledged() {
    let state = State::new();
    let file = (TAG, 20 << 20);
    let replay = state.open(&RULES);
    let mut run = claim_of(&replay, &request(1), file, 4 << 20..file.1).unwrap();
    let mut first = claim_of(&replay, &request(1), file, 0..4 << 20).unwrap();
    first.note(4 << 20, 4 << 20, 0);
    run.note(8 << 20, 7 << 20, 0);
    assert_eq!(run.stream.reserve(8 << 20), Some(16 << 20));
    assert_eq!(first.stream.reserve(4 << 20), Some(4 << 20));
    // What a running stream may have by now is not known to whoever reads the journal.
    let replay = Replay::read_only(10, &state.0, &RULES, NOW + 9).unwrap();
    let LinkStatus::Open { delivered, charged, ended, passes, .. } =
        replay.status(&request(1).key, &RULES, NOW + 9)
    else {
        panic!("it is open");
    };
    assert_eq!(delivered, ((11 << 20) - 1, file.1), "short of the first part's last byte");
    assert_eq!(charged.0, (20 << 20) + 2 * 1024, "all that was reserved may have been sent");
    assert_eq!((ended, passes), (None, None));
    let explained = ClaimRequest { at: Instant::now(), ..from(2, 0) };
    assert_eq!(in_use(replay.check(&explained, &RULES, NOW + 9)), 10);
    // A crash: neither stream ends. The holder was cut off, so that the next who asks has the link.
    let (_copy, replay) = state.after_a_crash(NOW + 9);
    let LinkStatus::Open { ended, passes, .. } = replay.status(&request(1).key, &RULES, NOW + 9)
    else {
        panic!("it is open");
    };
    assert_eq!((ended, passes), (Some(NOW + 9), Some(NOW + 9)));
    assert!(replay.check(&from(2, 0), &RULES, NOW + 9).is_ok());
}

#[test]
fn a_holder_that_a_crash_cut_off_has_not_only_peeked() {
    let state = State::new();
    let replay = state.open(&RULES);
    // One that has everything and fetches it again, and one that has only begun.
    for link in [1, 2] {
        let bytes = if link == 1 { LENGTH } else { 0 };
        claim(&replay, &request(link), NOW).unwrap().end(bytes, EndedBy::Other);
    }
    let _running = [1, 2].map(|link| claim(&replay, &request(link), NOW).unwrap());
    let (_copy, replay) = state.after_a_crash(NOW + 1000);
    assert!(replay.check(&request(1), &RULES, NOW + 1000).is_ok(), "it may have run until now");
    let stranger = ClaimRequest { client: client("192.0.2.2"), ..request(2) };
    touch(&replay, &stranger, NOW + 1000);
    let LinkStatus::Open { holders, .. } = replay.status(&stranger.key, &RULES, NOW + 1000) else {
        panic!("it is open");
    };
    assert_eq!(holders, ["192.0.2.2", "192.0.2.1"].map(|address| client(address).unwrap()));
    pass(&replay, NOW + 1000..NOW + 1000 + SETTLE + 2 * LEAP);
    let late = NOW + 1000 + SETTLE + LEAP;
    assert_eq!(used(claim(&replay, &request(1), late)), Used::Spent);
    assert!(replay.check(&request(2), &RULES, late).is_ok());
}

/// A second token for the same link would be fresh after the first one's end.
#[test]
fn an_entry_ends_with_the_last_token_that_was_seen() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(1));
    deliver(&replay, &request(2));
    let second = |link| ClaimRequest { expires: NOW + 80_000, ..request(link) };
    assert_eq!(used(replay.check(&second(1), &RULES, NOW)), Used::Spent);
    let (_copy, after) = state.after_a_crash(NOW);
    for replay in [&replay, &after] {
        pass(replay, NOW..NOW + 80_000);
        assert_eq!(used(replay.check(&second(1), &RULES, NOW + 80_000)), Used::Spent);
        assert_eq!(replay.tracked(), 1, "the other one is over");
        pass(replay, NOW + 80_000..NOW + 80_000 + AFTERLIFE + 2 * SWEEP);
        assert_eq!(replay.tracked(), 0);
    }
}

#[test]
fn expiry_and_window() {
    let replay = memory();
    let late = ClaimRequest { expired: true, ..request(1) };
    assert_eq!(claim(&replay, &late, NOW + 900).map(drop), Err(ClaimError::Expired));
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
    let file = (TAG, 100 << 20);
    let whole = || claim_of(&replay, &request(1), file, 0..file.1).unwrap();
    let (mut first, mut second) = (whole(), whole());
    let mut reserved = 0;
    while reserved < file.1 {
        reserved = first.stream.reserve(reserved).unwrap();
    }
    assert!(first.end(file.1, EndedBy::Client).spent);
    let late = NOW + 900 + AFTERLIFE;
    pass(&replay, NOW..late + 2 * SWEEP);
    assert!(second.stream.reserve(STEP_BYTES).is_some(), "an overlapping download may complete");
    let _ = second.stream.finish(EndedBy::Reset, late);
    assert!(
        replay.entries.get(&request(1).key).unwrap().grant.is_none(),
        "nothing is left to keep"
    );
    pass(&replay, late + 2 * SWEEP..late + 5 * SWEEP);
    assert_eq!(replay.tracked(), 0);
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
        claim(&replay, &request(link), NOW).unwrap().end(LENGTH, EndedBy::Other);
    }
    let late = |link| ClaimRequest { expired: true, ..request(link) };
    // By two days, and for good: both the window and the time to settle count from there.
    let now = NOW + 2 * 86_400;
    pass(&replay, now..now + SETTLE - 2 * LEAP);
    assert!(replay.check(&late(1), &RULES, now + SETTLE).is_ok());
    let again = claim(&replay, &late(2), now + SETTLE).unwrap();
    let _ = again.stream.finish(EndedBy::Reset, now + SETTLE).record();
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
    let replay = open(80, &state.0, &RULES, late);
    assert_eq!(replay.tracked(), 40);
    drop(replay);
    // But what lives is never left out, though the table has become smaller.
    let replay = state.open(&RULES);
    (0..50).for_each(|link| deliver(&replay, &request(1000 + link)));
    drop(replay);
    assert_eq!(open(10, &state.0, &RULES, NOW).tracked(), 90);
}
