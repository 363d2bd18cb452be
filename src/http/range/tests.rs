//! The table of ranges and preconditions.

use super::*;
use proptest::prelude::*;

const GIB5: u64 = 5 << 30;
const NOW: u64 = 1_700_000_000;

fn range(value: &str, length: u64) -> Selection {
    let conditions = Conditions { range: Some(value), ..Conditions::default() };
    select(&conditions, &Validators { tag: 1, modified: 1_000_000_000, length, now: NOW })
}

#[test]
fn ranges() {
    use Selection::{NotSatisfiable as Not, Part, Whole};
    let table: &[(&str, u64, Selection)] = &[
        ("bytes=0-0", 10, Part(0..1)),
        ("bytes=0-9", 10, Part(0..10)),
        ("bytes=0-", 10, Part(0..10)),
        ("bytes=9-", 10, Part(9..10)),
        ("bytes=10-", 10, Not),
        ("bytes=10-12", 10, Not),
        ("bytes=5-100", 10, Part(5..10)),
        ("bytes=-1", 10, Part(9..10)),
        ("bytes=-10", 10, Part(0..10)),
        ("bytes=-11", 10, Part(0..10)),
        ("bytes=-0", 10, Not),
        ("bytes=-00", 10, Not),
        ("bytes=3-3", 10, Part(3..4)),
        ("bytes=003-0004", 10, Part(3..5)),
        ("BYTES=3-4", 10, Part(3..5)),
        ("Bytes=3-4", 10, Part(3..5)),
        ("bytes =3-4", 10, Part(3..5)),
        ("bytes= 3-4", 10, Part(3..5)),
        ("bytes=3-4 ", 10, Part(3..5)),
        ("bytes=\t3-4", 10, Part(3..5)),
        // Several that merge, in any order.
        ("bytes=0-4,5-9", 10, Part(0..10)),
        ("bytes=5-9,0-4", 10, Part(0..10)),
        ("bytes=0-6,3-9", 10, Part(0..10)),
        ("bytes=2-3,2-3,2-3", 10, Part(2..4)),
        ("bytes=0-1,1-2,2-3", 10, Part(0..4)),
        ("bytes=0-,-1", 10, Part(0..10)),
        ("bytes=8-,-3", 10, Part(7..10)),
        ("bytes=0-1,,2-3", 10, Part(0..4)),
        ("bytes=,0-1", 10, Part(0..2)),
        ("bytes=0-1,", 10, Part(0..2)),
        ("bytes=0-1,20-30", 10, Part(0..2)),
        ("bytes=20-30,-0", 10, Not),
        ("bytes=20-30,40-50", 10, Not),
        // Several that do not.
        ("bytes=0-1,5-6", 10, Whole),
        ("bytes=0-0,-1", 10, Whole),
        ("bytes=0-1,3-4,6-7", 10, Whole),
        // Malformed: ignored.
        ("", 10, Whole),
        ("bytes", 10, Whole),
        ("bytes=", 10, Whole),
        ("bytes=,", 10, Whole),
        ("bytes=-", 10, Whole),
        ("bytes=--1", 10, Whole),
        ("bytes=1--2", 10, Whole),
        ("bytes=5-3", 10, Whole),
        ("bytes=0-4,5-3", 10, Whole),
        ("bytes=a-b", 10, Whole),
        ("bytes=1-b", 10, Whole),
        ("bytes=a-1", 10, Whole),
        ("bytes=1", 10, Whole),
        ("bytes=1-2-3", 10, Whole),
        ("bytes=+1-2", 10, Whole),
        ("bytes=1-+2", 10, Whole),
        ("bytes=0x1-0x2", 10, Whole),
        ("bytes=1.0-2", 10, Whole),
        ("bytes=1 -2", 10, Whole),
        ("bytes=1- 2", 10, Whole),
        ("bytes:1-2", 10, Whole),
        ("byte=1-2", 10, Whole),
        ("items=1-2", 10, Whole),
        ("bytes=1-2;3-4", 10, Whole),
        ("bytes=bytes=1-2", 10, Whole),
        ("bytes=\u{0661}-\u{0662}", 10, Whole),
        // Overflow: too large a number is a large number.
        ("bytes=9223372036854775808-", 10, Not),
        ("bytes=18446744073709551615-", 10, Not),
        ("bytes=18446744073709551616-", 10, Not),
        ("bytes=99999999999999999999999999-", 10, Not),
        ("bytes=0-18446744073709551615", 10, Part(0..10)),
        ("bytes=0-99999999999999999999999999", 10, Part(0..10)),
        ("bytes=-18446744073709551616", 10, Part(0..10)),
        ("bytes=18446744073709551615-18446744073709551615", 10, Not),
        // An empty file has no byte; its last n bytes are all of it.
        ("bytes=0-0", 0, Not),
        ("bytes=0-", 0, Whole),
        ("bytes=-0", 0, Not),
        ("bytes=-1", 0, Whole),
        ("bytes=0-1,5-6", 0, Not),
        // One byte.
        ("bytes=0-0", 1, Part(0..1)),
        ("bytes=1-1", 1, Not),
        ("bytes=-1", 1, Part(0..1)),
        ("bytes=-5", 1, Part(0..1)),
        // Past four gigabytes.
        ("bytes=4294967295-4294967296", GIB5, Part(4_294_967_295..4_294_967_297)),
        ("bytes=5368709119-", GIB5, Part(GIB5 - 1..GIB5)),
        ("bytes=5368709120-", GIB5, Not),
        ("bytes=-1", GIB5, Part(GIB5 - 1..GIB5)),
        ("bytes=-5368709121", GIB5, Part(0..GIB5)),
        ("bytes=0-4294967295,4294967296-", GIB5, Part(0..GIB5)),
    ];
    for (value, length, expected) in table {
        assert_eq!(range(value, *length), *expected, "{value} of {length}");
    }
}

