//! What a directory holds, as one walk found it. An archive is a function of this and of the
//! files' contents.
//!
//! A listing may have 200,000 entries and several may be kept, so an entry is 40 bytes and its name,
//! without the directories above it, lies in one arena.

use std::collections::BTreeSet;
use std::io;

use hmac_sha256::Hash;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::follow::Links;
use super::format::Format;
use super::names::one_line;
use super::open;

/// Most entries that a listing has, what was left out included.
pub const MAX_ENTRIES: usize = 200_000;

/// The name of the member that lists what was left out.
pub const SKIPPED: &str = ".winglet-skipped.txt";

/// Longest path of a member in bytes: what one system call takes (`PATH_MAX`), less some room for the
/// directory that it is unpacked into. At a longer one Java's, Python's and PHP's readers give up and
/// lose what follows.
pub const MAX_PATH: usize = 4096 - 256;

/// A directory that lies in no more than this many others is listed in any case.
pub const FREE_DEPTH: u16 = 16;

/// Those that lie deeper may lie in this many more, all added up: enough for one that is as deep as
/// paths go. For each directory that is opened, the sandbox looks at all that it lies in (Landlock has
/// no memory), and without this bound a hostile tree would take it half a minute.
pub const MAX_DEPTHS: u32 = 2_200_000;

/// Most bytes of names and link targets in a listing.
pub const MAX_NAMES: usize = 32 << 20;

/// Most bytes of all files together: an exbibyte. A sparse file may claim eight of them.
pub const MAX_BYTES: u64 = 1 << 60;

/// Most bytes of text about what was left out.
const MAX_NOTES: usize = 1 << 20;

/// To be counted up whenever an archive of the same listing gets other bytes: no client may join the
/// halves of two layouts.
const LAYOUT: u8 = 2;

/// The parent of what lies in the listed directory itself.
pub(super) const NO_PARENT: u32 = u32::MAX;

/// What a member is. Nothing else is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// One file, directory or link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Index of its directory, or [`NO_PARENT`].
    pub(super) parent: u32,
    /// Where its name begins in the arena.
    pub(super) name: u32,
    /// Bytes of its path from the listed directory. The name's length follows from its parent's.
    pub(super) path_length: u16,
    /// `st_mode`: a type that [`Kind`] knows, and the permissions.
    pub(super) mode: u16,
    pub(super) nanoseconds: u32,
    /// Of a file its bytes, of a link the bytes of its target, of a directory 0.
    pub(super) size: u64,
    pub(super) seconds: i64,
    /// Which file or directory it is, by [`identity`](super::open::identity); of a link, where its
    /// target begins in the arena.
    pub(super) inode: u64,
}

impl Entry {
    /// What `stat` says of a file or a directory, with the name that begins at `name` in the arena.
    pub(super) fn of(stat: &Stat, parent: u32, name: usize, path_length: usize) -> Entry {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Entry {
            parent,
            name: name as u32,
            path_length: path_length as u16,
            mode: stat.st_mode as u16,
            nanoseconds: stat.st_mtime_nsec as u32,
            size: if is_file { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            seconds: stat.st_mtime,
            inode: open::identity(stat),
        }
    }

    /// Adds all of it to `digest`, with what `stat` says and `names`: its name, and its target.
    pub(super) fn sum(&self, digest: &mut Hash, stat: &Stat, names: [&[u8]; 2]) {
        digest.update(self.parent.to_le_bytes());
        digest.update(self.path_length.to_le_bytes());
        digest.update(self.mode.to_le_bytes());
        digest.update(self.size.to_le_bytes());
        digest.update(self.seconds.to_le_bytes());
        digest.update(self.nanoseconds.to_le_bytes());
        // Without the device, whose number may be another one after a restart, or on another machine.
        digest.update(stat.st_ino.to_le_bytes());
        names.iter().for_each(|name| digest.update(name));
    }

    pub(super) fn kind(&self) -> Kind {
        match FileType::from_raw_mode(self.mode.into()) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            _ => Kind::File,
        }
    }

    /// What it says of itself, without path and target.
    pub(super) fn member(&self) -> Member<'static> {
        let kind = self.kind();
        Member {
            path: &[],
            kind,
            mode: self.mode,
            size: if kind == Kind::File { self.size } else { 0 },
            seconds: self.seconds,
            nanoseconds: self.nanoseconds,
            target: &[],
        }
    }
}

/// An entry with its path and target.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// From the listed directory; no `/` at either end, no `..`.
    pub path: &'a [u8],
    /// File, directory or link.
    pub kind: Kind,
    /// `st_mode`, type and permissions.
    pub mode: u16,
    /// Bytes of content; 0 of anything but a file.
    pub size: u64,
    /// Last modification, seconds since the epoch.
    pub seconds: i64,
    /// The part of a second after `seconds`, in nanoseconds.
    pub nanoseconds: u32,
    /// Where a link leads, as it says.
    pub target: &'a [u8],
}

impl Member<'_> {
    /// The mode that an archive says. Without setuid and setgid: root, who unpacks it, must not get a
    /// stranger's file as one that runs as root. The sticky bit of a directory does no harm.
    pub(super) fn stored_mode(&self) -> u16 {
        let kept = if self.kind == Kind::Directory { 0o1777 } else { 0o777 };
        self.mode & (0o170_000 | kept)
    }
}

/// What a directory holds: every entry after its directory, names in the order of their bytes.
#[derive(Debug, Default)]
pub struct Listing {
    pub(super) entries: Vec<Entry>,
    pub(super) names: Vec<u8>,
    pub(super) notes: Notes,
    /// The listed directory, from the root of its server's volume.
    pub(super) base: Vec<u8>,
    pub(super) links: Links,
    /// A hash of all of it, inodes included.
    pub(super) digest: [u8; 32],
    /// The newest modification in it, seconds since the epoch.
    pub(super) modified: i64,
}

