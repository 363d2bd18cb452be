//! What a name in an open directory is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, FileType, Stat, accessat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::found::Known;
use super::open;

/// Why something is left out.
pub(super) enum Left {
    Special,
    LongPath,
    Error(io::Error),
}

/// What belongs to something that is listed.
pub(super) enum Content {
    File,
    /// Open.
    Directory(OwnedFd),
    /// A directory that could not be opened.
    Closed(io::Error),
    /// A directory that lies too deep to be listed.
    Deep,
    /// Where it leads.
    Link(Vec<u8>),
}

/// What `name` in `dir` is. A directory is opened if it `may_open`.
pub(super) fn examine(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Known,
    may_open: bool,
) -> Result<(Stat, Content), Left> {
    let failed = |errno: Errno| Left::Error(errno.into());
    if kind == Known::Directory
        && may_open
        && let Ok(child) = open::child(dir, name)
    {
        return Ok((fstat(&child).map_err(failed)?, Content::Directory(child)));
    }
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    match kind_of(&stat) {
        FileType::Symlink => {
            let target = readlinkat(dir, name, Vec::new()).map_err(failed)?;
            Ok((stat, Content::Link(target.into_bytes())))
        }
        FileType::RegularFile => {
            // access(2) is cheaper than open(2), and does not count capabilities: its "no" is checked.
            if accessat(dir, name, Access::READ_OK, AtFlags::empty()).is_err() {
                open::file(dir, name).map_err(Left::Error)?;
            }
            Ok((stat, Content::File))
        }
        FileType::Directory if !may_open => Ok((stat, Content::Deep)),
        FileType::Directory => match open::child(dir, name) {
            // It may be another one than just now.
            Ok(child) => Ok((fstat(&child).map_err(failed)?, Content::Directory(child))),
            Err(error) => Ok((stat, Content::Closed(error))),
        },
        _ => Err(Left::Special),
    }
}

pub(super) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
