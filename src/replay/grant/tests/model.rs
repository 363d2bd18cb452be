//! Runs the real rules against simulated downloaders (`downloader.rs`), and counts what no rule can
//! have all of: how often a client that still lacks bytes is refused, how often a finished link stays
//! open, and how often somebody else gets the link.

use super::downloader::*;

const RUNS: usize = 1600;

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    strangers: usize,
    late: usize,
    address: usize,
    finished: usize,
    /// Finished, the last byte not reset and no acknowledgement lost; and of those spent.
    plain: usize,
    plain_spent: usize,
    spent_at_once: usize,
    /// Finished otherwise; and of those spent.
    other_spent: usize,
    /// Times that the link changed hands, and seconds that it was waited for.
    hand_overs: usize,
    waits: usize,
    /// Runs in which somebody else who asks every second would have got the link.
    taken: usize,
}

fn run(random: &mut Random, style: Style, place: Place, tally: &mut Tally) {
    let mut run = Run::new(random, style, place);
    let end = run.finish();
    tally.hand_overs += run.hand_overs;
    tally.waits += run.waits;
    tally.taken += usize::from(run.taken);
    match end {
        End::Whole => {}
        End::Refused => return tally.refused += 1,
        End::Stranger => return tally.strangers += 1,
        End::Late => return tally.late += 1,
        End::Address => return tally.address += 1,
    }
    let settled = run.is_settled();
    tally.finished += 1;
    tally.spent_at_once += usize::from(run.entry.unwrap().spent);
    tally.plain += usize::from(run.plain);
    tally.plain_spent += usize::from(run.plain && settled);
    tally.other_spent += usize::from(!run.plain && settled);
}

#[test]
fn clients_that_lack_bytes_are_served_and_finished_links_spent() {
    let mut random = Random(11);
    println!("of {RUNS} runs a row: refused, as a stranger, after exp; finished: spent at once;");
    println!("plain: spent; other: spent; hand-overs, seconds waited, had by whoever polls");
    let places = [Place::Home, Place::Pool(2), Place::Pool(4), Place::Pool(16), Place::OnTheRoad];
    let styles = [Style::Single, Style::Segments, Style::OpenEnded];
    let (mut refused, mut strangers, mut late) = (0, 0, 0);
    for (place, style) in places.into_iter().flat_map(|place| styles.map(|style| (place, style))) {
        let mut tally = Tally::default();
        (0..RUNS).for_each(|_| run(&mut random, style, place, &mut tally));
        let Tally { finished, plain, plain_spent, spent_at_once, other_spent, .. } = tally;
        println!(
            "{place:?}, {style:?}: {}, {}, {}; {finished}: {spent_at_once}; {plain}: {plain_spent}; {}: {other_spent}; {}, {}, {}",
            tally.refused,
            tally.strangers,
            tally.late,
            finished - plain,
            tally.hand_overs,
            tally.waits,
            tally.taken,
        );
        assert_eq!(tally.address, 0, "{place:?}, {style:?}: refused because of the address");
        if place == Place::Home {
            assert_eq!(plain_spent, plain, "{style:?}: a finished link stays open");
            assert_eq!((tally.strangers, tally.late, tally.hand_overs), (0, 0, 0));
        }
        refused += tally.refused;
        strangers += tally.strangers;
        late += tally.late;
    }
    let share = |count: usize| count as f64 * 100.0 / (RUNS * 15) as f64;
    println!(
        "in all: {:.3} % refused, {:.3} % as strangers to a delivered link, {:.2} % after exp",
        share(refused),
        share(strangers),
        share(late)
    );
    assert!(share(refused) <= 0.05, "{:.3} % were refused", share(refused));
    assert!(share(strangers) <= 0.2, "{:.3} % were refused as strangers", share(strangers));
}
