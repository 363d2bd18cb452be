//! Ranges and preconditions: from a request's header fields to the bytes that answer it (RFC 9110
//! §13 and §14).
//!
//! A range is an offer that may be declined: whatever is malformed, ambiguous or risky selects the
//! whole file.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use crate::link::storage::EntityTag;

/// What selects: the header fields as they came, and what the link has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// The link was used for another version of the file.
    pub changed: bool,
    /// `Range`; `None` also if several lines made it or `If-Range` ambiguous.
    pub range: Option<&'a str>,
    /// `If-Range`
    pub if_range: Option<&'a str>,
    /// `If-Match`
    pub if_match: Option<&'a str>,
    /// `If-None-Match`
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<&'a str>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<&'a str>,
}

impl Conditions<'_> {
    /// Returns true if the client says which version of the file it wants bytes of. A date does not:
    /// a file can change twice in a second.
    fn name_a_version(&self) -> bool {
        self.if_range.is_some() || self.if_match.is_some_and(|list| list.trim() != "*")
    }
}

/// What the conditions are judged against.
#[derive(Clone, Copy, Debug)]
pub struct Validators {
    /// The file's entity tag.
    pub tag: EntityTag,
    /// The file's modification time, whole seconds since the epoch.
    pub modified: u64,
    /// The file's length in bytes.
    pub length: u64,
    /// The time, in seconds since the epoch. A file from the future has no date to judge by: the one
    /// that it is sent with is always the present one.
    pub now: u64,
}

/// The answer that the conditions select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 200
    Whole,
    /// 206 with these bytes; never empty.
    Part(Range<u64>),
    /// 304
    NotModified,
    /// 412
    PreconditionFailed,
    /// 416
    NotSatisfiable,
}

/// The entity tag as a header field has it.
pub fn format_tag(tag: EntityTag) -> String {
    format!("\"{tag:016x}\"")
}

/// Judges preconditions in the order of RFC 9110 §13.2.2, then the range (§14.2).
pub fn select(conditions: &Conditions<'_>, file: &Validators) -> Selection {
    let tag = format_tag(file.tag);
    let modified = Some(file.modified).filter(|modified| *modified <= file.now);
    if let Some(wanted) = conditions.if_match {
        if !lists(wanted, &tag, Comparison::Strong) {
            return Selection::PreconditionFailed;
        }
    } else if let Some(date) = conditions.if_unmodified_since.and_then(parse_date)
        && modified.is_some_and(|modified| modified > date)
    {
        return Selection::PreconditionFailed;
    }
    if let Some(known) = conditions.if_none_match {
        if lists(known, &tag, Comparison::Weak) {
            return Selection::NotModified;
        }
    } else if let Some(date) = conditions.if_modified_since.and_then(parse_date)
        && modified.is_some_and(|modified| modified <= date)
    {
        return Selection::NotModified;
    }
    let modified = modified.filter(|_| !conditions.changed);
    match conditions.range {
        // A client that resumes without naming a version would join two files into one. To 200 wget
        // appends the tail of the whole file, and to 416 wget and curl take half a file for all of it.
        Some(range) if conditions.changed && !conditions.name_a_version() => {
            match parse_ranges(range) {
                Some(specs) if !specs.iter().any(|spec| matches!(spec, Spec::From(0, _))) => {
                    Selection::PreconditionFailed
                }
                _ => select_range(range, file.length),
            }
        }
        Some(range) if conditions.if_range.is_none_or(|value| still_is(value, &tag, modified)) => {
            select_range(range, file.length)
        }
        _ => Selection::Whole,
    }
}

/// `If-Range` (RFC 9110 §13.1.5): a strong entity tag, or the exact modification date.
fn still_is(value: &str, tag: &str, modified: Option<u64>) -> bool {
    if value.starts_with('"') || value.starts_with("W/") {
        value == tag
    } else {
        modified.is_some_and(|modified| parse_date(value) == Some(modified))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether `list` (`*`, or entity tags separated by commas) contains `tag` (RFC 9110 §8.8.3.2).
fn lists(list: &str, tag: &str, comparison: Comparison) -> bool {
    if list.trim() == "*" {
        return true;
    }
    // Our own tags contain no comma, so splitting at commas cannot turn another tag into one.
    list.split(',').map(str::trim).any(|entry| match entry.strip_prefix("W/") {
        Some(weak) => comparison == Comparison::Weak && weak == tag,
        None => entry == tag,
    })
}

fn parse_date(value: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(value.trim()).ok()?;
    time.duration_since(UNIX_EPOCH).as_ref().map(Duration::as_secs).ok()
}

/// Interprets a `Range` value for a file of `length` bytes. A value that is malformed, in another
/// unit, or does not merge into one range is ignored, as §14.2 allows.
fn select_range(value: &str, length: u64) -> Selection {
    let Some(specs) = parse_ranges(value) else { return Selection::Whole };
    let mut ranges = Vec::new();
    for spec in specs {
        match spec {
            // §14.1.2: a suffix longer than the file is the whole file. That holds for an empty file
            // too, as all from its beginning does, and a 206 cannot say so.
            Spec::Suffix(1..) | Spec::From(0, u64::MAX) if length == 0 => return Selection::Whole,
            Spec::Suffix(count) if count > 0 => ranges.push(length.saturating_sub(count)..length),
            Spec::From(first, last) if first < length => {
                ranges.push(first..last.saturating_add(1).min(length));
            }
            Spec::Suffix(_) | Spec::From(..) => {}
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    let mut ranges = ranges.into_iter();
    let Some(mut merged) = ranges.next() else { return Selection::NotSatisfiable };
    for next in ranges {
        if next.start > merged.end {
            return Selection::Whole;
        }
        merged.end = merged.end.max(next.end);
    }
    Selection::Part(merged)
}

enum Spec {
    /// First and last position, both inclusive.
    From(u64, u64),
    /// This many bytes at the end.
    Suffix(u64),
}

fn parse_ranges(value: &str) -> Option<Vec<Spec>> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    // Empty list elements are legal (RFC 9110 §5.6.1.2), an empty list is not.
    for part in set.split(',').map(|part| part.trim_matches([' ', '\t'])) {
        if part.is_empty() {
            continue;
        }
        let (first, last) = part.split_once('-')?;
        specs.push(match (first, last) {
            ("", count) => Spec::Suffix(position(count)?),
            (first, "") => Spec::From(position(first)?, u64::MAX),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                if last < first {
                    return None;
                }
                Spec::From(first, last)
            }
        });
    }
    (!specs.is_empty()).then_some(specs)
}

/// Decimal digits. A number that is too large for any file is still a number.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
