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
        if self.0.len() > MAX_FRAGMENTS {
            let shortest = (0..self.0.len()).min_by_key(|&i| self.0[i].end - self.0[i].start);
            self.0.remove(shortest.unwrap_or(0));
        }
    }

    /// Takes out the fragment that holds `position`, its end included.
    pub fn take_at(&mut self, position: u64) -> Option<Range<u64>> {
        let index =
            self.0.iter().position(|span| span.start <= position && position <= span.end)?;
        Some(self.0.remove(index))
    }

    /// The fragments, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// Whether all of `0..length` is in the set; true of a length of 0.
    pub fn covers(&self, length: u64) -> bool {
        length == 0 || self.0.iter().any(|span| span.start == 0 && span.end >= length)
    }

    /// Bytes in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Reads what `Display` writes. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Spans> {
        let mut spans = Spans::default();
        if text == "-" {
            return Some(spans);
        }
        for part in text.split(',').take(MAX_FRAGMENTS) {
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
        assert_eq!(spans.iter().count(), MAX_FRAGMENTS);
        spans.insert(1_000_000..2_000_000);
        assert_eq!(spans.iter().count(), MAX_FRAGMENTS);
        assert!(spans.iter().any(|span| *span == (1_000_000..2_000_000)));
    }

    #[test]
    fn whole_means_from_the_first_byte_to_the_last() {
        let mut spans = Spans::default();
        assert!(spans.covers(0));
        spans.insert(0..5);
        spans.insert(6..10);
        assert!(!spans.covers(10));
        spans.insert(5..6);
        assert!(spans.covers(10));
        assert!(!spans.covers(11));
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set_of_bytes(ranges in prop::collection::vec((0u64..60, 0u64..9), 0..30)) {
            let mut spans = Spans::default();
            let mut bytes = [false; 70];
            for (start, length) in ranges {
                spans.insert(start..start + length);
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            prop_assert_eq!(spans.total(), bytes.iter().filter(|byte| **byte).count() as u64);
            let list: Vec<_> = spans.iter().cloned().collect();
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(list.iter().all(|span| span.clone().all(|i| bytes[i as usize])));
            prop_assert_eq!(Spans::parse(&spans.to_string()), Some(spans));
        }
    }
}
