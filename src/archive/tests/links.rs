//! Symbolic links: a zip holds the files that they lead to, a tar the links, and neither what lies
//! outside.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;
use std::sync::Arc;

use super::super::{Archive, ArchiveReader, Format, Hidden, Packed, Patterns, Place, Walk};
use super::names::{notes, stored};
use super::tools::{has, run};
use super::tree::{Scratch, set};
use super::{FORMATS, finish, list};

const GIB: u64 = 1 << 30;

/// A volume with a folder `world` whose links lead everywhere.
fn volume() -> Scratch {
    let scratch = Scratch::new();
    set(&scratch.file("libraries/args.txt", b"-jar server.jar"), 0o4755, 1_700_000_000, 5);
    scratch.file("world/d/file", b"in d");
    for (path, target) in [
        ("world/args", "../libraries/args.txt"),
        ("world/absolute", "/home/container/libraries/args.txt"),
        ("world/d/chain", "../args"),
        ("world/d/through", "../lib/args.txt"),
        ("world/lib", "../libraries"),
        ("world/inside", "d/file"),
        ("world/nowhere", "none"),
        ("world/loop", "loop"),
        ("world/out", "../../tree.txt"),
        ("world/passwd", "/etc/passwd"),
    ] {
        scratch.link(path, target);
    }
    scratch.fifo("world/pipe");
    scratch.link("world/to pipe", "pipe");
    std::fs::write(scratch.tree().with_extension("txt"), b"outside of the volume").unwrap();
    scratch
}

/// The folder `world` of `scratch` as an archive, and where its files are.
fn packed(scratch: &Scratch, format: Format) -> Packed {
    let archive = Arc::new(Archive::new(list(scratch.dir(), "world", format), format));
    Packed::new(archive, Arc::new(scratch.dir().open_dir("world").unwrap()))
}

