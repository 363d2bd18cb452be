//! The archives that are being downloaded: each is laid out once, and kept with the CRCs that its
//! readers have come to know.
//!
//! A listing may take dozens of megabytes, and whoever owns a tree may be a stranger. So one bound
//! holds for what downloads use, what is kept for later and what walks have gathered so far. Of what
//! nobody uses, the oldest goes; it is made anew when it is asked for. What is used stays, and a walk
//! for which there is no room ends.

mod walked;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::Dir;

use self::walked::Walked;
use super::{Archive, Listing};

pub use self::walked::{Asked, Link, Seen, TooMuch};

/// Trees that are walked at a time.
pub const WALKS: usize = 2;
/// Least memory for listings, in bytes.
pub const MIN_MEMORY: usize = 8 << 20;
/// Most memory for listings, in bytes.
pub const MAX_MEMORY: usize = 64 << 20;
/// Most archives that are kept while nobody uses them: each holds its directory open.
pub const MAX_KEPT: usize = 64;
/// Most archives of one link that are kept while nobody uses them. A link whose tree changes all the
/// time gets no further places.
pub const MAX_PER_LINK: usize = 2;
/// A listing of up to this many bytes, some 3,000 files, fits beside those of very large trees.
const SMALL: usize = 256 << 10;
/// An archive stays this long without a link that is in use.
const IDLE: Duration = Duration::from_secs(300);
/// A listing laid out, and the open directory that its members lie in. It stays on the shelf for as
/// long as there is a clone of this.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The layout.
    pub archive: Arc<Archive>,
    /// Where its members are.
    pub root: Arc<Dir>,
    /// Bytes that were read for CRCs on account of one link.
    pub(super) paid: Arc<AtomicU64>,
    server: u128,
    readings: Readings,
}

impl Packed {
    /// `archive`, whose members lie beneath `root`, for a link of nobody else's.
    #[cfg(test)]
    pub(super) fn new(archive: Arc<Archive>, root: Arc<Dir>) -> Packed {
        let (paid, readings) = (Arc::default(), Readings::default());
        Packed { archive, root, paid, server: 0, readings }
    }

    /// Begins to read for a CRC, unless somebody else does so for the same server.
    pub(super) fn begin_reading(&self) -> Option<Reading> {
        let readings = self.readings.clone();
        let is_first = readings.lock().insert(self.server);
        is_first.then(|| Reading { readings, server: self.server })
    }
}

/// The servers that somebody reads for.
#[derive(Clone, Debug, Default)]
struct Readings(Arc<Mutex<HashSet<u128>>>);

impl Readings {
    fn lock(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to read for a CRC on a server's account, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    readings: Readings,
    server: u128,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readings.lock().remove(&self.server);
    }
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
    fn is(&self, link: &Link, seen: &Seen, tag: u64) -> bool {
        self.walked.asked.link == *link && self.is_tree(seen, tag)
    }

    fn is_tree(&self, seen: &Seen, tag: u64) -> bool {
        self.walked.seen.place == seen.place && self.packed.archive.tag() == tag
    }

    /// Returns true if a download uses it. Only from here can it be had, under the lock.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.packed.paid) > 1
    }
}

/// A walk that is under way.
#[derive(Debug)]
struct Gathered {
    id: u64,
    server: u128,
    bytes: usize,
}

/// What is in memory.
#[derive(Debug, Default)]
struct Stock {
    kept: Vec<Kept>,
    walks: Vec<Gathered>,
    readings: Readings,
    /// The number of the next walk.
    next: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Archives in memory.
    pub kept: usize,
    /// Those of them that downloads use.
    pub used: usize,
    /// Walks that are under way.
    pub walks: usize,
    /// Bytes that all of it takes.
    pub bytes: usize,
}

/// The archives in memory.
#[derive(Debug)]
pub struct Shelf {
    /// Most bytes that they take.
    memory: usize,
    stock: Mutex<Stock>,
    /// Walks that found no archive.
    refused: Mutex<Vec<(Walked, TooMuch)>>,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf::new(MAX_MEMORY)
    }
}

