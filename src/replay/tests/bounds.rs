//! What a link, a server and the table may have, and how long it takes them to get it.

use std::sync::atomic::AtomicBool;

use super::*;

#[test]
fn twenty_addresses_taking_turns_share_one_budget() {
    let replay = memory();
    let (mut bytes, mut refused) = (0, None);
    for turn in 0..2000u64 {
        let request = from((turn % 20) as u8, 0);
        match claim_of(&replay, &request, (TAG, 1 << 20), 0..255 << 10) {
            Ok(run) => {
                let sent = run.live.reserved();
                bytes += sent;
                run.end(sent, EndedBy::Client);
            }
            Err(error) => refused = Some(error),
        }
    }
    let budget = (3 << 20) + (64 << 20);
    assert_eq!(refused, Some(ClaimError::Used(Used::BudgetSpent)));
    assert!(bytes <= budget && bytes > budget - (1 << 20), "{bytes} of {budget}");
}

#[test]
fn a_seventeenth_stream_ends_a_dead_one() {
    let replay = memory();
    let mut runs: Vec<_> = (0..MAX_STREAMS as u64)
        .map(|part| claim_of(&replay, &from(1, 0), (TAG, LENGTH), part * 50..LENGTH).unwrap())
        .collect();
    // Of its own client: what another one may not do is said first.
    let full = claim(&replay, &from(1, 1), NOW).map(drop);
    assert_eq!(full, Err(ClaimError::TooManyStreams));
    assert_eq!(in_use(claim(&replay, &from(2, 1), NOW)), 9);
    for (seconds, run) in runs.iter().enumerate().filter(|(index, _)| *index != 5) {
        run.note(60, 50, 2 + seconds as u64);
    }
    runs[5].note(60, 40, 1);
    // A NAT has lost its table: the one that has been silent for longest goes.
    let _more = claim(&replay, &from(1, 20), NOW).unwrap();
    let stopped: Vec<_> = runs.iter().map(|run| run.live.stopped()).collect();
    assert_eq!(stopped.iter().filter(|stop| stop.is_some()).count(), 1);
    assert_eq!(stopped[5], Some(Stop::Displaced));
    assert_eq!(runs[5].stream.reserve(50), None);
    let LinkStatus::Open { delivered, .. } = replay.status(&request(1).key, &RULES, NOW) else {
        panic!("it is open");
    };
    assert_eq!(delivered.0, 40, "what it has acknowledged counts");
    runs.remove(5).end(LENGTH - 250, EndedBy::Client);
    // All of them are moving again.
    runs.iter().for_each(|run| run.note(60, 55, 20));
    assert_eq!(claim(&replay, &from(1, 21), NOW).map(drop), Err(ClaimError::TooManyStreams));
    runs.pop();
    assert!(claim(&replay, &from(1, 21), NOW).is_ok());
    // The next holder has its own sixteen.
    let _next = claim(&replay, &from(2, 31), NOW).unwrap();
    assert!(runs.iter().all(|run| run.live.stopped() == Some(Stop::HandedOver)));
}

#[test]
fn the_budget_holds_over_changes_of_the_file_and_restarts() {
    let state = State::new();
    let mut sent = 0;
    let budget = 3 * 100_999 + (64 << 20);
    'runs: loop {
        let replay = state.open(&RULES);
        for round in 0..1000 {
            // The file changes and grows; the last byte is never fetched.
            let file = if sent == 0 { (TAG, LENGTH) } else { (round, 100_000 + round) };
            match claim_of(&replay, &request(1), file, 0..file.1 - 1) {
                Ok(run) => {
                    let bytes = run.live.reserved();
                    sent += bytes;
                    run.end(bytes, EndedBy::Client);
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
    let refused = replay.check(&request(1), &RULES, NOW);
    assert_eq!(used(refused), Used::BudgetSpent, "explain says the same");
}

/// Begun at one MiB, and two hundred by now: an upload, or a log.
#[test]
fn a_file_that_grows_has_a_budget_that_grows_within_bounds() {
    let budget = |length: u64| {
        let state = State::new();
        let replay = state.open(&RULES);
        let of = |tag, length| claim_of(&replay, &request(1), (tag, length), 0..length).unwrap();
        of(1, 1 << 20).end(1 << 20, EndedBy::Other);
        of(2, length).end(1, EndedBy::Reset);
        // It does not shrink with the file.
        of(3, 1 << 20).end(1, EndedBy::Reset);
        drop(replay);
        match state.open(&RULES).status(&request(1).key, &RULES, NOW) {
            LinkStatus::Open { charged, .. } => charged.1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(budget(200 << 20), (600 << 20) + (64 << 20));
    assert_eq!(budget(1 << 40), 3 * ((4 << 20) + (1 << 30)) + (64 << 20));
}

#[test]
fn a_server_takes_a_quarter_of_the_table() {
    let replay = Arc::new(Replay::in_memory(100));
    let of = |server: &str, link| ClaimRequest { server: key_of(server), ..request(link) };
    (0..25).for_each(|link| touch(&replay, &of("a", link), NOW));
    assert_eq!(refusal(&replay, &of("a", 25)), ClaimError::TableFull);
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
    let open = || Arc::new(open(8, &state.0, &RULES, NOW));
    let of = |link| ClaimRequest { server: key_of("a"), ..request(link) };
    let replay = open();
    (0..2).for_each(|link| touch(&replay, &of(link), NOW));
    drop(replay);
    let replay = open();
    assert_eq!(refusal(&replay, &of(2)), ClaimError::TableFull);
    assert!(replay.check(&request(2), &RULES, NOW).is_ok(), "another server's");
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
    assert_eq!(refusal(&replay, &new), ClaimError::TableFull);
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

fn refusal(replay: &Arc<Replay>, request: &ClaimRequest) -> ClaimError {
    claim(replay, request, NOW).map(drop).unwrap_err()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
