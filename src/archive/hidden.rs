//! What a link must not show: the patterns in force, held against paths as they were asked for, and
//! against where they really lead, so that no symbolic link is a way around them. (Another hard link
//! of a hidden file is a file of its own.)

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use cap_std::fs::Dir;
use hmac_sha256::Hash;

use super::paths::{inside, names, normal, real_path, resolve};
use super::patterns::{Level, Patterns};

/// Lists of patterns, relative to a server's root. What one of them hides, none can show.
#[derive(Debug)]
pub struct Hidden(Vec<Arc<Patterns>>);

impl Hidden {
    /// `None` if `lists` hide nothing.
    pub fn new(lists: impl IntoIterator<Item = Arc<Patterns>>) -> Option<Hidden> {
        let lists: Vec<_> = lists.into_iter().filter(|list| !list.is_empty()).collect();
        (!lists.is_empty()).then_some(Hidden(lists))
    }

    /// Tells these patterns from others.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Hash::new();
        for list in &self.0 {
            hash.update(list.digest());
        }
        hash.finalize()
    }

    /// Returns true if `path`, or a directory above it, is hidden. It has neither `.` nor `..`.
    pub fn hides(&self, path: &[u8], is_directory: bool) -> bool {
        let mut names = names(path).peekable();
        let mut levels = self.root();
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            if self.hides_at(&levels, name, is_directory || !is_last) {
                return true;
            }
            if !is_last {
                levels = self.enter(&levels, name);
            }
        }
        false
    }

    /// The real path of what was `opened` beneath `volume` as `asked`. `None` if it is hidden by
    /// either path, or if it is not there any more.
    pub fn see(
        &self,
        volume: &Dir,
        asked: &str,
        opened: BorrowedFd<'_>,
        is_directory: bool,
    ) -> Option<Vec<u8>> {
        let asked = asked.as_bytes();
        let is_visible = |path: &[u8]| !self.hides(path, is_directory);
        if !normal(asked).is_none_or(|path| is_visible(&path)) {
            return None;
        }
        real_path(volume, asked, opened).filter(|path| is_visible(path))
    }

    /// Returns true if what `path` names or leads to is hidden, be it a file or a directory: for what
    /// cannot be opened.
    pub fn may_hide(&self, volume: &Dir, path: &str) -> bool {
        let path = path.trim_start_matches('/').as_bytes();
        self.may_hide_any([normal(path).as_deref(), resolve(volume, b"", path).as_deref()])
    }

    /// Returns true if one of `paths` is hidden, be it a file or a directory.
    fn may_hide_any(&self, paths: [Option<&[u8]>; 2]) -> bool {
        let hides = |path| self.hides(path, true) || self.hides(path, false);
        paths.into_iter().flatten().any(hides)
    }

    /// A hash of `resource` seen with these patterns.
    pub fn bind(&self, resource: [u8; 16]) -> [u8; 16] {
        let mut hash = Hash::new();
        hash.update(resource);
        hash.update(self.digest());
        let mut bound = [0; 16];
        bound.copy_from_slice(&hash.finalize()[..16]);
        bound
    }

    fn root(&self) -> Vec<Level> {
        self.0.iter().map(|list| list.root()).collect()
    }

    fn enter(&self, levels: &[Level], name: &[u8]) -> Vec<Level> {
        self.0.iter().zip(levels).map(|(list, level)| level.enter(list, name)).collect()
    }

    fn hides_at(&self, levels: &[Level], name: &[u8], is_directory: bool) -> bool {
        self.0.iter().zip(levels).any(|(list, level)| level.hides(list, name, is_directory))
    }
}

/// A directory of a server's volume.
#[derive(Clone, Debug)]
pub struct Place {
    /// The volume's root.
    pub volume: Arc<Dir>,
    /// The directory's real path, from there.
    pub base: Vec<u8>,
    /// What is hidden in the volume.
    pub hidden: Option<Arc<Hidden>>,
}

impl Place {
    /// Where a symbolic link to `target` in the directory `above` leads: its real path in the volume.
    pub(super) fn follow(&self, above: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        resolve(&self.volume, &self.path(above), target)
    }

    /// Returns true if such a link names what is hidden, or leads to it, which is at `real`.
    pub(super) fn hides_link(&self, above: &[u8], target: &[u8], real: Option<&[u8]>) -> bool {
        let Some(hidden) = &self.hidden else { return false };
        let named = match inside(target) {
            Some(path) => normal(path),
            None if target.starts_with(b"/") => None,
            None => normal(&[&self.path(above), &b"/"[..], target].concat()),
        };
        hidden.may_hide_any([named.as_deref(), real])
    }

    /// The path of the directory `above` from the root of the volume.
    fn path(&self, above: &[u8]) -> Vec<u8> {
        [&self.base, &b"/"[..], above].concat()
    }
}

/// What is hidden beneath one directory of a volume. It remembers the directory that it was asked
/// about last, since a walk asks about all that is in one.
#[derive(Debug)]
pub(super) struct Veil {
    hidden: Arc<Hidden>,
    origin: Vec<Level>,
    at: Vec<u8>,
    levels: Vec<Level>,
}

