//! Opens members beneath the listed directory, and never through a symbolic link.
//!
//! A server's user may swap a directory for a link between the walk and the read. cap-std's own
//! open follows links that stay beneath; here each one is refused, so that a member is what its
//! path says or nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::listing::Entry;

/// NONBLOCK, NOCTTY: a planted FIFO must not hang the worker, nor a terminal become ours.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// For directories on the way to another one, which are not read.
const THROUGH: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the directory `path` beneath `root`.
///
/// # Errors
/// What the system says; `ELOOP` or `ENOTDIR` if a link is in the way.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    beneath(root, path, FLAGS | OFlags::DIRECTORY)
}

/// Opens the directory `name` in `dir`; the name has no `/`.
///
/// # Errors
/// As [`directory`].
pub(super) fn child(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(step_by_step(dir, name, FLAGS | OFlags::DIRECTORY)?)
}

/// Opens `dir` itself once more, to read it from its beginning.
///
/// # Errors
/// What the system says.
pub(super) fn again(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(dir, ".", FLAGS | OFlags::DIRECTORY, Mode::empty())?)
}

/// Opens the directory that `dir` lies in now, to open others from there. It may be anywhere: see that
/// it is the right one.
///
/// # Errors
/// What the system says.
pub(super) fn parent(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(dir, "..", THROUGH, Mode::empty())?)
}

/// Device and inode number as one: different for all files of a file system, and for those of two as
/// long as inode numbers do not come near 2^64.
pub(super) fn identity(stat: &Stat) -> u64 {
    stat.st_ino.wrapping_add(stat.st_dev.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Returns true if it is this process that lacks something, and no file's fault.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// What may have happened to a file since it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// It may have grown, as a log does all the time.
    Grown,
    /// Nothing.
    Nothing,
}

/// Opens the file `path` beneath `root`, which was listed as `entry`.
///
/// # Errors
/// What the system says, and [`changed`] if more has happened to it than may have.
pub(super) fn member(
    root: BorrowedFd<'_>,
    path: &[u8],
    entry: &Entry,
    since: Since,
) -> io::Result<File> {
    let (file, stat) = file(root, path)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let modified = (stat.st_mtime, stat.st_mtime_nsec as u32);
    let listed = (entry.seconds, entry.nanoseconds);
    let is_as_listed = match since {
        Since::Grown if size > entry.size => modified >= listed,
        _ => size == entry.size && modified == listed,
    };
    if identity(&stat) == entry.inode && is_as_listed { Ok(file) } else { Err(changed()) }
}

/// Opens the file `path` beneath `root`.
///
/// # Errors
/// What the system says, and [`changed`] if it is no regular file.
pub(super) fn file(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<(File, Stat)> {
    let file = File::from(beneath(root, path, FLAGS)?);
    let stat = fstat(&file)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file { Ok((file, stat)) } else { Err(changed()) }
}

/// The error of a file that is not what was listed.
pub(super) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "not what was listed any more")
}

fn beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        // Linux before 5.6, or a seccomp filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => Ok(step_by_step(root, path, flags)?),
        result => Ok(result?),
    }
}

/// The same with openat(2) only: no name is `..` and none is followed, so no step leads
/// upwards.
fn step_by_step(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut above: Option<OwnedFd> = None;
    let mut names = path.split(|&byte| byte == b'/').peekable();
    while let Some(name) = names.next() {
        let name = OsStr::from_bytes(name);
        if name == ".." || name.is_empty() {
            return Err(Errno::NOENT);
        }
        let at = above.as_ref().map_or(root, OwnedFd::as_fd);
        let flags = if names.peek().is_some() { THROUGH } else { flags };
        above = Some(openat(at, name, flags, Mode::empty())?);
    }
    above.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree::Scratch;
    use super::*;

    #[test]
    fn no_link_is_followed_with_or_without_openat2() {
        let scratch = Scratch::new();
        scratch.file("a/b/plain", b"12345");
        scratch.link("a/up", "..");
        scratch.link("a/link", "b");
        scratch.link("a/b/file", "plain");
        scratch.fifo("a/fifo");
        let dir = scratch.dir();
        let root = dir.as_fd();
        for path in ["a/link/plain", "a/up/a/b/plain", "a/b/file", "a/../../out", "/etc/passwd"] {
            assert!(file(root, path.as_bytes()).is_err(), "{path}");
            assert!(step_by_step(root, path.as_bytes(), FLAGS).is_err(), "{path} by steps");
        }
        assert!(directory(root, b"a/link").is_err());
        assert!(directory(root, b"a/b").is_ok());
        assert!(step_by_step(root, b"a/b/plain", FLAGS).is_ok());
        assert!(file(root, b"a/b/plain").is_ok());
        for path in ["a/fifo", "a/b"] {
            let error = file(root, path.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{path}");
        }
    }
}
