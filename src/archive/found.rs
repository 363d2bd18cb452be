//! The names that a walk has found and not listed yet.

use super::chosen::Take;
use super::listing::{MAX_NAMES, WalkError};

/// A name that is to be listed.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) parent: u32,
    /// Where it begins in the arena.
    pub(super) name: u32,
    pub(super) length: u16,
    /// How many folders it lies in.
    pub(super) depth: u16,
    /// What is known of it.
    pub(super) kind: Known,
    pub(super) take: Take,
}

/// The names that were found so far.
#[derive(Debug)]
pub(super) struct Found {
    /// Those that are still to be listed; last is next.
    pub(super) waiting: Vec<Waiting>,
    /// All of them, and the targets of links.
    pub(super) arena: Vec<u8>,
    /// How many more there may be.
    pub(super) room: usize,
}

/// A directory that was listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder {
    pub(super) index: u32,
    /// How many folders a name in it lies in.
    pub(super) depth: u16,
}

/// What is known of a name before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The directory says that it is one itself.
    Directory,
    /// It is something else, or the directory does not say.
    Unknown,
    /// A path that was asked for leads there.
    Chosen,
}

impl Found {
    /// Nothing is found; no more than `room` names may be.
    pub(super) fn new(room: usize) -> Found {
        Found { waiting: Vec::new(), arena: Vec::new(), room }
    }

    /// Adds a name that is in `folder`.
    ///
    /// # Errors
    /// [`WalkError::TooMany`].
    pub(super) fn add(
        &mut self,
        folder: Folder,
        name: &[u8],
        kind: Known,
        take: Take,
    ) -> Result<(), WalkError> {
        let start = self.arena.len();
        let room = self.room.checked_sub(1).filter(|_| start + name.len() <= MAX_NAMES);
        self.room = room.ok_or(WalkError::TooMany)?;
        self.arena.extend_from_slice(name);
        let (name, length) = (start as u32, name.len() as u16);
        let Folder { index: parent, depth } = folder;
        self.waiting.push(Waiting { parent, name, length, depth, kind, take });
        Ok(())
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        self.waiting.capacity() * size_of::<Waiting>() + self.arena.len()
    }

    /// The name that waits.
    pub(super) fn name(&self, waiting: &Waiting) -> &[u8] {
        &self.arena[waiting.name as usize..][..waiting.length.into()]
    }

    /// Puts the names that wait from `first` on into their order.
    pub(super) fn sort(&mut self, first: usize) {
        let arena = &self.arena;
        let name = |waiting: &Waiting| &arena[waiting.name as usize..][..waiting.length.into()];
        self.waiting[first..].sort_unstable_by(|a, b| name(b).cmp(name(a)));
    }
}
