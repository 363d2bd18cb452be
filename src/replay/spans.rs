//! A bounded set of byte ranges: what of a file has been delivered.

use std::fmt;
use std::ops::Range;

/// At most this many separate fragments are remembered. What does not fit counts as not delivered,
/// so that a client that fetches single bytes all over a file costs bounded memory.
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
        self.trim();
    }

    /// Removes `range` from the set.
    pub fn remove(&mut self, range: &Range<u64>) {
        let parts = |span: Range<u64>| {
            [span.start..span.end.min(range.start), span.start.max(range.end)..span.end]
        };
        let whole = std::mem::take(&mut self.0);
        self.0 = whole.into_iter().flat_map(parts).filter(|part| part.start < part.end).collect();
        self.trim();
    }

    fn trim(&mut self) {
        if self.0.len() > MAX_FRAGMENTS
            && let Some((shortest, _)) =
                self.0.iter().enumerate().min_by_key(|(_, span)| span.end - span.start)
        {
            self.0.remove(shortest);
        }
    }

    /// The number of bytes in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
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
            let ((mut spans, mut bytes), (others, other_bytes)) = (set(&one), set(&two));
            for span in &others.0 {
                spans.remove(span);
            }
            bytes.iter_mut().zip(other_bytes).for_each(|(byte, other)| *byte &= !other);
            prop_assert_eq!(spans.total(), bytes.iter().filter(|byte| **byte).count() as u64);
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(spans.0.iter().all(|span| span.clone().all(|i| bytes[i as usize])));
            prop_assert_eq!(Spans::parse(&spans.to_string()), Some(spans));
        }
    }
}
