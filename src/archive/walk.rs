//! Lists what is beneath an open directory, a step at a time.
//!
//! The order is that of a depth-first walk by the names' bytes, so that a directory's own mode and
//! time can be set once its members are unpacked. What is still to be listed waits on a stack of our
//! own: a tree may be thousands deep and the worker's stack is small. Whoever owns the tree may be
//! hostile, so nothing here takes longer for one entry than for another.

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsFd;
use std::time::Instant;

use cap_std::fs::Dir;
use hmac_sha256::Hash;
use rustix::fs::{FileType, RawDir, Stat, fstat};
use rustix::io::Errno;

use super::branch::Branch;
use super::chosen::{Chosen, Take};
use super::examine::{Content, Left, examine, kind_of};
use super::follow::Links;
use super::found::{Folder, Found, Known, Waiting};
use super::hidden::{Place, Veil};
use super::listing::{
    Entry, FREE_DEPTH, Listing, MAX_BYTES, MAX_DEPTHS, MAX_ENTRIES, MAX_NAMES, MAX_PATH, NO_PARENT,
    Notes, WalkError, write_path,
};
use super::{Format, Kind, open};

pub use super::branch::MAX_OPEN;

/// Bytes of names that are read at a time.
const NAMES: usize = 8 << 10;

/// A directory whose names are being read.
#[derive(Debug)]
struct Reading {
    folder: Folder,
    /// Names that wait for something else.
    before: usize,
}

/// A walk that is under way. Dropped, it ends.
pub struct Walk {
    /// Where it began, for an archive in this format.
    place: Place,
    format: Format,
    chosen: Chosen,
    /// What is passed over as if it were not there.
    veil: Option<Veil>,
    branch: Branch,
    reading: Option<Reading>,
    found: Found,
    entries: Vec<Entry>,
    links: Links,
    notes: Notes,
    bytes: u64,
    left_out: usize,
    /// What is left of [`MAX_DEPTHS`].
    depths: u32,
    /// Chosen names that are not there.
    missing: usize,
    digest: Hash,
    modified: i64,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Walk {
    /// Begins to list the files and directories `paths` beneath `root`, which is `place`, with the
    /// directories that lead to them, for an archive in `format`. Slashes at either end of a path do
    /// not count; an empty path is all of `root`. What cannot be part of the archive, or is not there,
    /// is noted in the listing.
    ///
    /// # Errors
    /// [`WalkError::BadPath`] and [`WalkError::Io`].
    pub fn new(
        root: &Dir,
        place: &Place,
        format: Format,
        paths: &[String],
    ) -> Result<Walk, WalkError> {
        let root = open::again(root.as_fd()).map_err(WalkError::Io)?;
        let (modified, chosen) = (fstat(&root)?.st_mtime, Chosen::new(paths)?);
        let take = chosen.root();
        let mut walk = Walk {
            place: place.clone(),
            format,
            chosen,
            veil: Veil::new(place),
            branch: Branch::new(root),
            reading: None,
            found: Found::new(MAX_ENTRIES),
            entries: Vec::new(),
            links: Links::default(),
            notes: Notes::default(),
            bytes: 0,
            left_out: 0,
            depths: MAX_DEPTHS,
            missing: 0,
            digest: Hash::new(),
            modified,
        };
        if let Some(veil) = &walk.veil {
            walk.digest.update(veil.digest());
        }
        walk.enter(Folder { index: NO_PARENT, depth: 0 }, take)?;
        Ok(walk)
    }

    /// Lowers the number of entries that is too many.
    #[cfg(test)]
    pub(super) fn limited(mut self, limit: usize) -> Walk {
        self.found.room = limit;
        self
    }

    /// How many entries are listed so far.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory that it takes so far. What was never written to is not counted.
    pub fn memory(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
            + self.found.memory()
            + self.links.memory()
            + self.notes.memory()
    }

    /// Goes on until `until`, or to the end, or until it takes some more than `memory` bytes. Returns
    /// `None` if there is more to be listed.
    ///
    /// # Errors
    /// Any [`WalkError`] but [`WalkError::BadPath`]. The walk is then of no more use.
    pub fn step(&mut self, until: Instant, memory: usize) -> Result<Option<Listing>, WalkError> {
        loop {
            if let Some(reading) = self.reading.take() {
                self.read(reading)?;
            } else if let Some(next) = self.found.waiting.pop() {
                self.list(&next)?;
            } else {
                return self.finish().map(Some);
            }
            if Instant::now() >= until || self.memory() > memory {
                return Ok(None);
            }
        }
    }

    fn finish(&mut self) -> Result<Listing, WalkError> {
        let is_part = self.chosen.root() != Take::All;
        if is_part && self.entries.is_empty() && self.left_out == self.missing {
            return Err(WalkError::Missing);
        }
        let notes = mem::take(&mut self.notes);
        self.digest.update(notes.clone().into_text());
        self.entries.shrink_to_fit();
        self.found.arena.shrink_to_fit();
        let links = mem::take(&mut self.links).finish(self.bytes);
        Ok(Listing {
            entries: mem::take(&mut self.entries),
            names: mem::take(&mut self.found.arena),
            notes,
            base: mem::take(&mut self.place.base),
            modified: self.modified.max(links.modified().unwrap_or(self.modified)),
            links,
            digest: self.digest.finalize(),
        })
    }

    /// Finds the names in `folder`, which the walk has just come to.
    fn enter(&mut self, folder: Folder, take: Take) -> Result<(), WalkError> {
        let before = self.found.waiting.len();
        let Take::Part(node) = take else {
            self.reading = Some(Reading { folder, before });
            return Ok(());
        };
        for (name, take) in self.chosen.names(node) {
            self.found.add(folder, name, Known::Chosen, take)?;
        }
        self.found.sort(before);
        Ok(())
    }

    /// Reads some names of the directory that the walk is in.
    fn read(&mut self, reading: Reading) -> Result<(), WalkError> {
        let mut buffer = [MaybeUninit::uninit(); NAMES];
        let mut names = RawDir::new(self.branch.last().1, &mut buffer);
        let path = || path_of(&self.entries, &self.found.arena, reading.folder.index);
        let above = self.veil.as_ref().map(|_| path()).unwrap_or_default();
        let failed = loop {
            match names.next() {
                None | Some(Err(Errno::NOENT)) => break None,
                Some(Err(Errno::INTR)) => {}
                Some(Err(error)) => break Some(error),
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    let kind = match entry.file_type() {
                        FileType::Directory => Known::Directory,
                        _ => Known::Unknown,
                    };
                    let is_directory = kind == Known::Directory;
                    let hides = |veil: &mut Veil| veil.hides(&above, name, is_directory);
                    if name != b"." && name != b".." && !self.veil.as_mut().is_some_and(hides) {
                        self.found.add(reading.folder, name, kind, Take::All)?;
                    }
                }
            }
            if names.is_buffer_empty() {
                self.reading = Some(reading);
                return Ok(());
            }
        };
        if let Some(error) = failed {
            self.note_unlisted(reading.folder.index, error.into())?;
        }
        self.found.sort(reading.before);
        Ok(())
    }

