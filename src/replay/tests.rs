//! Tests of the table: who may use a link, and who not.

mod bounds;
mod clock;

use std::collections::HashSet;
use std::path::PathBuf;

use super::*;
use crate::link::token::Used;
use crate::net::address::ClientKey;

pub(super) const NOW: u64 = 1_800_000_000;
const LENGTH: u64 = 1000;
const SUBJECT: FileVersion = FileVersion { tag: 7, length: LENGTH };
const SETTLE: u64 = 600;
pub(super) const RULES: Rules =
    Rules { reuse: Reuse::Resume, window: 86_400, settle: SETTLE, bind: true, alone: false };
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
fn keys_tell_links_apart_and_resources_endpoints() {
    let keys: HashSet<Key> = (0..10_000).map(|i: u32| key_of(&i.to_string())).collect();
    assert_eq!(keys.len(), 10_000);
    let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
    let backup: crate::link::Uuid = "3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6".parse().unwrap();
    let path = backup.to_string();
    let server2: crate::link::Uuid = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
    let file = hash_of(&Resource::File { server, path });
    assert_ne!(file, hash_of(&Resource::Backup { server: Some(server2), backup }));
    let mut hashes = HashSet::new();
    for path in ["a", "a1:b", "b", ""] {
        hashes.insert(hash_of(&Resource::Directory { server, path: path.into() }));
        hashes.insert(hash_of(&Resource::File { server, path: path.into() }));
        for files in [&[][..], &["a"], &["b"], &["a", "b"], &["ab"], &["a1:b"], &["1:a"]] {
            let files = files.iter().map(ToString::to_string).collect();
            hashes.insert(hash_of(&Resource::Files { server, path: path.into(), files }));
        }
    }
    assert_eq!(hashes.len(), 4 * (2 + 7));
}