impl Veil {
    /// What is hidden beneath `place`.
    pub(super) fn new(place: &Place) -> Option<Veil> {
        let hidden = place.hidden.clone()?;
        let enter = |levels: Vec<Level>, name: &[u8]| hidden.enter(&levels, name);
        let origin = names(&place.base).fold(hidden.root(), enter);
        Some(Veil { levels: origin.clone(), hidden, origin, at: Vec::new() })
    }

    /// Tells these patterns from others.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hidden.digest()
    }

    /// Returns true if `name` in the visible directory `above` is hidden.
    pub(super) fn hides(&mut self, above: &[u8], name: &[u8], is_directory: bool) -> bool {
        self.go_to(above);
        self.hidden.hides_at(&self.levels, name, is_directory)
    }

    fn go_to(&mut self, directory: &[u8]) {
        if self.at == directory {
            return;
        }
        let below = directory.strip_prefix(&self.at[..]);
        let rest = match below.filter(|rest| self.at.is_empty() || rest.starts_with(b"/")) {
            Some(rest) => rest,
            None => {
                self.levels = self.origin.clone();
                directory
            }
        };
        for name in names(rest) {
            self.levels = self.hidden.enter(&self.levels, name);
        }
        self.at = directory.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::super::tests::tree::Scratch;
    use super::*;

    fn hidden(patterns: &[&str]) -> Arc<Hidden> {
        let list = Arc::new(Patterns::new(patterns.iter().copied()));
        Arc::new(Hidden::new([list]).unwrap())
    }

    fn place(scratch: &Scratch, base: &str, hidden: Arc<Hidden>) -> Place {
        Place { volume: Arc::new(scratch.dir()), base: base.into(), hidden: Some(hidden) }
    }

    #[test]
    fn what_one_list_hides_no_other_shows() {
        let list = |lines: &[&str]| Arc::new(Patterns::new(lines.iter().copied()));
        let both = Hidden::new([list(&["*.pem"]), list(&["!*.pem", "logs/"])]).unwrap();
        assert!(both.hides(b"a.pem", false) && both.hides(b"logs/a", false));
        assert!(!both.hides(b"a", false));
        assert_eq!(Hidden::new([list(&[]), list(&["!a", "# b", ""])]).map(drop), None);
        let digest =
            |lists: &[&[&str]]| Hidden::new(lists.iter().map(|l| list(l))).unwrap().digest();
        assert_ne!(digest(&[&["a", "b"]]), digest(&[&["a"], &["b"]]));
        assert_ne!(digest(&[&["a", "b"]]), digest(&[&["ab"]]));
        assert_eq!(digest(&[&["a"]]), digest(&[&[], &["a"]]));
    }

    #[test]
    fn what_was_removed_or_replaced_is_not_seen() {
        let scratch = Scratch::new();
        let volume = scratch.dir();
        scratch.file("secret", b"1");
        let (opened, hidden) = (File::open(scratch.tree().join("secret")).unwrap(), hidden(&["x"]));
        let see = || hidden.see(&volume, "secret", opened.as_fd(), false);
        assert_eq!(see().as_deref(), Some(b"secret".as_slice()));
        std::fs::remove_file(scratch.tree().join("secret")).unwrap();
        assert_eq!(see(), None);
        scratch.file("secret", b"2");
        assert_eq!(see(), None);
    }

    #[test]
    fn a_link_is_judged_by_what_it_names_and_where_it_leads() {
        let scratch = Scratch::new();
        scratch.file("world/secret", b"1");
        scratch.file("world/plain", b"1");
        scratch.link("alias", "world");
        scratch.link("chain", "alias/secret");
        let place = place(&scratch, "world", hidden(&["/world/secret", "/gone"]));
        for (above, target, hides) in [
            ("", "secret", true),
            ("", "./secret", true),
            ("a/b", "../../secret", true),
            ("", "../chain", true),
            ("", "../alias/secret", true),
            ("", "/home/container/world/secret", true),
            ("", "/home/container/chain", true),
            ("", "../gone", true),
            ("", "plain", false),
            ("", "../alias/plain", false),
            ("", "/world/secret", false),
            ("", "/home/container2/gone", false),
            ("", "../../gone", false),
        ] {
            let (above, target) = (above.as_bytes(), target.as_bytes());
            let real = place.follow(above, target);
            let found = place.hides_link(above, target, real.as_deref());
            assert_eq!(found, hides, "{place:?}: {}", String::from_utf8_lossy(target));
        }
    }

    #[test]
    fn a_veil_says_the_same_from_directory_to_directory() {
        let scratch = Scratch::new();
        let hidden = hidden(&["b/", "!/w/c/b/", "/w/a/x", "**/d/e", "*.log"]);
        let mut veil = Veil::new(&place(&scratch, "w", Arc::clone(&hidden))).unwrap();
        let visible = ["", "a", "a/c", "a/c/d", "ab", "c", "c/b", "c/b/d", "a"];
        for above in visible {
            for name in ["b", "x", "e", "a.log", "y"] {
                for directory in [false, true] {
                    let path = format!("w/{above}/{name}");
                    let expected = hidden.hides(path.as_bytes(), directory);
                    let found = veil.hides(above.as_bytes(), name.as_bytes(), directory);
                    assert_eq!(found, expected, "{path} {directory}");
                }
            }
        }
    }
}
