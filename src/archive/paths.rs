//! Paths of a server's volume: as they are written, and where they lead. A server sees its volume at
//! `/home/container`, and so its absolute links do.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, fstat, readlink, readlinkat, statat};

/// Where a server's processes see the volume.
const HOME: &[u8] = b"/home/container";
/// Most symbolic links on the way to a file, as in the kernel.
const MAX_LINKS: usize = 40;
/// Most names on the way to a file, those in links included: more than a path has.
const MAX_STEPS: usize = 2048;

/// The names in a path.
pub(super) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// `path` without `.`, `..` and more slashes than needed, as it is written. `None` if it leads out.
pub(super) fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for name in names(path) {
        match name {
            b".." => drop(all.pop()?),
            name => all.push(name),
        }
    }
    Some(all.join(&b'/'))
}

/// An absolute path, as seen by a server, as one of its volume.
pub(super) fn inside(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(HOME).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Where in `volume` `opened` is, which was asked for as `asked`, from there.
pub fn real_path(volume: &Dir, asked: &[u8], opened: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let slashes = asked.iter().take_while(|&&byte| byte == b'/').count();
    let asked = &asked[slashes..];
    let is_there = |path: &Vec<u8>| {
        let at = if path.is_empty() { b".".as_slice() } else { path };
        let own = fstat(opened).ok();
        let found = statat(volume, OsStr::from_bytes(at), AtFlags::SYMLINK_NOFOLLOW).ok();
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        own.is_some() && own.map(place) == found.map(place)
    };
    // Not everywhere is there a /proc; and of what was removed it tells another name.
    let told = told_path(volume, opened).filter(is_there);
    told.or_else(|| resolve(volume, b"", asked).filter(is_there))
}

/// What the kernel says where in `volume` `opened` is.
fn told_path(volume: &Dir, opened: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let told =
        |fd: BorrowedFd<'_>| readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok();
    let (root, path) = (told(volume.as_fd())?, told(opened)?);
    match path.as_bytes().strip_prefix(root.as_bytes())? {
        [] => Some(Vec::new()),
        [b'/', rest @ ..] => Some(rest.to_vec()),
        _ => None,
    }
}

/// Follows `path`, which may lead through symbolic links, from the real directory `from` of `volume`.
/// What is not there, leads nowhere else. `None` if it leads out of the volume, in circles, or through
/// too much.
pub(super) fn resolve(volume: &Dir, from: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = names(from).map(<[u8]>::to_vec).collect();
    let mut left = Vec::new();
    let (mut links, mut steps) = (0, 0);
    let mut more = Some(path.to_vec());
    loop {
        if let Some(path) = more.take() {
            let mut rest = path.as_slice();
            if path.starts_with(b"/") {
                rest = inside(&path)?;
                found.clear();
            }
            left.extend(names(rest).rev().map(<[u8]>::to_vec));
        }
        let Some(name) = left.pop() else { return Some(found.join(&b'/')) };
        steps += 1;
        if steps > MAX_STEPS {
            return None;
        }
        if name == b".." {
            found.pop()?;
            continue;
        }
        found.push(name);
        let at = found.join(&b'/');
        if let Ok(target) = readlinkat(volume, OsStr::from_bytes(&at), Vec::new()) {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            found.pop();
            more = Some(target.into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::tests::tree::Scratch;
    use super::*;

    #[test]
    fn a_path_is_where_it_leads_with_and_without_proc() {
        let scratch = Scratch::new();
        scratch.file("a/b/plain", b"1");
        scratch.link("link", "a/b");
        scratch.link("a/up", "../link/plain");
        scratch.link("home", "/home/container/a/up");
        scratch.link("loop", "loop");
        scratch.link("out", "../../..");
        let volume = scratch.dir();
        for (asked, real) in [
            ("a/b/plain", "a/b/plain"),
            ("/a//./b/../b/plain", "a/b/plain"),
            ("link/plain", "a/b/plain"),
            ("a/up", "a/b/plain"),
            ("link/../up", "a/b/plain"),
            ("", ""),
            ("link", "a/b"),
        ] {
            let opened = File::open(scratch.tree().join(asked.trim_start_matches('/'))).unwrap();
            let (asked, real) = (asked.as_bytes(), real.as_bytes());
            assert_eq!(told_path(&volume, opened.as_fd()).as_deref(), Some(real));
            let relative = asked.strip_prefix(b"/").unwrap_or(asked);
            assert_eq!(resolve(&volume, b"", relative).as_deref(), Some(real));
            assert_eq!(real_path(&volume, asked, opened.as_fd()).as_deref(), Some(real));
        }
        let at = |path: &str| resolve(&volume, b"", path.as_bytes());
        assert_eq!(at("home").as_deref(), Some(b"a/b/plain".as_slice()));
        assert_eq!(at("link/none/x").as_deref(), Some(b"a/b/none/x".as_slice()));
        for path in ["loop", "out", "..", "a/../../x"] {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
