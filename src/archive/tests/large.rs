//! More than four bytes can count: members and positions beyond 4 GiB, more than 65,535 members.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;

use super::super::layout::Part;
use super::super::{Archive, Format};
use super::tools::{check, check_tar, check_zip, has, may_take, members, run, write_sparse};
use super::tree::Scratch;
use super::{pack, read_range};

const GIB: u64 = 1 << 30;

fn six_gib() -> Scratch {
    let scratch = Scratch::new();
    scratch.file("a/before", b"before");
    scratch.sparse("b/world.bin", 6 * GIB);
    scratch.file("c/after", b"after");
    scratch
}

/// The CRC of `length` zeros, a power of two times 3.
fn crc_of_zeros(length: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[0; 3 << 10]);
    for _ in 0..(length / (3 << 10)).ilog2() {
        let half = hasher.clone();
        hasher.combine(&half);
    }
    hasher.finalize()
}

/// Copies the parts around a large member's content to a file with a hole where the content is.
fn skeleton(scratch: &Scratch, archive: &Arc<Archive>, member: usize, content: u64) -> String {
    let path = scratch.out("skeleton");
    let file = File::create(&path).unwrap();
    let start = (0..archive.length()).find(|&at| archive.locate(at).part == Part::Content(member));
    let start = start.unwrap();
    for range in [0..start, start + content..archive.length()] {
        let (bytes, pauses) = read_range(scratch, archive, range.clone(), 1 << 16);
        assert_eq!((bytes.len() as u64, pauses), (range.end - range.start, 0));
        file.write_all_at(&bytes, range.start).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_member_of_6_gib_is_where_zip64_says() {
    let scratch = six_gib();
    let archive = pack(&scratch, Format::Zip);
    let content = 6 * GIB + 5 * (6 * GIB).div_ceil(65_535);
    archive.sums.set(3, crc_of_zeros(6 * GIB));
    let path = skeleton(&scratch, &archive, 3, content);
    if !has("python3") {
        return;
    }
    let script = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    world, after = archive.getinfo('b/world.bin'), archive.getinfo('c/after')
    assert world.extract_version == 45 and after.extract_version == 45
    assert archive.read('c/after') == b'after' and archive.read('a/before') == b'before'
    before = archive.getinfo('a/before')
    assert before.extract_version == 20 and len(before.extra) == 9, before.extra
    print(world.file_size, world.compress_size, '%08x' % world.CRC, after.header_offset > 6 << 30)
";
    let told = run("python3", &["-c", script, &path], Stdio::null());
    let crc = crc_of_zeros(6 * GIB);
    assert_eq!(told, format!("{} {content} {crc:08x} True\n", 6 * GIB));
    if has("unzip") {
        assert_eq!(run("unzip", &["-p", &path, "c/after"], Stdio::null()), "after");
    }
    if has("7z") {
        let told = run("7z", &["l", "-slt", &path], Stdio::null());
        assert!(told.contains(&format!("Size = {}\nPacked Size = {content}", 6 * GIB)), "{told}");
    }
}

#[test]
fn a_member_of_9_gib_is_where_tar_says() {
    let scratch = Scratch::new();
    scratch.sparse("b/world.bin", 9 * GIB);
    scratch.file("c/after", b"after");
    let archive = pack(&scratch, Format::Tar);
    // Content in a tar is the file itself: a hole is what a hole would be read as.
    let path = skeleton(&scratch, &archive, 1, 9 * GIB);
    for tool in ["tar", "bsdtar"] {
        if has(tool) {
            assert_eq!(run(tool, &["-xOf", &path, "c/after"], Stdio::null()), "after");
        }
    }
    if has("7z") {
        assert!(run("7z", &["l", "-slt", &path], Stdio::null()).contains("Size = 9663676416"));
    }
    if has("python3") {
        let script = "import sys, tarfile; t = tarfile.open(sys.argv[1]); \
                      print(t.getmember('b/world.bin').size, t.extractfile('c/after').read())";
        let told = run("python3", &["-c", script, &path], Stdio::null());
        assert_eq!(told, "9663676416 b'after'\n");
    }
}

#[test]
fn seventy_thousand_members_are_counted_by_all() {
    let scratch = Scratch::new();
    for directory in 0..70 {
        let path = scratch.directory(format!("{directory}"));
        for index in 0..1_000 {
            File::create(path.join(format!("{index}"))).unwrap();
        }
    }
    let archive = pack(&scratch, Format::Zip);
    assert_eq!(archive.members(), 70_070);
    check(&scratch, &archive);
}

/// All of it through every program: some 20 GiB are read.
#[test]
fn six_gib_and_seventy_thousand_members_pass_every_program() {
    if !may_take("some minutes and 14 GB of disk") {
        return;
    }
    let scratch = six_gib();
    for index in 0..70_000 {
        File::create(scratch.tree().join(format!("{index}"))).unwrap();
    }
    for format in super::FORMATS {
        let archive = pack(&scratch, format);
        let path = scratch.out("whole");
        write_sparse(&scratch, &archive, &path);
        assert_eq!(fs::metadata(&path).unwrap().len(), archive.length());
        assert!(members(&archive).contains("776f726c642e62696e 6442450944\n"));
        match format {
            Format::Zip => check_zip(&scratch, &archive, path.to_str().unwrap()),
            Format::Tar => check_tar(&archive, path.to_str().unwrap()),
        }
    }
}
