//! Ranges and preconditions: what is selected lies in the file, whatever the fields say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winglet::http::range::{Conditions, Selection, Validators, select};

fuzz_target!(|input: (u64, u64, u64, Vec<Option<&str>>)| {
    let (tag, modified, length, fields) = input;
    let field = |index: usize| fields.get(index).copied().flatten();
    let conditions = Conditions {
        changed: tag & 1 == 1,
        range: field(0),
        if_range: field(1),
        if_match: field(2),
        if_none_match: field(3),
        if_modified_since: field(4),
        if_unmodified_since: field(5),
    };
    // A file on a disk is no longer than this, and no younger.
    let (length, modified) = (length >> 1, modified >> 24);
    let file = Validators { tag, modified, length, now: 1 << 39 };
    match select(&conditions, &file) {
        Selection::Part(part) => {
            assert!(conditions.range.is_some());
            assert!(part.start < part.end && part.end <= length);
        }
        Selection::NotSatisfiable => assert!(conditions.range.is_some()),
        Selection::Whole | Selection::NotModified | Selection::PreconditionFailed => {}
    }
});
