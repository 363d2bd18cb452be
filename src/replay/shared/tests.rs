//! Tables that agree through a fake.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Agreement, Counts, Wish};
use crate::config::Reuse;
use crate::link::token::Used;
use crate::replay::tests::live_of;
use crate::replay::{ClaimError, ClaimRequest, EndedBy, Key, Replay, Rules, Seen, Stream};

const NOW: u64 = 1_000_000;
const LENGTH: u64 = 1000;
const RULES: Rules =
    Rules { reuse: Reuse::Resume, window: 86_400, settle: 600, bind: true, alone: false };

/// Answers what it is told to, and remembers what it was asked and told.
#[derive(Debug)]
struct Fake {
    answer: Mutex<Result<(), ClaimError>>,
    asked: Mutex<Vec<Wish>>,
    told: Mutex<Vec<Key>>,
}

impl Agreement for Fake {
    fn claim(&self, wish: &Wish) -> Result<(), ClaimError> {
        self.asked.lock().unwrap().push(*wish);
        self.answer.lock().unwrap().clone()
    }

    fn look(&self, wish: &Wish) -> Result<(), ClaimError> {
        self.claim(wish)
    }

    fn spent(&self, key: Key) {
        self.told.lock().unwrap().push(key);
    }

    fn claimed_alone(&self) {}

    fn name(&self) -> &str {
        "a"
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }
}

fn table(answer: Result<(), ClaimError>) -> (Arc<Replay>, Arc<Fake>) {
    let fake = Fake { answer: Mutex::new(answer), asked: Mutex::default(), told: Mutex::default() };
    let fake = Arc::new(fake);
    let mut replay = Replay::in_memory(100);
    replay.share(Arc::clone(&fake) as _);
    (Arc::new(replay), fake)
}

fn request(expired: bool) -> ClaimRequest {
    let expires = if expired { NOW - 10 } else { NOW + 900 };
    ClaimRequest {
        key: [1; 16],
        resource: [2; 16],
        server: [3; 16],
        client: None,
        expires,
        expired,
        at: Instant::now(),
    }
}

fn claim(
    replay: &Arc<Replay>,
    request: &ClaimRequest,
    rules: &Rules,
) -> Result<Option<Stream>, ClaimError> {
    let live = live_of(request.key, 0..LENGTH, 7, request.at);
    live.note_sent(LENGTH);
    live.note_acknowledged(LENGTH, request.at);
    replay.claim(request, rules, NOW, LENGTH, &Arc::new(live))
}

#[test]
fn a_link_is_asked_for_once_and_told_of_when_it_is_spent() {
    let (replay, fake) = table(Ok(()));
    for by in [EndedBy::Reset, EndedBy::Other, EndedBy::Client] {
        let stream = claim(&replay, &request(false), &RULES).unwrap().unwrap();
        assert!(fake.told.lock().unwrap().is_empty(), "not yet");
        stream.finish(by, NOW).record();
    }
    assert_eq!(fake.asked.lock().unwrap().len(), 1);
    assert_eq!(*fake.told.lock().unwrap(), [[1; 16]]);
    let spent = Err(ClaimError::Used(Used::Spent));
    assert_eq!(replay.look(&request(false), &RULES, NOW), Ok(()), "the check refuses it");
    assert_eq!(replay.check(&request(false), &RULES, NOW), spent);
    assert_eq!(fake.asked.lock().unwrap().len(), 1, "what is spent is known");
}

#[test]
fn an_expired_token_is_good_for_a_link_that_was_claimed_elsewhere() {
    let (replay, fake) = table(Ok(()));
    let late = request(true);
    assert_eq!(replay.check(&late, &RULES, NOW), Ok(Seen::default()));
    assert!(claim(&replay, &late, &RULES).unwrap().is_some(), "taken over");
    assert!(fake.asked.lock().unwrap()[0].expired, "nothing new is claimed for it");
    for answer in [ClaimError::Expired, ClaimError::Elsewhere("b".into())] {
        let (replay, _) = table(Err(answer.clone()));
        let refused = claim(&replay, &late, &RULES).unwrap_err();
        assert_eq!(refused, answer);
        assert_eq!(replay.tracked(), 0);
    }
}

#[test]
fn while_nobody_answers_new_links_wait_or_go_through() {
    let (replay, _) = table(Err(ClaimError::Away));
    let claim = |request: &ClaimRequest, rules| claim(&replay, request, rules).map(|_| ());
    let alone = Rules { alone: true, ..RULES };
    assert_eq!(claim(&request(false), &RULES), Err(ClaimError::Away));
    assert_eq!(claim(&request(true), &alone), Err(ClaimError::Expired));
    assert_eq!(claim(&request(false), &alone), Ok(()));
    // From here on it is in use.
    assert_eq!(claim(&request(false), &RULES), Ok(()));
}
