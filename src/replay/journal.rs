//! The journal of used links: an append-only file in `state_directory`, reloaded at start.
//!
//! Appending is one write(2) of one line, so that a crash of the process tears nothing; it is not
//! fsynced, so that a power cut may lose the last seconds. Compaction starts a new file and copies
//! live entries into it while appends go on; the old file lives until that is done and on disk, so
//! that a power cut never costs more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record;
use super::{Entry, Key};
use crate::error::StartError;

/// What an error here is about.
const KEY: &str = "winglet.state_directory";
const HEADER: &str = "winglet-journal 1\n";
/// Compaction is not worth it below this many bytes.
const COMPACT_ABOVE: u64 = 1 << 20;
/// The journal may grow to this many times what was live at the last compaction.
const GROWTH: u64 = 3;

/// The open journal. Two servers cannot hold the same one: a lock file sees to that.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    inner: Mutex<Inner>,
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Bytes in `file`.
    bytes: u64,
    /// Bytes in `file` when it was last compacted.
    compacted: u64,
    /// The last write failed, perhaps in the middle of a line, and lines are missing.
    behind: bool,
    /// The failure was logged, and has not been mended since.
    reported: bool,
}

/// What a journal on disk held.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) entries: Vec<(Key, Entry)>,
    /// Lines that were torn or are not ours.
    pub(super) skipped: usize,
}

impl Journal {
    /// Opens the journal in `directory`, creating both where they are missing.
    ///
    /// # Errors
    /// Where the directory cannot be used, another server holds it, or the journal there cannot be
    /// read: an unreadable journal must never pass for an empty one.
    pub(super) fn open(directory: &Path) -> Result<(Journal, Loaded), StartError> {
        let problem = |what: &str, error: &dyn std::fmt::Display| {
            StartError::new(
                KEY,
                format!(
                    "{what} in {}: {error}; make it a directory that the server may write, or remove the key to keep used links in memory only",
                    directory.display()
                ),
            )
        };
        make_directory(directory)
            .map_err(|error| problem("cannot create the directory", &error))?;
        let lock = private(OpenOptions::new().write(true).create(true))
            .open(directory.join("lock"))
            .map_err(|error| problem("cannot open the lock file", &error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StartError::new(
                KEY,
                format!("{} is in use by another server; give each its own", directory.display()),
            ),
            TryLockError::Error(error) => problem("cannot lock the lock file", &error),
        })?;
        let loaded = read(directory)?;
        let (file, bytes) = rewrite(directory, &loaded.entries)
            .map_err(|error| problem("cannot write the journal", &error))?;
        let inner = Inner { file, bytes, compacted: bytes, behind: false, reported: false };
        let journal =
            Journal { directory: directory.to_owned(), inner: Mutex::new(inner), _lock: lock };
        Ok((journal, loaded))
    }

    /// Appends lines. A failure is logged once, and the table goes on in memory; compaction later
    /// brings the file up to date again.
    pub(super) fn append(&self, lines: &str) {
        let mut inner = self.lock();
        // After a failed write the file may end in the middle of a line.
        let lead = if inner.behind { "\n" } else { "" };
        match inner.file.write_all(format!("{lead}{lines}").as_bytes()) {
            Ok(()) => inner.bytes += lines.len() as u64,
            Err(error) => {
                if !inner.reported {
                    log::error!(
                        "state_directory: cannot write the journal: {error}; used links are remembered in memory only until this is mended"
                    );
                }
                inner.behind = true;
                inner.reported = true;
            }
        }
    }

    /// Whether compaction would help: the file has grown, or lines are missing from it.
    pub(super) fn wants_compaction(&self) -> bool {
        let inner = self.lock();
        inner.behind || inner.bytes > COMPACT_ABOVE.max(inner.compacted.saturating_mul(GROWTH))
    }

    /// Starts a new file; from here on lines go there. The caller copies what is live with
    /// [`Journal::append`] and then calls [`Journal::end_compaction`].
    pub(super) fn begin_compaction(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if !self.directory.join(OLD).exists() {
            std::fs::rename(self.directory.join(CURRENT), self.directory.join(OLD))?;
        }
        let mut file = private(OpenOptions::new().append(true).create(true))
            .open(self.directory.join(CURRENT))?;
        file.write_all(HEADER.as_bytes())?;
        inner.file = file;
        inner.bytes = HEADER.len() as u64;
        inner.behind = false;
        Ok(())
    }

