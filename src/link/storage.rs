//! Opens the regular file that a token names, without ever leaving the configured directories.
//!
//! A server's user can put anything into the volume (symlinks, FIFOs, devices) and swap it during a
//! request. So paths are resolved beneath an open directory (cap-std, which uses openat2(2) with
//! `RESOLVE_BENEATH`), and the result is judged by its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::archive::{Hidden, Packed, Place, real_path};
use crate::config::Config;
use crate::link::Uuid;

/// A strong validator: a hash of inode, size and modification time, so that it reveals none of them.
pub type EntityTag = u64;

/// Something that may be served.
#[derive(Debug)]
pub struct Found<S> {
    /// Where its bytes come from.
    pub source: S,
    /// Length in bytes when it was opened. What is appended later is not served.
    pub length: u64,
    /// Last modification, whole seconds since the epoch.
    pub modified: u64,
    /// Changes whenever the file does.
    pub tag: EntityTag,
    /// The name it is offered under.
    pub name: String,
}

impl<S> Found<S> {
    /// The same of another source.
    pub(super) fn map<T>(self, to: impl FnOnce(S) -> T) -> Found<T> {
        let Found { source, length, modified, tag, name } = self;
        Found { source: to(source), length, modified, tag, name }
    }
}

/// Where the bytes of a download come from.
#[derive(Debug)]
pub enum Source {
    /// A regular file, open for reading.
    File(File),
    /// A directory, as an archive.
    Archive(Packed),
}

/// Why nothing could be opened. `http::refusal` turns it into a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// There is nothing that may be served.
    NotFound(Missing),
    /// The process has no file descriptor left.
    NoDescriptors,
    /// It takes too long to list the directory.
    WalkTooLong,
    /// The listings of other directories leave no memory for this one's.
    TooManyFolders,
    /// The directory holds more than an archive may.
    TooMany,
    /// The file exists, and the system refused to open it or to say what it is.
    Failed(String),
}

/// What was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The server has no volume on this node.
    Server,
    /// The volume has no such file.
    File,
    /// The path leads out of the server's directory.
    Escape,
    /// Something is there, but it is not a regular file.
    NotRegular,
    /// The backup is in none of the places where backups are kept.
    Backup,
    /// The volume has no such directory.
    Directory,
    /// The directory has none of the files.
    Files,
    /// The file is hidden from this link.
    HiddenFile,
    /// The directory is hidden from this link.
    HiddenDirectory,
}

impl OpenError {
    /// The cause, for the log and `explain`. Clients are never shown it.
    pub fn cause(&self) -> String {
        match self {
            OpenError::NotFound(missing) => match missing {
                Missing::Server => "no volume of this server",
                Missing::File => "no such file",
                Missing::Escape => "the path leads outside the volume",
                Missing::NotRegular => "not a regular file",
                Missing::Backup => "no such backup in any layout",
                Missing::Directory => "no such directory",
                Missing::Files => "the directory has none of these files",
                Missing::HiddenFile | Missing::HiddenDirectory => {
                    "hidden by the token's ignored_files or by winglet.hidden"
                }
            }
            .into(),
            OpenError::NoDescriptors => "no descriptor is left to open the file with".into(),
            OpenError::TooManyFolders => "no memory left for the directory's listing".into(),
            OpenError::WalkTooLong => "listing the directory takes too long".into(),
            OpenError::TooMany => "the directory holds more than an archive may".into(),
            OpenError::Failed(cause) => cause.clone(),
        }
    }
}

/// The two directories that downloads come from.
#[derive(Clone, Debug)]
pub struct Storage {
    data: PathBuf,
    backups: PathBuf,
}

impl Storage {
    /// The directories that `config` names. Nothing is opened yet.
    pub fn new(config: &Config) -> Storage {
        Storage { data: config.data.clone(), backups: config.backup_directory.clone() }
    }

    fn open_volume(&self, server: &Uuid) -> Result<Dir, OpenError> {
        Dir::open_ambient_dir(self.data.join(server.to_string()), ambient_authority())
            .map_err(|error| classify(&error, Missing::Server))
    }

