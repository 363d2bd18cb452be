//! One link's bookkeeping, stream by stream.

mod downloader;
mod model;

use super::*;
use crate::replay::tests::live;

const LENGTH: u64 = 1000;
const TAG: EntityTag = 7;
const SETTLE: u64 = 600;

/// A stream over `span` of a file of `length` bytes that has just begun.
fn begin(grant: &mut Grant, span: Range<u64>, tag: EntityTag, length: u64) -> Arc<Live> {
    let live = Arc::new(live(span, tag));
    grant.start(&live, length, live.entry.began);
    live
}

/// Ends `live` with `acknowledged` bytes at second `now`.
fn end(grant: &mut Grant, live: &Live, acknowledged: u64, by: EndedBy, now: u64) -> bool {
    live.note_sent(live.reserved());
    live.note_acknowledged(acknowledged, live.entry.began);
    grant.finish(live, by, now)
}

/// One stream over `span` that ends `by` this with `acknowledged` bytes, at second 0.
fn stream(grant: &mut Grant, span: Range<u64>, acknowledged: u64, by: EndedBy) -> bool {
    let live = begin(grant, span, TAG, LENGTH);
    end(grant, &live, acknowledged, by, 0)
}

#[test]
fn one_whole_stream_that_the_client_ended_proves_it() {
    assert!(stream(&mut Grant::default(), 0..LENGTH, LENGTH, EndedBy::Client));
    // Parts prove nothing, and neither does anybody else's end.
    let mut grant = Grant::default();
    assert!(!stream(&mut grant, 500..LENGTH, 500, EndedBy::Client));
    assert!(!stream(&mut grant, 0..500, 500, EndedBy::Client));
    assert!(grant.is_covered());
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Other));
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH - 1, EndedBy::Client));
}

#[test]
fn a_covered_link_settles_once_no_stream_has_run_for_a_while() {
    let mut grant = Grant::default();
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Other));
    assert!(!grant.is_settled(SETTLE, SETTLE - 1));
    assert!(grant.is_settled(SETTLE, SETTLE));
    let live = begin(&mut grant, 0..LENGTH, TAG, LENGTH);
    assert!(!grant.is_settled(SETTLE, SETTLE), "a stream runs");
    end(&mut grant, &live, 0, EndedBy::Reset, 700);
    assert!(!grant.is_settled(SETTLE, 1299), "the time counts from the last stream's end");
    assert!(grant.is_settled(SETTLE, 1300));
}

#[test]
fn a_reset_after_the_last_byte_leaves_the_last_byte_open() {
    let mut grant = Grant::default();
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Reset));
    assert_eq!(grant.delivered.to_string(), "0-999");
    assert!(!grant.is_settled(SETTLE, 1 << 40));
    // Of a part too: the byte is the part's.
    assert!(!stream(&mut grant, 999..LENGTH, 1, EndedBy::Reset));
    assert!(!grant.is_settled(SETTLE, 1 << 40));
    assert!(!stream(&mut grant, 990..LENGTH, 10, EndedBy::Client));
    assert!(grant.is_settled(SETTLE, SETTLE));
}

#[test]
fn where_somebody_begins_says_nothing_of_what_lies_before() {
    let mut grant = Grant::default();
    assert!(!stream(&mut grant, 0..LENGTH, 400, EndedBy::Reset));
    assert!(!stream(&mut grant, 500..LENGTH, 500, EndedBy::Client));
    assert!(!grant.is_settled(SETTLE, 1 << 40), "100 bytes are missing");
    assert!(!stream(&mut grant, 400..500, 100, EndedBy::Client));
    assert!(grant.is_settled(SETTLE, SETTLE));
}