fn bytes(packed: Packed) -> std::io::Result<Vec<u8>> {
    let (range, mut bytes) = (0..packed.archive.length(), Vec::new());
    ArchiveReader::new(packed, &range, None).read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn a_zip_holds_the_files_of_the_volume_that_links_lead_to() {
    let scratch = volume();
    let zip = packed(&scratch, Format::Zip);
    let names = "absolute args d d/chain d/file d/through inside .winglet-skipped.txt";
    assert_eq!(stored(&zip.archive).join(" "), names);
    let whole = bytes(zip).unwrap();
    let told = notes(&whole).join("\n");
    for line in [
        "lib: a symbolic link to ../libraries",
        "loop: a symbolic link to loop",
        "nowhere: a symbolic link to none",
        "out: a symbolic link to ../../tree.txt",
        "passwd: a symbolic link to /etc/passwd",
        "to pipe: a symbolic link to pipe",
    ] {
        assert!(told.contains(line), "{line:?} is not in {told}");
    }
    assert_eq!(told.lines().count(), 7, "{told}");
    let path = scratch.out("world.zip");
    fs::write(&path, whole).unwrap();
    if has("unzip") {
        let out = scratch.out("unzipped");
        run("unzip", &["-qqK", path.to_str().unwrap(), "-d", out.to_str().unwrap()], Stdio::null());
        for name in ["absolute", "args", "d/chain", "d/through"] {
            let metadata = out.join(name).symlink_metadata().unwrap();
            assert_eq!(fs::read(out.join(name)).unwrap(), b"-jar server.jar", "{name}");
            assert_eq!((metadata.mode(), metadata.mtime()), (0o100_755, 1_700_000_000), "{name}");
        }
        assert_eq!(fs::read(out.join("inside")).unwrap(), b"in d");
    }
}

#[test]
fn a_zip_of_a_link_alone_holds_its_file() {
    let scratch = Scratch::new();
    scratch.file("libraries/args.txt", b"-jar server.jar");
    scratch.link("world/unix_args.txt", "../libraries/args.txt");
    assert_eq!(stored(&packed(&scratch, Format::Zip).archive), ["unix_args.txt"]);
    let tar = packed(&scratch, Format::Tar);
    assert_eq!(stored(&tar.archive), [".winglet-skipped.txt"]);
}

#[test]
fn what_a_link_leads_to_is_part_of_the_tag_of_a_zip() {
    let scratch = volume();
    let tags = || FORMATS.map(|format| packed(&scratch, format).archive.tag());
    let before = tags();
    assert_eq!(tags(), before);
    set(&scratch.tree().join("libraries/args.txt"), 0o4755, 1_700_000_000, 6);
    assert_ne!(tags()[0], before[0]);
    assert_eq!(tags()[1], before[1], "a tar has the link itself");
}

#[test]
fn no_link_leads_to_what_is_hidden() {
    let scratch = volume();
    let hidden = Hidden::new([Arc::new(Patterns::new(["/libraries/"]))]).map(Arc::new);
    let volume = Arc::new(scratch.dir());
    let root = volume.open_dir("world").unwrap();
    let place = Place { volume, base: b"world".to_vec(), hidden };
    let walk = Walk::new(&root, &place, Format::Zip, &[String::new()]).unwrap();
    let names = stored(&Archive::new(finish(walk).unwrap(), Format::Zip)).join(" ");
    assert_eq!(names, "d d/file inside .winglet-skipped.txt");
}

#[test]
fn a_file_that_became_another_is_not_read_through_a_link() {
    let scratch = volume();
    let moved = scratch.tree().join("moved");
    for name in ["libraries/args.txt", "libraries"] {
        let zip = packed(&scratch, Format::Zip);
        fs::rename(scratch.tree().join(name), &moved).unwrap();
        symlink(&moved, scratch.tree().join(name)).unwrap();
        assert!(bytes(zip).is_err(), "{name}");
        fs::remove_file(scratch.tree().join(name)).unwrap();
        fs::rename(&moved, scratch.tree().join(name)).unwrap();
    }
}

#[test]
fn links_carry_no_more_than_the_files_and_a_gibibyte() {
    let scratch = Scratch::in_memory();
    scratch.sparse("world/file", GIB);
    for index in 0..199_998 {
        symlink("file", scratch.tree().join(format!("world/{index}"))).unwrap();
    }
    let archive = packed(&scratch, Format::Zip).archive;
    let names = stored(&archive);
    assert_eq!(names, ["0", "1", "file", ".winglet-skipped.txt"]);
    assert!((3 * GIB..3 * GIB + GIB / 512).contains(&archive.length()));
}

#[test]
fn small_files_are_carried_after_one_that_is_too_much() {
    let scratch = Scratch::new();
    scratch.sparse("backup", 2 * GIB);
    scratch.file("args", b"small");
    scratch.link("world/a", "../backup");
    scratch.link("world/b", "../args");
    let zip = packed(&scratch, Format::Zip);
    assert_eq!(stored(&zip.archive), ["b", ".winglet-skipped.txt"]);
    let told = notes(&bytes(zip).unwrap());
    assert_eq!(told, ["a: a symbolic link to ../backup, which is too much to be here twice"]);
}

#[test]
fn links_of_a_tar_stay_in_their_folder() {
    let scratch = Scratch::new();
    scratch.file("world/d/file", b"");
    for (path, target) in [
        ("d/absolute", "/home/container/world/d/file"),
        ("d/inside", "../d/file"),
        ("elsewhere", "/home/container/plugins"),
        ("etc", "/etc/passwd"),
        ("out", "../secret"),
        ("ring", "d/ring"),
        ("d/ring", "../ring"),
        ("top", "."),
        ("via", "d/up/.."),
        ("d/up", ".."),
    ] {
        scratch.link(format!("world/{path}"), target);
    }
    let tar = packed(&scratch, Format::Tar);
    let expected = [
        "d",
        "d/absolute->file",
        "d/file",
        "d/inside->../d/file",
        "d/up->..",
        "top->.",
        ".winglet-skipped.txt",
    ];
    assert_eq!(stored(&tar.archive), expected);
    let whole = bytes(tar).unwrap();
    assert_eq!(
        notes(&whole),
        [
            "d/ring: a symbolic link out of this folder or in circles, to ../ring",
            "elsewhere: a symbolic link out of this folder or in circles, to /home/container/plugins",
            "etc: a symbolic link out of this folder or in circles, to /etc/passwd",
            "out: a symbolic link out of this folder or in circles, to ../secret",
            "ring: a symbolic link out of this folder or in circles, to d/ring",
            "via: a symbolic link out of this folder or in circles, to d/up/..",
        ]
    );
    let path = scratch.out("world.tar");
    fs::write(&path, whole).unwrap();
    if has("python3") {
        let out = scratch.out("python");
        // With its own care for archives of strangers; before 3.11.4 it has none.
        let script = "
import sys, tarfile
tarfile.TarFile.extraction_filter = staticmethod(getattr(tarfile, 'data_filter', None))
tarfile.open(sys.argv[1]).extractall(sys.argv[2])
";
        run(
            "python3",
            &["-c", script, path.to_str().unwrap(), out.to_str().unwrap()],
            Stdio::null(),
        );
        assert!(out.join("top").is_symlink() && out.join(".winglet-skipped.txt").is_file());
    }
}
