//! Front ends that stop, die or sleep: who gets their links, and who does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Answer, Client, get};
use crate::front_ends::{Fleet, Redis, until};
use crate::harness::pattern;
use crate::mint::Token;
use crate::relay::Relay;

const MIB: usize = 1 << 20;

/// Asserts that somebody else is asked to wait for the link.
fn assert_in_use(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.raw);
    assert!(answer.text().contains("in use from another address"), "{}", answer.text());
    let seconds: u32 = answer.field("Retry-After").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
}

#[test]
fn a_planned_restart_leaves_the_link_to_its_holder() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "timeouts: {drain: 0s}");
    fleet.nodes[0].sparse("f", 48 << 20);
    let token = Token::file("/f");
    let holder = fleet.begin(0, 1, &token, 32 * MIB);
    fleet.servers[0].stop();
    assert_in_use(&fleet.part(1, 2, &token, "0-"));
    let rest = fleet.part(1, 1, &token, &format!("{}-", 32 * MIB));
    assert_eq!((rest.status, rest.body.len()), (206, 16 * MIB), "{}", rest.raw);
    assert_in_use(&fleet.part(1, 2, &token, "0-"));
    drop(holder);
    // What was paid for is not forgotten: of three times the file and 64 MiB, 48 MiB are gone.
    let charged: usize = redis.field(&token, "charged").parse().unwrap();
    assert!(charged >= 31 * MIB, "{charged}");
    // The one that comes back has lost the link, whatever its journal says.
    let back = fleet.nodes[0].start();
    back.wait_for_log("answers; this front end is");
    let answer = get(back.address(), &token.target());
    assert!(answer.status == 503 && answer.text().contains("elsewhere"), "{}", answer.raw);
}

#[test]
fn links_that_are_not_in_use_are_given_back_before_the_others_end() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 2, "");
    fleet.nodes[0].sparse("f", 64 << 20);
    let (idle, busy) = (Token::file("/f"), Token::file("/f"));
    assert_eq!(fleet.part(0, 1, &idle, "0-299999").status, 206);
    let mut running = fleet.begin(0, 1, &busy, MIB);
    fleet.servers[0].signal("TERM");
    until("the holder goes on elsewhere", || {
        assert_eq!(fleet.part(1, 2, &idle, "0-").status, 503);
        fleet.part(1, 1, &idle, "300000-300009").status == 206
    });
    assert!(fleet.part(1, 1, &busy, "0-9").text().contains("in use elsewhere"));
    running.read_some(63 * MIB);
    drop(running);
    until("it was delivered by who began it", || redis.field(&busy, "state") == "spent");
}

#[test]
fn one_that_comes_back_first_has_its_links_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "timeouts: {drain: 0s}");
    let content = pattern(3 * MIB);
    fleet.nodes[0].file("f", &content);
    let token = Token::file("/f");
    let first = fleet.part(0, 1, &token, &format!("0-{}", 2 * MIB - 1));
    fleet.servers[0].wait_for_log("delivered");
    fleet.servers[0].stop();
    fleet.servers[0] = fleet.nodes[0].start();
    fleet.servers[0].wait_for_log("answers; this front end is");
    let answer = fleet.part(1, 1, &token, "0-");
    assert!(answer.text().contains("in use elsewhere"), "{}", answer.raw);
    let rest = fleet.part(0, 1, &token, &format!("{}-", 2 * MIB));
    assert!([first.body, rest.body].concat() == content);
    until("all of it counts", || redis.field(&token, "state") == "covered");
}

#[test]
fn a_dead_owners_link_waits_for_its_holder_and_then_for_others() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 3, "");
    fleet.nodes[0].sparse("f", 16 << 20);
    let (kept, left) = (Token::file("/f"), Token::file("/f"));
    // Every byte of one, and a reset, which proves nothing.
    fleet.begin(0, 1, &kept, 16 * MIB).reset();
    fleet.begin(0, 1, &left, MIB).reset();
    fleet.servers[0].wait_for_logs(2, "interrupted");
    fleet.servers[0].kill();
    let elsewhere = |answer: &Answer| answer.text().contains("in use elsewhere");
    until("it is gone", || {
        let answer = fleet.part(1, 2, &kept, "0-");
        assert_eq!(answer.status, 503, "a stranger has it: {}", answer.raw);
        !elsewhere(&answer)
    });
    assert_in_use(&fleet.part(2, 2, &kept, "0-"));
    assert_eq!(fleet.part(1, 1, &kept, "0-9").status, 206);
    assert!(elsewhere(&fleet.part(2, 2, &kept, "0-")));
    // Of the other one's holder nothing is heard.
    until("somebody else has it", || match fleet.part(2, 2, &left, "0-99") {
        answer if answer.status == 206 => true,
        answer => {
            assert_in_use(&answer);
            false
        }
    });
}

#[test]
fn a_delivered_link_is_nobodys_when_its_owner_dies() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "");
    fleet.nodes[0].file("f", &pattern(2 * MIB));
    let token = Token::file("/f");
    for range in [format!("0-{}", MIB - 1), format!("{MIB}-")] {
        assert_eq!(fleet.part(0, 1, &token, &range).status, 206);
    }
    until("it is covered", || redis.field(&token, "state") == "covered");
    fleet.servers[0].kill();
    redis.wait_for_end_of(0);
    assert_eq!(fleet.part(1, 2, &token, "0-").status, 401);
    assert_eq!(fleet.part(1, 1, &token, "0-").status, 206, "its holder may lack a piece");
    assert_eq!(fleet.part(1, 2, &token, "0-").status, 401);
}