/// The two cases that once refused people who still lacked bytes.
#[test]
fn nobody_who_lacks_bytes_is_refused_at_once() {
    let mut grant = Grant::default();
    // Acknowledged past 500 and read to 400; the rest complete; then what is missing.
    assert!(!stream(&mut grant, 0..LENGTH, 600, EndedBy::Reset));
    assert!(!stream(&mut grant, 500..LENGTH, 500, EndedBy::Client));
    assert!(!grant.is_settled(SETTLE, SETTLE - 1));
    let mut grant = Grant::default();
    // Cancelled, and then another program begins in the middle.
    assert!(!stream(&mut grant, 0..LENGTH, 350, EndedBy::Reset));
    assert!(!stream(&mut grant, 300..LENGTH, 700, EndedBy::Client));
    assert!(!grant.is_settled(SETTLE, SETTLE - 1));
}

#[test]
fn an_empty_file_is_covered_by_one_finished_get() {
    for (by, at_once, settled) in [
        (EndedBy::Client, true, true),
        (EndedBy::Other, false, true),
        (EndedBy::Reset, false, false),
    ] {
        let mut grant = Grant::default();
        let live = begin(&mut grant, 0..0, TAG, 0);
        assert!(live.reserved() == 0 && !grant.is_a_peek() && !grant.is_covered());
        assert_eq!(end(&mut grant, &live, 0, by, 0), at_once, "{by:?}");
        assert_eq!(grant.is_settled(SETTLE, SETTLE), settled, "{by:?}");
    }
}

#[test]
fn the_budget_is_three_times_the_file_and_some() {
    let mut grant = Grant::default();
    stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Reset);
    assert_eq!(grant.charged, LENGTH + HEAD_CHARGE);
    grant.charged = grant.budget() - HEAD_CHARGE - 10;
    let live = begin(&mut grant, 0..LENGTH, TAG, LENGTH);
    assert_eq!(live.reserved(), 10, "up to the last byte");
    assert!(!grant.reserve(&live));
}

#[test]
fn what_was_reserved_and_not_sent_is_given_back_once() {
    let mut grant = Grant::default();
    let length = 20 << 20;
    let live = begin(&mut grant, 0..length, TAG, length);
    assert!(grant.reserve(&live));
    assert_eq!((live.reserved(), grant.charged), (2 * STEP_BYTES, 2 * STEP_BYTES + HEAD_CHARGE));
    live.note_sent(10);
    for _ in 0..2 {
        grant.finish(&live, EndedBy::Reset, 0);
        assert_eq!(grant.charged, HEAD_CHARGE + 10);
    }
    assert!(!grant.reserve(&live), "it has ended");
}

#[test]
fn a_changed_file_starts_over_and_old_streams_do_not_count() {
    let mut grant = Grant::default();
    let old = begin(&mut grant, 0..LENGTH, TAG, LENGTH);
    stream(&mut grant, 0..500, 500, EndedBy::Client);
    let new = begin(&mut grant, 0..LENGTH, 8, LENGTH);
    assert_eq!((grant.delivered.total(), grant.mixed), (0, true));
    assert!(!end(&mut grant, &old, LENGTH, EndedBy::Client, 0));
    assert_eq!(grant.delivered.total(), 0);
    assert!(end(&mut grant, &new, LENGTH, EndedBy::Client, 0));
}

#[test]
fn a_crash_leaves_what_running_streams_acknowledged() {
    let mut grant = Grant::default();
    let live = begin(&mut grant, 100..LENGTH, TAG, LENGTH);
    assert_eq!(grant.delivered_by_now(), Spans::default());
    assert_eq!(grant.acknowledged_by_now(), 900, "it may have been sent all of it");
    for (acknowledged, delivered) in [(300, "100-400"), (900, "100-999")] {
        live.note_acknowledged(acknowledged, live.entry.began);
        assert_eq!(grant.delivered_by_now().to_string(), delivered);
    }
}

#[test]
fn all_of_a_small_file_is_no_peek() {
    let mut grant = Grant::default();
    stream(&mut grant, 0..LENGTH, LENGTH - 1, EndedBy::Reset);
    assert!(grant.is_a_peek());
    stream(&mut grant, LENGTH - 1..LENGTH, 1, EndedBy::Reset);
    assert!(!grant.is_a_peek());
}
