//! The journal of used links: an append-only file in `state_directory`, reloaded at start.
//!
//! Appending is one write(2) of one line, so that a crash of the process tears nothing; it is not
//! fsynced, so that a power cut may lose the last seconds. A rewrite copies what is live into a new
//! file while appends go to both, and then takes the old one's name, so that a failed one costs
//! nothing. What cannot be written, the table remembers, and the next rewrite writes it.

use std::cmp::Reverse;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::StatVfsMountFlags;

use super::revoked::{self, Revocation, Target};
use super::{Entry, Key, line};
use crate::error::StartError;

const HEADER: &str = "winglet-journal 3\n";
/// A rewrite is not worth it below this many bytes.
const REWRITE_ABOVE: u64 = 1 << 20;
/// The journal may grow to this many times what was live at the last rewrite.
const GROWTH: u64 = 3;
/// A rewrite wants this many free bytes per link: twice what a usual line has, so that it never
/// takes the last of a disk.
const ROOM_PER_LINK: u64 = 512;
/// After a rewrite that failed, the next one waits this many seconds.
const RETRY: u64 = 60;

const CURRENT: &str = "journal";
const NEW: &str = "journal.new";
const LOCK: &str = "lock";

/// The open journal. Two servers cannot hold the same one: a lock file sees to that.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    inner: Mutex<Inner>,
    /// As of the last look. Never held during I/O.
    state: Mutex<JournalState>,
}

/// How a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Its length in bytes.
    pub bytes: u64,
    /// Something could not be written, and the next rewrite has to.
    pub behind: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Held as long as the server runs. Without it, nothing is written.
    lock: Option<File>,
    /// The directory that the server was started with, by device and inode.
    home: Option<(u64, u64)>,
    file: Option<File>,
    /// Where a rewrite that is under way copies to.
    new: Option<File>,
    /// Bytes that `file` had when it was last rewritten.
    rewritten: u64,
    /// `file` lacks lines, and may end in the middle of one. That was logged.
    behind: bool,
    /// After a rewrite that failed, when the next one may be tried.
    retry_at: u64,
}