#[test]
fn five_thousand_ranges_in_one_field() {
    let adjacent: Vec<_> = (0..5000).map(|i| format!("{i}-{i}")).collect();
    let value = format!("bytes={}", adjacent.join(","));
    assert_eq!(range(&value, 10_000), Selection::Part(0..5000));
    let apart: Vec<_> = (0..5000).map(|i| format!("{}-{}", i * 2, i * 2)).collect();
    assert_eq!(range(&format!("bytes={}", apart.join(",")), 10_000), Selection::Whole);
}

#[test]
fn preconditions() {
    let file = Validators { tag: 0xabc, modified: 784_111_777, length: 10, now: NOW };
    let own = "\"0000000000000abc\"";
    let weak = "W/\"0000000000000abc\"";
    let (date, later, earlier) = (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:38 GMT",
        "Sun, 06 Nov 1994 08:49:36 GMT",
    );
    let none = Conditions::default();
    let part = Conditions { range: Some("bytes=1-2"), ..none };
    let (whole, cut) = (Selection::Whole, Selection::Part(1..3));
    let (failed, unchanged) = (Selection::PreconditionFailed, Selection::NotModified);
    let several = format!("\"x\", {own}");
    let table: Vec<(Conditions<'_>, &Selection)> = vec![
        (none, &whole),
        (part, &cut),
        (Conditions { if_match: Some(own), ..part }, &cut),
        (Conditions { if_match: Some("*"), ..part }, &cut),
        (Conditions { if_match: Some(&several), ..none }, &whole),
        (Conditions { if_match: Some(weak), ..none }, &failed),
        (Conditions { if_match: Some("\"x\""), ..none }, &failed),
        (Conditions { if_match: Some("garbage"), ..none }, &failed),
        (Conditions { if_unmodified_since: Some(date), ..none }, &whole),
        (Conditions { if_unmodified_since: Some(earlier), ..none }, &failed),
        (Conditions { if_unmodified_since: Some("yesterday"), ..none }, &whole),
        // If-Match makes If-Unmodified-Since moot.
        (Conditions { if_match: Some(own), if_unmodified_since: Some(earlier), ..none }, &whole),
        (Conditions { if_none_match: Some(own), ..none }, &unchanged),
        (Conditions { if_none_match: Some(weak), ..none }, &unchanged),
        (Conditions { if_none_match: Some("*"), ..part }, &unchanged),
        (Conditions { if_none_match: Some(&several), ..none }, &unchanged),
        (Conditions { if_none_match: Some("\"x\""), ..part }, &cut),
        (Conditions { if_modified_since: Some(date), ..none }, &unchanged),
        (Conditions { if_modified_since: Some(later), ..none }, &unchanged),
        (Conditions { if_modified_since: Some(earlier), ..none }, &whole),
        (Conditions { if_modified_since: Some("tomorrow"), ..none }, &whole),
        // If-None-Match makes If-Modified-Since moot.
        (
            Conditions { if_none_match: Some("\"x\""), if_modified_since: Some(date), ..none },
            &whole,
        ),
        // If-Match is judged before If-None-Match.
        (Conditions { if_match: Some("\"x\""), if_none_match: Some(own), ..none }, &failed),
        (Conditions { if_range: Some(own), ..part }, &cut),
        (Conditions { if_range: Some(weak), ..part }, &whole),
        (Conditions { if_range: Some("\"x\""), ..part }, &whole),
        (Conditions { if_range: Some(date), ..part }, &cut),
        (Conditions { if_range: Some(later), ..part }, &whole),
        (Conditions { if_range: Some(earlier), ..part }, &whole),
        (Conditions { if_range: Some("garbage"), ..part }, &whole),
        (Conditions { if_range: Some(own), ..none }, &whole),
    ];
    for (conditions, expected) in table {
        assert_eq!(select(&conditions, &file), *expected, "{conditions:?}");
    }
}

