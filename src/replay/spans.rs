//! A bounded set of byte ranges: what of a file has been delivered.

use std::fmt;
use std::ops::Range;

/// At most this many separate fragments are remembered per set. What does not fit counts as not
/// delivered, so that a client that fetches single bytes all over a file costs bounded memory.
pub const MAX_FRAGMENTS: usize = 64;

/// Disjoint, non-adjacent, non-empty ranges in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Range<u64>>);

impl Spans {
    /// Adds `range`, merging what it touches. Over [`MAX_FRAGMENTS`], the shortest fragment is
    /// forgotten.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let first = self.0.partition_point(|span| span.end < range.start);
        let after = self.0.partition_point(|span| span.start <= range.end);
        let mut merged = range;
        if first < after {
            merged.start = merged.start.min(self.0[first].start);
            merged.end = merged.end.max(self.0[after - 1].end);
        }
        self.0.splice(first..after, [merged]);
        if self.0.len() > MAX_FRAGMENTS
            && let Some((shortest, _)) =
                self.0.iter().enumerate().min_by_key(|(_, span)| span.end - span.start)
        {
            self.0.remove(shortest);
        }
    }

    /// Bytes in the set.
    pub fn total(&self) -> u64 {
        self.total_with(&Spans::default())
    }

    /// Bytes in this set or `other`. Unlike a set that holds both, this forgets no fragment.
    pub fn total_with(&self, other: &Spans) -> u64 {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).collect();
        all.sort_unstable_by_key(|span| span.start);
        let (mut reached, mut total) = (0, 0);
        for span in all {
            total += span.end.saturating_sub(span.start.max(reached));
            reached = reached.max(span.end);
        }
        total
    }

    /// Reads what `Display` writes. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Spans> {
        let mut spans = Spans::default();
        for part in text.split(',').filter(|_| text != "-").take(MAX_FRAGMENTS) {
            let (start, end) = part.split_once('-')?;
            let (start, end) = (start.parse().ok()?, end.parse().ok()?);
            if start >= end {
                return None;
            }
            spans.insert(start..end);
        }
        Some(spans)
    }
}

/// `start-end,start-end…` with exclusive ends; `-` for the empty set.
impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, span) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}", span.start, span.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fragments_are_bounded_and_the_shortest_goes() {
        let mut spans = Spans::default();
        for i in 0..10_000u64 {
            spans.insert(i * 10..i * 10 + 1);
        }
        assert_eq!(spans.0.len(), MAX_FRAGMENTS);
        spans.insert(1_000_000..2_000_000);
        assert_eq!(spans.0.len(), MAX_FRAGMENTS);
        assert!(spans.0.contains(&(1_000_000..2_000_000)));
    }

    #[test]
    fn what_is_not_a_list_of_ranges_is_none() {
        for text in ["", "1", "1-", "-1", "2-1", "1-1", "0-5,", "0-5;6-7", "a-b", "--"] {
            assert_eq!(Spans::parse(text), None, "{text:?}");
        }
        assert_eq!(Spans::parse("-"), Some(Spans::default()));
    }

    fn set(ranges: &[(u64, u64)]) -> (Spans, [bool; 70]) {
        let (mut spans, mut bytes) = (Spans::default(), [false; 70]);
        for &(start, length) in ranges {
            spans.insert(start..start + length);
            bytes[start as usize..(start + length) as usize].fill(true);
        }
        (spans, bytes)
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set_of_bytes(
            one in prop::collection::vec((0u64..60, 0u64..9), 0..30),
            two in prop::collection::vec((0u64..60, 0u64..9), 0..30),
        ) {
            let ((spans, bytes), (others, other_bytes)) = (set(&one), set(&two));
            prop_assert_eq!(spans.total(), bytes.iter().filter(|byte| **byte).count() as u64);
            let both = (0..70).filter(|&i| bytes[i] || other_bytes[i]).count();
            prop_assert_eq!(spans.total_with(&others), both as u64);
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(spans.0.iter().all(|span| span.clone().all(|i| bytes[i as usize])));
            prop_assert_eq!(Spans::parse(&spans.to_string()), Some(spans));
        }
    }
}
