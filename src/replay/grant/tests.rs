//! One link's bookkeeping, stream by stream.

use super::*;

const LENGTH: u64 = 1000;
const FILE: FileVersion = FileVersion { tag: 7, length: LENGTH };
const SETTLE: u64 = 600;

fn grant() -> Grant {
    Grant::default()
}

fn client(last: u8) -> Option<ClientKey> {
    Some(ClientKey::of([192, 0, 2, last].into()))
}

/// One stream over `span` that ends `by` this with `acknowledged` bytes, at second 0.
fn stream(grant: &mut Grant, span: Range<u64>, acknowledged: u64, by: EndedBy) -> bool {
    let file = grant.file;
    let file = if file.length == 0 { FILE } else { file };
    let flow = grant.start(&file, &span);
    grant.finish(&flow, &StreamEnd { sent: flow.reserved(), acknowledged, by }, 0)
}

/// What a running stream's sender reports.
fn report(flow: &Flow, sent: u64, acknowledged: u64) {
    flow.sent.store(sent, Ordering::Relaxed);
    flow.acknowledged.store(acknowledged, Ordering::Relaxed);
}

#[test]
fn one_complete_stream_that_the_client_ended_is_sure() {
    let mut grant = grant();
    assert!(stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Client));
}

#[test]
fn what_ended_otherwise_is_seen_and_settles() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Other));
    assert!(!grant.is_settled(SETTLE, SETTLE - 1));
    assert!(grant.is_settled(SETTLE, SETTLE));
    let flow = grant.start(&FILE, &(0..LENGTH));
    assert!(!grant.is_settled(SETTLE, SETTLE), "a stream runs");
    grant.finish(&flow, &StreamEnd { sent: 0, acknowledged: 0, by: EndedBy::Reset }, 700);
    assert!(!grant.is_settled(SETTLE, 1299), "the time counts from the last stream's end");
    assert!(grant.is_settled(SETTLE, 1300));
}

#[test]
fn a_reset_after_the_last_byte_leaves_the_last_byte_open() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Reset));
    assert_eq!((grant.seen.to_string().as_str(), grant.delivered()), ("0-999", 999));
    assert!(!grant.is_settled(SETTLE, 1 << 40));
    // Of a part too: the byte is the part's.
    assert!(!stream(&mut grant, 999..LENGTH, 1, EndedBy::Reset));
    assert!(!grant.is_settled(SETTLE, 1 << 40));
    assert!(!stream(&mut grant, 990..LENGTH, 10, EndedBy::Client));
    assert!(grant.is_settled(SETTLE, SETTLE), "sure and seen add up");
}

#[test]
fn a_client_that_did_not_acknowledge_everything_did_not_end_it() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0..LENGTH, 600, EndedBy::Client));
    assert_eq!((grant.sure.to_string().as_str(), grant.seen.to_string().as_str()), ("-", "0-600"));
}

#[test]
fn parts_add_up_in_any_order_and_only_sure_ones_spend_at_once() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 500..LENGTH, 500, EndedBy::Client));
    assert!(!stream(&mut grant, 0..300, 300, EndedBy::Client));
    assert!(!stream(&mut grant, 300..500, 200, EndedBy::Other));
    assert_eq!(grant.delivered(), LENGTH);
    assert!(stream(&mut grant, 300..500, 200, EndedBy::Client));
}

#[test]
fn where_somebody_begins_says_nothing_of_what_lies_before() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0..LENGTH, 400, EndedBy::Reset));
    assert!(!stream(&mut grant, 500..LENGTH, 500, EndedBy::Client));
    assert!(!grant.is_settled(SETTLE, 1 << 40), "100 bytes are missing");
    assert!(!stream(&mut grant, 400..500, 100, EndedBy::Client));
    assert!(grant.is_settled(SETTLE, SETTLE));
}

/// The two cases that once refused people who still lacked bytes.
#[test]
fn nobody_who_lacks_bytes_is_refused_at_once() {
    let mut grant = grant();
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
    let empty = FileVersion { tag: 7, length: 0 };
    for (by, at_once, settled) in [
        (EndedBy::Client, true, true),
        (EndedBy::Other, false, true),
        (EndedBy::Reset, false, false),
    ] {
        let mut grant = grant();
        let flow = grant.start(&empty, &(0..0));
        assert_eq!((flow.reserved(), grant.is_a_peek()), (0, false));
        let end = StreamEnd { sent: 0, acknowledged: 0, by };
        assert_eq!(grant.finish(&flow, &end, 0), at_once, "{by:?}");
        assert_eq!(grant.is_settled(SETTLE, SETTLE), settled, "{by:?}");
        assert_eq!(grant.delivered(), 0);
    }
}