#[test]
fn a_part_of_a_changed_file_needs_a_validator() {
    let file = Validators { tag: 0xabc, modified: 784_111_777, length: 10, now: NOW };
    let own = "\"0000000000000abc\"";
    let (date, earlier) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
    let part = Conditions { changed: true, range: Some("bytes=1-2"), ..Conditions::default() };
    let (cut, failed) = (Selection::Part(1..3), Selection::PreconditionFailed);
    let of = |range| Conditions { range: Some(range), ..part };
    let table = [
        (part, failed.clone()),
        (of("bytes=10-"), failed.clone()),
        (of("bytes=-3"), failed.clone()),
        (of("bytes=-30"), failed.clone()),
        (of("bytes=0-2"), Selection::Part(0..3)),
        (of("bytes=3-,0-2"), Selection::Part(0..10)),
        (of("bytes=x"), Selection::Whole),
        (Conditions { range: None, ..part }, Selection::Whole),
        (Conditions { if_match: Some("*"), ..part }, failed.clone()),
        (Conditions { if_none_match: Some("\"x\""), ..part }, failed.clone()),
        (Conditions { if_range: Some("\"x\""), ..part }, Selection::Whole),
        (Conditions { if_range: Some(own), ..part }, cut.clone()),
        (Conditions { if_match: Some(own), ..part }, cut.clone()),
        (Conditions { if_none_match: Some(own), ..part }, Selection::NotModified),
        // Dates do not tell versions of one second apart.
        (Conditions { if_range: Some(date), ..part }, Selection::Whole),
        (Conditions { if_unmodified_since: Some(date), ..part }, failed.clone()),
        (Conditions { if_unmodified_since: Some(earlier), ..part }, failed),
        (Conditions { changed: false, ..part }, cut),
    ];
    for (conditions, expected) in table {
        assert_eq!(select(&conditions, &file), expected, "{conditions:?}");
    }
}

#[test]
fn a_file_from_the_future_has_no_date() {
    let file = Validators { tag: 0xabc, modified: NOW + 1000, length: 10, now: NOW };
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW));
    let part = Conditions { range: Some("bytes=1-2"), ..Conditions::default() };
    let table = [
        (Conditions { if_unmodified_since: Some(&date), ..part }, Selection::Part(1..3)),
        (Conditions { if_modified_since: Some(&date), ..part }, Selection::Part(1..3)),
        (Conditions { if_range: Some(&date), ..part }, Selection::Whole),
    ];
    for (conditions, expected) in table {
        assert_eq!(select(&conditions, &file), expected, "{conditions:?}");
    }
}

proptest! {
    #[test]
    fn no_value_panics_and_no_part_is_empty_or_beyond(value in "[ -~]{0,40}", length in any::<u64>()) {
        for value in [value.clone(), format!("bytes={value}")] {
            if let Selection::Part(part) = range(&value, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }

    #[test]
    fn plain_numbers_mean_what_they_say(first in 0u64..30, last in 0u64..30, length in 0u64..30) {
        let expected = if last < first {
            Selection::Whole
        } else if first >= length {
            Selection::NotSatisfiable
        } else {
            Selection::Part(first..(last + 1).min(length))
        };
        prop_assert_eq!(range(&format!("bytes={first}-{last}"), length), expected);
    }
}
