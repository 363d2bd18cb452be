//! Archives as other programs read them: accepted, and unpacked to the tree they were made of.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use proptest::prelude::*;

use super::super::listing::Member;
use super::super::listing::SKIPPED;
use super::super::stored::Spelling;
use super::super::{Archive, Format, Kind, Listing};
use super::tools::{check, has, run};
use super::tree::{self, Scratch, noise, set};
use super::{FORMATS, list, pack, walk};

/// A tree with what is hard about names, modes, times and sizes.
fn hard_tree() -> Scratch {
    let scratch = Scratch::new();
    let long = |letter: &str| letter.repeat(99);
    for (path, size) in [
        ("quote\"'s", 1),
        ("line\nbreak", 2),
        ("日本語/ファイル.txt", 3),
        (" spaces ", 4),
        ("con|<>:*?", 5),
        ("-rf", 6),
        ("case", 7),
        ("CASE", 8),
        ("a\\b", 9),
        ("c:", 9),
        ("\\root", 9),
        ("deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/end", 10),
        ("empty file", 0),
        ("large", 200_000),
        ("block", 65_535),
    ] {
        scratch.file(path, &noise(size));
    }
    // A path of 300 bytes, one that ustar can split, and names of 100 and 255 bytes.
    scratch.file(format!("{}/{}/{}x", long("a"), long("b"), long("c")), b"300");
    scratch.file(format!("{}/{}", long("d"), long("e")), b"199");
    scratch.directory(format!("{}/{}", long("a"), long("f")));
    scratch.file("g".repeat(100), b"100");
    scratch.file("h".repeat(255), b"255");
    scratch.directory("empty directory");
    scratch.link("link", "case");
    scratch.link("long link", format!("./{}/../{}", long("i"), long("j")));
    let run = scratch.file("run.sh", b"#!/bin/sh\n");
    set(&run, 0o755, 1_700_000_001, 123_456_789);
    let old = scratch.file("old", b"1980s");
    set(&old, 0o400, 499_999_999, 0);
    set(&scratch.file("setuid", b"#!/bin/sh\n"), 0o6755, 1_700_000_001, 0);
    scratch.directory("sticky");
    for (path, mode) in
        [("deep", 0o700), ("empty directory", 0o555), ("日本語", 0o2755), ("sticky", 0o3777)]
    {
        set(&scratch.tree().join(path), mode, 1_600_000_000, 500_000_000);
    }
    scratch
}

fn listing(path: &Path) -> Listing {
    walk(&Dir::open_ambient_dir(path, ambient_authority()).unwrap()).unwrap()
}

/// What is to be found again of a member: kind, mode, size, time and target.
type Facts = (Kind, u16, u64, (i64, u32), Vec<u8>);

/// Each member's path on the server, by its path in the archive, and what is to be found there.
fn expected(original: &Path, format: Format) -> BTreeMap<Vec<u8>, (Vec<u8>, Facts)> {
    let dir = Dir::open_ambient_dir(original, ambient_authority()).unwrap();
    let archive = Archive::new(list(dir, "", format), format);
    let (mut path, mut other, mut spelling) = (Vec::new(), Vec::new(), Spelling::default());
    let facts = (0..archive.members()).filter_map(|index| {
        let member = archive.stored(index, &mut path, &mut spelling)?;
        let own = archive.member(index, &mut other).path.to_vec();
        let mode = member.stored_mode();
        Some((member.path.to_vec(), (own, facts(&Member { mode, ..member }, format))))
    });
    facts.filter(|(path, _)| path != SKIPPED.as_bytes()).collect()
}

/// What `member` says as far as `format` can say it.
fn facts(member: &Member<'_>, format: Format) -> Facts {
    let time = match (member.kind, format) {
        (Kind::Link, _) => (0, 0),
        (_, Format::Zip) => (member.seconds, 0),
        (_, Format::Tar) if member.seconds < 0 => (member.seconds, 0),
        (_, Format::Tar) => (member.seconds, member.nanoseconds),
    };
    let mode = if member.kind == Kind::Link { 0 } else { member.mode };
    (member.kind, mode, member.size, time, member.target.to_vec())
}

