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
#[derive(Debug)]
pub struct Readers {
    /// The kernel can read without leaving anything in its cache.
    can_bypass: bool,
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
    /// No file is read yet.
    pub fn new() -> Readers {
        Readers { can_bypass: can_bypass(), files: Mutex::default() }
    }

    /// Whether `RWF_DONTCACHE` is worth a try; a file system may still refuse it.
    pub fn can_bypass(&self) -> bool {
        self.can_bypass
    }

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

impl Default for Readers {
    fn default() -> Readers {
        Readers::new()
    }
}

/// `RWF_DONTCACHE` came with Linux 6.14, where it could drop what others had written, was off in
/// 6.15, and is right from 6.16 on.
fn can_bypass() -> bool {
    if std::env::var_os("WINGLET_TEST_NO_DONTCACHE").is_some() {
        return false;
    }
    rustix::system::uname().release().to_str().is_ok_and(|release| version(release) >= (6, 16))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A reader's place in the table; given up when dropped.
#[derive(Debug)]
pub struct Place {
    readers: Arc<Readers>,
    id: FileId,
    number: u64,
}

impl Place {
    /// This reader has come to `position`. Whether nobody else reads the file.
    pub fn advance(&self, position: u64) -> bool {
        let mut files = self.readers.lock();
        let Some(readings) = files.get_mut(&self.id) else { return true };
        if let Some(span) = readings.spans.get_mut(&self.number) {
            span.start = position;
        }
        readings.spans.len() == 1
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
        let readers = Arc::new(Readers::new());
        let first = readers.enter((1, 1), 0..CLOSE * 4);
        assert!(first.advance(100) && first.may_drop(&(0..100)));
        let second = readers.enter((1, 1), 0..CLOSE * 4);
        let elsewhere = readers.enter((1, 2), 0..CLOSE * 4);
        assert!(elsewhere.advance(100) && elsewhere.may_drop(&(0..100)));
        // The second is right behind; then far behind; then past it.
        assert!(!first.advance(200) && !first.may_drop(&(100..200)));
        assert!(first.may_drop(&(CLOSE..CLOSE + 100)));
        second.advance(200);
        assert!(first.may_drop(&(100..200)));
        assert!(!elsewhere.leave() && !second.leave());
        assert!(first.advance(300) && first.leave());
        assert!(readers.lock().is_empty());
    }

    #[test]
    fn parts_of_one_file_that_do_not_meet_do_not_keep_each_other() {
        let readers = Arc::new(Readers::new());
        let (first, second) = (readers.enter((1, 1), 0..100), readers.enter((1, 1), 100..200));
        assert!(first.may_drop(&(0..100)) && second.may_drop(&(100..200)));
        assert!(!second.may_drop(&(99..200)));
    }

    #[test]
    fn a_release_has_a_version() {
        for (release, expected) in [
            ("6.16.0-rc1", (6, 16)),
            ("6.8.0-45-generic", (6, 8)),
            ("7.1", (7, 1)),
            ("odd", (0, 0)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
