//! One line of the journal: the whole state of one link at one moment.
//!
//! A line is complete in itself and carries a sequence number, so that lines may be lost, repeated
//! or reordered: of all valid lines of a link, the highest number holds. `ARCHITECTURE.md` has the
//! format for those who read it with `less`.

use std::fmt::Write as _;

use super::Key;
use super::entry::Entry;
use super::grant::{Grant, RUNNING};
use crate::net::address::ClientKey;
use crate::replay::spans::Spans;

/// The line for `entry`, line break included.
pub(super) fn format(key: &Key, entry: &Entry) -> String {
    let mut line = String::with_capacity(256);
    let Entry { sequence, expires, resource, server, spent, grant, .. } = entry;
    let (key, resource, server) = (hex(key), hex(resource), hex(server));
    let _ = write!(line, "link {key} {sequence} {expires} {resource} {server}");
    match grant {
        Some(grant) if !spent => {
            let former = grant.former.iter().map(|mark| format!("~{}", hex(mark)));
            let holders = grant.holders.iter().map(ToString::to_string).chain(former);
            let holders: Vec<String> = holders.collect();
            let holders = if holders.is_empty() { "-".to_owned() } else { holders.join(",") };
            let ended = if grant.runs() { "-".to_owned() } else { grant.ended.to_string() };
            let Grant { opened, first, greatest, tag, length, charged, .. } = &**grant;
            let (mixed, broke) = (u8::from(grant.mixed), u8::from(grant.broke));
            let (acknowledged, delivered) = (grant.acknowledged_by_now(), grant.delivered_by_now());
            let _ = write!(
                line,
                " open {opened} {holders} {first} {greatest} {tag:016x} {length} {mixed} {charged} {acknowledged} {ended} {broke} {delivered}"
            );
        }
        None if !spent => line.push_str(" elsewhere"),
        _ => line.push_str(" spent"),
    }
    seal(line)
}

/// `content` with its checksum and a line break.
pub(super) fn seal(mut content: String) -> String {
    let sum = checksum(&content);
    let _ = writeln!(content, " *{sum:08x}");
    content
}

/// A line without its line break and its checksum; `None` if it is torn.
pub(super) fn unsealed(line: &str) -> Option<&str> {
    let (content, sum) = line.rsplit_once(" *")?;
    let whole = u32::from_str_radix(sum, 16).ok()? == checksum(content) && sum.len() == 8;
    whole.then_some(content)
}

/// Reads a line without its line break; `None` if it is torn, or of a kind that is not known.
pub(super) fn parse(line: &str) -> Option<(Key, Entry)> {
    let words = &mut unsealed(line)?.strip_prefix("link ")?.split(' ');
    let key = unhex(words.next()?)?;
    let (sequence, expires) = (number(words)?, number(words)?);
    let (resource, server) = (unhex(words.next()?)?, unhex(words.next()?)?);
    let state = words.next()?;
    let grant = match state {
        "spent" | "elsewhere" => None,
        "open" => Some(Box::new(parse_grant(words)?)),
        _ => return None,
    };
    let entry = Entry {
        sequence,
        written: sequence,
        origin: sequence,
        expires,
        resource,
        server,
        spent: state == "spent",
        owned: false,
        told: None,
        grant,
        skew: 0,
    };
    Some((key, entry))
}

fn parse_grant<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Grant> {
    // In the order in which they are written.
    let opened = number(words)?;
    let holders = words.next()?.split(',').filter(|text| *text != "-");
    let (former, holders): (Vec<_>, Vec<_>) = holders.partition(|text| text.starts_with('~'));
    Some(Grant {
        opened,
        holders: holders.into_iter().map(ClientKey::parse).collect::<Option<_>>()?,
        former: former.into_iter().map(|text| unhex(&text[1..])).collect::<Option<_>>()?,
        first: number(words)?,
        greatest: number(words)?,
        tag: u64::from_str_radix(words.next()?, 16).ok()?,
        length: number(words)?,
        mixed: number(words)? == 1,
        charged: number(words)?,
        acknowledged: number(words)?,
        ended: match words.next()? {
            "-" => RUNNING,
            text => text.parse().ok()?,
        },
        broke: number(words)? == 1,
        delivered: Spans::parse(words.next()?)?,
        ..Grant::default()
    })
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    words.next()?.parse().ok()
}

