//! What holds whatever clients, files and the server do: a link delivers no more than its budget, and
//! once it is covered, nobody has it who did not hold it.

use proptest::prelude::*;

use super::*;

const LENGTH: u64 = 16 << 20;
const BUDGET: u64 = 3 * LENGTH + (64 << 20);

/// What happens next to the link.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// An address asks for a part, in sixteenths of the file; the token it presents may be expired.
    Ask { last: u8, from: u64, to: u64, expired: bool },
    /// The running stream of this number goes on by so much.
    Send { stream: usize, bytes: u64, acknowledged: u64 },
    /// An address asks for a part, takes all of it, and its stream ends.
    Fetch { last: u8, from: u64, to: u64, by: EndedBy },
    /// A running stream ends.
    End { stream: usize, by: EndedBy },
    /// Its sender forgets it.
    Drop { stream: usize },
    /// Some time passes, in seconds.
    Wait { seconds: u64 },
    /// The server is killed and comes back.
    Crash,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let by = || prop_oneof![Just(EndedBy::Client), Just(EndedBy::Other), Just(EndedBy::Reset)];
    let one = prop_oneof![
        12 => (1u8..7, 0u64..16, 1u64..17, by()).prop_map(|(last, from, length, by)| {
            // Never all of it: that would spend the link.
            let (from, to) = (from, (from + length).min(16));
            Move::Fetch { last, from: if to - from == 16 { 1 } else { from }, to, by }
        }),
        4 => (1u8..7, 0u64..16, 1u64..17, prop::bool::weighted(0.1)).prop_map(
            |(last, from, length, expired)| {
                let to = (from + length).min(16);
                Move::Ask { last, from, to, expired }
            }
        ),
        4 => (0usize..4, 0..LENGTH, 0..LENGTH).prop_map(|(stream, bytes, acknowledged)| {
            Move::Send { stream, bytes, acknowledged }
        }),
        4 => (0usize..4, by()).prop_map(|(stream, by)| Move::End { stream, by }),
        1 => (0usize..4).prop_map(|stream| Move::Drop { stream }),
        2 => (0u64..15).prop_map(|seconds| Move::Wait { seconds }),
        1 => Just(Move::Crash),
    ];
    prop::collection::vec(one, 1..120)
}

/// The link and everything around it.
struct World {
    state: State,
    replay: Arc<Replay>,
    seconds: u64,
    runs: Vec<Run>,
    /// Bytes that were sent.
    sent: u64,
    /// Addresses that the link was ever begun from.
    held: HashSet<u8>,
}

impl World {
    fn ask(&mut self, last: u8, from: u64, to: u64, expired: bool) -> Result<(), TestCaseError> {
        let request = ClaimRequest { expired, ..super::from(last, self.seconds) };
        let now = NOW + self.seconds;
        let covered = matches!(
            self.replay.status(&request.key, &RULES, now),
            LinkStatus::Open { delivered, .. } if delivered.0 == delivered.1
        );
        let span = LENGTH / 16 * from..LENGTH / 16 * to;
        let Ok(run) = claim_at(&self.replay, &request, (TAG, LENGTH), span, now) else {
            return Ok(());
        };
        let stranger = !self.held.contains(&last);
        prop_assert!(!(covered && stranger), "{last} has a delivered link");
        prop_assert!(!(expired && stranger), "{last} has a link after exp");
        self.held.insert(last);
        let limit = run.live.reserved();
        prop_assert!(self.sent + limit <= BUDGET);
        self.runs.push(run);
        Ok(())
    }

    fn fetch(&mut self, last: u8, from: u64, to: u64, by: EndedBy) -> Result<(), TestCaseError> {
        let running = self.runs.len();
        self.ask(last, from, to, false)?;
        if self.runs.len() > running {
            let mut before = u64::MAX;
            while std::mem::replace(&mut before, self.runs[running].live.sent()) != before {
                self.send(running, LENGTH, LENGTH);
            }
            self.runs.swap_remove(running).stream.finish(by, NOW + self.seconds).record();
        }
        Ok(())
    }

    fn send(&mut self, stream: usize, bytes: u64, acknowledged: u64) {
        let Some(run) = self.runs.get_mut(stream) else { return };
        let sent = run.live.sent();
        let Some(limit) = run.stream.reserve(sent) else { return };
        let now = limit.min(sent + bytes);
        self.sent += now - sent;
        let acknowledged =
            acknowledged.clamp(run.live.acknowledged(), now.max(run.live.acknowledged()));
        run.note(now, acknowledged, self.seconds);
    }

    fn go(&mut self, next: Move) -> Result<(), TestCaseError> {
        match next {
            Move::Ask { last, from, to, expired } => return self.ask(last, from, to, expired),
            Move::Fetch { last, from, to, by } => return self.fetch(last, from, to, by),
            Move::Send { stream, bytes, acknowledged } => self.send(stream, bytes, acknowledged),
            Move::End { stream, by } if stream < self.runs.len() => {
                let run = self.runs.swap_remove(stream);
                run.stream.finish(by, NOW + self.seconds).record();
            }
            Move::Drop { stream } if stream < self.runs.len() => {
                drop(self.runs.swap_remove(stream));
            }
            Move::End { .. } | Move::Drop { .. } => {}
            Move::Wait { seconds } => {
                self.seconds += seconds;
                self.replay.maintain(&RULES, NOW + self.seconds);
            }
            Move::Crash => {
                let (state, replay) = self.state.after_a_crash(NOW + self.seconds);
                self.runs.clear();
                (self.state, self.replay) = (state, replay);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn budget_and_holders_hold_whatever_happens(moves in moves()) {
        let state = State::new();
        let replay = state.open(&RULES);
        let (runs, held) = (Vec::new(), HashSet::new());
        let mut world = World { state, replay, seconds: 0, runs, sent: 0, held };
        for next in moves {
            world.go(next)?;
            prop_assert!(world.sent <= BUDGET, "{} of {BUDGET}", world.sent);
        }
    }
}
