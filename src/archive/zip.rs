//! The records of a zip (PKWARE APPNOTE 6.3): each a function of a member, so that their lengths are
//! known before anything is read.
//!
//! Content is DEFLATE in stored blocks, which has a length known beforehand and an end of its own:
//! readers that stream (Java's, for one) refuse a stored entry with a data descriptor.

use super::listing::{Kind, Member};

/// Most bytes in one stored block (RFC 1951 section 3.2.4).
const BLOCK: u64 = 65_535;
/// Bytes before each block's data: its kind, its length, and the length's complement.
const FRAME: u64 = 5;
/// From this value on a 4-byte field refers to the ZIP64 extra field.
const MARK: u64 = 0xFFFF_FFFF;

const DESCRIPTOR_FOLLOWS: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
const DEFLATE: u16 = 8;
const MADE_BY_UNIX: u16 = 3 << 8;
/// Versions needed to extract: folders and DEFLATE, ZIP64.
const PLAIN: u16 = 20;
const ZIP64: u16 = 45;

/// Little-endian fields, one after the other.
struct Fields(Vec<u8>);

impl Fields {
    fn two(mut self, value: u16) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn four(mut self, value: u32) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn eight(mut self, value: u64) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Fields {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `value`, or the mark that sends the reader to the ZIP64 field.
    fn four_or_mark(self, value: u64) -> Fields {
        self.four(value.min(MARK) as u32)
    }
}

/// Bytes of a file's content in the archive.
pub(super) fn content_length(size: u64) -> u64 {
    size + FRAME * size.div_ceil(BLOCK).max(1)
}

/// What stands at a position of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These bytes from the given one on.
    Frame([u8; FRAME as usize], usize),
    /// So many bytes of the file, from this offset on.
    Data { offset: u64, length: u64 },
}

/// What stands at `position` of the content of a file of `size` bytes.
pub(super) fn step(size: u64, position: u64) -> Step {
    let (block, within) = (position / (BLOCK + FRAME), position % (BLOCK + FRAME));
    let start = block * BLOCK;
    let length = BLOCK.min(size - start);
    if within >= FRAME {
        let within = within - FRAME;
        return Step::Data { offset: start + within, length: length - within };
    }
    let last = u8::from(start + length == size);
    let [low, high] = (length as u16).to_le_bytes();
    Step::Frame([last, low, high, !low, !high], within as usize)
}

/// Whether sizes exceed four bytes (section 4.3.9.2).
fn is_large(size: u64) -> bool {
    content_length(size) > MARK
}

/// Bytes that stand after the content of a file of `size` bytes.
pub(super) fn descriptor_length(size: u64) -> u64 {
    if is_large(size) { 24 } else { 16 }
}

fn path(member: &Member<'_>) -> Vec<u8> {
    let mut path = member.path.to_vec();
    if member.kind == Kind::Directory {
        path.push(b'/');
    }
    path
}

fn flags(member: &Member<'_>) -> u16 {
    if member.kind == Kind::File { UTF8 | DESCRIPTOR_FOLLOWS } else { UTF8 }
}

fn method(member: &Member<'_>) -> u16 {
    if member.kind == Kind::File { DEFLATE } else { 0 }
}

/// The extended timestamp (extrafld.txt, 0x5455): UTC, if it fits. Java's `jar` ends at a negative
/// one.
fn timestamp(member: &Member<'_>) -> Vec<u8> {
    let Ok(seconds) = i32::try_from(member.seconds.max(0)) else { return Vec::new() };
    Fields(Vec::new()).two(0x5455).two(5).bytes(&[1]).bytes(&seconds.to_le_bytes()).0
}

/// What stands before a member's content (section 4.3.7). Sizes and CRC follow the content.
pub(super) fn local_header(member: &Member<'_>) -> Vec<u8> {
    let large = is_large(member.size);
    let mut extra = timestamp(member);
    if large {
        // Says that the sizes after the content have eight bytes each.
        extra = Fields(extra).two(1).two(16).eight(0).eight(0).0;
    }
    let path = path(member);
    let size = if large { MARK } else { 0 };
    Fields(Vec::with_capacity(30 + path.len() + extra.len()))
        .four(0x0403_4b50)
        .two(if large { ZIP64 } else { PLAIN })
        .two(flags(member))
        .two(method(member))
        .four(dos_time(member.seconds))
        .four(0)
        .four_or_mark(size)
        .four_or_mark(size)
        .two(path.len() as u16)
        .two(extra.len() as u16)
        .bytes(&path)
        .bytes(&extra)
        .0
}

/// What stands after a file's content (section 4.3.9).
pub(super) fn descriptor(member: &Member<'_>, crc: u32) -> Vec<u8> {
    let fields = Fields(Vec::with_capacity(24)).four(0x0807_4b50).four(crc);
    let compressed = content_length(member.size);
    if is_large(member.size) {
        fields.eight(compressed).eight(member.size).0
    } else {
        fields.four(compressed as u32).four(member.size as u32).0
    }
}

