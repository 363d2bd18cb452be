//! CRCs of what a reader did not send: read when due, in steps, counted, and no sooner. And members
//! that are not what was listed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::{Archive, ArchiveReader, Format, Packed, Pause};
use super::tree::{Scratch, noise};
use super::{FORMATS, pack, read_range, read_whole, reader, walk};

const MIB: u64 = 1 << 20;

fn pause(result: io::Result<usize>) -> Option<Pause> {
    result.err().and_then(|error| Pause::of(&error))
}

fn one_file(size: u64) -> Scratch {
    let scratch = Scratch::new();
    scratch.file("file", &noise(size as usize));
    scratch
}

#[test]
fn the_end_of_an_unread_zip_reads_in_steps_and_counts() {
    let scratch = one_file(19 * MIB);
    let whole = read_whole(&scratch, &pack(&scratch, Format::Zip));
    let archive = pack(&scratch, Format::Zip);
    let start = archive.length() - 60;
    let mut reader = reader(&scratch, &archive, start..archive.length());
    let mut buffer = [0; 100];
    for call in 1..=19 {
        assert_eq!(pause(reader.read(&mut buffer)), Some(Pause::Worked));
        assert!(reader.extra_read() <= call * MIB);
        assert_eq!(reader.position(), start);
    }
    assert_eq!(reader.read(&mut buffer).unwrap(), 60);
    assert_eq!(reader.extra_read(), 19 * MIB);
    assert_eq!(buffer[..60], whole[start as usize..]);
    // Known from now on.
    let mut second = super::reader(&scratch, &archive, start..archive.length());
    assert_eq!((second.read(&mut buffer).unwrap(), second.extra_read()), (60, 0));
}

/// The piece of a stream whose bandwidth is limited: with 4 MiB for each, fifteen others had made a
/// stranger wait for seconds.
#[test]
fn a_piece_reads_no_more_for_sums_than_it_may_send() {
    const PIECE: u64 = 100_000;
    let scratch = one_file(3 * MIB);
    let whole = read_whole(&scratch, &pack(&scratch, Format::Zip));
    let archive = pack(&scratch, Format::Zip);
    let start = archive.length() - 60;
    let mut reader = reader(&scratch, &archive, start..archive.length());
    let (mut buffer, mut read, mut pieces) = ([0; 100], 0, 0);
    loop {
        reader.limit_extra(PIECE);
        let result = reader.read(&mut buffer);
        let extra = reader.take_extra();
        assert!(extra <= PIECE, "{extra}");
        (read, pieces) = (read + extra, pieces + 1);
        match result {
            Ok(count) => break assert_eq!(count, 60),
            result => assert_eq!(pause(result), Some(Pause::Worked)),
        }
    }
    assert_eq!((read, buffer[..60] == whole[start as usize..]), (3 * MIB, true));
    assert!(pieces < 2 * 3 * MIB / PIECE, "{pieces} pieces");
}

#[test]
fn the_last_byte_of_a_zip_needs_no_file() {
    let scratch = one_file(9 * MIB);
    let archive = pack(&scratch, Format::Zip);
    fs::remove_file(scratch.tree().join("file")).unwrap();
    let range = archive.length() - 22..archive.length();
    assert_eq!(read_range(&scratch, &archive, range, 512).0[..4], *b"PK\x05\x06");
}

#[test]
fn a_resumed_stream_reads_only_what_it_did_not_send() {
    let scratch = one_file(12 * MIB);
    let whole = read_whole(&scratch, &pack(&scratch, Format::Zip));
    let archive = pack(&scratch, Format::Zip);
    let start = whole.len() - (3 * MIB) as usize;
    let mut reader = reader(&scratch, &archive, start as u64..archive.length());
    let (mut bytes, mut pauses) = (Vec::new(), 0);
    while let Err(error) = reader.read_to_end(&mut bytes) {
        assert_eq!(Pause::of(&error), Some(Pause::Worked));
        pauses += 1;
    }
    assert!(bytes == whole[start..]);
    assert!(pauses >= 1);
    let content = 12 * MIB - reader.extra_read();
    assert!((3 * MIB - 1024..=3 * MIB).contains(&content), "{content}");
}

/// As the body of an answer is copied: a pause ends one copy, and the next one goes on.
#[test]
fn a_pause_costs_io_copy_no_byte() {
    let scratch = one_file(11 * MIB);
    let whole = read_whole(&scratch, &pack(&scratch, Format::Zip));
    let archive = pack(&scratch, Format::Zip);
    let start = 9 * MIB;
    let reader = reader(&scratch, &archive, start..archive.length());
    let mut source = BufReader::with_capacity(256 << 10, reader);
    let (mut bytes, mut pauses) = (Vec::new(), 0);
    while let Err(error) = std::io::copy(&mut source, &mut bytes) {
        assert_eq!(Pause::of(&error), Some(Pause::Worked));
        pauses += 1;
    }
    assert!(bytes == whole[start as usize..] && pauses > 0);
}

