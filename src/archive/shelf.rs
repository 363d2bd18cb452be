//! The archives that are being downloaded: each is laid out once, and kept with the CRCs that its
//! readers have come to know.
//!
//! A listing may take a dozen megabytes and a download may last for a day, so what is kept is
//! bounded: of the server that holds most, something goes, and is made anew when it is asked for.

use std::cmp::Reverse;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, MetadataExt};

use super::{Archive, Format, Listing};

/// Trees that are walked at a time.
pub const WALKS: usize = 2;
/// Most bytes of listings that are kept.
pub const MAX_MEMORY: usize = 64 << 20;
/// Most archives that are kept: each holds its directory open.
pub const MAX_KEPT: usize = 64;
/// Most archives that are kept for one link: a download of the former tree, or of the other format,
/// goes on while another begins. A link whose tree changes all the time gets no further places.
pub const MAX_PER_LINK: usize = 2;
/// An archive stays this long without a link that is in use.
const IDLE: Duration = Duration::from_secs(300);
/// What a walk found answers the same link for so long, or for as long as the walk took. A browser
/// asks for the page, the head and the parts within this time; and nobody, by asking for the head
/// again and again, keeps the walks from others. A client that was cut off asks again later.
const FRESH: Duration = Duration::from_secs(5);
/// A walk that took so long is not done anew within that time even if the directory itself has
/// changed: a server may be changing its own all the time.
const COSTLY: Duration = Duration::from_millis(250);

/// The hash of the link that an archive is made for.
pub type Link = [u8; 16];

/// A listing laid out, and the open directory that its members lie in.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The layout.
    pub archive: Arc<Archive>,
    /// Where its members are.
    pub root: Arc<Dir>,
}

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
    place: (u64, u64),
    /// When something was last put there, taken away or renamed.
    changed: (i64, i64),
    pub(super) at: Instant,
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
struct Walked {
    asked: Asked,
    seen: Seen,
    ended: Instant,
}