    /// Removes the old file, if everything was copied.
    pub(super) fn end_compaction(&self) -> io::Result<()> {
        let copied = self.lock().file.try_clone()?;
        // Outside the lock: appends must not wait for the disk.
        copied.sync_data()?;
        let mut inner = self.lock();
        if inner.behind {
            return Err(io::Error::other("live entries could not all be written"));
        }
        inner.compacted = inner.bytes;
        if std::mem::take(&mut inner.reported) {
            log::info!("state_directory: the journal is written again and complete");
        }
        std::fs::remove_file(self.directory.join(OLD))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding it leaves at worst a torn line, which readers skip.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the state directory where it is missing, for the server alone.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

const CURRENT: &str = "journal";
const OLD: &str = "journal.old";
const NEW: &str = "journal.new";

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW)
}

/// Reads whatever journal is in `directory`; none is an empty one.
///
/// # Errors
/// Where a file is there and cannot be read, or was written by a later version.
pub(super) fn read(directory: &Path) -> Result<Loaded, StartError> {
    loop {
        let (loaded, old_was_there) = read_files(directory);
        // Where a running server began a compaction in between, the rest is in the old file now.
        if old_was_there || !directory.join(OLD).exists() {
            return loaded;
        }
    }
}

fn read_files(directory: &Path) -> (Result<Loaded, StartError>, bool) {
    let mut loaded = Loaded::default();
    let mut old_was_there = false;
    for name in [OLD, CURRENT] {
        let path = directory.join(name);
        let result = match private(OpenOptions::new().read(true)).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(unreadable(&path, &error)),
            Ok(file) => read_file(&path, file, old_was_there, &mut loaded),
        };
        old_was_there |= name == OLD;
        if let Err(error) = result {
            return (Err(error), old_was_there);
        }
    }
    // Of several lines of one link, the highest sequence number holds.
    loaded.entries.sort_by_key(|(key, entry)| (*key, entry.sequence));
    loaded.entries.reverse();
    loaded.entries.dedup_by_key(|(key, _)| *key);
    (Ok(loaded), old_was_there)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::new(
        KEY,
        format!(
            "cannot read {}: {error}; without it links that were used could be used again. Mend it, or move it away to accept that until they expire",
            path.display()
        ),
    )
}

/// Reads one file. `compacting`: another one holds what this one may still lack.
fn read_file(
    path: &Path,
    file: File,
    compacting: bool,
    loaded: &mut Loaded,
) -> Result<(), StartError> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    read_line(&mut reader, &mut line).map_err(|error| unreadable(path, &error))?;
    // A compaction makes its file empty; any other file came to its name complete, so that an
    // empty one has lost what it held.
    let unfinished = compacting && HEADER.as_bytes().starts_with(&line);
    if line != HEADER.as_bytes() && !unfinished {
        let what =
            if line.is_empty() { "it is empty" } else { "it is not a journal of this version" };
        return Err(unreadable(path, &what));
    }
    loop {
        line.clear();
        if read_line(&mut reader, &mut line).map_err(|error| unreadable(path, &error))? == 0 {
            return Ok(());
        }
        let text = std::str::from_utf8(&line).unwrap_or("").trim_end_matches('\n');
        match record::parse(text) {
            Some(entry) => loaded.entries.push(entry),
            None if text == HEADER.trim_end() || line == b"\n" => {}
            None => loaded.skipped += 1,
        }
    }
}

/// The longest line is far below this; garbage without line breaks is cut into pieces of it.
const MAX_LINE: u64 = 16 * 1024;

fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(MAX_LINE).read_until(b'\n', line)
}

/// Writes a fresh journal with `entries` and puts it in the place of whatever was there.
fn rewrite(directory: &Path, entries: &[(Key, Entry)]) -> io::Result<(File, u64)> {
    let new = directory.join(NEW);
    let mut content = String::from(HEADER);
    for (key, entry) in entries {
        content.push_str(&record::format(key, entry));
    }
    let mut file =
        private(OpenOptions::new().write(true).create(true).truncate(true)).open(&new)?;
    file.write_all(content.as_bytes())?;
    // Before it takes the place of the old one: a power cut must not leave neither.
    file.sync_data()?;
    std::fs::rename(&new, directory.join(CURRENT))?;
    match std::fs::remove_file(directory.join(OLD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = private(OpenOptions::new().append(true)).open(directory.join(CURRENT))?;
    Ok((file, content.len() as u64))
}

#[cfg(test)]
mod tests;
