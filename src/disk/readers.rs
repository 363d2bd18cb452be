//! Who reads which file, and where: what one download has passed another may be about to read.
//!
//! Only downloads that spare the page cache are entered, so there are never more readers than
//! transfers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A reader this many bytes behind another, or fewer, finds what that one has read in the cache.
const CLOSE: u64 = 256 << 20;

/// Device and inode number.
pub type FileId = (u64, u64);

/// The files that are read at the moment.
#[derive(Debug, Default)]
pub struct Readers {
    files: Mutex<HashMap<FileId, Readings>>,
}

/// The readers of one file.
#[derive(Debug, Default)]
struct Readings {
    next: u64,
    /// What each of them has still to read, by its number.
    spans: HashMap<u64, Range<u64>>,
    /// One of them left something in the cache for another.
    left_behind: bool,
}

impl Readers {
    /// Enters a reader of `span` of the file `id`.
    pub fn enter(self: &Arc<Self>, id: FileId, span: Range<u64>) -> Place {
        let mut files = self.lock();
        let readings = files.entry(id).or_default();
        let number = readings.next;
        readings.next += 1;
        readings.spans.insert(number, span);
        Place { readers: Arc::clone(self), id, number }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Readings>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's place in the table; given up when dropped.
#[derive(Debug)]
pub struct Place {
    readers: Arc<Readers>,
    id: FileId,
    number: u64,
}

impl Place {
    /// This reader has come to `position`.
    pub fn advance(&self, position: u64) {
        let mut files = self.readers.lock();
        let span = files.get_mut(&self.id).and_then(|file| file.spans.get_mut(&self.number));
        if let Some(span) = span {
            span.start = position;
        }
    }

    /// Whether nobody else is about to read any of `range`. Otherwise whoever comes last drops it.
    pub fn may_drop(&self, range: &Range<u64>) -> bool {
        let mut files = self.readers.lock();
        let Some(readings) = files.get_mut(&self.id) else { return true };
        let wanted = readings.spans.iter().any(|(&number, span)| {
            number != self.number
                && span.start < range.end
                && range.start < span.end
                && range.start < span.start.saturating_add(CLOSE)
        });
        readings.left_behind |= wanted;
        !wanted
    }

    /// Gives the place up. Whether nobody reads the file any more, and something was left in the
    /// cache for a reader that never came.
    pub fn leave(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        let mut files = self.readers.lock();
        let Some(readings) = files.get_mut(&self.id) else { return false };
        readings.spans.remove(&self.number);
        if !readings.spans.is_empty() {
            return false;
        }
        let left_behind = readings.left_behind;
        files.remove(&self.id);
        left_behind
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_is_about_to_read_stays() {
        let readers = Arc::new(Readers::default());
        let first = readers.enter((1, 1), 0..CLOSE * 4);
        first.advance(100);
        assert!(first.may_drop(&(0..100)));
        let second = readers.enter((1, 1), 0..CLOSE * 4);
        let elsewhere = readers.enter((1, 2), 0..CLOSE * 4);
        elsewhere.advance(100);
        assert!(elsewhere.may_drop(&(0..100)));
        // The second is right behind; then far behind; then past it.
        first.advance(200);
        assert!(!first.may_drop(&(100..200)));
        assert!(first.may_drop(&(CLOSE..CLOSE + 100)));
        second.advance(200);
        assert!(first.may_drop(&(100..200)));
        assert!(!elsewhere.leave() && !second.leave());
        first.advance(300);
        assert!(first.leave());
        assert!(readers.lock().is_empty());
    }

    #[test]
    fn parts_of_one_file_that_do_not_meet_do_not_keep_each_other() {
        let readers = Arc::new(Readers::default());
        let (first, second) = (readers.enter((1, 1), 0..100), readers.enter((1, 1), 100..200));
        assert!(first.may_drop(&(0..100)) && second.may_drop(&(100..200)));
        assert!(!second.may_drop(&(99..200)));
    }
}
