//! What a link, a server and the table may have, and how long it takes them to get it.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;

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

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