#[test]
fn an_owner_that_slept_serves_no_link_that_was_taken_over() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 2, "take_over_after: 3s");
    fleet.nodes[0].sparse("f", 256 << 20);
    let (taken, kept) = (Token::file("/f"), Token::file("/f"));
    let mut old = fleet.begin(0, 1, &taken, MIB);
    let mut undisturbed = fleet.begin(0, 1, &kept, MIB);
    fleet.servers[0].signal("STOP");
    redis.wait_for_end_of(0);
    assert_in_use(&fleet.part(1, 2, &taken, "0-"));
    assert_eq!(fleet.part(1, 1, &taken, "1048576-2097151").status, 206);
    // What waits for the sleeper is answered when it wakes.
    let mut waiting = Client::connect(fleet.address(0));
    waiting.request("GET", &taken.target(), "Range: bytes=0-9\r\n");
    fleet.servers[0].signal("CONT");
    let answer = waiting.answer();
    assert_eq!(answer.status, 503, "{}", answer.raw);
    assert_eq!(fleet.part(0, 1, &taken, "0-9").status, 503);
    fleet.servers[0].wait_for_log("taken over by another front end");
    assert!(old.read_to_end().len() < 255 * MIB, "the download of a link that is another's ends");
    undisturbed.read_some(255 * MIB);
}

#[test]
fn a_link_that_came_back_is_spent_for_good() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut fleet = Fleet::start(&redis, 2, "");
    fleet.nodes[0].file("f", &pattern(MIB));
    let token = Token::file("/f");
    for _ in 0..20 {
        assert_eq!(fleet.part(0, 1, &token, "0-9").status, 206);
    }
    // Over to the other one, and back.
    fleet.servers[0].signal("STOP");
    redis.wait_for_end_of(0);
    assert_eq!(fleet.part(1, 1, &token, "0-9").status, 206);
    fleet.servers[0].signal("CONT");
    until("it knows", || fleet.part(0, 1, &token, "0-9").text().contains("elsewhere"));
    fleet.servers[1].kill();
    redis.wait_for_end_of(1);
    assert_eq!(get(fleet.address(0), &token.target()).status, 200);
    until("it is spent", || get(fleet.address(0), &token.target()).status == 401);
    fleet.servers[0].kill();
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    let back = fleet.nodes[0].start();
    back.wait_for_log("answers; this front end is");
    let answer = get(back.address(), &token.target());
    assert_eq!(answer.status, 401, "{}", answer.raw);
}

#[test]
fn a_claim_whose_answer_was_lost_is_known_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    for (lines, times) in [("reuse: once", 1), ("reuse: once", 2), ("", 2)] {
        let relay = Relay::to(redis.address());
        let mut fleet = Fleet::through(&[relay.url(), redis.url()], lines);
        fleet.servers[0].may_log_errors();
        fleet.nodes[0].file("f", b"content");
        let token = Token::file("/f");
        relay.lose_answers(&crate::front_ends::key(&token), times);
        until("its first GET is served", || {
            let answer = get(fleet.address(0), &token.target());
            assert!(matches!(answer.status, 200 | 503), "{}", answer.raw);
            answer.status == 200
        });
        until("no other is", || {
            (0..2).all(|n| get(fleet.address(n), &token.target()).status == 401)
        });
    }
}

/// Asks all front ends from 127.0.0.2 for the whole of `token`'s file until `over`. Returns how often
/// it got it.
fn poll(fleet: &Fleet, token: &Token, over: &AtomicBool) -> usize {
    let mut whole = 0;
    while !over.load(Ordering::SeqCst) {
        for number in 0..fleet.servers.len() {
            let answer = Client::connect_from("127.0.0.2", fleet.address(number));
            whole += usize::from({ answer }.get(&token.target()).status == 200);
        }
    }
    whole
}

#[test]
fn nobody_gets_a_link_that_its_owner_delivers_whatever_happens_around_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    let fleet = Fleet::start(&redis, 3, "take_over_after: 3s");
    fleet.nodes[0].file("f", &pattern(8 * MIB));
    for round in 0..6 {
        let (token, over) = (Token::file("/f"), AtomicBool::new(false));
        let owner = round % 3;
        thread::scope(|scope| {
            let mut holder = fleet.begin(owner, 1, &token, MIB);
            let stranger = scope.spawn(|| poll(&fleet, &token, &over));
            for _ in 0..6 {
                match round % 2 {
                    0 => assert_eq!(redis.ask("FLUSHALL"), "+OK"),
                    _ => fleet.servers[owner].signal("STOP"),
                }
                thread::sleep(std::time::Duration::from_millis(150));
                fleet.servers[owner].signal("CONT");
                holder.read_some(MIB);
            }
            holder.read_some(MIB);
            drop(holder);
            until("it is spent", || get(fleet.address(owner), &token.target()).status == 401);
            until("all know", || redis.field(&token, "state") == "spent");
            if round % 2 == 0 {
                assert_eq!(redis.ask("FLUSHALL"), "+OK");
                until("it is known again", || {
                    redis.ask(&format!("EXISTS {}", crate::front_ends::key(&token))) == ":1"
                });
            }
            over.store(true, Ordering::SeqCst);
            assert_eq!(stranger.join().unwrap(), 0, "round {round}");
        });
        until("nobody gets it", || {
            let statuses = (0..3).map(|n| get(fleet.address(n), &token.target()).status);
            let statuses: Vec<u16> = statuses.collect();
            assert!(!statuses.contains(&200), "{statuses:?}");
            statuses == [401; 3]
        });
    }
}
