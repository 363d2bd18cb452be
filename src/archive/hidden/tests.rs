//! Paths and where they lead, links, and walks that pass over what is hidden.

use std::fs::File;

use std::time::{Duration, Instant};

use super::super::tests::tree::Scratch;
use super::super::{Format, Walk, WalkError};
use super::*;

fn hidden(patterns: &[&str]) -> Arc<Hidden> {
    let list = Arc::new(Patterns::new(patterns.iter().copied()));
    Arc::new(Hidden::new([list]).unwrap())
}

#[test]
fn what_one_list_hides_no_other_shows() {
    let list = |lines: &[&str]| Arc::new(Patterns::new(lines.iter().copied()));
    let both = Hidden::new([list(&["*.pem"]), list(&["!*.pem", "logs/"])]).unwrap();
    assert!(both.hides(b"a.pem", false) && both.hides(b"logs/a", false));
    assert!(!both.hides(b"a", false));
    assert_eq!(Hidden::new([list(&[]), list(&["!a", "# b", ""])]).map(drop), None);
    let digest = |lists: &[&[&str]]| Hidden::new(lists.iter().map(|l| list(l))).unwrap().digest();
    assert_ne!(digest(&[&["a", "b"]]), digest(&[&["a"], &["b"]]));
    assert_ne!(digest(&[&["a", "b"]]), digest(&[&["ab"]]));
    assert_eq!(digest(&[&["a"]]), digest(&[&[], &["a"]]));
}

#[test]
fn a_path_is_where_it_leads_with_and_without_proc() {
    let scratch = Scratch::new();
    scratch.file("a/b/plain", b"1");
    scratch.link("link", "a/b");
    scratch.link("a/up", "../link/plain");
    scratch.link("home", "/home/container/a/up");
    scratch.link("loop", "loop");
    scratch.link("out", "../../..");
    let volume = scratch.dir();
    for (asked, real) in [
        ("a/b/plain", "a/b/plain"),
        ("/a//./b/../b/plain", "a/b/plain"),
        ("link/plain", "a/b/plain"),
        ("a/up", "a/b/plain"),
        ("link/../up", "a/b/plain"),
        ("", ""),
        ("link", "a/b"),
    ] {
        let opened = File::open(scratch.tree().join(asked.trim_start_matches('/'))).unwrap();
        let (asked, real) = (asked.as_bytes(), real.as_bytes());
        assert_eq!(told_path(&volume, opened.as_fd()).as_deref(), Some(real));
        assert_eq!(resolve(&volume, b"", asked).as_deref(), Some(real));
        assert_eq!(real_path(&volume, asked, opened.as_fd()).as_deref(), Some(real));
    }
    let at = |path: &str| resolve(&volume, b"", path.as_bytes());
    assert_eq!(at("home").as_deref(), Some(b"a/b/plain".as_slice()));
    assert_eq!(at("link/none/x").as_deref(), Some(b"a/b/none/x".as_slice()));
    for path in ["loop", "out", "..", "a/../../x"] {
        assert_eq!(at(path), None, "{path}");
    }
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
    let (volume, hidden) = (Arc::new(scratch.dir()), hidden(&["/world/secret", "/gone"]));
    let veil = Veil::new(hidden, volume, b"world".to_vec());
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
        let found = veil.hides_target(above.as_bytes(), target.as_bytes());
        assert_eq!(found, hides, "{target} in {above:?}");
    }
}

#[test]
fn a_walk_counts_nothing_that_is_hidden() {
    let scratch = Scratch::new();
    for number in 0..50 {
        scratch.file(format!("{number}.pem"), b"1");
        scratch.file(format!("keys/{number}"), b"1");
    }
    scratch.file("plain", b"1");
    scratch.link("link", "keys/1");
    let listed = |patterns: &[&str], limit: usize| {
        let volume = Arc::new(scratch.dir());
        let veil = Veil::new(hidden(patterns), Arc::clone(&volume), Vec::new());
        let mut walk = Walk::new(&volume).unwrap().behind(Some(veil)).limited(limit);
        let listing = walk.step(Instant::now() + Duration::from_secs(3600))?.unwrap();
        Ok::<_, WalkError>((listing.len(), listing.tag(Format::Zip)))
    };
    // What a link leads to is known once it is looked at.
    let (count, tag) = listed(&["*.pem", "keys/"], 2).unwrap();
    assert_eq!(count, 1);
    assert!(matches!(listed(&["*.pem"], 2), Err(WalkError::TooMany)));
    // What is listed is the same, and what it is a part of is not.
    let (count, other) = listed(&["*.pem", "keys/", "nothing"], 2).unwrap();
    assert!(count == 1 && other != tag);
}

#[test]
fn a_veil_says_the_same_from_directory_to_directory() {
    let scratch = Scratch::new();
    let hidden = hidden(&["b/", "!/w/c/b/", "/w/a/x", "**/d/e", "*.log"]);
    let mut veil = Veil::new(Arc::clone(&hidden), Arc::new(scratch.dir()), b"w".to_vec());
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