#[test]
fn the_budget_is_three_times_the_file_and_some() {
    let mut grant = grant();
    stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Reset);
    assert_eq!(grant.charged, LENGTH + HEAD_CHARGE);
    grant.charged = grant.budget() - HEAD_CHARGE - 10;
    let flow = grant.start(&FILE, &(0..LENGTH));
    assert_eq!(flow.reserved(), 10, "up to the last byte");
    assert_eq!(grant.reserve(&flow), None);
    let larger = FileVersion { tag: 8, length: 1 << 40 };
    assert_eq!(
        grant.start(&larger, &(0..1 << 40)).reserved(),
        0,
        "a larger file does not raise it"
    );
}

#[test]
fn what_was_reserved_and_not_sent_is_given_back() {
    let mut grant = grant();
    let file = FileVersion { tag: 7, length: 20 << 20 };
    let flow = grant.start(&file, &(0..file.length));
    assert_eq!(grant.reserve(&flow), Some(()));
    assert_eq!((flow.reserved(), grant.charged), (2 * STEP_BYTES, 2 * STEP_BYTES + HEAD_CHARGE));
    grant.finish(&flow, &StreamEnd { sent: 10, acknowledged: 5, by: EndedBy::Reset }, 0);
    assert_eq!(grant.charged, HEAD_CHARGE + 10);
}

#[test]
fn a_changed_file_starts_over_and_old_streams_do_not_count() {
    let mut grant = grant();
    let old = grant.start(&FILE, &(0..LENGTH));
    stream(&mut grant, 0..500, 500, EndedBy::Client);
    let changed = FileVersion { tag: 8, length: LENGTH };
    let new = grant.start(&changed, &(0..LENGTH));
    assert_eq!(grant.delivered(), 0);
    let all = StreamEnd { sent: LENGTH, acknowledged: LENGTH, by: EndedBy::Client };
    assert!(!grant.finish(&old, &all, 0));
    assert_eq!(grant.delivered(), 0);
    assert!(grant.finish(&new, &all, 0));
}

#[test]
fn a_crash_leaves_what_running_streams_acknowledged() {
    let mut grant = grant();
    let flow = grant.start(&FILE, &(100..LENGTH));
    assert_eq!(grant.seen_by_now(), Spans::default());
    assert_eq!(grant.acknowledged_by_now(), 900, "it may have been sent all of it");
    report(&flow, 500, 300);
    assert_eq!(grant.seen_by_now().to_string(), "100-400");
    report(&flow, 900, 900);
    assert_eq!(grant.seen_by_now().to_string(), "100-999");
}

#[test]
fn only_a_quiet_peek_is_taken_over() {
    const LARGE: FileVersion = FileVersion { tag: 7, length: 1 << 20 };
    const STEP: u64 = 256 << 10;
    let mut grant = Grant { client: client(1), ..Grant::default() };
    let flow = grant.start(&LARGE, &(0..LARGE.length));
    assert!(!grant.is_a_peek(), "it counts as sending until it says otherwise");
    report(&flow, STEP - 1, STEP - 2);
    assert!(!grant.is_a_peek(), "a byte is on its way");
    report(&flow, STEP - 1, STEP - 1);
    assert!(grant.is_a_peek(), "a preview that stays connected");
    report(&flow, STEP, STEP);
    assert!(!grant.is_a_peek());
    grant.finish(&flow, &StreamEnd { sent: STEP, acknowledged: STEP, by: EndedBy::Other }, 0);
    assert!(!grant.is_a_peek(), "what it took still counts");
    // All of a small file is no peek.
    let mut grant = Grant::default();
    stream(&mut grant, 0..LENGTH, LENGTH - 1, EndedBy::Reset);
    assert!(grant.is_a_peek());
    stream(&mut grant, LENGTH - 1..LENGTH, 1, EndedBy::Reset);
    assert!(!grant.is_a_peek());
}

#[test]
fn the_next_holder_starts_over_within_the_same_budget() {
    let mut grant = Grant { client: client(1), ..Grant::default() };
    let flow = grant.start(&FILE, &(0..LENGTH));
    stream(&mut grant, 0..100, 100, EndedBy::Client);
    let charged = grant.charged;
    grant.hold(client(1), true);
    grant.hold(client(2), false);
    assert!(flow.current.load(Ordering::Relaxed), "its own, or binding is off");
    grant.hold(client(2), true);
    assert!(!flow.current.load(Ordering::Relaxed));
    assert_eq!((grant.client, grant.charged, grant.delivered()), (client(2), charged, 0));
    // The end of the old holder's stream says nothing about the new one's.
    let all = StreamEnd { sent: flow.reserved(), acknowledged: LENGTH, by: EndedBy::Client };
    assert!(!grant.finish(&flow, &all, 0));
    assert_eq!((grant.delivered(), grant.acknowledged), (0, 0));
    assert!(stream(&mut grant, 0..LENGTH, LENGTH, EndedBy::Client));
}