impl Walked {
    fn now(asked: &Asked, seen: Seen) -> Walked {
        Walked { asked: *asked, seen, ended: Instant::now() }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) < FRESH.max(self.took())
    }

    /// Returns true if what it found answers `asked`.
    fn answers(&self, asked: &Asked, seen: &Seen) -> bool {
        let is_unchanged = self.seen.changed == seen.changed || self.took() >= COSTLY;
        self.asked == *asked
            && self.seen.place == seen.place
            && is_unchanged
            && self.is_fresh(seen.at)
    }

    /// Returns true if it began after another link to the same tree was `seen`.
    fn is_later(&self, asked: &Asked, seen: &Seen) -> bool {
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

/// What a walk that was done shortly before has found.
#[derive(Debug)]
pub enum Recent {
    /// An archive.
    Packed(Packed),
    /// None.
    Refused(TooMuch),
}

#[derive(Debug)]
struct Kept {
    walked: Walked,
    packed: Packed,
    used: Instant,
}

impl Kept {
    fn is(&self, link: &Link, tag: u64) -> bool {
        self.walked.asked.link == *link && self.packed.archive.tag() == tag
    }
}

/// The archives that are kept.
#[derive(Debug, Default)]
pub struct Shelf {
    kept: Mutex<Vec<Kept>>,
    /// Walks that found no archive.
    refused: Mutex<Vec<(Walked, TooMuch)>>,
}

impl Shelf {
    /// What was found when `asked` was last walked for, if that was just now and the directory is
    /// still the one that is `seen`.
    pub fn recent(&self, asked: &Asked, seen: &Seen) -> Option<Recent> {
        self.find(|walked| walked.answers(asked, seen)).map(|(recent, _)| recent)
    }

    /// What a walk has found that began after `asked` was `seen`, for whichever link.
    pub fn since(&self, asked: &Asked, seen: &Seen) -> Option<Recent> {
        let (recent, walked) = self.find(|walked| walked.is_later(asked, seen))?;
        if let Recent::Packed(packed) = &recent {
            self.keep(Walked { asked: *asked, ..walked }, packed);
        }
        Some(recent)
    }

    fn find(&self, is_it: impl Fn(&Walked) -> bool) -> Option<(Recent, Walked)> {
        let mut kept = self.lock();
        let found = kept.iter_mut().filter(|kept| is_it(&kept.walked));
        if let Some(newest) = found.max_by_key(|kept| kept.walked.ended) {
            newest.used = Instant::now();
            return Some((Recent::Packed(newest.packed.clone()), newest.walked));
        }
        drop(kept);
        let refused = self.lock_refused();
        let found = refused.iter().find(|(walked, _)| is_it(walked))?;
        Some((Recent::Refused(found.1), found.0))
    }

    /// Remembers for a while that what was `seen` becomes no archive.
    pub fn put_refused(&self, asked: &Asked, seen: Seen, what: TooMuch) {
        let walked = Walked::now(asked, seen);
        let mut all = self.lock_refused();
        all.retain(|(other, _)| other.is_fresh(walked.ended) && other.asked != *asked);
        if all.len() >= MAX_KEPT {
            all.remove(0);
        }
        all.push((walked, what));
    }

    /// The archive of `listing`, which was `seen` before its walk, if the same tree is kept already:
    /// with the CRCs that are known.
    pub fn known(&self, asked: &Asked, seen: &Seen, listing: &Listing) -> Option<Packed> {
        let packed = self.same(seen, listing.tag(asked.format))?;
        self.keep(Walked::now(asked, *seen), &packed);
        Some(packed)
    }

    /// Keeps `archive` of `root`, which was `seen` before its walk. Of two walks of the same tree at
    /// once, the first that comes is kept.
    pub fn put(&self, asked: &Asked, seen: Seen, root: &Arc<Dir>, archive: Archive) -> Packed {
        let same = self.same(&seen, archive.tag());
        let packed =
            same.unwrap_or_else(|| Packed { archive: Arc::new(archive), root: Arc::clone(root) });
        self.keep(Walked::now(asked, seen), &packed);
        packed
    }

    fn same(&self, seen: &Seen, tag: u64) -> Option<Packed> {
        let kept = self.lock();
        let is_same =
            |kept: &&Kept| kept.packed.archive.tag() == tag && kept.walked.seen.place == seen.place;
        kept.iter().find(is_same).map(|kept| kept.packed.clone())
    }

    fn keep(&self, walked: Walked, packed: &Packed) {
        let (link, tag) = (walked.asked.link, packed.archive.tag());
        let mut kept = self.lock();
        kept.retain(|kept| !kept.is(&link, tag));
        kept.push(Kept { walked, packed: packed.clone(), used: Instant::now() });
        while let Some(index) = superfluous(&kept) {
            kept.remove(index);
        }
    }

    /// Forgets what nobody has used for some time and whose link is not `in_use` either.
    pub fn sweep(&self, now: Instant, in_use: impl Fn(&Link) -> bool) {
        // Asked without the lock: the links have locks of their own.
        let idle: Vec<Link> = {
            let kept = self.lock();
            let idle = kept.iter().filter(|kept| now.saturating_duration_since(kept.used) >= IDLE);
            idle.map(|kept| kept.walked.asked.link).collect()
        };
        for link in idle.iter().filter(|link| !in_use(link)) {
            self.lock().retain(|kept| {
                kept.walked.asked.link != *link || now.saturating_duration_since(kept.used) < IDLE
            });
        }
    }

    #[cfg(test)]
    pub(super) fn holds(&self, link: &Link) -> bool {
        self.lock().iter().any(|kept| kept.walked.asked.link == *link)
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, link: &Link, tag: u64) -> bool {
        self.lock().iter().any(|kept| kept.is(link, tag))
    }

    /// How many are kept, and the bytes of memory that their listings take.
    pub fn usage(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.len(), memory(&kept))
    }

    fn lock_refused(&self) -> MutexGuard<'_, Vec<(Walked, TooMuch)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of `kept`, if any, has to go; the newest, which is the last, stays. If its link has too many,
/// that which was not used for the longest time. If there are too many in all, one of the server
/// that holds most: so that nobody who has large trees takes the places of others.
fn superfluous(kept: &[Kept]) -> Option<usize> {
    let (newest, others) = kept.split_last()?;
    let link = newest.walked.asked.link;
    let of_link = || (0..others.len()).filter(|&index| others[index].walked.asked.link == link);
    if of_link().count() >= MAX_PER_LINK {
        return of_link().min_by_key(|&index| others[index].used);
    }
    let are_many = kept.len() > MAX_KEPT;
    if !are_many && memory(kept) <= MAX_MEMORY {
        return None;
    }
    let weight = |kept: &Kept| if are_many { 1 } else { kept.packed.archive.memory() };
    let held = |server: u128| -> usize {
        kept.iter().filter(|kept| kept.walked.asked.server == server).map(weight).sum()
    };
    (0..others.len()).max_by_key(|&index| {
        let other = &others[index];
        (held(other.walked.asked.server), weight(other), Reverse(other.used))
    })
}

/// Bytes of memory; an archive that several links share counts once.
fn memory(kept: &[Kept]) -> usize {
    let mut seen: Vec<*const Archive> = Vec::new();
    let mut total = 0;
    for kept in kept {
        let archive = Arc::as_ptr(&kept.packed.archive);
        if !seen.contains(&archive) {
            seen.push(archive);
            total += kept.packed.archive.memory();
        }
    }
    total
}