/// A member's record in the central directory (section 4.3.12); its local header is at `offset`.
pub(super) fn record(member: &Member<'_>, crc: u32, offset: u64) -> Vec<u8> {
    let compressed = if member.kind == Kind::File { content_length(member.size) } else { 0 };
    let wide: Vec<u8> = [member.size, compressed, offset]
        .into_iter()
        .filter(|&value| value >= MARK)
        .flat_map(u64::to_le_bytes)
        .collect();
    let mut extra = timestamp(member);
    if !wide.is_empty() {
        extra = Fields(extra).two(1).two(wide.len() as u16).bytes(&wide).0;
    }
    let path = path(member);
    let is_directory = u32::from(member.kind == Kind::Directory);
    Fields(Vec::with_capacity(46 + path.len() + extra.len()))
        .four(0x0201_4b50)
        .two(MADE_BY_UNIX | ZIP64)
        .two(if wide.is_empty() { PLAIN } else { ZIP64 })
        .two(flags(member))
        .two(method(member))
        .four(dos_time(member.seconds))
        .four(crc)
        .four_or_mark(compressed)
        .four_or_mark(member.size)
        .two(path.len() as u16)
        .two(extra.len() as u16)
        .two(0) // comment
        .two(0) // disk
        .two(0) // internal attributes
        .four(u32::from(member.stored_mode()) << 16 | is_directory << 4)
        .four_or_mark(offset)
        .bytes(&path)
        .bytes(&extra)
        .0
}

/// What stands after the central directory, which has `count` records in `length` bytes from
/// `start` on (sections 4.3.14 to 4.3.16).
pub(super) fn end(count: u64, length: u64, start: u64) -> Vec<u8> {
    let mut fields = Fields(Vec::with_capacity(98));
    if count >= 0xFFFF || length >= MARK || start >= MARK {
        fields = fields
            .four(0x0606_4b50)
            .eight(44) // bytes of this record after this field
            .two(MADE_BY_UNIX | ZIP64)
            .two(ZIP64)
            .four(0)
            .four(0)
            .eight(count)
            .eight(count)
            .eight(length)
            .eight(start)
            .four(0x0706_4b50)
            .four(0)
            .eight(start + length)
            .four(1);
    }
    let short_count = count.min(0xFFFF) as u16;
    fields
        .four(0x0605_4b50)
        .two(0)
        .two(0)
        .two(short_count)
        .two(short_count)
        .four_or_mark(length)
        .four_or_mark(start)
        .two(0)
        .0
}

/// MS-DOS date and time, in UTC, time in the lower half; the nearest that it can say.
fn dos_time(seconds: i64) -> u32 {
    const FIRST: i64 = 315_532_800; // 1980-01-01 00:00:00
    const LAST: i64 = 4_354_819_199; // 2107-12-31 23:59:59
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, second) = ((seconds / 86_400) as u32, (seconds % 86_400) as u32);
    // Days since 0000-03-01, in the Gregorian calendar's eras of 400 years: with the leap day at
    // the year's end, a month's first day is a linear function of its number.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let date = (year - 1980) << 9 | month << 5 | day;
    date << 16 | (second / 3_600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_are_utc_and_clamped() {
        let parts = |time: u32| {
            let (date, time) = (time >> 16, time & 0xFFFF);
            [
                1980 + (date >> 9),
                date >> 5 & 15,
                date & 31,
                time >> 11,
                time >> 5 & 63,
                (time & 31) * 2,
            ]
        };
        assert_eq!(parts(dos_time(1_709_210_096)), [2024, 2, 29, 12, 34, 56]);
        assert_eq!(parts(dos_time(951_868_800)), [2000, 3, 1, 0, 0, 0]);
        assert_eq!(parts(dos_time(4_133_980_799)), [2100, 12, 31, 23, 59, 58]);
        assert_eq!(parts(dos_time(-1)), [1980, 1, 1, 0, 0, 0]);
        assert_eq!(parts(dos_time(i64::MAX)), [2107, 12, 31, 23, 59, 58]);
    }

    #[test]
    fn stored_blocks_cover_a_file_once() {
        for size in [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071] {
            let (mut position, mut covered, mut ended) = (0, 0, false);
            while position < content_length(size) {
                assert!(!ended || covered < size, "data after the last block of {size}");
                match step(size, position) {
                    Step::Frame(bytes, from) => {
                        assert_eq!(from, 0);
                        ended = bytes[0] == 1;
                        position += FRAME;
                    }
                    Step::Data { offset, length } => {
                        assert_eq!(offset, covered);
                        covered += length;
                        position += length;
                    }
                }
            }
            assert_eq!((position, covered, ended), (content_length(size), size, true));
        }
    }

    #[test]
    fn zip64_begins_where_four_bytes_end() {
        let file = |size| Member {
            path: b"f",
            kind: Kind::File,
            mode: 0o100_644,
            size,
            seconds: 0,
            nanoseconds: 0,
            target: b"",
        };
        // 65532 whole blocks and 10 bytes: 0xFFFF_FFFF bytes of content exactly.
        let edge = 65_532 * BLOCK + 10;
        assert_eq!(content_length(edge), MARK);
        assert_eq!(local_header(&file(edge)).len() + 20, local_header(&file(edge + 1)).len());
        for (size, length) in [(edge, 16), (edge + 1, 24)] {
            assert_eq!(descriptor(&file(size), 0).len(), length);
            assert_eq!(descriptor_length(size), length as u64);
        }
        let plain = record(&file(edge - 1), 0, 0).len();
        assert_eq!(record(&file(edge), 0, 0).len(), plain + 12);
        assert_eq!(record(&file(5 << 30), 0, MARK - 1).len(), plain + 20);
        assert_eq!(record(&file(5 << 30), 0, MARK).len(), plain + 28);
        assert_eq!(end(0xFFFE, MARK - 1, MARK - 1).len(), 22);
        for large in [end(0xFFFF, 0, 0), end(0, MARK, 0), end(0, 0, MARK)] {
            assert_eq!(large.len(), 98);
        }
    }
}