#[test]
fn a_tar_reads_nothing_but_what_it_sends() {
    let scratch = one_file(2 * MIB);
    let archive = pack(&scratch, Format::Tar);
    let mut reader = reader(&scratch, &archive, MIB..archive.length());
    reader.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(reader.extra_read(), 0);
}

#[test]
fn many_small_files_pause_too() {
    let scratch = Scratch::new();
    for index in 0..300 {
        scratch.file(format!("{index}"), b"x");
    }
    let archive = pack(&scratch, Format::Zip);
    let (_, pauses) = read_range(&scratch, &archive, 0..archive.length(), 1 << 20);
    assert_eq!(pauses, 0, "sending gives way by short reads");
    let archive = pack(&scratch, Format::Zip);
    // 300 records of 46 bytes, a name and a timestamp.
    let from = archive.length() - 18_000;
    let mut first = reader(&scratch, &archive, from..archive.length());
    let count = first.read(&mut [0; 20_000]).unwrap();
    assert!((1..8_000).contains(&count), "{count}");
}

#[test]
fn what_a_reader_sent_counts_for_its_own_directory() {
    let scratch = one_file(100);
    let archive = pack(&scratch, Format::Zip);
    let before = read_whole(&scratch, &archive);
    // Changed in place, and nothing shows it: a reader that sends the new content must say so to its
    // end.
    let path = scratch.tree().join("file");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    scratch.file("file", &[9; 100]);
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let after = read_whole(&scratch, &archive);
    let crc = crc32fast::hash(&[9; 100]).to_le_bytes();
    assert_eq!(after.windows(4).filter(|window| *window == crc).count(), 2);
    assert_ne!(before, after);
}

