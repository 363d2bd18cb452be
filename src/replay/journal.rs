//! The journal of used links: an append-only file in `state_directory`, reloaded at start.
//!
//! Appending is one write(2) of one line, so that a crash of the process tears nothing; it is not
//! fsynced, so that a power cut may lose the last seconds. A rewrite copies what is live into a new
//! file while appends go to both, and then takes the old one's name, so that a failed one costs
//! nothing. What cannot be written, the table remembers, and the next rewrite writes it.

use std::cmp::Reverse;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::StatVfsMountFlags;

use super::revoked::{self, Revocation, Target};
use super::{Entry, Key, line};
use crate::error::StartError;

const HEADER: &str = "winglet-journal 2\n";
/// What earlier versions wrote is read once and rewritten.
const OLD_HEADER: &str = "winglet-journal 1\n";
/// A rewrite is not worth it below this many bytes.
const REWRITE_ABOVE: u64 = 1 << 20;
/// The journal may grow to this many times what was live at the last rewrite.
const GROWTH: u64 = 3;
/// A rewrite wants this many free bytes per link: twice what a usual line has, so that it never
/// takes the last of a disk.
const ROOM_PER_LINK: u64 = 512;
/// After a rewrite that failed, the next one waits this many seconds, then twice as long, and so on
/// up to sixteen times.
const RETRY: u64 = 60;

const CURRENT: &str = "journal";
/// The file that version 1 rewrote from.
const OLD: &str = "journal.old";
const NEW: &str = "journal.new";

/// The open journal. Two servers cannot hold the same one: a lock file sees to that.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    inner: Mutex<Inner>,
    /// What [`Journal::state`] tells, as of the last look.
    bytes: AtomicU64,
    behind: AtomicBool,
}

/// How a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    file: Option<File>,
    /// Where a rewrite that is under way copies to.
    new: Option<File>,
    /// Bytes that `file` had when it was last rewritten.
    rewritten: u64,
    /// `file` lacks lines, and may end in the middle of one. That was logged.
    behind: bool,
    /// Rewrites that failed in a row, and when the next one may be tried.
    failures: u32,
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
        let file = private(OpenOptions::new().append(true)).open(directory.join(CURRENT));
        let file = file.ok().filter(|_| lock.is_some());
        let inner = Mutex::new(Inner { lock, file, ..Inner::default() });
        let (bytes, behind) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Journal { directory: directory.to_owned(), inner, bytes, behind })
    }

    /// Appends one line; whether it is in the file. A failure is logged once, and the table goes on
    /// in memory.
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

    /// Whether a rewrite would help at `time`: lines are missing from the file, or it has grown.
    pub(super) fn wants_rewrite(&self, time: u64) -> bool {
        let inner = self.inner();
        let bytes = inner.file.as_ref().and_then(|file| Some(file.metadata().ok()?.len()));
        self.bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);
        self.behind.store(inner.behind || bytes.is_none(), Ordering::Relaxed);
        let enough = REWRITE_ABOVE.max(inner.rewritten.saturating_mul(GROWTH));
        (inner.behind || bytes > Some(enough)) && time >= inner.retry_at
    }

    /// How it was when [`Journal::wants_rewrite`] looked last. Takes no lock.
    pub(super) fn state(&self) -> JournalState {
        let (bytes, behind) = (&self.bytes, &self.behind);
        JournalState {
            bytes: bytes.load(Ordering::Relaxed),
            behind: behind.load(Ordering::Relaxed),
        }
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
            inner.retry_at = time + (RETRY << inner.failures.min(4));
            inner.failures += 1;
            if inner.lock.is_some() {
                // Half a copy must not take what room is left.
                let _ = std::fs::remove_file(self.directory.join(NEW));
            }
            inner.fail(&self.directory, &error);
        }
    }

    /// Whether the disk has room for a file of `links` and some more.
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
        let _ = std::fs::remove_file(self.directory.join(OLD));
        // Nothing below may fail: the old file is gone.
        (inner.file, inner.rewritten, inner.failures) = (Some(new), bytes, 0);
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
    fn fail(&mut self, directory: &Path, error: &io::Error) {
        if !std::mem::replace(&mut self.behind, true) {
            log::error!(
                "state_directory: cannot write the journal in {}: {error}; used links are remembered in memory only until this is mended",
                directory.display()
            );
        }
    }
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
    let path = directory.join("lock");
    let file = private(OpenOptions::new().write(true).create(true))
        .open(&path)
        // flock(2) asks for no right to write: it works on a read-only disk.
        .or_else(|error| private(OpenOptions::new().read(true)).open(&path).map_err(|_| error))?;
    file.try_lock()?;
    Ok(file)
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) links: Vec<(Key, Entry)>,
    pub(super) revoked: Vec<(Target, Revocation)>,
}

/// Reads whatever journal is in `directory`; a missing one is empty. Damaged lines cost a warning.
///
/// # Errors
/// If a file is there and cannot be read, or was written by a later version.
pub(super) fn read(directory: &Path) -> Result<Remembered, StartError> {
    let (mut all, mut skipped, mut rewriting) = (Remembered::default(), 0, false);
    for name in [OLD, CURRENT] {
        let path = directory.join(name);
        let file = private(OpenOptions::new().read(true)).open(&path);
        skipped += match file.and_then(|file| read_file(file, rewriting, &mut all)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.map_err(|error| {
                StartError::new("winglet.state_directory", format!(
                    "cannot read {}: {error}; without it links that were used could be used again. Mend it, or move it away to accept that until they expire",
                    path.display()
                ))
            })?,
        };
        rewriting = true;
    }
    if skipped > 0 {
        log::warn!("state_directory: {skipped} unreadable lines of the journal were skipped");
    }
    // Of several lines of one link, the highest sequence number holds.
    let links = &mut all.links;
    links.sort_by_key(|(key, entry)| (*key, Reverse(entry.sequence)));
    links.dedup_by_key(|(key, _)| *key);
    Ok(all)
}

/// Reads one file; returns how many lines were damaged. `rewriting`: version 1 was rewriting it from
/// another one.
fn read_file(file: File, rewriting: bool, all: &mut Remembered) -> io::Result<usize> {
    let mut reader = BufReader::new(file);
    let (mut line, mut skipped) = (Vec::new(), 0);
    read_line(&mut reader, &mut line)?;
    // Such a rewrite began with an empty file; any other file came to its name complete, so that an
    // empty one has lost what it held.
    let unfinished = rewriting && OLD_HEADER.as_bytes().starts_with(&line);
    if line != HEADER.as_bytes() && line != OLD_HEADER.as_bytes() && !unfinished {
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
            all.revoked.push(revoked);
            continue;
        }
        match line::parse(text) {
            Some(link) => all.links.push(link),
            None if line == b"\n" || text == OLD_HEADER.trim_end() => {}
            None => skipped += 1,
        }
    }
}

/// The longest line is far below this; garbage without line breaks is cut into pieces of it.
const MAX_LINE: u64 = 16 * 1024;

fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(MAX_LINE).read_until(b'\n', line)
}
