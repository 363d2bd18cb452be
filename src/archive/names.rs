//! Names that are only bytes to Linux, written for a reader that wants text: a zip's members, and
//! the lines of the file that lists what was left out.

use std::borrow::Cow;
use std::fmt::Write;

/// `path` as a zip may carry it, which is UTF-8 (APPNOTE appendix D). A byte that is none becomes
/// `%XX`: without the flag for UTF-8, Java's reader refuses the whole archive, and a file under a
/// slightly changed name is worth more than none. A backslash becomes `%5C` in a component that
/// would climb or start at a root for readers that take it as a separator.
pub(super) fn zip_path(path: &[u8]) -> Cow<'_, [u8]> {
    let escapes = |part: &[u8]| climbs(part) || std::str::from_utf8(part).is_err();
    if !path.split(|&byte| byte == b'/').any(escapes) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    for (index, part) in path.split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        let climbs = climbs(part);
        push(&mut text, part, |char| climbs && char == '\\');
    }
    Cow::Owned(text.into_bytes())
}

/// Whether a reader that takes `\` as a separator would leave its directory.
fn climbs(part: &[u8]) -> bool {
    let has_root = part.starts_with(b"\\") || part.get(1) == Some(&b':');
    part.contains(&b'\\')
        && (has_root || part.split(|&byte| byte == b'\\').any(|name| name == b".."))
}

/// `bytes` on one line: control characters and what is not UTF-8 as `%XX`.
pub(super) fn one_line(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push(&mut text, bytes, char::is_control);
    text
}

fn push(text: &mut String, bytes: &[u8], escaped: impl Fn(char) -> bool) {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if escaped(char) {
                percent(text, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(char);
            }
        }
        percent(text, chunk.invalid());
    }
}

fn percent(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zip_path_is_text_and_climbs_for_nobody() {
        for (path, expected) in [
            (&b"a/b \"c\"\n.txt"[..], "a/b \"c\"\n.txt"),
            ("日本語/é".as_bytes(), "日本語/é"),
            (b"caf\xe9/x", "caf%E9/x"),
            (b"a\\b", "a\\b"),
            (b"x\xff/..\\..\\run.exe", "x%FF/..%5C..%5Crun.exe"),
            (b"\\windows/a\\b", "%5Cwindows/a\\b"),
            (b"a/x\\..", "a/x%5C.."),
        ] {
            assert_eq!(zip_path(path), expected.as_bytes());
        }
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line(b"a\nb\x1b[31m\xff"), "a%0Ab%1B[31m%FF");
        assert_eq!(one_line("日本語".as_bytes()), "日本語");
    }
}
