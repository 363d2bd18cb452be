//! What was walked, for whom and when: whether that answers somebody else's question.

use std::io;
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, MetadataExt};

use crate::archive::Format;

/// What a walk found answers the same link for this long, or for as long as the walk took. A browser
/// asks for the page, the head and the parts within this time; and nobody, by asking for the head
/// again and again, keeps the walks from others. A client that was cut off asks again later.
const FRESH: Duration = Duration::from_secs(5);
/// A walk that took this long is not done anew within that time even if the directory itself has
/// changed: a server may be changing its own all the time.
const COSTLY: Duration = Duration::from_millis(250);

/// The hash of the link that an archive is made for.
pub type Link = [u8; 16];

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The hash of its link.
    pub link: Link,
    /// The hash of what the link opens.
    pub resource: [u8; 16],
    /// The server that it belongs to.
    pub server: u128,
    /// Zip or tar.
    pub format: Format,
}

/// A directory as it was before its walk.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Device and inode number.
    pub(super) place: (u64, u64),
    /// When something was last put there, taken away or renamed.
    changed: (i64, i64),
    pub(in crate::archive) at: Instant,
}

impl Seen {
    /// `root` as it is now.
    ///
    /// # Errors
    /// If the system does not say which directory it is.
    pub fn of(root: &Dir) -> io::Result<Seen> {
        let metadata = root.dir_metadata()?;
        Ok(Seen {
            place: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            at: Instant::now(),
        })
    }
}

/// A walk that was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub(super) asked: Asked,
    pub(super) seen: Seen,
    pub(super) ended: Instant,
}

impl Walked {
    pub(super) fn now(asked: &Asked, seen: Seen) -> Walked {
        Walked { asked: *asked, seen, ended: Instant::now() }
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) < FRESH.max(self.took())
    }

    /// Returns true if what it found answers `asked`.
    pub(super) fn answers(&self, asked: &Asked, seen: &Seen) -> bool {
        let is_unchanged = self.seen.changed == seen.changed || self.took() >= COSTLY;
        self.asked == *asked
            && self.seen.place == seen.place
            && is_unchanged
            && self.is_fresh(seen.at)
    }

    /// Returns true if it began after another link to the same tree was `seen`.
    pub(super) fn is_later(&self, asked: &Asked, seen: &Seen) -> bool {
        Asked { link: asked.link, ..self.asked } == *asked
            && self.seen.place == seen.place
            && self.seen.at >= seen.at
    }

    fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.seen.at)
    }
}

/// Why a tree becomes no archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// It holds more than an archive may.
    Entries,
    /// It takes too long to walk.
    Time,
}
