//! The open directories that lead to where a walk is.
//!
//! A tree may be thousands of directories deep and descriptors are few, so only the lowest few of a
//! branch stay open. What fell out is opened again through `..` of the directory below it, which
//! takes one call however deep that is; by its whole path, a hostile tree would take minutes. A
//! directory may be moved at any time: what is opened has to be the one that was listed, by device
//! and inode, so that `..` leads nowhere else.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;

use super::listing::{Entry, NO_PARENT, write_path};
use super::open;

/// Open directories of a branch, besides the root.
pub const MAX_OPEN: usize = 16;

/// Directories that lie in each other, the deepest last, by their indices in the listing.
#[derive(Debug)]
pub(super) struct Branch {
    root: OwnedFd,
    open: VecDeque<(u32, OwnedFd)>,
    /// A directory that could not be opened again.
    lost: Option<u32>,
}

impl Branch {
    /// Begins at `root`.
    pub(super) fn new(root: OwnedFd) -> Branch {
        Branch { root, open: VecDeque::new(), lost: None }
    }

    /// Goes down to the directory `index`, which lies in the one that the walk was in.
    pub(super) fn descend(&mut self, index: u32, dir: OwnedFd) {
        if self.open.len() == MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back((index, dir));
    }

    /// The directory that the walk is in.
    pub(super) fn last(&self) -> (u32, BorrowedFd<'_>) {
        self.open
            .back()
            .map_or((NO_PARENT, self.root.as_fd()), |(index, dir)| (*index, dir.as_fd()))
    }

    /// Goes back up to the directory `index`, below which the walk was until now.
    ///
    /// # Errors
    /// What the system says, and [`open::changed`] if it is no longer where it was.
    pub(super) fn ascend(
        &mut self,
        index: u32,
        entries: &[Entry],
        names: &[u8],
    ) -> io::Result<BorrowedFd<'_>> {
        if index == NO_PARENT {
            self.open.clear();
        } else if self.lost == Some(index) {
            return Err(open::changed());
        } else if let Err(error) = self.climb(index, entries) {
            self.open.clear();
            if open::is_exhaustion(&error) {
                return Err(error);
            }
            // Something below it was moved away meanwhile, which is no reason to lose the rest.
            self.lost = Some(index);
            let mut path = Vec::new();
            write_path(entries, names, index as usize, &mut path);
            let dir = open::directory(self.root.as_fd(), &path)?;
            check(&dir, entries[index as usize].inode)?;
            self.lost = None;
            self.open.push_back((index, dir));
        }
        Ok(self.last().1)
    }

    fn climb(&mut self, index: u32, entries: &[Entry]) -> io::Result<()> {
        while self.open.len() > 1 && self.last().0 != index {
            self.open.pop_back();
        }
        while let (below, dir) = self.last()
            && below != index
        {
            if below == NO_PARENT {
                return Err(open::changed());
            }
            let parent = entries[below as usize].parent;
            let above = open::parent(dir)?;
            check(&above, entries.get(parent as usize).map_or(0, |entry| entry.inode))?;
            self.open.pop_back();
            self.open.push_back((parent, above));
        }
        Ok(())
    }
}

/// Checks that `dir` is the directory `expected`, by [`open::identity`].
fn check(dir: &OwnedFd, expected: u64) -> io::Result<()> {
    match open::identity(&fstat(dir)?) == expected {
        true => Ok(()),
        false => Err(open::changed()),
    }
}
