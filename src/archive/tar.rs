//! The headers of a tar: ustar, with pax records (POSIX.1-2008, pax) for what it cannot say: long
//! paths, sizes from 8 GiB on, times that are not whole seconds.
//!
//! Owners are not told: who unpacks the archive owns what is in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tar::{EntryType, Header};

use super::listing::{Kind, Member};

/// Headers and contents come in blocks of this many bytes.
pub(super) const BLOCK: u64 = 512;

/// What stands at the end: two blocks of zeros.
pub(super) const END: u64 = 2 * BLOCK;

/// The largest number that eleven octal digits say.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// The first second that is told, in 1901, and the last one of the year 9999.
const FIRST: i64 = i32::MIN as i64;
const LAST: i64 = 253_402_300_799;

/// What stands before a member's content: perhaps pax records, then its header.
pub(super) fn headers(member: &Member<'_>) -> Vec<u8> {
    let mut path = Vec::with_capacity(member.path.len() + 3);
    // bsdtar takes these for a root or a drive on any system, and cuts them off.
    if member.path.starts_with(b"\\") || member.path.get(1) == Some(&b':') {
        path.extend_from_slice(b"./");
    }
    path.extend_from_slice(member.path);
    if member.kind == Kind::Directory {
        path.push(b'/');
    }
    let mut header = Header::new_ustar();
    let mut records = Vec::new();
    set_path(&mut header, &path, &mut records);
    if member.kind == Kind::Link && header.set_link_name_literal(member.target).is_err() {
        text_record(&mut records, "linkpath", member.target);
        // What fits of it, as every packer has it: bsdtar makes a file of a link without one.
        header.as_old_mut().linkname = beginning(member.target);
    }
    if member.size > OCTAL_MAX {
        record(&mut records, "size", member.size.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = time(member);
    let plain = u64::try_from(seconds).unwrap_or(0).min(OCTAL_MAX);
    if i64::try_from(plain) != Ok(seconds) || nanoseconds > 0 {
        record(&mut records, "mtime", decimal(seconds, nanoseconds).as_bytes());
    }
    header.set_entry_type(match member.kind {
        Kind::File => EntryType::Regular,
        Kind::Directory => EntryType::Directory,
        Kind::Link => EntryType::Symlink,
    });
    header.set_size(member.size);
    header.set_mtime(plain);
    finish(&mut header, u32::from(member.stored_mode()) & 0o7777);
    let mut bytes = extended(&records);
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// Zeros from the end of `size` bytes to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

fn set_path(header: &mut Header, path: &[u8], records: &mut Vec<u8>) {
    // The crate drops a leading `./`.
    if !path.starts_with(b"./") && header.set_path(OsStr::from_bytes(path)).is_ok() {
        return;
    }
    text_record(records, "path", path);
    // For readers that know no pax records; a slash at its end would make it a directory.
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.prefix = [0; 155];
        ustar.name = beginning(path);
        if let [.., last @ b'/'] = &mut ustar.name {
            *last = b'_';
        }
    }
}

/// As much of `bytes` as a field takes.
fn beginning<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    let mut field = [0; SIZE];
    let length = bytes.len().min(SIZE);
    field[..length].copy_from_slice(&bytes[..length]);
    field
}

fn finish(header: &mut Header, mode: u32) {
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
}

/// A header of its own for `records`, if there are any.
fn extended(records: &[u8]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut header = Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        let name = b"././@PaxHeader";
        ustar.name[..name.len()].copy_from_slice(name);
    }
    header.set_entry_type(EntryType::XHeader);
    header.set_size(records.len() as u64);
    header.set_mtime(0);
    finish(&mut header, 0o644);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len() + padding(records.len() as u64) as usize, 0);
    bytes
}

/// A record whose value is text, or says that it is not.
fn text_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    if std::str::from_utf8(value).is_err() {
        record(records, "hdrcharset", b"BINARY");
    }
    record(records, key, value);
}

/// `LENGTH KEY=VALUE\n`, in which the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The time of `member` as all readers understand it. Python's stops at a year that its C library
/// lacks, 7z takes what is centuries away for now, and bsdtar adds a fraction to what is negative.
fn time(member: &Member<'_>) -> (i64, u32) {
    let seconds = member.seconds.clamp(FIRST, LAST);
    (seconds, if seconds == member.seconds && seconds >= 0 { member.nanoseconds } else { 0 })
}

/// `seconds`, and the `nanoseconds` after them.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    let text = format!("{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        for (length, expected) in
            [(1, "6 a="), (3, "8 a="), (4, "9 a="), (5, "11 a="), (94, "101 a=")]
        {
            let mut records = Vec::new();
            record(&mut records, "a", &vec![b'x'; length]);
            assert!(records.starts_with(expected.as_bytes()), "{length}");
            let told = expected.split(' ').next().unwrap().parse();
            assert_eq!(Ok(records.len()), told);
        }
    }

    #[test]
    fn times_are_decimal() {
        for (seconds, nanoseconds, expected) in
            [(5, 0, "5"), (100, 120_000_000, "100.12"), (0, 1, "0.000000001"), (-10, 0, "-10")]
        {
            assert_eq!(decimal(seconds, nanoseconds), expected);
        }
    }
}
