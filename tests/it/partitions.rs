//! Front ends that Redis cannot be reached from, while the others can.

use crate::client::Client;
use crate::front_ends::{Fleet, Redis, until};
use crate::harness::{Server, pattern};
use crate::mint::Token;
use crate::relay::Relay;

const LENGTH: usize = 64 << 20;

/// Two front ends, the first of which reaches Redis through what is returned.
fn fleet(redis: &Redis, lines: &str) -> (Relay, Fleet) {
    let relay = Relay::to(redis.address());
    let mut fleet = Fleet::through(&[relay.url(), redis.url()], lines);
    fleet.servers.iter_mut().for_each(Server::may_log_errors);
    (relay, fleet)
}

#[test]
fn one_that_is_cut_off_finishes_what_runs_and_begins_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (relay, fleet) = fleet(&redis, "take_over_after: 3s");
    let content = pattern(LENGTH);
    fleet.nodes[0].file("f", &content);
    let token = Token::file("/f");
    let mut running = Client::connect(fleet.address(0));
    running.request("GET", &token.target(), "");
    assert_eq!(running.head().unwrap().status, 200);
    let mut body = running.read_some(1 << 20);
    relay.cut();
    // As long as nobody can have taken the link over, it goes on.
    assert_eq!(fleet.part(0, 1, &token, "0-9").status, 206);
    redis.wait_for_end_of(0);
    fleet.servers[0].wait_for_log("1 running downloads may finish beside them");
    let refused = fleet.part(0, 1, &token, "0-9");
    assert_eq!(refused.status, 503, "{}", refused.raw);
    assert!(refused.field("Retry-After").is_some());
    assert_eq!(fleet.part(1, 1, &token, "0-9").status, 206, "the holder finds it elsewhere");
    body.extend(running.read_some(LENGTH - (1 << 20)));
    assert!(body == content);
    drop(running);
    // The same client has it all by now, whoever owns the link.
    relay.mend();
    until("all know", || redis.field(&token, "state") == "spent");
    assert_eq!(fleet.part(0, 1, &token, "0-9").status, 401);
}

#[test]
fn who_took_a_link_over_keeps_it_when_the_former_owner_comes_back() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (relay, fleet) = fleet(&redis, "take_over_after: 2s");
    fleet.nodes[0].sparse("f", 32 << 20);
    let token = Token::file("/f");
    let mut running = fleet.begin(0, 1, &token, 1 << 20);
    relay.cut();
    redis.wait_for_end_of(0);
    until("somebody else has it", || fleet.part(1, 2, &token, "0-9").status == 206);
    running.read_some(31 << 20);
    drop(running);
    until("it is spent there", || fleet.part(0, 1, &token, "0-9").status == 401);
    relay.mend();
    until("it knows", || fleet.part(0, 2, &token, "0-9").text().contains("elsewhere"));
    assert_eq!(redis.field(&token, "state"), "open");
    assert_eq!(fleet.part(1, 2, &token, "10-19").status, 206);
}

#[test]
fn one_that_comes_back_ends_the_downloads_of_links_that_are_others() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (relay, fleet) = fleet(&redis, "take_over_after: 2s");
    fleet.nodes[0].sparse("f", 256 << 20);
    let (taken, kept) = (Token::file("/f"), Token::file("/f"));
    let begin = |token: &Token| fleet.begin(0, 1, token, 1 << 20);
    let (mut old, mut undisturbed) = (begin(&taken), begin(&kept));
    relay.cut();
    redis.wait_for_end_of(0);
    assert_eq!(fleet.part(1, 1, &taken, "0-9").status, 206);
    relay.mend();
    fleet.servers[0].wait_for_log("1 running downloads of this one end");
    assert!(old.read_to_end().len() < 255 << 20);
    undisturbed.read_some(255 << 20);
    // What was nobody else's is its own again.
    assert_eq!(fleet.part(0, 1, &kept, "0-9").status, 206);
}

#[test]
fn while_one_is_cut_off_a_link_that_it_delivered_stays_spent() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (relay, fleet) = fleet(&redis, "take_over_after: 20s");
    fleet.nodes[0].file("f", b"content");
    let (whole, told) = (Token::file("/f"), Token::file("/f"));
    // Claimed before, delivered while Redis is away, and told afterwards.
    let mut part = Client::connect(fleet.address(0));
    assert_eq!(part.get_with(&whole.target(), "Range: bytes=0-2\r\n").status, 206);
    assert_eq!(fleet.part(0, 1, &told, "0-2").status, 206);
    relay.cut();
    assert_eq!(Client::connect(fleet.address(0)).get(&whole.target()).status, 200);
    until("it is spent", || Client::connect(fleet.address(0)).get(&whole.target()).status == 401);
    relay.mend();
    until("all know", || redis.field(&whole, "state") == "spent");
    assert_eq!(redis.field(&told, "state"), "open");
}

#[test]
fn a_redis_that_does_not_answer_holds_one_worker_for_a_second() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (relay, fleet) = fleet(&redis, "take_over_after: 60s");
    fleet.nodes[0].sparse("f", 8 << 20);
    let owned = Token::file("/f");
    assert_eq!(fleet.part(0, 1, &owned, "0-9").status, 206);
    redis.signal(rustix::process::Signal::STOP);
    let fresh: Vec<_> = (0..40).map(|_| Token::file("/f")).collect();
    std::thread::scope(|scope| {
        let fleet = &fleet;
        let asked = fresh.iter().map(|token| scope.spawn(move || fleet.part(0, 1, token, "0-9")));
        let asked: Vec<_> = asked.collect();
        // Two workers stay away from it.
        for _ in 0..20 {
            assert_eq!(fleet.part(0, 1, &owned, "0-9").status, 206);
        }
        for answer in asked {
            assert_eq!(answer.join().unwrap().status, 503);
        }
    });
    // One at a time: the second that timed out is the only one that was waited for.
    fleet.servers[0].wait_for_log("shared_state does not answer, or refuses");
    redis.signal(rustix::process::Signal::CONT);
    drop(relay);
    until("service resumes", || fleet.part(0, 1, &fresh[0], "0-9").status == 206);
}
