//! One link's bookkeeping, stream by stream.

use super::*;

const LENGTH: u64 = 1000;

fn grant() -> Grant {
    Grant::open(0, None, 7, LENGTH)
}

/// One stream from `start` to `end`; `orderly` or cut off after the last byte was acknowledged.
fn stream(grant: &mut Grant, start: u64, end: u64, orderly: bool) -> bool {
    let number = grant.start(&(start..end));
    assert!(grant.reserve(number, end - start));
    let bytes = end - start;
    grant.finish(number, &StreamEnd { sent: bytes, acknowledged: bytes, orderly })
}

#[test]
fn one_complete_stream_is_a_delivery() {
    assert!(stream(&mut grant(), 0, LENGTH, true));
}

#[test]
fn a_reset_after_the_last_byte_is_none() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0, LENGTH, false));
    assert_eq!(grant.delivered.total(), 0);
}

#[test]
fn resuming_confirms_what_came_before_and_only_that() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0, 400, false));
    assert!(stream(&mut grant, 300, LENGTH, true));
}

#[test]
fn a_client_may_hold_more_than_it_had_time_to_acknowledge() {
    let mut grant = grant();
    let number = grant.start(&(0..LENGTH));
    assert!(grant.reserve(number, LENGTH));
    assert!(!grant.finish(number, &StreamEnd { sent: 500, acknowledged: 300, orderly: false }));
    assert!(stream(&mut grant, 400, LENGTH, true));
}

#[test]
fn a_restart_at_zero_does_not_add_up() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 0, 600, false));
    assert!(!stream(&mut grant, 0, 500, false));
    assert!(!stream(&mut grant, 600, LENGTH, true));
    assert_eq!(grant.delivered.to_string(), "600-1000");
}

#[test]
fn ten_interruptions_in_a_row() {
    let mut grant = grant();
    for i in 0..10 {
        assert!(!stream(&mut grant, i * 90, i * 90 + 97, false));
    }
    assert!(stream(&mut grant, 900, LENGTH, true));
}

#[test]
fn a_parallel_downloader_closes_its_open_ended_streams() {
    let mut grant = grant();
    let first = grant.start(&(0..LENGTH));
    assert!(grant.reserve(first, LENGTH));
    let second = grant.start(&(500..LENGTH));
    assert!(grant.reserve(second, 500));
    let all = StreamEnd { sent: 500, acknowledged: 500, orderly: true };
    assert!(!grant.finish(second, &all));
    let cut = StreamEnd { sent: 700, acknowledged: 600, orderly: false };
    assert!(grant.finish(first, &cut));
}

#[test]
fn a_taken_over_stream_delivers_no_more_than_up_to_the_next() {
    let mut grant = grant();
    let numbers = [0, 200, 600].map(|start| {
        let number = grant.start(&(start..LENGTH));
        assert!(grant.reserve(number, LENGTH - start));
        number
    });
    let cut = StreamEnd { sent: 1000, acknowledged: 1000, orderly: false };
    assert!(!grant.finish(numbers[0], &cut), "the client read this one as far as 200");
    assert_eq!(grant.delivered.to_string(), "0-200");
    let all = StreamEnd { sent: 400, acknowledged: 400, orderly: true };
    assert!(!grant.finish(numbers[2], &all));
    assert!(!grant.finish(numbers[1], &StreamEnd { sent: 300, acknowledged: 300, orderly: false }));
    assert!(stream(&mut grant, 300, 600, true));
}

#[test]
fn a_stream_is_left_where_a_broken_part_begins() {
    let mut grant = grant();
    assert!(!stream(&mut grant, 500, 800, false));
    let number = grant.start(&(0..LENGTH));
    assert!(grant.reserve(number, LENGTH));
    assert!(!grant.finish(number, &StreamEnd { sent: 600, acknowledged: 600, orderly: false }));
    assert!(stream(&mut grant, 700, LENGTH, true));
}

#[test]
fn a_tail_fetched_before_says_nothing_of_a_reset_stream() {
    let mut grant = grant();
    assert!(!stream(&mut grant, LENGTH - 1, LENGTH, true));
    assert!(!stream(&mut grant, 0, LENGTH, false), "acknowledged, and thrown away");
    assert!(stream(&mut grant, 0, LENGTH, true));
}

#[test]
fn broken_neighbours_are_confirmed_one_by_one() {
    let mut grant = grant();
    let numbers = [0, 500].map(|start| {
        let number = grant.start(&(start..start + 500));
        assert!(grant.reserve(number, 500));
        number
    });
    let mut crashed = Grant::open(0, None, 7, LENGTH);
    crashed.doubtful = grant.doubtful_after_a_crash();
    for number in numbers {
        grant.finish(number, &StreamEnd { sent: 500, acknowledged: 500, orderly: false });
    }
    for mut grant in [grant, crashed] {
        // The first stream's client has 100 bytes, the second's 200, and that one is back first.
        assert!(!stream(&mut grant, 700, LENGTH, true), "100 to 500 are missing");
        assert_eq!(grant.delivered.to_string(), "500-1000");
        assert!(stream(&mut grant, 100, 500, true));
    }
}

#[test]
fn segments_resumed_after_a_crash_take_over_from_each_other() {
    let mut grant = grant();
    grant.doubtful.insert(0..300);
    grant.doubtful.insert(500..800);
    let (first, second) = (grant.start(&(200..LENGTH)), grant.start(&(700..LENGTH)));
    assert!(grant.reserve(first, 800) && grant.reserve(second, 300));
    // Read as far as 500, where the second segment began before the crash.
    assert!(!grant.finish(first, &StreamEnd { sent: 400, acknowledged: 350, orderly: false }));
    assert!(grant.finish(second, &StreamEnd { sent: 300, acknowledged: 300, orderly: true }));
}

#[test]
fn the_budget_is_three_times_the_file_and_some() {
    let mut grant = grant();
    grant.charged = grant.budget() - LENGTH - HEAD_CHARGE;
    stream(&mut grant, 0, LENGTH, false);
    let number = grant.start(&(0..LENGTH));
    assert!(!grant.reserve(number, 1));
    grant.see_file(8, 1 << 40);
    assert!(!grant.reserve(number, 1), "a larger file does not raise it");
}

#[test]
fn what_was_reserved_and_not_sent_is_given_back() {
    let mut grant = grant();
    let number = grant.start(&(0..LENGTH));
    assert!(grant.reserve(number, LENGTH));
    grant.finish(number, &StreamEnd { sent: 10, acknowledged: 5, orderly: false });
    assert_eq!(grant.charged, HEAD_CHARGE + 10);
}

#[test]
fn a_changed_file_starts_over_and_old_streams_do_not_count() {
    let mut grant = grant();
    let old = grant.start(&(0..LENGTH));
    assert!(grant.reserve(old, LENGTH));
    grant.see_file(8, LENGTH);
    let all = StreamEnd { sent: LENGTH, acknowledged: LENGTH, orderly: true };
    assert!(!grant.finish(old, &all));
    assert!(stream(&mut grant, 0, LENGTH, true));
}

#[test]
fn an_empty_file_is_delivered_by_an_orderly_end_only() {
    let mut grant = Grant::open(0, None, 7, 0);
    assert!(!stream(&mut grant, 0, 0, false));
    assert!(stream(&mut grant, 0, 0, true));
}

#[test]
fn a_crash_leaves_running_streams_doubtful() {
    let mut grant = grant();
    let number = grant.start(&(100..LENGTH));
    assert!(grant.reserve(number, 300));
    assert_eq!(grant.doubtful_after_a_crash().to_string(), "100-400");
}
