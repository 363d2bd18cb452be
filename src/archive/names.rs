//! Names that are only bytes to Linux, written for readers that want more of them: a zip's members,
//! the systems that they are unpacked on, and the lines of the file that lists what was left out.

use std::borrow::Cow;

use hmac_sha256::Hash;
use unicode_normalization::char::decompose_canonical;

/// Longest name that the usual file systems take, in bytes.
const MAX_NAME: usize = 255;

/// A name's end from its last dot on is kept when it is shortened, up to this many bytes.
const MAX_EXTENSION: usize = 32;

/// Names that Windows keeps for devices, with any extension; COM and LPT also take a digit.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The name of a file or directory as a zip carries it; those that share it are told apart by their
/// `number`, 0 being the one that needs none.
///
/// A zip's names are UTF-8 (APPNOTE appendix D), and one bad name makes some readers refuse the whole
/// archive: Java's if it is not UTF-8, libzip if it has a control character, yauzl if it has a
/// backslash or starts like a drive. A file under a slightly changed name is worth more than none.
pub(super) fn zip_name(name: &[u8], number: u32) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| !is_escaped(char::from(*byte)) || !byte.is_ascii();
    let is_kept = name.iter().all(is_plain) && std::str::from_utf8(name).is_ok();
    if is_kept && name.len() <= MAX_NAME && number == 0 {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 8);
    push(&mut text, name, is_escaped);
    let mut end = if number > 0 { format!(" ({number})") } else { String::new() };
    let (stem, extension) = text.split_at(extension_start(&text));
    end.push_str(extension);
    let is_long = stem.len() + end.len() > MAX_NAME;
    let stem = if is_long { shortened(stem, name, MAX_NAME - end.len()) } else { stem.to_owned() };
    Cow::Owned((stem + &end).into_bytes())
}

fn is_escaped(char: char) -> bool {
    char.is_ascii_control() || matches!(char, '\\' | ':')
}

/// Where the extension of `name` begins; its end if there is none.
fn extension_start(name: &str) -> usize {
    name.rfind('.')
        .filter(|&dot| dot > 0 && name.len() - dot <= MAX_EXTENSION)
        .unwrap_or(name.len())
}

/// The beginning of `stem` and a hash of the `name` that it was, in `length` bytes.
fn shortened(stem: &str, name: &[u8], length: usize) -> String {
    let hash = Hash::hash(name);
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let mark = format!("~{hash:08x}");
    let kept = (0..=length.saturating_sub(mark.len())).rev().find(|&at| stem.is_char_boundary(at));
    format!("{}{mark}", &stem[..kept.unwrap_or(0)])
}

/// Returns true if Windows has no such name, and changes it or refuses the file.
pub(super) fn is_barred_by_windows(name: &[u8]) -> bool {
    let is_bad = |byte: &u8| byte.is_ascii_control() || b"\\:*?\"<>|".contains(byte);
    name.ends_with(b".")
        || name.ends_with(b" ")
        || name.iter().any(is_bad)
        || name.first().is_some_and(|byte| b"cpanlCPANL".contains(byte)) && is_device(name)
}

fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|&byte| byte == b'.').next().unwrap_or(name);
    let stem = String::from_utf8_lossy(stem).trim_end().to_ascii_uppercase();
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let is_port = |rest: &str| {
        let mut chars = rest.chars();
        // Superscripts are digits here.
        chars.next().is_some_and(|char| "0123456789\u{b9}\u{b2}\u{b3}".contains(char))
            && chars.next().is_none()
    };
    DEVICES.contains(&&*stem) || port.is_some_and(is_port)
}

