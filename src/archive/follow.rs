//! Finds where symbolic links lead. A zip holds the content of files, since few readers know links in
//! one: without it, a server that is moved as a zip would lack what it starts with. A tar holds links,
//! but none that leads in circles: at the next one that leads there, Python gives up.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use cap_std::fs::Dir;
use hmac_sha256::Hash;

use super::format::Format;
use super::hidden::{Hidden, Place};
use super::listing::{Entry, Kind, Led, Listing, MAX_NAMES, NO_PARENT};
use super::paths::resolve;
use super::{WalkError, open};

/// Links together carry at most as much as all files of the listing, and this: 200,000 links to one
/// file would be petabytes.
const MORE: u64 = 1 << 30;

/// A listing whose links are being followed, in steps.
pub struct Follow {
    listing: Listing,
    volume: Arc<Dir>,
    hidden: Option<Arc<Hidden>>,
    format: Format,
    next: usize,
    /// Bytes that links may still carry.
    room: u64,
    digest: Hash,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Follow {
    /// Begins to follow the links of `listing`, which lists `place`, for an archive in `format`.
    pub fn new(listing: Listing, place: &Place, format: Format) -> Follow {
        let listing = listing.at(&place.base);
        let files = listing.entries.iter().filter(|entry| entry.kind() == Kind::File);
        let room = files.map(|entry| entry.size).sum::<u64>() + MORE;
        let mut digest = Hash::new();
        digest.update(listing.digest);
        Follow {
            volume: Arc::clone(&place.volume),
            hidden: place.hidden.clone(),
            format,
            next: 0,
            listing,
            room,
            digest,
        }
    }

    /// Bytes of memory that it takes so far. What was never written to is not counted.
    pub fn memory(&self) -> usize {
        self.listing.written()
    }

    /// Goes on until `until`, or to the end, or until it takes some more than `memory` bytes. Returns
    /// `None` if there is more to be followed.
    ///
    /// # Errors
    /// [`WalkError::Io`] if the system has no descriptor or memory left.
    pub fn step(&mut self, until: Instant, memory: usize) -> Result<Option<Listing>, WalkError> {
        while self.next < self.listing.len() {
            let index = self.next;
            self.next += 1;
            if self.listing.entries[index].kind() == Kind::Link {
                self.follow(index)?;
                if Instant::now() >= until || self.memory() > memory {
                    return Ok(None);
                }
            }
        }
        let mut listing = std::mem::take(&mut self.listing);
        listing.names.shrink_to_fit();
        listing.led.shrink_to_fit();
        if !listing.led.is_empty() || !listing.unfit.is_empty() {
            listing.digest = self.digest.finalize();
            listing.volume = Some(Arc::clone(&self.volume));
        }
        Ok(Some(listing))
    }

    fn follow(&mut self, index: usize) -> Result<(), WalkError> {
        let mut path = Vec::new();
        let member = self.listing.member(index, &mut path);
        let name = self.listing.name(index).len();
        let above = &member.path[..member.path.len() - name];
        let from = [&self.listing.base[..], b"/", above].concat();
        let real = resolve(&self.volume, &from, member.target);
        match (real, self.format) {
            (Some(real), Format::Zip) => self.carry(index, &real)?,
            (None, Format::Tar) => self.leave_out(index),
            _ => {}
        }
        Ok(())
    }

    fn leave_out(&mut self, index: usize) {
        self.digest.update((index as u64).to_le_bytes());
        self.listing.unfit.push(index as u32);
    }

    /// Has the archive hold what is at `real`, if that is a file, in place of the link `index`.
    fn carry(&mut self, index: usize, real: &[u8]) -> Result<(), WalkError> {
        if self.hidden.as_ref().is_some_and(|hidden| hidden.hides(real, false)) {
            return Ok(());
        }
        let stat = match open::file(self.volume.as_fd(), real) {
            Ok((_, stat)) => stat,
            Err(error) if open::is_exhaustion(&error) => return Err(WalkError::Io(error)),
            Err(_) => return Ok(()),
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let room = self.room.checked_sub(size);
        let has_room = self.listing.names.len() + real.len() <= MAX_NAMES;
        let Some(room) = room.filter(|_| has_room) else {
            self.leave_out(index);
            return Ok(());
        };
        self.room = room;
        let entry = Entry {
            parent: NO_PARENT,
            name: self.listing.names.len() as u32,
            path_length: real.len() as u16,
            mode: stat.st_mode as u16,
            nanoseconds: stat.st_mtime_nsec as u32,
            size,
            seconds: stat.st_mtime,
            inode: open::identity(&stat),
        };
        self.listing.names.extend_from_slice(real);
        self.listing.modified = self.listing.modified.max(entry.seconds);
        self.listing.led.push(Led { index: index as u32, entry });
        self.sum(index, &entry, stat.st_ino, real);
        Ok(())
    }

    fn sum(&mut self, index: usize, entry: &Entry, inode: u64, real: &[u8]) {
        self.digest.update((index as u64).to_le_bytes());
        self.digest.update(entry.path_length.to_le_bytes());
        self.digest.update(entry.mode.to_le_bytes());
        self.digest.update(entry.size.to_le_bytes());
        self.digest.update(entry.seconds.to_le_bytes());
        self.digest.update(entry.nanoseconds.to_le_bytes());
        self.digest.update(inode.to_le_bytes());
        self.digest.update(real);
    }
}
