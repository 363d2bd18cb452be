//! Tables that agree through a fake.

use std::sync::{Arc, Mutex};

use super::{Agreement, Counts, Wish};
use crate::config::Reuse;
use crate::link::token::Used;
use crate::replay::{
    ClaimError, ClaimRequest, EndedBy, FileVersion, Key, Replay, Rules, StreamEnd,
};

const NOW: u64 = 1_000_000;
const FILE: FileVersion = FileVersion { tag: 7, length: 1000 };
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
    }
}

#[test]
fn a_link_is_asked_for_once_and_told_of_when_it_is_spent() {
    let (replay, fake) = table(Ok(()));
    for part in 0..10 {
        let span = part * 100..part * 100 + 100;
        let stream = replay.claim(&request(false), &RULES, NOW, &FILE, &span).unwrap().unwrap();
        let end = StreamEnd { sent: 100, acknowledged: 100, by: EndedBy::Client };
        assert!(fake.told.lock().unwrap().is_empty(), "not yet");
        stream.finish(&end, NOW).record();
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
    assert_eq!(replay.check(&late, &RULES, NOW), Ok(None));
    assert!(replay.claim(&late, &RULES, NOW, &FILE, &(0..10)).unwrap().is_some(), "taken over");
    assert!(fake.asked.lock().unwrap()[0].expired, "nothing new is claimed for it");
    for answer in [ClaimError::Expired, ClaimError::Elsewhere("b".into())] {
        let (replay, _) = table(Err(answer.clone()));
        let refused = replay.claim(&late, &RULES, NOW, &FILE, &(0..10)).unwrap_err();
        assert_eq!(refused, answer);
        assert_eq!(replay.tracked(), 0);
    }
}

#[test]
fn while_nobody_answers_new_links_wait_or_go_through() {
    let (replay, _) = table(Err(ClaimError::Away));
    let claim = |request: &ClaimRequest, rules| {
        replay.claim(request, rules, NOW, &FILE, &(0..10)).map(|_| ())
    };
    let alone = Rules { alone: true, ..RULES };
    assert_eq!(claim(&request(false), &RULES), Err(ClaimError::Away));
    assert_eq!(claim(&request(true), &alone), Err(ClaimError::Expired));
    assert_eq!(claim(&request(false), &alone), Ok(()));
    // From here on it is in use.
    assert_eq!(claim(&request(false), &RULES), Ok(()));
}