fn checksum(content: &str) -> u32 {
    let hash = hmac_sha256::Hash::hash(content.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

pub(super) fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes))?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::replay::grant::EndedBy;
    use crate::replay::tests::live;

    const LENGTH: u64 = 1000;

    fn open_entry() -> Entry {
        let holders = ["2001:db8::1", "192.0.2.1"].map(|text| ClientKey::of(text.parse().unwrap()));
        let mut grant = Grant { opened: 100, holders: holders.to_vec(), ..Grant::default() };
        for (start, by) in [(10, EndedBy::Client), (30, EndedBy::Other), (50, EndedBy::Reset)] {
            let live = Arc::new(live(start..start + 10, 0xabc));
            grant.start(&live, LENGTH, live.entry.began);
            live.note_acknowledged(10, live.entry.began);
            grant.finish(&live, by, 100);
        }
        Entry {
            sequence: 3,
            written: 3,
            origin: 3,
            expires: 900,
            resource: [7; 16],
            server: [8; 16],
            spent: false,
            owned: false,
            told: None,
            grant: Some(Box::new(grant)),
            skew: 0,
        }
    }

    fn again(line: &str) -> (Key, Entry) {
        parse(line.trim_end()).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let line = format(&[9; 16], &open_entry());
        assert!(line.contains(" 2001:db8::/64,192.0.2.1 1000 1000 "), "{line}");
        assert!(line.contains(" 100 1 10-20,30-40,50-59 *"), "{line}");
        let (key, entry) = again(&line);
        assert_eq!((key, format(&key, &entry)), ([9; 16], line));
        let mut inherited = open_entry();
        inherited.grant.as_mut().unwrap().former = vec![[0xab; 16], [1; 16]];
        let line = format(&[9; 16], &inherited);
        let former = format!(",192.0.2.1,~{},~{} 1000", "ab".repeat(16), "01".repeat(16));
        assert!(line.contains(&former), "{line}");
        assert_eq!(format(&[9; 16], &again(&line).1), line);
        let mut lost = open_entry();
        lost.grant = None;
        let line = format(&[9; 16], &lost);
        assert!(line.contains(" elsewhere *"), "{line}");
        assert!(!again(&line).1.spent);
        let mut spent = open_entry();
        spent.spend();
        let line = format(&[9; 16], &spent);
        assert!(line.contains(" spent *"), "{line}");
        assert_eq!(format(&[9; 16], &again(&line).1), line);
    }

    #[test]
    fn a_running_stream_is_written_as_a_crash_would_leave_it() {
        let mut entry = open_entry();
        let live = Arc::new(live(500..800, 0xabc));
        entry.grant.as_mut().unwrap().start(&live, LENGTH, live.entry.began);
        live.note_sent(300);
        live.note_acknowledged(200, live.entry.began);
        let line = format(&[9; 16], &entry);
        assert!(line.contains(" - 1 10-20,30-40,50-59,500-700 *"), "{line}");
        let grant = again(&line).1.grant.unwrap();
        assert!(grant.runs() && grant.streams.is_empty());
        live.note_acknowledged(300, live.entry.began);
        assert!(format(&[9; 16], &entry).contains(",500-799 *"), "short of the last byte");
    }

    #[test]
    fn a_torn_or_changed_line_is_none() {
        let line = format(&[9; 16], &open_entry());
        let line = line.trim_end();
        for end in 0..line.len() {
            assert!(parse(&line[..end]).is_none(), "{}", &line[..end]);
        }
        for position in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[position] ^= 1;
            assert!(parse(&String::from_utf8_lossy(&bytes)).is_none(), "byte {position}");
        }
    }
}