#[test]
fn a_file_that_grows_is_cut_and_one_that_shrinks_or_goes_ends_the_stream() {
    for format in FORMATS {
        let scratch = one_file(MIB);
        let whole = read_whole(&scratch, &pack(&scratch, format));
        let archive = pack(&scratch, format);
        let path = scratch.tree().join("file");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        assert!(read_whole(&scratch, &archive) == whole);

        let archive = pack(&scratch, format);
        let mut reader = reader(&scratch, &archive, 0..archive.length());
        let mut some = vec![0; 100 << 10];
        reader.read_exact(&mut some).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB / 2).unwrap();
        let mut rest = Vec::new();
        let error = reader.read_to_end(&mut rest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(Pause::of(&error).is_none() && error.to_string().starts_with("file: "), "{error}");
        assert!((some.len() + rest.len()) as u64 <= MIB / 2 + 2048);

        let mut fresh = super::reader(&scratch, &archive, 0..archive.length());
        let error = fresh.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "shorter before it is opened");
        fs::remove_file(&path).unwrap();
        let mut fresh = super::reader(&scratch, &archive, 0..archive.length());
        assert_eq!(fresh.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// Reads all of `archive` from `start` on. Returns what was wrong with it.
fn read_from(scratch: &Scratch, archive: &Arc<Archive>, start: u64) -> Option<ErrorKind> {
    let mut reader = reader(scratch, archive, start..archive.length());
    reader.read_to_end(&mut Vec::new()).err().map(|error| error.kind())
}

#[test]
fn what_is_joined_in_its_middle_must_be_as_listed() {
    type Harm = fn(&Scratch);
    let rename = |scratch: &Scratch| {
        // As many editors write: the same bytes and times, another file.
        let (path, other) = (scratch.tree().join("file"), scratch.out("other"));
        fs::copy(&path, &other).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
    };
    let append = |scratch: &Scratch| {
        let path = scratch.tree().join("file");
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    };
    let touch = |scratch: &Scratch| {
        let file = File::options().write(true).open(scratch.tree().join("file")).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    };
    let age = |scratch: &Scratch| {
        let path = scratch.tree().join("file");
        fs::write(&path, vec![1; 2 << 20]).unwrap();
        super::tree::set(&path, 0o644, 1_000, 0);
    };
    let harms: [(&str, Harm, bool); 4] = [
        ("renamed", rename, false),
        ("grown", append, true),
        ("touched", touch, false),
        ("longer and older", age, false),
    ];
    for (what, harm, may_begin) in harms {
        for format in FORMATS {
            let scratch = one_file(MIB);
            super::tree::set(&scratch.tree().join("file"), 0o644, 1_700_000_000, 5);
            let archive = pack(&scratch, format);
            assert_eq!(read_from(&scratch, &archive, 0), None);
            harm(&scratch);
            let begun = read_from(&scratch, &archive, 0);
            assert_eq!(begun.is_none(), may_begin, "{format:?} {what}: {begun:?}");
            // The head of the member, and one byte beyond it.
            let content = archive.content_start(0);
            assert_eq!(read_from(&scratch, &archive, content).is_none(), may_begin, "{what}");
            let joined = read_from(&scratch, &archive, content + 10);
            assert_eq!(joined, Some(ErrorKind::UnexpectedEof), "{format:?} {what}");
        }
    }
}

#[test]
fn a_crc_of_what_changed_is_not_read() {
    let scratch = one_file(MIB);
    let archive = pack(&scratch, Format::Zip);
    OpenOptions::new()
        .append(true)
        .open(scratch.tree().join("file"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    let error = read_from(&scratch, &archive, archive.length() - 60);
    assert_eq!(error, Some(ErrorKind::UnexpectedEof));
}

#[test]
fn holes_are_not_read() {
    let scratch = Scratch::new();
    // As much as the file system lets a file have: 16 TiB on ext4.
    let path = scratch.sparse("file", 0);
    let file = File::options().write(true).open(&path).unwrap();
    let size =
        (30..44).rev().map(|bits| 1 << bits).find(|&size| file.set_len(size).is_ok()).unwrap();
    for position in [0, 1 << 20, (1 << 29) + 1, size - 4096] {
        file.write_all_at(b"data", position).unwrap();
    }
    let archive = pack(&scratch, Format::Zip);
    // The central directory: more than one record and its end are.
    let mut reader = reader(&scratch, &archive, archive.length() - 150..archive.length());
    assert_eq!(reader.read(&mut [0; 200]).unwrap(), 150);
    // A block of some size at each place, as the file system has them, and small holes.
    assert!((16..16 * MIB).contains(&reader.extra_read()), "{}", reader.extra_read());
}

#[test]
fn the_crc_of_a_file_with_holes_is_that_of_its_bytes() {
    let scratch = Scratch::new();
    let path = scratch.sparse("file", 40 * MIB + 1000);
    let file = File::options().write(true).open(&path).unwrap();
    for (position, length) in [(3 * MIB, 100), (20 * MIB - 5, 300_000), (40 * MIB, 1000)] {
        file.write_all_at(&noise(length), position).unwrap();
    }
    let whole = read_whole(&scratch, &pack(&scratch, Format::Zip));
    let archive = pack(&scratch, Format::Zip);
    for start in [archive.length() - 60, archive.length() - 30 * MIB] {
        let archive = pack(&scratch, Format::Zip);
        let (bytes, _) = read_range(&scratch, &archive, start..archive.length(), 1 << 20);
        assert!(bytes == whole[start as usize..], "{start}");
    }
    // One that shrinks does not end in a hole.
    let mut reader = reader(&scratch, &archive, archive.length() - 60..archive.length());
    file.set_len(MIB).unwrap();
    assert_eq!(reader.read(&mut [0; 100]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn what_was_read_for_a_crc_is_not_read_again() {
    let scratch = one_file(19 * MIB);
    let archive = pack(&scratch, Format::Zip);
    let range = archive.length() - 60..archive.length();
    let mut read = 0;
    // Each client gives up after one call.
    let calls = (1..).find(|_| {
        let mut reader = reader(&scratch, &archive, range.clone());
        let result = reader.read(&mut [0; 100]);
        read += reader.take_extra();
        result.is_ok()
    });
    assert_eq!((calls, read), (Some(20), 19 * MIB));
}

#[test]
fn one_reader_at_a_time_reads_for_a_server_and_no_more_than_the_archive() {
    let scratch = one_file(9 * MIB);
    let archive = pack(&scratch, Format::Zip);
    let packed = Packed::new(Arc::clone(&archive), Arc::new(scratch.dir()));
    let range = archive.length() - 60..archive.length();
    let mut reader = ArchiveReader::new(packed.clone(), &range, None);
    let turn = packed.reading.lock().unwrap();
    for _ in 0..3 {
        assert_eq!(pause(reader.read(&mut [0; 100])), Some(Pause::Busy));
    }
    drop(turn);
    assert_eq!(pause(reader.read(&mut [0; 100])), Some(Pause::Worked));
    // As if the listing had been forgotten meanwhile, again and again.
    packed.paid.store(archive.length() - 5 * MIB / 4, Ordering::Relaxed);
    assert_eq!(pause(reader.read(&mut [0; 100])), Some(Pause::Worked));
    let error = reader.read(&mut [0; 100]).unwrap_err();
    assert!(Pause::of(&error).is_none(), "{error}");
}

#[test]
fn no_member_is_read_through_a_link_that_came_later() {
    let scratch = Scratch::new();
    scratch.file("a/file", b"inside");
    scratch.file("b/file", b"others");
    let archive = Arc::new(Archive::new(walk(&scratch.dir()).unwrap(), Format::Tar));
    fs::remove_dir_all(scratch.tree().join("a")).unwrap();
    scratch.link("a", "b");
    let mut reader = reader(&scratch, &archive, 0..archive.length());
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn a_reader_may_change_threads() {
    fn assert_send<T: Send>(_: T) {}
    let scratch = one_file(1);
    let archive = pack(&scratch, Format::Zip);
    assert_send(reader(&scratch, &archive, 0..1));
}