    /// Lists one name, or notes why not.
    fn list(&mut self, next: &Waiting) -> Result<(), WalkError> {
        let examined = self.examine(next);
        let real = match &examined {
            Ok((_, Content::Link(target))) => {
                let above = path_of(&self.entries, &self.found.arena, next.parent);
                self.place.follow(&above, target)
            }
            _ => None,
        };
        if self.is_hidden(next, examined.as_ref().ok(), real.as_deref()) {
            self.found.room += 1;
            return Ok(());
        }
        let reason = match examined {
            Ok((stat, _)) if next.take != Take::All && kind_of(&stat) != FileType::Directory => {
                self.missing += 1;
                "not a folder".to_owned()
            }
            Ok((stat, content)) => return self.push(next, &stat, content, real.as_deref()),
            Err(Left::Error(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Removed since the directory was read, which is as if it had been before.
                if next.kind != Known::Chosen {
                    self.found.room += 1;
                    return Ok(());
                }
                self.missing += 1;
                "there is no such file or folder".to_owned()
            }
            Err(Left::Error(error)) if open::is_exhaustion(&error) => {
                return Err(WalkError::Io(error));
            }
            Err(Left::Error(error)) => format!("could not be opened ({})", error.kind()),
            Err(Left::Special) => "neither a file nor a folder".to_owned(),
            Err(Left::LongPath) => format!("its path is longer than {MAX_PATH} bytes"),
        };
        self.left_out += 1;
        self.notes.add(|| {
            let mut path = path_of(&self.entries, &self.found.arena, next.parent);
            path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
            path.extend_from_slice(self.found.name(next));
            (path, reason)
        });
        Ok(())
    }

    /// Returns true if `next` is to be passed over, or a link that leads to what is, at `real`. Of what
    /// could not be `examined`, nobody knows what it is.
    fn is_hidden(
        &mut self,
        next: &Waiting,
        examined: Option<&(Stat, Content)>,
        real: Option<&[u8]>,
    ) -> bool {
        let Some(veil) = &mut self.veil else { return false };
        let (kinds, target): (&[bool], _) = match examined.map(|(_, content)| content) {
            Some(Content::File) => (&[false], None),
            Some(Content::Link(target)) => (&[false], Some(target)),
            Some(_) => (&[true], None),
            None => (&[false, true], None),
        };
        // As what it was when its directory was read, it was not hidden.
        let is_new =
            |kind: bool| next.kind == Known::Chosen || kind != (next.kind == Known::Directory);
        if target.is_none() && !kinds.iter().any(|kind| is_new(*kind)) {
            return false;
        }
        let above = path_of(&self.entries, &self.found.arena, next.parent);
        let name = self.found.name(next);
        kinds.iter().any(|kind| is_new(*kind) && veil.hides(&above, name, *kind))
            || target.is_some_and(|target| self.place.hides_link(&above, target, real))
    }

    fn examine(&mut self, next: &Waiting) -> Result<(Stat, Content), Left> {
        if self.path_length(next) > MAX_PATH {
            return Err(Left::LongPath);
        }
        let dir = self.branch.ascend(next.parent, &self.entries, &self.found.arena);
        let may_open = next.depth.saturating_sub(FREE_DEPTH) as u32 <= self.depths;
        examine(dir.map_err(Left::Error)?, self.found.name(next), next.kind, may_open)
    }

    fn path_length(&self, waiting: &Waiting) -> usize {
        let above = self.entries.get(waiting.parent as usize);
        let above = above.map_or(0, |entry| usize::from(entry.path_length) + 1);
        above + usize::from(waiting.length)
    }

    fn push(
        &mut self,
        next: &Waiting,
        stat: &Stat,
        content: Content,
        real: Option<&[u8]>,
    ) -> Result<(), WalkError> {
        let (index, start) = (self.entries.len() as u32, self.found.arena.len());
        let mut entry = Entry::of(stat, next.parent, next.name as usize, self.path_length(next));
        let target = match &content {
            Content::Link(target) => {
                (entry.size, entry.inode) = (target.len() as u64, start as u64);
                &target[..]
            }
            _ => &[],
        };
        if entry.kind() == Kind::File {
            self.bytes = self.bytes.saturating_add(entry.size);
        }
        if self.bytes > MAX_BYTES || start + target.len() > MAX_NAMES {
            return Err(WalkError::TooMany);
        }
        entry.sum(&mut self.digest, stat, [self.found.name(next), target]);
        self.found.arena.extend_from_slice(target);
        self.modified = self.modified.max(entry.seconds);
        self.entries.push(entry);
        match content {
            Content::File => Ok(()),
            Content::Link(_) => {
                let (place, digest) = (&self.place, &mut self.digest);
                let followed = self.links.follow(index, real, place, self.format, digest);
                followed.map_err(WalkError::Io)
            }
            Content::Closed(error) => self.note_unlisted(index, error),
            Content::Deep => {
                self.note(index, "nothing in it is listed, since too much lies as deep".to_owned());
                Ok(())
            }
            Content::Directory(dir) => {
                self.depths -= u32::from(next.depth.saturating_sub(FREE_DEPTH));
                self.branch.descend(index, dir);
                self.enter(Folder { index, depth: next.depth + 1 }, next.take)
            }
        }
    }

    /// Notes that the directory `index` is not listed to its end.
    fn note_unlisted(&mut self, index: u32, error: io::Error) -> Result<(), WalkError> {
        if index == NO_PARENT || open::is_exhaustion(&error) {
            return Err(WalkError::Io(error));
        }
        self.note(index, format!("not all of it could be listed ({})", error.kind()));
        Ok(())
    }

    /// Notes `reason` for the directory `index`.
    fn note(&mut self, index: u32, reason: String) {
        self.notes.add(|| (path_of(&self.entries, &self.found.arena, index), reason));
    }
}

/// The path of the directory `index`.
fn path_of(entries: &[Entry], names: &[u8], index: u32) -> Vec<u8> {
    let mut path = Vec::new();
    if index != NO_PARENT {
        write_path(entries, names, index as usize, &mut path);
    }
    path
}