impl Listing {
    /// How many files, directories and links there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A strong validator of the archive in `format`: changes if a name, size, mode, time or inode
    /// does.
    pub fn tag(&self, format: Format) -> u64 {
        let mut hash = Hash::new();
        hash.update(self.digest);
        hash.update(format.extension());
        hash.update([LAYOUT]);
        hash.update(&self.base);
        let mut tag = [0; 8];
        tag.copy_from_slice(&hash.finalize()[..8]);
        u64::from_le_bytes(tag)
    }

    /// Adds the file of notes, which has `size` bytes, under a name that no other one has.
    pub(super) fn add_skipped(&mut self, size: u64) {
        let at_top = (0..self.len()).filter(|&index| self.entries[index].parent == NO_PARENT);
        let names = at_top.map(|index| self.name(index));
        let taken: BTreeSet<&[u8]> =
            names.filter(|name| name.starts_with(b".winglet-skipped")).collect();
        let mut name = SKIPPED.to_owned();
        let mut number = 1;
        while taken.contains(name.as_bytes()) {
            number += 1;
            name = format!(".winglet-skipped-{number}.txt");
        }
        let start = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        self.entries.push(Entry {
            parent: NO_PARENT,
            name: start,
            path_length: name.len() as u16,
            mode: 0o100_644,
            nanoseconds: 0,
            size,
            seconds: self.modified,
            inode: 0,
        });
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of::<Listing>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.names.capacity()
            + self.notes.memory()
            + self.base.capacity()
            + self.links.memory()
    }

    /// The name of the entry `index`.
    pub(super) fn name(&self, index: usize) -> &[u8] {
        let entry = &self.entries[index];
        &self.names[entry.name as usize..][..name_length(&self.entries, entry)]
    }

    /// Entry `index`, its path written into `path`.
    pub fn member<'a>(&'a self, index: usize, path: &'a mut Vec<u8>) -> Member<'a> {
        write_path(&self.entries, &self.names, index, path);
        self.member_at(index, path)
    }

    /// The same where `path` holds that of the entry before, so that the directories which lead to
    /// both are not spelt out again: there may be thousands.
    pub(super) fn next_member<'a>(&'a self, index: usize, path: &'a mut Vec<u8>) -> Member<'a> {
        let entry = &self.entries[index];
        let length = name_length(&self.entries, entry);
        path.resize(usize::from(entry.path_length) - length, b'/');
        path.extend_from_slice(&self.names[entry.name as usize..][..length]);
        debug_assert_eq!(path.len(), usize::from(entry.path_length));
        self.member_at(index, path)
    }

    fn member_at<'a>(&'a self, index: usize, path: &'a [u8]) -> Member<'a> {
        let entry = &self.entries[index];
        let kind = entry.kind();
        let target = match kind {
            Kind::Link => {
                let from = entry.inode as usize;
                &self.names[from..from + entry.size as usize]
            }
            _ => &[],
        };
        Member { path, target, ..entry.member() }
    }
}

/// Writes the path of entry `index` into `path`, from its end to its beginning.
pub(super) fn write_path(entries: &[Entry], names: &[u8], index: usize, path: &mut Vec<u8>) {
    let mut entry = &entries[index];
    path.clear();
    path.resize(entry.path_length.into(), b'/');
    loop {
        let length = name_length(entries, entry);
        let (name, end) = (entry.name as usize, usize::from(entry.path_length));
        path[end - length..end].copy_from_slice(&names[name..name + length]);
        if entry.parent == NO_PARENT {
            return;
        }
        entry = &entries[entry.parent as usize];
    }
}

pub(super) fn name_length(entries: &[Entry], entry: &Entry) -> usize {
    let above = match entry.parent {
        NO_PARENT => 0,
        parent => usize::from(entries[parent as usize].path_length) + 1,
    };
    usize::from(entry.path_length) - above
}

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

impl From<Errno> for WalkError {
    fn from(errno: Errno) -> WalkError {
        WalkError::Io(errno.into())
    }
}

/// The first lines of the notes.
pub(super) const HEADING: &str =
    "What is not in this archive, not as it is on the server, or hard to unpack elsewhere:\n\n";

/// What is not in the archive and why, for the person who unpacks it.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    text: String,
    /// Lines that did not fit.
    unnamed: u64,
    /// There is nothing in the folder.
    is_empty: bool,
}

impl Notes {
    /// Adds a line with the path and the reason that `tell` says. A hostile tree may have 200,000 of
    /// them, thousands of bytes each, so those that do not fit are only counted.
    pub(super) fn add(&mut self, tell: impl FnOnce() -> (Vec<u8>, String)) {
        if self.unnamed == 0 {
            let (path, reason) = tell();
            let line = format!("{}: {reason}\n", one_line(&path));
            if self.text.len() + line.len() <= MAX_NOTES {
                return self.text.push_str(&line);
            }
        }
        self.unnamed += 1;
    }

    /// Bytes of memory that it takes besides its own.
    pub(super) fn memory(&self) -> usize {
        self.text.capacity()
    }

    /// Says that there is nothing in the folder.
    pub(super) fn say_empty(&mut self) {
        self.is_empty = true;
    }

    /// The text; empty if there is nothing to tell.
    pub(super) fn into_text(self) -> String {
        let mut text = self.text;
        if !text.is_empty() {
            text.insert_str(0, HEADING);
        } else if self.is_empty {
            text.push_str("This folder is empty.\n");
        }
        if self.unnamed > 0 {
            text.push_str(&format!("and {} more\n", self.unnamed));
        }
        text
    }
}
