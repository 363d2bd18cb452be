//! Names, links and times that some reader stumbles over, as they stand in an archive.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use super::super::listing::HEADING;
use super::super::stored::Spelling;
use super::super::{Archive, Format, Kind};
use super::tools::{check, has, run};
use super::tree::{Scratch, set};
use super::{pack, read_whole};

fn bytes(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Paths in the archive, and the targets of links.
pub(super) fn stored(archive: &Archive) -> Vec<String> {
    let (mut path, mut spelling) = (Vec::new(), Spelling::default());
    let spelt = (0..archive.members()).filter_map(|index| {
        let member = archive.stored(index, &mut path, &mut spelling)?;
        let text = |bytes| String::from_utf8(Vec::from(bytes)).unwrap();
        let target = if member.kind == Kind::Link {
            "->".to_owned() + &text(member.target)
        } else {
            String::new()
        };
        Some(text(member.path) + &target)
    });
    spelt.collect()
}

/// The lines of the notes in an archive.
pub(super) fn notes(archive: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(archive);
    let Some(start) = text.find(HEADING) else { return Vec::new() };
    let lines = text[start..].split(['\0', 'P']).next().unwrap().lines().skip(2);
    lines.map(str::to_owned).collect()
}

#[test]
fn names_that_come_out_the_same_are_numbered() {
    let scratch = Scratch::new();
    for name in [
        &b"caf\xe9"[..],
        b"caf%E9",
        b"caf%E9 (2)",
        b"d\x01/\x02.txt",
        b"d\x01/%02.txt",
        b"d%01/x",
        b"x\x01y.tar.gz",
    ] {
        scratch.file(bytes(name), b"");
    }
    // Twins on some disks, which a number must not add to.
    for name in [&b"up\x01"[..], b"up%01", b"UP%01 (2)"] {
        scratch.file(bytes(name), b"");
    }
    let zip = pack(&scratch, Format::Zip);
    let expected = [
        "UP%01 (2)",
        "caf%E9",
        "caf%E9 (2)",
        "caf%E9 (3)",
        "d%01 (2)",
        "d%01 (2)/%02 (2).txt",
        "d%01 (2)/%02.txt",
        "d%01",
        "d%01/x",
        "up%01 (3)",
        "up%01",
        "x%01y.tar.gz",
        ".winglet-skipped.txt",
    ];
    assert_eq!(stored(&zip), expected);
    let told = notes(&read_whole(&scratch, &zip));
    assert!(told.contains(&"caf%E9: stored as caf%E9 (3)".to_owned()), "{told:?}");
    assert!(told.contains(&"d%01/%02.txt: stored as %02 (2).txt".to_owned()), "{told:?}");
    check(&scratch, &zip);
    // Byte for byte the same from the same listing.
    assert_eq!(stored(&zip), stored(&pack(&scratch, Format::Zip)));
}

#[test]
fn a_whole_directory_of_names_that_come_out_the_same_is_numbered() {
    const LENGTH: u32 = 12;
    let scratch = Scratch::new();
    // Each sign is a control character or three letters: the same for a zip.
    for number in 0..1u32 << LENGTH {
        let signs = (0..LENGTH).map(|bit| if number >> bit & 1 == 0 { "\x01" } else { "%01" });
        File::create(scratch.tree().join(signs.collect::<String>())).unwrap();
    }
    let zip = pack(&scratch, Format::Zip);
    let mut names = stored(&zip);
    assert_eq!(names.pop().as_deref(), Some(".winglet-skipped.txt"));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 1 << LENGTH);
    assert!(names.contains(&format!("{} ({})", "%01".repeat(LENGTH as usize), 1 << LENGTH)));
}

#[test]
fn a_path_that_gets_too_long_in_a_zip_is_left_out() {
    let scratch = Scratch::new();
    let name = "\x01".repeat(80);
    let path = vec![&name[..]; 17].join("/");
    scratch.file(&path, b"");
    scratch.file("a", b"");
    let zip = pack(&scratch, Format::Zip);
    let names = stored(&zip);
    assert_eq!(names.iter().map(String::len).max(), Some(15 * 241 - 1));
    assert_eq!(names[names.len() - 2..], ["a", ".winglet-skipped.txt"]);
    let told = notes(&read_whole(&scratch, &zip)).join("\n");
    assert!(told.contains(": its path in a zip is longer than 3840 bytes"), "{told}");
    check(&scratch, &zip);
    assert_eq!(stored(&pack(&scratch, Format::Tar)).len(), 19);
}

#[test]
fn names_that_other_systems_cannot_hold_are_kept_and_noted() {
    let scratch = Scratch::new();
    for name in [
        "World",
        "world",
        "caf\u{e9}",
        "cafe\u{301}",
        "aux.txt",
        "end. ",
        "what?",
        "a:b",
        "fine.txt",
    ] {
        scratch.file(name, b"");
    }
    scratch.file("other/World", b"");
    let tar = pack(&scratch, Format::Tar);
    assert_eq!(tar.members(), 12);
    assert_eq!(
        notes(&read_whole(&scratch, &tar)),
        [
            "a:b: not a name that Windows allows",
            "aux.txt: not a name that Windows allows",
            "caf\u{e9}: some systems take it for cafe\u{301}",
            "end. : not a name that Windows allows",
            "what?: not a name that Windows allows",
            "world: some systems take it for World",
        ]
    );
    let zip = pack(&scratch, Format::Zip);
    let told = notes(&read_whole(&scratch, &zip));
    assert!(told.contains(&"a:b: stored as a%3Ab".to_owned()), "{told:?}");
    assert_eq!(told.len(), 6);
}

#[test]
fn jar_unpacks_times_of_all_ages() {
    let scratch = Scratch::new();
    for seconds in [
        -2_000_000_000,
        -1,
        0,
        1,
        315_532_799,
        315_532_800,
        2_147_483_647,
        2_147_483_648,
        4_354_819_200,
        9_000_000_000,
    ] {
        set(&scratch.file(format!("{seconds}"), b"x"), 0o644, seconds, 0);
    }
    let zip = check(&scratch, &pack(&scratch, Format::Zip));
    if has("jar") {
        let out = scratch.out("jar");
        std::fs::create_dir(&out).unwrap();
        run(
            "sh",
            &["-c", "cd \"$1\" && jar xf \"$2\"", "sh", out.to_str().unwrap(), &zip],
            Stdio::null(),
        );
        let modified = |name: &str| {
            let time = out.join(name).metadata().unwrap().modified().unwrap();
            time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        };
        for (name, seconds) in
            [("-1", 0), ("1", 1), ("315532799", 315_532_799), ("2147483647", 2_147_483_647)]
        {
            assert_eq!(modified(name), seconds, "{name}");
        }
    }
}