impl Shelf {
    /// A shelf for `memory` bytes of listings, or the least or the most that is sensible.
    pub fn new(memory: usize) -> Shelf {
        let memory = memory.clamp(MIN_MEMORY, MAX_MEMORY);
        Shelf { memory, stock: Mutex::default(), refused: Mutex::default() }
    }

    /// Room for a walk through a tree of `server`: none at first.
    pub fn room(self: &Arc<Shelf>, server: u128) -> Room {
        let mut stock = self.lock();
        let id = stock.next;
        stock.next += 1;
        stock.walks.push(Gathered { id, server, bytes: 0 });
        Room { shelf: Arc::clone(self), id }
    }

    /// What was found when `asked` was last walked for, if that was just now and the directory is
    /// still the one that is `seen`.
    pub fn recent(&self, asked: &Asked, seen: &Seen) -> Option<Recent> {
        self.find(|walked| walked.answers(asked, seen)).map(|(recent, _)| recent)
    }

    /// What a walk has found that began after `asked` was `seen`, for whichever link.
    pub fn since(&self, asked: &Asked, seen: &Seen) -> Option<Recent> {
        let (recent, walked) = self.find(|walked| walked.is_later(asked, seen))?;
        Some(match recent {
            Recent::Packed(packed) => {
                let walked = Walked { asked: *asked, ..walked };
                Recent::Packed(self.lock().keep(walked, packed.archive, packed.root))
            }
            refused => refused,
        })
    }

    fn find(&self, is_it: impl Fn(&Walked) -> bool) -> Option<(Recent, Walked)> {
        let mut stock = self.lock();
        let found = stock.kept.iter_mut().filter(|kept| is_it(&kept.walked));
        if let Some(newest) = found.max_by_key(|kept| kept.walked.ended) {
            newest.used = Instant::now();
            return Some((Recent::Packed(newest.packed.clone()), newest.walked));
        }
        drop(stock);
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

    /// The archive of `listing`, which was `seen` before its walk, if the same tree is here already:
    /// with the CRCs that are known.
    pub fn known(&self, asked: &Asked, seen: &Seen, listing: &Listing) -> Option<Packed> {
        let mut stock = self.lock();
        let (archive, root) = stock.same(seen, listing.tag(asked.format))?;
        Some(stock.keep(Walked::now(asked, *seen), archive, root))
    }

    /// Keeps `archive` of `root`, which was `seen` before its walk and takes the place of what is in
    /// `room`. Of two walks of the same tree at once, the first that comes is kept.
    pub fn put(
        &self,
        room: &Room,
        asked: &Asked,
        seen: Seen,
        root: &Arc<Dir>,
        archive: Archive,
    ) -> Packed {
        let mut stock = self.lock();
        stock.walks.retain(|walk| walk.id != room.id);
        let same = stock.same(&seen, archive.tag());
        let (archive, root) = same.unwrap_or_else(|| (Arc::new(archive), Arc::clone(root)));
        stock.keep(Walked::now(asked, seen), archive, root)
    }

    /// Forgets what nobody has used for some time and whose link is not `in_use` either.
    pub fn sweep(&self, now: Instant, in_use: impl Fn(&Link) -> bool) {
        // Asked without the lock: the links have locks of their own.
        let idle: Vec<Link> = {
            let mut stock = self.lock();
            stock.kept.iter_mut().filter(|kept| kept.is_used()).for_each(|kept| kept.used = now);
            let idle = stock.kept.iter().filter(|kept| kept.used + IDLE <= now);
            idle.map(|kept| kept.walked.asked.link).collect()
        };
        for link in idle.iter().filter(|link| !in_use(link)) {
            self.lock().kept.retain(|kept| {
                kept.walked.asked.link != *link || kept.is_used() || kept.used + IDLE > now
            });
        }
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, link: &Link, tag: u64) -> bool {
        self.lock()
            .kept
            .iter()
            .any(|kept| kept.walked.asked.link == *link && kept.packed.archive.tag() == tag)
    }

    /// How much is in memory.
    pub fn usage(&self) -> Usage {
        let stock = self.lock();
        Usage {
            kept: stock.kept.len(),
            used: stock.kept.iter().filter(|kept| kept.is_used()).count(),
            walks: stock.walks.len(),
            bytes: stock.bytes(|_| true, |_| true),
        }
    }

    fn lock_refused(&self) -> MutexGuard<'_, Vec<(Walked, TooMuch)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn same(&self, seen: &Seen, tag: u64) -> Option<(Arc<Archive>, Arc<Dir>)> {
        let same = self.kept.iter().find(|kept| kept.is_tree(seen, tag));
        let Packed { archive, root, .. } = &same?.packed;
        Some((Arc::clone(archive), Arc::clone(root)))
    }

