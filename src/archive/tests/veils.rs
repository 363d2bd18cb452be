//! Walks that pass over what is hidden.

use std::sync::Arc;

use super::super::{Format, Hidden, Patterns, Place, Walk, WalkError};
use super::finish;
use super::tree::Scratch;

/// How many entries are listed if there may be `limit`, and the archive's tag.
fn listed(scratch: &Scratch, patterns: &[&str], limit: usize) -> Result<(usize, u64), WalkError> {
    let hidden = Hidden::new([Arc::new(Patterns::new(patterns.iter().copied()))]).map(Arc::new);
    let place = Place { volume: Arc::new(scratch.dir()), base: Vec::new(), hidden };
    let walk = Walk::new(&scratch.dir(), &place, Format::Zip, &[String::new()])?;
    let listing = finish(walk.limited(limit))?;
    Ok((listing.len(), listing.tag(Format::Zip)))
}

#[test]
fn what_is_hidden_does_not_count() {
    let scratch = Scratch::new();
    for number in 0..50 {
        scratch.file(format!("{number}.pem"), b"1");
        scratch.file(format!("keys/{number}"), b"1");
    }
    scratch.file("plain", b"1");
    scratch.link("link", "keys/1");
    // Where a link leads is known once it is looked at.
    let (count, tag) = listed(&scratch, &["*.pem", "keys/"], 2).unwrap();
    assert_eq!(count, 1);
    assert!(matches!(listed(&scratch, &["*.pem"], 2), Err(WalkError::TooMany)));
    // The same is listed, and it is another archive.
    let (count, other) = listed(&scratch, &["*.pem", "keys/", "nothing"], 2).unwrap();
    assert!(count == 1 && other != tag);
}

/// A pattern for directories does not hide a file of that name, nor a link.
#[test]
fn a_folder_is_told_from_a_file() {
    let scratch = Scratch::new();
    scratch.file("a/logs", b"1");
    scratch.file("b/logs/inside", b"1");
    scratch.link("c/logs", "../a");
    let (count, _) = listed(&scratch, &["logs/"], 100).unwrap();
    assert_eq!(count, 5, "a, a/logs, b, c, c/logs");
}