/// Writes `name` into `folded` as disks of Windows and macOS compare names: without case, and with
/// accents apart from their letters.
pub(super) fn fold(name: &[u8], folded: &mut String) {
    folded.clear();
    for chunk in name.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_ascii() {
                folded.push(char.to_ascii_lowercase());
            } else {
                decompose_canonical(char, |part| folded.extend(part.to_lowercase()));
            }
        }
        // As characters that no text has: the last private ones.
        let private = |&byte: &u8| char::from_u32(0x10_FF00 | u32::from(byte));
        folded.extend(chunk.invalid().iter().filter_map(private));
    }
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
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
        text.extend(['%', digit(byte >> 4), digit(*byte)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip(name: &[u8], number: u32) -> String {
        String::from_utf8(zip_name(name, number).into_owned()).unwrap()
    }

    #[test]
    fn a_zip_has_names_that_every_reader_takes() {
        for (name, expected) in [
            (&b"a \"c\".txt"[..], "a \"c\".txt"),
            ("日本語".as_bytes(), "日本語"),
            (b"caf\xe9", "caf%E9"),
            (b"a\x01b\tc\x7f\n", "a%01b%09c%7F%0A"),
            (b"..\\..\\run.exe", "..%5C..%5Crun.exe"),
            (b"12:00.log", "12%3A00.log"),
            ("\u{85}".as_bytes(), "\u{85}"),
            (b"50%", "50%"),
        ] {
            assert_eq!(zip(name, 0), expected);
        }
        assert!(matches!(zip_name(b"plain", 0), Cow::Borrowed(b"plain")));
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        for (name, expected) in [
            (&b"caf\xe9"[..], "caf%E9 (2)"),
            (b"caf\xe9.tar.gz", "caf%E9.tar (2).gz"),
            (b".caf\xe9", ".caf%E9 (2)"),
            (
                b"a.sentence that is longer than an extension \xff",
                "a.sentence that is longer than an extension %FF (2)",
            ),
        ] {
            assert_eq!(zip(name, 2), expected);
        }
    }

    #[test]
    fn a_long_name_is_cut_and_told_apart_by_a_hash() {
        let wide = |letters: usize, end: &[u8]| [&b"\xe9".repeat(letters), end].concat();
        assert_eq!(zip(&wide(85, b""), 0), "%E9".repeat(85));
        let names = [wide(86, b""), wide(87, b""), wide(86, b".jar"), "é".repeat(127).into_bytes()];
        let mut seen = Vec::new();
        for name in &names[..3] {
            for number in [0, 2, 200_000] {
                let text = zip(name, number);
                assert!(text.len() <= MAX_NAME && text.starts_with("%E9%E9") && text.contains('~'));
                assert_eq!(text.ends_with(".jar"), name.ends_with(b".jar"), "{text}");
                seen.push(text);
            }
        }
        let before = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), before);
        assert_eq!(zip(&names[3], 0).as_bytes(), names[3]);
        assert!(zip(&names[3], 2).ends_with(" (2)"));
    }

    #[test]
    fn windows_bars_devices_ends_and_signs() {
        for name in [
            "con",
            "Aux.txt",
            "COM1",
            "lpt9.tar.gz",
            "com²",
            "nul ",
            "conin$",
            "a.",
            "a ",
            "a?",
            "<",
        ] {
            assert!(is_barred_by_windows(name.as_bytes()), "{name}");
        }
        for name in ["console", "com", "com10", "lpt", "a.b", " a", "nul-", "aux_"] {
            assert!(!is_barred_by_windows(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_fold_as_disks_compare_them() {
        let folded = |name: &[u8]| {
            let mut text = String::new();
            fold(name, &mut text);
            text
        };
        for (one, other) in [
            ("World", "wORLD"),
            ("é", "E\u{301}"),
            ("Й", "и\u{306}"),
            ("한", "\u{1112}\u{1161}\u{11ab}"),
        ] {
            assert_eq!(folded(one.as_bytes()), folded(other.as_bytes()), "{one}");
        }
        assert_ne!(folded(b"e"), folded("é".as_bytes()));
        assert_ne!(folded(b"\xe9"), folded(b"\xc9"));
        assert_ne!(folded(b"\xe9"), folded("é".as_bytes()));
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line(b"a\nb\x1b[31m\xff"), "a%0Ab%1B[31m%FF");
        assert_eq!(one_line("日本語".as_bytes()), "日本語");
    }
}
