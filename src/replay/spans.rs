//! Bounded collections of byte ranges: what of a file has been delivered, and what broken streams
//! may have delivered.

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
        forget_shortest(&mut self.0);
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
        parse_list(text)?.into_iter().for_each(|span| spans.insert(span));
        Some(spans)
    }
}

/// `start-end,start-end…` with exclusive ends; `-` for the empty set.
impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.0)
    }
}

/// Ranges of which only a beginning is certain, one for each broken stream, in ascending order.
///
/// Unlike [`Spans`] they do not merge: where one stream's range touches the next one's, the client
/// may have kept less of the first than the whole of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts(Vec<Range<u64>>);

impl Doubts {
    /// Adds `range`. Of two with one start the longer stays; over [`MAX_FRAGMENTS`], the shortest
    /// is forgotten.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let index = self.0.partition_point(|doubt| doubt.start < range.start);
        match self.0.get_mut(index) {
            Some(doubt) if doubt.start == range.start => doubt.end = doubt.end.max(range.end),
            _ => self.0.insert(index, range),
        }
        forget_shortest(&mut self.0);
    }

    /// Takes out the range that `position` goes on from, its end included; of several, the one
    /// that begins last, since that says the least.
    pub fn take_at(&mut self, position: u64) -> Option<Range<u64>> {
        let index =
            self.0.iter().rposition(|doubt| doubt.start <= position && position <= doubt.end)?;
        Some(self.0.remove(index))
    }

    /// The ranges, in ascending order of their beginnings.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Reads what `Display` writes. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Doubts> {
        let mut doubts = Doubts::default();
        parse_list(text)?.into_iter().for_each(|doubt| doubts.insert(doubt));
        Some(doubts)
    }
}

/// As [`Spans`] are written.
impl fmt::Display for Doubts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.0)
    }
}

fn forget_shortest(list: &mut Vec<Range<u64>>) {
    if list.len() > MAX_FRAGMENTS {
        let shortest = (0..list.len()).min_by_key(|&i| list[i].end - list[i].start);
        list.remove(shortest.unwrap_or(0));
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, list: &[Range<u64>]) -> fmt::Result {
    if list.is_empty() {
        return f.write_str("-");
    }
    for (index, span) in list.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{}-{}", span.start, span.end)?;
    }
    Ok(())
}

fn parse_list(text: &str) -> Option<Vec<Range<u64>>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let parse = |part: &str| {
        let (start, end) = part.split_once('-')?;
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        (start < end).then_some(start..end)
    };
    text.split(',').take(MAX_FRAGMENTS).map(parse).collect()
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

    #[test]
    fn doubts_stay_apart_and_the_last_to_begin_is_taken() {
        let mut doubts = Doubts::default();
        for range in [500..1000, 0..500, 0..300, 400..400] {
            doubts.insert(range);
        }
        assert_eq!(doubts.to_string(), "0-500,500-1000");
        assert_eq!(Doubts::parse("0-500,500-1000"), Some(doubts.clone()));
        assert_eq!(doubts.take_at(500), Some(500..1000));
        assert_eq!(doubts.take_at(500), Some(0..500));
        assert_eq!(doubts.take_at(500), None);
        for i in 0..10_000 {
            doubts.insert(i..i + 2);
        }
        assert_eq!(doubts.0.len(), MAX_FRAGMENTS);
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