/// Asserts that the tree at `unpacked` is the one at `original`, as far as `format` can say.
fn assert_same(original: &Path, unpacked: &Path, format: Format) {
    let right = listing(unpacked);
    let mut path = Vec::new();
    let found: BTreeMap<_, _> = (0..right.len())
        .map(|index| {
            let member = right.member(index, &mut path);
            (member.path.to_vec(), facts(&member, format))
        })
        .filter(|(path, _)| path != SKIPPED.as_bytes())
        .collect();
    let expected = expected(original, format);
    let names = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    let list = |paths: Vec<String>| paths.join("\n");
    assert_eq!(list(found.keys().map(names).collect()), list(expected.keys().map(names).collect()));
    for (path, (own, facts)) in &expected {
        assert_eq!(&found[path], facts, "{}", names(path));
        if facts.0 == Kind::File {
            let read = |root: &Path, path| fs::read(root.join(OsStr::from_bytes(path))).unwrap();
            assert!(read(original, own) == read(unpacked, path), "content of {}", names(path));
        }
    }
}

/// Unpacks with `tool` and compares.
fn unpack(scratch: &Scratch, format: Format, tool: &str, arguments: &[&str]) {
    if has(tool) {
        let target = scratch.out(tool);
        fs::create_dir(&target).unwrap();
        let directory = target.to_str().unwrap();
        let arguments: Vec<&str> =
            arguments.iter().map(|&word| if word == "DIR" { directory } else { word }).collect();
        run(tool, &arguments, Stdio::null());
        assert_same(&scratch.tree(), &target, format);
    }
}

#[test]
fn a_hard_tree_is_accepted_and_unpacks_to_itself() {
    let scratch = hard_tree();
    let zip = check(&scratch, &pack(&scratch, Format::Zip));
    // -K: with setuid, setgid and sticky bits, if there are any.
    unpack(&scratch, Format::Zip, "unzip", &["-qqK", &zip, "-d", "DIR"]);
    let tar = check(&scratch, &pack(&scratch, Format::Tar));
    unpack(&scratch, Format::Tar, "tar", &["-xpf", &tar, "-C", "DIR"]);
    unpack(&scratch, Format::Tar, "bsdtar", &["-xpf", &tar, "-C", "DIR"]);
}

#[test]
fn an_empty_directory_is_an_archive() {
    let scratch = Scratch::new();
    check(&scratch, &pack(&scratch, Format::Tar));
    assert_eq!(pack(&scratch, Format::Tar).length(), 1024);
    // Some readers take a zip without members for an error.
    let zip = check(&scratch, &pack(&scratch, Format::Zip));
    if has("unzip") {
        let said = run("unzip", &["-p", &zip, SKIPPED], Stdio::null());
        assert!(said.ends_with("This folder is empty.\n"), "{said}");
    }
}

#[test]
fn names_that_are_not_utf_8_are_kept_by_tar_and_spelt_by_zip() {
    let scratch = Scratch::new();
    let latin = |name: &[u8]| OsStr::from_bytes(name).to_owned();
    scratch.file(latin(b"caf\xe9.txt"), b"short");
    scratch.file(latin(&[&b"caf\xe9-"[..], &[b'x'; 200]].concat()), b"in a pax record");
    scratch.link("link", latin(&[&b"\xff/"[..], &[b'y'; 150]].concat()));
    check(&scratch, &pack(&scratch, Format::Zip));
    let tar = check(&scratch, &pack(&scratch, Format::Tar));
    unpack(&scratch, Format::Tar, "tar", &["-xpf", &tar, "-C", "DIR"]);
    unpack(&scratch, Format::Tar, "bsdtar", &["-xpf", &tar, "-C", "DIR"]);
}

#[test]
fn times_before_1970_and_after_2038_survive_a_tar() {
    let scratch = Scratch::new();
    for (name, seconds, nanoseconds) in [
        ("before", -1_000_000_000, 250_000_000),
        ("just before", -1, 0),
        ("epoch", 0, 0),
        ("after", 5_000_000_000, 1),
        ("long after", 9_000_000_000, 0),
    ] {
        set(&scratch.file(name, b"x"), 0o644, seconds, nanoseconds);
    }
    check(&scratch, &pack(&scratch, Format::Zip));
    let tar = check(&scratch, &pack(&scratch, Format::Tar));
    for (tool, arguments) in
        [("tar", ["-xpf", &tar, "-C", "DIR"]), ("bsdtar", ["-xpf", &tar, "-C", "DIR"])]
    {
        unpack(&scratch, Format::Tar, tool, &arguments);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 40, ..Default::default() })]

    #[test]
    fn random_trees_are_accepted(nodes in tree::nodes(120)) {
        let scratch = tree::plant(&nodes);
        for format in FORMATS {
            check(&scratch, &pack(&scratch, format));
        }
    }
}
