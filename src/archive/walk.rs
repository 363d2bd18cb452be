//! Lists what is beneath an open directory.
//!
//! A few directories are open at a time, and what is still to be listed waits on a stack of our own:
//! a tree may be thousands deep and the worker's stack is small. The order is that of a depth-first
//! walk by the names' bytes, so that a directory's own mode and time can be set once its members
//! are unpacked.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;

use cap_std::fs::{Dir, Metadata, MetadataExt};
use hmac_sha256::Hash;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::chosen::{Chosen, Take};
use super::listing::{
    Entry, Listing, MAX_BYTES, MAX_ENTRIES, MAX_NAMES, MAX_PATH, NO_PARENT, Notes,
};
use super::listing::{name_length, write_path};
use super::{Kind, open};

/// So many directories above the next one stay open, since opening one by its whole path takes the
/// longer the deeper it lies: minutes for a hostile tree.
pub const MAX_OPEN: usize = 16;

/// Why there is no listing.
#[derive(Debug)]
pub enum WalkError {
    /// More than [`MAX_ENTRIES`] entries, [`MAX_NAMES`] bytes of names or [`MAX_BYTES`] of content.
    TooMany,
    /// A chosen path holds `..` or a NUL.
    BadPath,
    /// Nothing of what was chosen is there.
    Missing,
    /// The directory itself cannot be read, or the system has no descriptor or memory left.
    Io(io::Error),
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::TooMany => {
                write!(
                    f,
                    "more than {MAX_ENTRIES} files and folders, or more than an archive holds"
                )
            }
            WalkError::BadPath => f.write_str("a chosen path leads out of its directory"),
            WalkError::Missing => f.write_str("nothing of what was chosen is there"),
            WalkError::Io(error) => write!(f, "directory: {error}"),
        }
    }
}

impl std::error::Error for WalkError {}

/// Lists everything beneath `root`. What cannot be part of an archive is noted in the listing.
///
/// # Errors
/// [`WalkError::TooMany`] and [`WalkError::Io`].
pub fn walk(root: &Dir) -> Result<Listing, WalkError> {
    Walk::new(root, Chosen::default(), MAX_ENTRIES).run(true)
}

#[cfg(test)]
pub(super) fn walk_within(root: &Dir, limit: usize) -> Result<Listing, WalkError> {
    Walk::new(root, Chosen::default(), limit).run(true)
}

/// Lists the files and directories `paths` beneath `root`, with the directories that lead to them.
/// Slashes at either end of a path do not count; an empty path is all of `root`. A path that is not
/// there is noted in the listing.
///
/// # Errors
/// Any [`WalkError`].
pub fn walk_paths(root: &Dir, paths: &[String]) -> Result<Listing, WalkError> {
    let mut chosen = Chosen::default();
    let mut whole = false;
    for path in paths {
        whole |= chosen.add(path)?;
    }
    Walk::new(root, chosen, MAX_ENTRIES).run(whole)
}

/// An entry that is found and not yet listed.
struct Found {
    entry: Entry,
    inode: u64,
    take: Take,
}

/// The directory that is being read.
struct At<'a> {
    dir: &'a Dir,
    index: u32,
    path: &'a [u8],
}

impl At<'_> {
    /// Bytes of a member's path before its name.
    fn above(&self) -> usize {
        if self.path.is_empty() { 0 } else { self.path.len() + 1 }
    }
}