    /// Keeps an archive for the link that it was `walked` for.
    fn keep(&mut self, walked: Walked, archive: Arc<Archive>, root: Arc<Dir>) -> Packed {
        let (link, tag) = (walked.asked.link, archive.tag());
        let place = self.kept.iter().position(|kept| kept.is(&link, &walked.seen, tag));
        let packed = match place {
            Some(place) => self.kept.remove(place).packed,
            None => {
                let (server, readings) = (walked.asked.server, self.readings.clone());
                Packed { archive, root, paid: Arc::default(), server, readings }
            }
        };
        self.kept.push(Kept { walked, packed: packed.clone(), used: Instant::now() });
        while self.unused(|kept| kept.walked.asked.link == link).count() > MAX_PER_LINK {
            self.drop_oldest(|kept| kept.walked.asked.link == link);
        }
        while self.unused(|_| true).count() > MAX_KEPT {
            self.drop_oldest(|_| true);
        }
        packed
    }

    fn unused(&self, which: impl Fn(&Kept) -> bool) -> impl Iterator<Item = (usize, &Kept)> {
        self.kept.iter().enumerate().filter(move |(_, kept)| !kept.is_used() && which(kept))
    }

    /// Drops what was not used for the longest time. Returns false if everything is used.
    fn drop_oldest(&mut self, which: impl Fn(&Kept) -> bool) -> bool {
        let oldest = self.unused(which).min_by_key(|(_, kept)| kept.used);
        let oldest = oldest.map(|(index, _)| index);
        oldest.inspect(|&index| drop(self.kept.remove(index))).is_some()
    }

    /// Bytes of memory that some archives and walks take. Archives that several links share count
    /// once.
    fn bytes(&self, which: impl Fn(&Kept) -> bool, walks: impl Fn(&Gathered) -> bool) -> usize {
        let mut counted = HashSet::new();
        let kept = self.kept.iter().filter(|kept| which(kept));
        let kept = kept.filter(|kept| counted.insert(Arc::as_ptr(&kept.packed.archive)));
        let kept: usize = kept.map(|kept| kept.packed.archive.memory()).sum();
        kept + self.walks.iter().filter(|walk| walks(walk)).map(|walk| walk.bytes).sum::<usize>()
    }
}

/// The memory that a walk may take, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    shelf: Arc<Shelf>,
    id: u64,
}

impl Room {
    /// The shelf that it is on.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Makes room for `bytes` in all. Returns false if that is more than there may be beside what is
    /// in use. A server that has other archives in use may have half of the memory, and the last
    /// eighth is for small ones: a few large trees must not keep archives from everybody.
    #[must_use]
    pub fn grow(&self, bytes: usize) -> bool {
        let mut stock = self.shelf.lock();
        let Some(place) = stock.walks.iter().position(|walk| walk.id == self.id) else {
            return false;
        };
        let (memory, server) = (self.shelf.memory, stock.walks[place].server);
        let others = |walk: &Gathered| walk.id != self.id;
        let used = stock.bytes(Kept::is_used, others);
        let own = stock.bytes(
            |kept| kept.is_used() && kept.walked.asked.server == server,
            |walk| others(walk) && walk.server == server,
        );
        let is_small = bytes <= SMALL;
        let limit = if is_small { memory } else { memory - memory / 8 };
        if used + bytes > limit || !is_small && own > 0 && own + bytes > memory / 2 {
            return false;
        }
        while stock.bytes(|_| true, others) + bytes > limit && stock.drop_oldest(|_| true) {}
        stock.walks[place].bytes = bytes;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shelf.lock().walks.retain(|walk| walk.id != self.id);
    }
}