impl Journal {
    /// Opens the journal in `directory` for writing. A disk that is full or cannot be written to is
    /// no error.
    ///
    /// # Errors
    /// If another server holds the directory.
    pub(super) fn open(directory: &Path) -> Result<Journal, StartError> {
        // What is wrong with it, the first rewrite says.
        let _ = make_directory(directory);
        let lock = lock(directory);
        if lock.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let directory = directory.display();
            return Err(StartError::new(
                "winglet.state_directory",
                format!("{directory} is in use by another server; give each its own"),
            ));
        }
        let lock = lock.inspect_err(|error| log::warn!("state_directory: no lock: {error}")).ok();
        if lock.is_some() {
            // Half a rewrite of a server that was killed.
            let _ = std::fs::remove_file(directory.join(NEW));
        }
        let file = private(OpenOptions::new().append(true)).open(directory.join(CURRENT));
        let file = file.ok().filter(|_| lock.is_some());
        let home = std::fs::metadata(directory).ok().map(inode);
        let inner = Mutex::new(Inner { lock, home, file, ..Inner::default() });
        Ok(Journal { directory: directory.to_owned(), inner, state: Mutex::default() })
    }

    /// Appends one line. Returns true once it is in the file. A failure is logged once, and the table
    /// goes on in memory.
    pub(super) fn append(&self, line: &str) -> bool {
        let mut inner = self.inner();
        let lead = if inner.behind { "\n" } else { "" };
        let text = format!("{lead}{line}");
        if inner.new.as_mut().is_some_and(|new| new.write_all(text.as_bytes()).is_err()) {
            inner.new = None;
        }
        // Without a file, the table remembers: that was logged at the start.
        let written = inner.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        if let Err(error) = &written {
            inner.fail(&self.directory, error);
        }
        written.is_ok() && inner.file.is_some()
    }

    /// Returns true if a rewrite would help at `time`: the file lacks lines, has grown, or is no
    /// longer where it was.
    pub(super) fn wants_rewrite(&self, time: u64) -> bool {
        let mut inner = self.inner();
        let gone = inner.is_gone(&self.directory);
        if gone {
            log::error!(
                "state_directory: the journal in {} was replaced or removed while the server runs; writing it anew",
                self.directory.display()
            );
            (inner.lock, inner.file, inner.retry_at) = (None, None, 0);
        }
        let bytes = inner.file.as_ref().and_then(|file| Some(file.metadata().ok()?.len()));
        let behind = inner.behind || bytes.is_none();
        *self.last_state() = JournalState { bytes: bytes.unwrap_or(0), behind };
        let enough = REWRITE_ABOVE.max(inner.rewritten.saturating_mul(GROWTH));
        (gone || inner.behind || bytes > Some(enough)) && time >= inner.retry_at
    }

    /// How it was when [`Journal::wants_rewrite`] looked last.
    pub(super) fn state(&self) -> JournalState {
        *self.last_state()
    }

    fn last_state(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rewrites the journal at `time` with `lines`, which are about `links` many and must be listed
    /// only when the first one is asked for. A failure is logged once.
    pub(super) fn rewrite(&self, time: u64, links: u64, lines: impl Iterator<Item = String>) {
        if let Err(error) = self.has_room(links) {
            // Looking for room costs nothing, and may be done again at once.
            self.inner().fail(&self.directory, &error);
        } else if let Err(error) = self.begin().and_then(|new| self.copy(new, lines)) {
            let mut inner = self.inner();
            inner.new = None;
            inner.retry_at = time + RETRY;
            if inner.lock.is_some() {
                // Half a copy must not take what room is left.
                let _ = std::fs::remove_file(self.directory.join(NEW));
            }
            inner.fail(&self.directory, &error);
        }
    }

    /// Checks that the disk has room for a file of `links` and some more.
    fn has_room(&self, links: u64) -> io::Result<()> {
        make_directory(&self.directory)?;
        let disk = rustix::fs::statvfs(&self.directory)?;
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        if room < links.saturating_add(8).saturating_mul(ROOM_PER_LINK) {
            return Err(io::Error::other(format!("only {room} bytes are free")));
        }
        Ok(())
    }

    /// Makes the new file. From here on, lines are appended to both.
    fn begin(&self) -> io::Result<File> {
        let mut inner = self.inner();
        if inner.lock.is_none() {
            inner.lock = Some(lock(&self.directory)?);
        }
        let new = self.directory.join(NEW);
        // What a crash left is of no use.
        let _ = std::fs::remove_file(&new);
        let mut new = private(OpenOptions::new().append(true).create_new(true)).open(&new)?;
        new.write_all(HEADER.as_bytes())?;
        inner.new = Some(new.try_clone()?);
        Ok(new)
    }

    fn copy(&self, mut new: File, lines: impl Iterator<Item = String>) -> io::Result<()> {
        for line in lines {
            new.write_all(line.as_bytes())?;
        }
        // Before it takes the old one's name, and outside the lock: appends must not wait for it.
        new.sync_data()?;
        let bytes = new.metadata()?.len();
        let mut inner = self.inner();
        if inner.new.take().is_none() {
            return Err(io::Error::other("not every line could be written"));
        }
        std::fs::rename(self.directory.join(NEW), self.directory.join(CURRENT))?;
        // Nothing below may fail: the old file is gone.
        (inner.file, inner.rewritten) = (Some(new), bytes);
        if std::mem::take(&mut inner.behind) {
            log::info!("state_directory: the journal is written again and complete");
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding it leaves at worst a torn line, which readers skip.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns true if another file, or none, has the name of the journal or of the lock.
    fn is_gone(&self, directory: &Path) -> bool {
        let gone = |file: &Option<File>, name| {
            let ours = file.as_ref().and_then(|file| file.metadata().ok()).map(inode);
            match std::fs::symlink_metadata(directory.join(name)) {
                Ok(there) => ours.is_some_and(|ours| ours != inode(there)),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
        };
        self.file.is_some() && (gone(&self.file, CURRENT) || gone(&self.lock, LOCK))
    }

    fn fail(&mut self, directory: &Path, error: &io::Error) {
        if std::mem::replace(&mut self.behind, true) {
            return;
        }
        // Landlock knows directories by their inodes, not by their names.
        let is_other = std::fs::metadata(directory).ok().map(inode) != self.home;
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied if is_other => {
                " (the directory itself was replaced, and the sandbox allows only the one that the server was started with: move that back, or restart and run `winglet revoke --all`)"
            }
            _ => "",
        };
        log::error!(
            "state_directory: cannot write the journal in {}: {error}{hint}; used links are remembered in memory only until this is mended",
            directory.display()
        );
    }
}

fn inode(data: Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

/// Makes the state directory if it is missing, for the server alone (mode 0700).
///
/// # Errors
/// Whatever mkdir(2) returns.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW)
}

/// Takes the lock of `directory`; the error is `WouldBlock` if another server has it.
fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join(LOCK);
    let file = private(OpenOptions::new().write(true).create(true))
        .open(&path)
        // flock(2) asks for no right to write: it works on a read-only disk.
        .or_else(|error| private(OpenOptions::new().read(true)).open(&path).map_err(|_| error))?;
    file.try_lock()?;
    Ok(file)
}

/// What a journal holds: the last state of each link, and what was revoked.
type Remembered = (Vec<(Key, Entry)>, Vec<(Target, Revocation)>);

/// Reads whatever journal is in `directory`; a missing one is empty. Damaged lines cost a warning.
///
/// # Errors
/// If a file is there and cannot be read, or was written by a later version.
pub(super) fn read(directory: &Path) -> Result<Remembered, StartError> {
    let mut all = Remembered::default();
    let path = directory.join(CURRENT);
    let file = private(OpenOptions::new().read(true)).open(&path);
    let skipped = match file.and_then(|file| read_file(file, &mut all)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        result => result.map_err(|error| {
            StartError::new("winglet.state_directory", format!(
                "cannot read {}: {error}; without it links that were used could be used again. Mend it, or move it away to accept that until they expire",
                path.display()
            ))
        })?,
    };
    if skipped > 0 {
        log::warn!("state_directory: {skipped} unreadable lines of the journal were skipped");
    }
    // Of several lines of one link, the highest sequence number holds.
    let links = &mut all.0;
    links.sort_by_key(|(key, entry)| (*key, Reverse(entry.sequence)));
    links.dedup_by_key(|(key, _)| *key);
    Ok(all)
}

/// Reads one file. Returns how many of its lines were damaged.
fn read_file(file: File, all: &mut Remembered) -> io::Result<usize> {
    let mut reader = BufReader::new(file);
    let (mut line, mut skipped) = (Vec::new(), 0);
    read_line(&mut reader, &mut line)?;
    if line != HEADER.as_bytes() {
        // A file comes to its name complete: an empty one has lost what it held.
        let what = if line.is_empty() { "it is empty" } else { "it is not a journal of ours" };
        return Err(io::Error::other(what));
    }
    loop {
        line.clear();
        if read_line(&mut reader, &mut line)? == 0 {
            return Ok(skipped);
        }
        let text = std::str::from_utf8(&line).unwrap_or("").trim_end_matches('\n');
        if let Some(revoked) = revoked::parse(text) {
            all.1.push(revoked);
            continue;
        }
        match line::parse(text) {
            Some(link) => all.0.push(link),
            None if line == b"\n" => {}
            None => skipped += 1,
        }
    }
}

/// The longest line is far below this; garbage without line breaks is cut into pieces of it.
const MAX_LINE: u64 = 16 * 1024;

fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(MAX_LINE).read_until(b'\n', line)
}

#[cfg(test)]
mod tests;
