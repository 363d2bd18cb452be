//! The archives that are being downloaded: each is laid out once, and kept with the CRCs that its
//! readers have come to know.
//!
//! A listing may take a dozen megabytes and a download may last for a day, so what is kept is
//! bounded: what was not used for the longest time goes, and is made anew when it is asked for. So
//! are the walks that run at a time: each keeps a disk busy.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, MetadataExt};

use super::{Archive, Format, Listing};

/// Walks that run at a time.
pub const WALKS: usize = 2;
/// Most bytes of listings that are kept.
pub const MAX_MEMORY: usize = 64 << 20;
/// Most archives that are kept: each holds its directory open.
pub const MAX_KEPT: usize = 64;
/// An archive stays this long without a link that is in use.
const IDLE: Duration = Duration::from_secs(300);

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

#[derive(Debug)]
struct Kept {
    link: Link,
    packed: Packed,
    /// Device and inode number of the directory.
    place: (u64, u64),
    used: Instant,
}

/// The archives that are kept.
#[derive(Debug, Default)]
pub struct Shelf {
    walks: Mutex<usize>,
    walked: Condvar,
    kept: Mutex<Vec<Kept>>,
}

/// The right to walk a tree; given back when dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Shelf);

impl Shelf {
    /// Waits up to `patience` for the right to walk.
    pub fn turn(&self, patience: Duration) -> Option<Turn<'_>> {
        let walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |walks: &mut usize| *walks >= WALKS;
        let waited = self.walked.wait_timeout_while(walks, patience, full);
        let (mut walks, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && *walks >= WALKS {
            return None;
        }
        *walks += 1;
        Some(Turn(self))
    }

    /// Keeps `listing` of `root` for `link`, laid out; what is kept already of the same tree is used
    /// again, with the CRCs that are known.
    ///
    /// # Errors
    /// If the system does not say which directory `root` is.
    pub fn put(
        &self,
        link: &Link,
        root: Dir,
        listing: Listing,
        format: Format,
    ) -> io::Result<Packed> {
        let tag = listing.tag(format);
        let metadata = root.dir_metadata()?;
        let place = (metadata.dev(), metadata.ino());
        let is_same = |kept: &&Kept| kept.packed.archive.tag() == tag && kept.place == place;
        let known = self.lock().iter().find(is_same).map(|kept| kept.packed.clone());
        // Laid out without the lock: of two at once, the first that comes is kept.
        let packed = known.unwrap_or_else(|| Packed {
            archive: Arc::new(Archive::new(listing, format)),
            root: Arc::new(root),
        });
        let mut kept = self.lock();
        let now = Instant::now();
        kept.retain(|kept| kept.link != *link || kept.packed.archive.tag() != tag);
        kept.push(Kept { link: *link, packed: packed.clone(), place, used: now });
        while kept.len() > MAX_KEPT || kept.len() > 1 && memory(&kept) > MAX_MEMORY {
            let oldest = kept.iter().enumerate().min_by_key(|(_, kept)| kept.used);
            let Some((oldest, _)) = oldest else { break };
            kept.swap_remove(oldest);
        }
        Ok(packed)
    }

    /// The archive with this tag that was made for `link`, if it is still kept.
    pub fn get(&self, link: &Link, tag: u64) -> Option<Packed> {
        let mut all = self.lock();
        let kept =
            all.iter_mut().find(|kept| kept.link == *link && kept.packed.archive.tag() == tag)?;
        kept.used = Instant::now();
        Some(kept.packed.clone())
    }

    /// Forgets what nobody has used for some time and whose link is not `in_use` either.
    pub fn sweep(&self, now: Instant, in_use: impl Fn(&Link) -> bool) {
        // Asked without the lock: the links have locks of their own.
        let idle: Vec<Link> = {
            let kept = self.lock();
            let idle = kept.iter().filter(|kept| now.saturating_duration_since(kept.used) >= IDLE);
            idle.map(|kept| kept.link).collect()
        };
        for link in idle.iter().filter(|link| !in_use(link)) {
            self.lock().retain(|kept| {
                kept.link != *link || now.saturating_duration_since(kept.used) < IDLE
            });
        }
    }

    #[cfg(test)]
    pub(super) fn holds(&self, link: &Link) -> bool {
        self.lock().iter().any(|kept| kept.link == *link)
    }

    /// Bytes of memory that all listings take.
    pub fn memory(&self) -> usize {
        memory(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.walks.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.walked.notify_one();
    }
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