struct Walk<'a> {
    root: &'a Dir,
    chosen: Chosen,
    limit: usize,
    entries: Vec<Entry>,
    names: Vec<u8>,
    notes: Notes,
    bytes: u64,
    left_out: usize,
    /// Chosen names that are not there.
    missing: usize,
    /// Last is next.
    waiting: Vec<Found>,
    /// Directories that were read last and lie above each other, with their indices.
    open: VecDeque<(u32, Dir)>,
    digest: Hash,
    modified: i64,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Dir, chosen: Chosen, limit: usize) -> Walk<'a> {
        Walk {
            root,
            chosen,
            limit,
            entries: Vec::new(),
            names: Vec::new(),
            notes: Notes::default(),
            bytes: 0,
            left_out: 0,
            missing: 0,
            waiting: Vec::new(),
            open: VecDeque::new(),
            digest: Hash::new(),
            modified: 0,
        }
    }

    fn run(mut self, whole: bool) -> Result<Listing, WalkError> {
        self.modified = self.root.dir_metadata().map_err(WalkError::Io)?.mtime();
        let take = if whole { Take::All } else { Take::Part(0) };
        let at = At { dir: self.root, index: NO_PARENT, path: b"" };
        self.read(&at, take)?.map_err(WalkError::Io)?;
        let mut path = Vec::new();
        while let Some(found) = self.waiting.pop() {
            let index = self.entries.len();
            self.list(&found);
            if found.entry.kind() == Kind::Directory {
                write_path(&self.entries, &self.names, index, &mut path);
                self.descend(index as u32, &path, found.take)?;
            }
        }
        if !whole && self.entries.is_empty() && self.left_out == self.missing {
            return Err(WalkError::Missing);
        }
        self.digest.update(self.notes.clone().into_text());
        self.entries.shrink_to_fit();
        self.names.shrink_to_fit();
        Ok(Listing {
            entries: self.entries,
            names: self.names,
            notes: self.notes,
            digest: self.digest.finalize(),
            modified: self.modified,
        })
    }

    fn list(&mut self, found: &Found) {
        let entry = &found.entry;
        let name = entry.name as usize;
        let mut length = name_length(&self.entries, entry);
        if entry.kind() == Kind::Link {
            length += entry.size as usize;
        }
        self.digest.update(entry.parent.to_le_bytes());
        self.digest.update(entry.path_length.to_le_bytes());
        self.digest.update(entry.mode.to_le_bytes());
        self.digest.update(entry.size.to_le_bytes());
        self.digest.update(entry.seconds.to_le_bytes());
        self.digest.update(entry.nanoseconds.to_le_bytes());
        self.digest.update(found.inode.to_le_bytes());
        self.digest.update(&self.names[name..name + length]);
        self.modified = self.modified.max(entry.seconds);
        self.entries.push(*entry);
    }

    fn descend(&mut self, index: u32, path: &[u8], take: Take) -> Result<(), WalkError> {
        let read = match self.open(index, path) {
            Ok(dir) => {
                let read = self.read(&At { dir: &dir, index, path }, take)?;
                if self.open.len() == MAX_OPEN {
                    self.open.pop_front();
                }
                self.open.push_back((index, dir));
                read
            }
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            if is_exhaustion(&error) {
                return Err(WalkError::Io(error));
            }
            self.notes.add(path, &format!("not all of it could be listed ({})", error.kind()));
        }
        Ok(())
    }

    /// Opens the directory `index`, from its parent if that is open.
    fn open(&mut self, index: u32, path: &[u8]) -> io::Result<Dir> {
        let entry = &self.entries[index as usize];
        while self.open.back().is_some_and(|(open, _)| *open != entry.parent) {
            self.open.pop_back();
        }
        match self.open.back() {
            Some((_, parent)) => {
                let name = path.len() - name_length(&self.entries, entry);
                open::directory(parent, &path[name..])
            }
            None => open::directory(self.root, path),
        }
    }

    /// Finds what is in one directory and puts it on the stack, first name last. The inner error is
    /// the directory's; what was found before it stays found.
    fn read(&mut self, at: &At<'_>, take: Take) -> Result<io::Result<()>, WalkError> {
        let first = self.waiting.len();
        let outcome = match take {
            Take::All => self.read_all(at)?,
            Take::Part(node) => {
                let chosen = std::mem::take(&mut self.chosen);
                for (name, take) in chosen.names(node) {
                    self.consider(at, name, take, true)?;
                }
                self.chosen = chosen;
                Ok(())
            }
        };
        let names = &self.names;
        let name = |found: &Found| {
            let from = found.entry.name as usize;
            &names[from..from + usize::from(found.entry.path_length) - at.above()]
        };
        self.waiting[first..].sort_unstable_by(|a, b| name(b).cmp(name(a)));
        Ok(outcome)
    }

    fn read_all(&mut self, at: &At<'_>) -> Result<io::Result<()>, WalkError> {
        let entries = match at.dir.entries() {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    self.consider(at, entry.file_name().as_bytes(), Take::All, false)?;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Puts `name` on the stack, or notes why not.
    fn consider(
        &mut self,
        at: &At<'_>,
        name: &[u8],
        take: Take,
        chosen: bool,
    ) -> Result<(), WalkError> {
        if self.entries.len() + self.waiting.len() + self.left_out >= self.limit {
            return Err(WalkError::TooMany);
        }
        let mut path = at.path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let reason = match examine(at.dir, name, path.len()) {
            Ok((metadata, _)) if take != Take::All && !metadata.is_dir() => {
                self.missing += 1;
                "not a folder".to_owned()
            }
            Ok((metadata, target)) => return self.push(at, name, &metadata, &target, take),
            Err(Left::Error(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Removed since the directory was read, which is as if it had been before.
                if !chosen {
                    return Ok(());
                }
                self.missing += 1;
                "there is no such file or folder".to_owned()
            }
            Err(Left::Error(error)) if is_exhaustion(&error) => return Err(WalkError::Io(error)),
            Err(Left::Error(error)) => format!("could not be opened ({})", error.kind()),
            Err(Left::Special) => "neither a file nor a folder".to_owned(),
            Err(Left::LongPath) => format!("its path is longer than {MAX_PATH} bytes"),
        };
        self.left_out += 1;
        self.notes.add(&path, &reason);
        Ok(())
    }

    fn push(
        &mut self,
        at: &At<'_>,
        name: &[u8],
        metadata: &Metadata,
        target: &[u8],
        take: Take,
    ) -> Result<(), WalkError> {
        let start = self.names.len();
        if metadata.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.size());
        }
        if self.bytes > MAX_BYTES || start + name.len() + target.len() > MAX_NAMES {
            return Err(WalkError::TooMany);
        }
        self.names.extend_from_slice(name);
        self.names.extend_from_slice(target);
        let mut entry = Entry {
            parent: at.index,
            name: start as u32,
            path_length: (at.above() + name.len()) as u16,
            mode: metadata.mode() as u16,
            nanoseconds: metadata.mtime_nsec() as u32,
            size: metadata.size(),
            seconds: metadata.mtime(),
        };
        match entry.kind() {
            Kind::File => {}
            Kind::Directory => entry.size = 0,
            Kind::Link => entry.size = target.len() as u64,
        }
        self.waiting.push(Found { entry, inode: metadata.ino(), take });
        Ok(())
    }
}

/// Whether it is this process that lacks something, and no member's fault.
fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Why something is left out.
enum Left {
    Special,
    LongPath,
    Error(io::Error),
}

/// What `name` in `dir` is, and where it leads if it is a link.
fn examine(dir: &Dir, name: &[u8], path_length: usize) -> Result<(Metadata, Vec<u8>), Left> {
    if path_length > MAX_PATH {
        return Err(Left::LongPath);
    }
    let name = OsStr::from_bytes(name);
    let metadata = dir.symlink_metadata(name).map_err(Left::Error)?;
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = dir.read_link_contents(name).map_err(Left::Error)?;
        return Ok((metadata, target.into_os_string().as_bytes().to_vec()));
    }
    if kind.is_file() {
        // access(2) is cheaper than open(2), and does not count capabilities: its "no" is checked.
        if accessat(dir, name, Access::READ_OK, AtFlags::empty()).is_err() {
            open::file(dir, name.as_bytes(), 0).map_err(Left::Error)?;
        }
    } else if !kind.is_dir() {
        return Err(Left::Special);
    }
    Ok((metadata, Vec::new()))
}
