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
    /// Locked by whoever reads for a CRC on account of its server.
    pub(super) reading: Arc<Mutex<()>>,
}

impl Packed {
    /// `archive`, whose members lie beneath `root`, for a link of nobody else's.
    #[cfg(test)]
    pub(super) fn new(archive: Arc<Archive>, root: Arc<Dir>) -> Packed {
        Packed { archive, root, paid: Arc::default(), reading: Arc::default() }
    }
}

/// What a walk has found: an archive, or why there is none.
pub type Outcome = Result<Packed, TooMuch>;

#[derive(Debug)]
struct Kept {
    walked: Walked,
    outcome: Outcome,
    used: Instant,
}

impl Kept {
    fn link(&self) -> Link {
        self.walked.asked.link
    }

    fn is_tree(&self, seen: &Seen, tag: u64) -> bool {
        let is_same = |packed: &Packed| packed.archive.tag() == tag;
        self.walked.seen.place == seen.place && self.outcome.as_ref().is_ok_and(is_same)
    }

    /// Returns true if a download uses it. Only from here can it be had, under the lock.
    fn is_used(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|packed| Arc::strong_count(&packed.paid) > 1)
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
        Shelf { memory, stock: Mutex::default() }
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
    pub fn recent(&self, asked: &Asked, seen: &Seen) -> Option<Outcome> {
        self.lock().find(|walked| walked.answers(asked, seen)).map(|(found, _)| found)
    }

    /// What a walk has found that began after `asked` was `seen`, for whichever link.
    pub fn since(&self, asked: &Asked, seen: &Seen) -> Option<Outcome> {
        let mut stock = self.lock();
        let (found, walked) = stock.find(|walked| walked.is_later(asked, seen))?;
        let walked = Walked { asked: *asked, ..walked };
        Some(found.map(|packed| stock.keep(walked, packed.archive, packed.root)))
    }

    /// Remembers for a while that what was `seen` becomes no archive.
    pub fn put_refused(&self, asked: &Asked, seen: Seen, what: TooMuch) {
        self.lock().add(Walked::now(asked, seen), Err(what));
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
            idle.map(Kept::link).collect()
        };
        for link in idle.iter().filter(|link| !in_use(link)) {
            let is_kept =
                |kept: &Kept| kept.link() != *link || kept.is_used() || kept.used + IDLE > now;
            self.lock().kept.retain(is_kept);
        }
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, link: &Link, tag: u64) -> bool {
        let is_it = |packed: &Packed| packed.archive.tag() == tag;
        let found = |kept: &Kept| kept.link() == *link && kept.outcome.as_ref().is_ok_and(is_it);
        self.lock().kept.iter().any(found)
    }

    /// How much is in memory.
    pub fn usage(&self) -> Usage {
        let stock = self.lock();
        Usage {
            kept: stock.kept.iter().filter(|kept| kept.outcome.is_ok()).count(),
            used: stock.kept.iter().filter(|kept| kept.is_used()).count(),
            walks: stock.walks.len(),
            bytes: stock.bytes(|_| true, |_| true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// The newest outcome of such a walk, which is used once more.
    fn find(&mut self, is_it: impl Fn(&Walked) -> bool) -> Option<(Outcome, Walked)> {
        let found = self.kept.iter_mut().filter(|kept| is_it(&kept.walked));
        let newest = found.max_by_key(|kept| kept.walked.ended)?;
        newest.used = Instant::now();
        Some((newest.outcome.clone(), newest.walked))
    }

    fn same(&self, seen: &Seen, tag: u64) -> Option<(Arc<Archive>, Arc<Dir>)> {
        let same = self.kept.iter().find(|kept| kept.is_tree(seen, tag))?;
        let Packed { archive, root, .. } = same.outcome.clone().ok()?;
        Some((archive, root))
    }

    /// Keeps an archive for the link that it was `walked` for.
    fn keep(&mut self, walked: Walked, archive: Arc<Archive>, root: Arc<Dir>) -> Packed {
        let (Asked { link, server, .. }, tag) = (walked.asked, archive.tag());
        let is_it = |kept: &Kept| kept.link() == link && kept.is_tree(&walked.seen, tag);
        let known = self.kept.iter().position(is_it).map(|place| self.kept.remove(place).outcome);
        let packed = known.and_then(Result::ok).unwrap_or_else(|| {
            let others = self.kept.iter().filter(|kept| kept.walked.asked.server == server);
            let other = others.filter_map(|kept| kept.outcome.as_ref().ok()).next();
            let reading = other.map(|packed| Arc::clone(&packed.reading)).unwrap_or_default();
            Packed { archive, root, paid: Arc::default(), reading }
        });
        self.add(walked, Ok(packed.clone()));
        packed
    }

    /// Adds what was `walked`, and drops what is too much then.
    fn add(&mut self, walked: Walked, outcome: Outcome) {
        let link = walked.asked.link;
        self.kept.push(Kept { walked, outcome, used: Instant::now() });
        while self.unused(|kept| kept.link() == link).count() > MAX_PER_LINK {
            self.drop_oldest(|kept| kept.link() == link);
        }
        while self.unused(|_| true).count() > MAX_KEPT {
            self.drop_oldest(|_| true);
        }
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
        let packed = kept.filter_map(|kept| kept.outcome.as_ref().ok());
        let packed = packed.filter(|packed| counted.insert(Arc::as_ptr(&packed.archive)));
        let kept: usize = packed.map(|packed| packed.archive.memory()).sum();
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