    /// Opens the directory `path` of `server`; empty or `/` is its volume. Returns it and where it is.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] if it is not there or hidden, another one if the system refuses it.
    pub fn open_directory(
        &self,
        server: &Uuid,
        path: &str,
        hidden: Option<&Arc<Hidden>>,
    ) -> Result<(Dir, Place), OpenError> {
        let volume = self.open_volume(server)?;
        let opened = match path.trim_matches('/') {
            "" => volume.try_clone(),
            path => volume.open_dir(path),
        };
        let opened = opened.map_err(|error| classify(&error, Missing::Directory));
        let Some(hidden) = hidden else {
            let directory = opened?;
            let base = real_path(&volume, path.as_bytes(), directory.as_fd());
            let base = base.ok_or(OpenError::NotFound(Missing::Directory))?;
            return Ok((directory, Place { volume: Arc::new(volume), base, hidden: None }));
        };
        let unseen = OpenError::NotFound(Missing::HiddenDirectory);
        let directory = opened.map_err(|error| hide(hidden, &volume, path, error, &unseen))?;
        let base = hidden.see(&volume, path, directory.as_fd(), true).ok_or(unseen)?;
        let hidden = Some(Arc::clone(hidden));
        Ok((directory, Place { volume: Arc::new(volume), base, hidden }))
    }

    /// Opens the file `path` of `server`, unless it is hidden.
    pub(super) fn open_file(
        &self,
        server: &Uuid,
        path: &str,
        hidden: Option<&Hidden>,
    ) -> Result<Found<File>, OpenError> {
        let relative = path.trim_start_matches('/');
        if relative.is_empty() {
            return Err(OpenError::NotFound(Missing::NotRegular));
        }
        let name = relative.rsplit('/').next().unwrap_or(relative).to_owned();
        if hidden.is_none()
            && let Ok(file) = open_straight(&self.data.join(server.to_string()), relative)
        {
            return found(file, name);
        }
        let volume = self.open_volume(server)?;
        let found = open_beneath(&volume, Path::new(relative), name, Missing::File);
        let Some(hidden) = hidden else { return found };
        let unseen = OpenError::NotFound(Missing::HiddenFile);
        let found = found.map_err(|error| hide(hidden, &volume, path, error, &unseen))?;
        match hidden.see(&volume, path, found.source.as_fd(), false) {
            Some(_) => Ok(found),
            None => Err(unseen),
        }
    }

    /// Opens `backup` of `server`, wherever it is.
    pub(super) fn open_backup(
        &self,
        server: Option<&Uuid>,
        backup: &Uuid,
    ) -> Result<Found<File>, OpenError> {
        let (layouts, name) = (backup_layouts(server, backup), format!("backup-{backup}.tar.gz"));
        for candidate in &layouts {
            match open_straight(&self.backups, candidate) {
                Ok(file) => return found(file, name),
                Err(Errno::NOENT) => {}
                Err(_) => break,
            }
        }
        let directory = Dir::open_ambient_dir(&self.backups, ambient_authority())
            .map_err(|error| classify(&error, Missing::Backup))?;
        for candidate in layouts {
            let name = name.clone();
            match open_beneath(&directory, Path::new(&candidate), name, Missing::Backup) {
                Err(OpenError::NotFound(Missing::Backup)) => {}
                found => return found,
            }
        }
        Err(OpenError::NotFound(Missing::Backup))
    }
}

/// Where a backup may be, relative to the backup directory, first choice first. Without a server,
/// not in its directory.
pub fn backup_layouts(server: Option<&Uuid>, backup: &Uuid) -> Vec<String> {
    let mut layouts = Vec::with_capacity(4);
    for name in [format!("{backup}.tar.gz"), format!("backup-{backup}.tar.gz")] {
        layouts.extend(server.map(|server| format!("{server}/{name}")));
        layouts.push(name);
    }
    layouts
}

