//! One line of the journal: the whole state of one link at one moment.
//!
//! A line is complete in itself and carries a sequence number, so that lines may be lost, repeated
//! or reordered: of all valid lines of a link, the highest number holds. `ARCHITECTURE.md` has the
//! format for those who read it with `less`.

use std::fmt::Write as _;

use super::Key;
use super::entry::Entry;
use super::grant::{FileVersion, Grant};
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
            let client = grant.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
            let running = !grant.streams.is_empty();
            let ended = if running { "-".to_owned() } else { grant.ended.to_string() };
            let Grant { opened, base, charged, sure, .. } = &**grant;
            let (FileVersion { tag, length }, seen) = (grant.file, grant.seen_by_now());
            let acknowledged = grant.acknowledged_by_now();
            let _ = write!(
                line,
                " open {opened} {client} {base} {tag:016x} {length} {charged} {acknowledged} {ended} {sure} {seen}"
            );
        }
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
    let content = unsealed(line)?;
    // Version 1 named no kind, and knew of no servers.
    let (content, old) =
        content.strip_prefix("link ").map_or((content, true), |rest| (rest, false));
    let words = &mut content.split(' ');
    let key = unhex(words.next()?)?;
    let sequence = words.next()?.parse().ok()?;
    let expires = words.next()?.parse().ok()?;
    let resource = unhex(words.next()?)?;
    let server = if old { Key::default() } else { unhex(words.next()?)? };
    let grant = match words.next()? {
        "spent" => None,
        "open" => Some(Box::new(parse_grant(words, old)?)),
        _ => return None,
    };
    let spent = grant.is_none();
    let owned = false;
    Some((
        key,
        Entry { sequence, expires, resource, server, spent, counted: false, owned, grant, skew: 0 },
    ))
}

fn parse_grant<'a>(words: &mut impl Iterator<Item = &'a str>, old: bool) -> Option<Grant> {
    let opened = words.next()?.parse().ok()?;
    let client = match words.next()? {
        "-" => None,
        text => Some(ClientKey::parse(text)?),
    };
    let base = words.next()?.parse().ok()?;
    let tag = u64::from_str_radix(words.next()?, 16).ok()?;
    let length = words.next()?.parse().ok()?;
    let file = FileVersion { tag, length };
    let charged = words.next()?.parse().ok()?;
    let mut grant = Grant { opened, client, base, file, charged, ..Grant::default() };
    // Of version 1: its client had at most this much, and a stream may have run to the last.
    (grant.acknowledged, grant.ended) = (charged, u64::MAX);
    if !old {
        grant.acknowledged = words.next()?.parse().ok()?;
        grant.ended = words.next()?.parse().unwrap_or(u64::MAX);
        grant.sure = Spans::parse(words.next()?)?;
    }
    // Version 1 called bytes delivered after two seconds of silence: they have been seen.
    grant.seen = Spans::parse(words.next()?)?;
    Some(grant)
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
