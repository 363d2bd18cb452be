//! CRCs of what a reader did not send: read when due, in steps, counted, and no sooner. And members
//! that are not what was listed.

use std::fs::{self, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::sync::Arc;

use super::super::{Archive, Format, is_pause};
use super::tree::{Scratch, noise};
use super::{FORMATS, pack, read_range, read_whole, reader, walk};

const MIB: u64 = 1 << 20;

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
    for call in 1..=4 {
        assert!(is_pause(&reader.read(&mut buffer).unwrap_err()));
        assert!(reader.extra_read() <= call * 4 * MIB);
        assert_eq!(reader.position(), start);
    }
    assert_eq!(reader.read(&mut buffer).unwrap(), 60);
    assert_eq!(reader.extra_read(), 19 * MIB);
    assert_eq!(buffer[..60], whole[start as usize..]);
    // Known from now on.
    let mut second = super::reader(&scratch, &archive, start..archive.length());
    assert_eq!((second.read(&mut buffer).unwrap(), second.extra_read()), (60, 0));
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
        assert!(is_pause(&error));
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
        assert!(is_pause(&error));
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
    // Changed in place: a reader that sends the new content must say so to its end.
    scratch.file("file", &[9; 100]);
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
        assert!(!is_pause(&error) && error.to_string().starts_with("file: "), "{error}");
        assert!((some.len() + rest.len()) as u64 <= MIB / 2 + 2048);

        let mut fresh = super::reader(&scratch, &archive, 0..archive.length());
        let error = fresh.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "shorter before it is opened");
        fs::remove_file(&path).unwrap();
        let mut fresh = super::reader(&scratch, &archive, 0..archive.length());
        assert_eq!(fresh.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::NotFound);
    }
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
