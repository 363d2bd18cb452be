//! Where the links of a tar lead. A link out of the unpacked folder means nothing to whoever unpacks
//! it, or something else than on the server, and makes careful readers stop: Python's, for one.

use super::listing::{Listing, MAX_PATH, Member};
use super::paths::{inside, names};
use std::borrow::Cow;

/// Most `..` after a name that are looked into.
const MAX_TURNS: usize = 16;

/// A link: where it lies and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    /// The archive's folder, from the volume's root.
    pub(super) base: &'a [u8],
    /// From the archive's folder.
    pub(super) path: &'a [u8],
    /// As it is on the server.
    pub(super) target: &'a [u8],
}

impl<'a> Link<'a> {
    /// The link `member` of `listing`.
    pub(super) fn of(listing: &'a Listing, member: &Member<'a>) -> Link<'a> {
        Link { base: &listing.base, path: member.path, target: member.target }
    }

    /// Its target as a tar may carry it. Returns `None` if that is not in the archive's folder, or
    /// cannot be told. `is_link` says whether a path from there is a link, too.
    pub(super) fn target(&self, is_link: impl Fn(&[u8]) -> bool) -> Option<Cow<'a, [u8]>> {
        if self.target.starts_with(b"/") {
            return self.relative().map(Cow::Owned);
        }
        self.stays(is_link).then_some(Cow::Borrowed(self.target))
    }

    /// The directories that lead to it.
    fn above(&self) -> Vec<&'a [u8]> {
        let mut above: Vec<_> = names(self.path).collect();
        above.pop();
        above
    }

    fn stays(&self, is_link: impl Fn(&[u8]) -> bool) -> bool {
        let mut at = self.above();
        // Directories of the archive, none of which is a link.
        let mut known = at.len();
        let mut turns = 0;
        for part in names(self.target) {
            if part != b".." {
                at.push(part);
                continue;
            }
            if at.len() > known {
                turns += 1;
                if turns > MAX_TURNS || is_link(&at.join(&b'/')) {
                    return false;
                }
            }
            if at.pop().is_none() {
                return false;
            }
            known = known.min(at.len());
        }
        true
    }

    /// An absolute target as the relative one that it means.
    fn relative(&self) -> Option<Vec<u8>> {
        let inside: Vec<_> = names(inside(self.target)?).collect();
        let base: Vec<_> = names(self.base).collect();
        let inside = inside.strip_prefix(&base[..])?;
        if inside.contains(&&b".."[..]) {
            return None;
        }
        let above = self.above();
        let common = above.iter().zip(inside).take_while(|(one, other)| one == other).count();
        let up = above.len() - common;
        let mut steps = vec![&b".."[..]; up];
        steps.extend(&inside[common..]);
        let target = if steps.is_empty() { b".".to_vec() } else { steps.join(&b'/') };
        (target.len() <= MAX_PATH).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(base: &str, path: &str, target: &str) -> Option<String> {
        let link = Link { base: base.as_bytes(), path: path.as_bytes(), target: target.as_bytes() };
        let target = link.target(|path| path == b"d/link")?;
        Some(String::from_utf8(target.into_owned()).unwrap())
    }

    #[test]
    fn relative_links_stay_as_they_are_or_are_left_out() {
        for (path, kept) in [
            ("l", "a"),
            ("l", "."),
            ("l", "./a//b/"),
            ("d/e/l", "../../x"),
            ("d/e/l", "../.."),
            ("l", "nowhere/../x"),
            ("d/l", "e/../../x"),
            ("d/l", "link/x"),
            ("link/l", ".."),
        ] {
            assert_eq!(target("", path, kept).as_deref(), Some(kept), "{path}");
        }
        for (path, out) in [
            ("l", ".."),
            ("d/e/l", "../../../x"),
            ("l", "a/../.."),
            ("l", "../world/x"),
            // Where this leads depends on the other link.
            ("l", "d/link/.."),
            ("d/l", "link/../x"),
            ("d/e/l", "../link/.."),
        ] {
            assert_eq!(target("world", path, out), None, "{path} to {out}");
        }
        let turns = |count| "a/../".repeat(count) + "x";
        assert!(target("", "l", &turns(MAX_TURNS)).is_some());
        assert_eq!(target("", "l", &turns(MAX_TURNS + 1)), None);
    }

    #[test]
    fn absolute_links_into_the_folder_become_relative() {
        for (base, path, absolute, expected) in [
            ("", "l", "/home/container/a/b", Some("a/b")),
            ("", "d/e/l", "/home/container/a/", Some("../../a")),
            ("", "d/e/l", "/home/container/d/x", Some("../x")),
            ("", "d/l", "/home/container", Some("..")),
            ("", "d/l", "/home/container//./d", Some(".")),
            ("/world/", "d/l", "/home/container/world/x", Some("../x")),
            ("world", "l", "/home/container/worlds/x", None),
            ("world", "l", "/home/container", None),
            ("", "l", "/home/containers/x", None),
            ("", "l", "/etc/passwd", None),
            ("", "l", "/", None),
            ("", "l", "/home/container/../x", None),
        ] {
            assert_eq!(target(base, path, absolute).as_deref(), expected, "{absolute}");
        }
        let long = format!("/home/container/{}", "b/".repeat(1000));
        assert_eq!(target("", &("a/".repeat(1000) + "l"), &long), None);
    }
}