/// The error for `path`, which could not be opened: what is hidden is not there.
fn hide(
    hidden: &Hidden,
    volume: &Dir,
    path: &str,
    error: OpenError,
    unseen: &OpenError,
) -> OpenError {
    match error {
        OpenError::Failed(_) if hidden.may_hide(volume, path) => unseen.clone(),
        error => error,
    }
}

/// Opens `path` beneath `directory` with one system call, which works if no symbolic link is on the way.
/// Without links and `..`, nothing leads out of the directory. An error says nothing yet: the long way
/// ([`open_beneath`]) finds out what it is.
fn open_straight(directory: &Path, path: &str) -> Result<File, Errno> {
    if path.split('/').any(|part| part == "..") {
        return Err(Errno::LOOP);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = directory.join(path);
    openat2(CWD, path, flags, Mode::empty(), resolve).map(File::from)
}

fn open_beneath(
    dir: &Dir,
    path: &Path,
    name: String,
    what: Missing,
) -> Result<Found<File>, OpenError> {
    let mut options = OpenOptions::new();
    // O_NONBLOCK keeps a planted FIFO from hanging the worker in open(2), O_NOCTTY keeps a terminal
    // from becoming ours.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = dir.open_with(path, &options).map_err(|error| classify(&error, what))?.into_std();
    found(file, name)
}

/// What is sent of `file`, if it is a regular one.
fn found(file: File, name: String) -> Result<Found<File>, OpenError> {
    let metadata = file.metadata().map_err(|error| OpenError::Failed(format!("fstat: {error}")))?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        debug_assert!(!kind.is_socket(), "open(2) refuses sockets with ENXIO");
        return Err(OpenError::NotFound(Missing::NotRegular));
    }
    Ok(Found {
        length: metadata.len(),
        modified: metadata.modified().map_or(0, whole_seconds),
        tag: entity_tag(metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()),
        source: file,
        name,
    })
}

fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

fn entity_tag(inode: u64, length: u64, seconds: i64, nanoseconds: i64) -> EntityTag {
    let mut values = [0u8; 32];
    values[..8].copy_from_slice(&inode.to_le_bytes());
    values[8..16].copy_from_slice(&length.to_le_bytes());
    values[16..24].copy_from_slice(&seconds.to_le_bytes());
    values[24..].copy_from_slice(&nanoseconds.to_le_bytes());
    let mut tag = [0u8; 8];
    tag.copy_from_slice(&hmac_sha256::Hash::hash(&values)[..8]);
    u64::from_le_bytes(tag)
}

/// Tells "not there" from "there, but refused". cap-std reports a path that leaves the directory as
/// `PermissionDenied` without an OS error number; the kernel's own EACCES has one.
pub(super) fn classify(error: &io::Error, what: Missing) -> OpenError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        None if error.kind() == io::ErrorKind::PermissionDenied => {
            OpenError::NotFound(Missing::Escape)
        }
        Some(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::INVAL,
        ) => OpenError::NotFound(what),
        Some(Errno::MFILE | Errno::NFILE) => OpenError::NoDescriptors,
        None if error.kind() == io::ErrorKind::InvalidInput => OpenError::NotFound(what),
        _ => OpenError::Failed(format!("open: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_follows_each_of_its_values() {
        let tag = entity_tag(1, 2, 3, 4);
        assert_eq!(tag, entity_tag(1, 2, 3, 4));
        for other in [(2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)] {
            assert_ne!(tag, entity_tag(other.0, other.1, other.2, other.3));
        }
    }

    #[test]
    fn an_escape_is_not_found_but_a_permission_error_is_a_failure() {
        let escape = io::Error::new(io::ErrorKind::PermissionDenied, "outside");
        assert_eq!(classify(&escape, Missing::File), OpenError::NotFound(Missing::Escape));
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert!(matches!(classify(&denied, Missing::File), OpenError::Failed(_)));
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(classify(&missing, Missing::File), OpenError::NotFound(Missing::File));
    }
}
