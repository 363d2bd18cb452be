//! One line of the journal: the whole state of one link at one moment.
//!
//! A line is complete in itself and carries a sequence number, so that lines may be lost, repeated
//! or reordered: of all sound lines of a link, the highest number holds. `ARCHITECTURE.md` has the
//! format for those who read it with `less`.

use std::fmt::Write as _;

use super::Key;
use super::entry::{Entry, State};
use super::grant::Grant;
use crate::net::address::ClientKey;
use crate::replay::spans::{Doubts, Spans};

/// The line for `entry`, line break included.
pub(super) fn format(key: &Key, entry: &Entry) -> String {
    let mut line = String::with_capacity(192);
    line.push_str(&hex(key));
    let _ = write!(line, " {} {} {}", entry.sequence, entry.expires, hex(&entry.resource));
    match &entry.state {
        State::Open(grant) if !entry.spent => {
            let client = grant.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
            let _ = write!(
                line,
                " open {} {client} {} {:016x} {} {} {} {}",
                grant.opened,
                grant.base,
                grant.tag,
                grant.length,
                grant.charged,
                grant.delivered,
                grant.doubtful_after_a_crash(),
            );
        }
        _ => line.push_str(" spent"),
    }
    let sum = checksum(&line);
    let _ = writeln!(line, " *{sum:08x}");
    line
}

/// Reads a line without its line break; `None` where it is torn or not one of ours.
pub(super) fn parse(line: &str) -> Option<(Key, Entry)> {
    let (content, sum) = line.rsplit_once(" *")?;
    if u32::from_str_radix(sum, 16).ok()? != checksum(content) || sum.len() != 8 {
        return None;
    }
    let mut words = content.split(' ');
    let key = unhex(words.next()?)?;
    let sequence = words.next()?.parse().ok()?;
    let expires = words.next()?.parse().ok()?;
    let resource = unhex(words.next()?)?;
    let (state, spent) = match words.next()? {
        "spent" => (State::Closed, true),
        "open" => (State::Open(Box::new(parse_grant(&mut words)?)), false),
        _ => return None,
    };
    Some((key, Entry { sequence, expires, resource, spent, state }))
}

fn parse_grant<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Grant> {
    let opened = words.next()?.parse().ok()?;
    let client = match words.next()? {
        "-" => None,
        text => Some(ClientKey::parse(text)?),
    };
    let base = words.next()?.parse().ok()?;
    let tag = u64::from_str_radix(words.next()?, 16).ok()?;
    let length = words.next()?.parse().ok()?;
    let mut grant = Grant::open(opened, client, tag, length);
    grant.base = base;
    grant.charged = words.next()?.parse().ok()?;
    grant.delivered = Spans::parse(words.next()?)?;
    grant.doubtful = Doubts::parse(words.next()?)?;
    Some(grant)
}

fn checksum(content: &str) -> u32 {
    let hash = hmac_sha256::Hash::hash(content.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_entry() -> Entry {
        let client = ClientKey::of("2001:db8::1".parse().unwrap());
        let mut grant = Grant::open(100, Some(client), 0xabc, 1000);
        grant.charged = 77;
        grant.delivered.insert(10..20);
        grant.delivered.insert(30..40);
        grant.doubtful.insert(50..60);
        grant.doubtful.insert(60..70);
        Entry {
            sequence: 3,
            expires: 900,
            resource: [7; 16],
            spent: false,
            state: State::Open(Box::new(grant)),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let spent =
            Entry { sequence: 1, expires: 5, resource: [0; 16], spent: true, state: State::Closed };
        for entry in [open_entry(), spent] {
            let line = format(&[9; 16], &entry);
            assert_eq!(parse(line.trim_end()), Some(([9; 16], entry)), "{line}");
        }
    }

    #[test]
    fn a_torn_or_changed_line_is_none() {
        let line = format(&[9; 16], &open_entry());
        let line = line.trim_end();
        for end in 0..line.len() {
            assert_eq!(parse(&line[..end]), None, "{}", &line[..end]);
        }
        for position in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[position] ^= 1;
            assert_eq!(parse(&String::from_utf8_lossy(&bytes)), None, "byte {position}");
        }
    }
}
