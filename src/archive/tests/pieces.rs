//! An archive that is sent in pieces, some of which the client takes only in part, and what is kept
//! of it meanwhile.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::shelf::{MAX_KEPT, MAX_MEMORY, WALKS};
use super::super::{ArchiveReader, Format, Memory, Shelf, is_pause, walk};
use super::tree::{self, Scratch, noise};
use super::{FORMATS, pack, read_whole};
use crate::disk::readers::Readers;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A piece reads some, and only part of that is sent; then the listing may be gone and come back.
    #[test]
    fn what_is_read_and_not_sent_is_read_again(
        entries in tree::nodes(60),
        pieces in prop::collection::vec((1..300_000_usize, 0..100_usize, 1..4_usize), 1..40),
        spare in any::<bool>(),
    ) {
        let scratch = tree::plant(&entries);
        scratch.file("large", &noise(700_000));
        for format in FORMATS {
            let archive = pack(&scratch, format);
            let whole = read_whole(&scratch, &archive);
            let archive = pack(&scratch, format);
            let root = Arc::new(scratch.dir());
            let mut memory = Memory::new(0, spare.then(|| Arc::new(Readers::new())));
            let mut sent = Vec::new();
            let mut turns = pieces.iter().cycle();
            while (sent.len() as u64) < archive.length() {
                let &(size, percent, reads) = turns.next().unwrap();
                let mut reader = ArchiveReader::again(
                    Arc::clone(&archive), Arc::clone(&root), archive.length(), memory,
                );
                for turn in 1..=reads {
                    reader.seek(sent.len() as u64).unwrap();
                    let mut buffer = vec![0; size];
                    let count = reader.read(&mut buffer).unwrap();
                    // The last read of a piece may be sent in part.
                    let part = if turn < reads { count } else { count * percent / 100 };
                    sent.extend_from_slice(&buffer[..part.max(1.min(count))]);
                }
                memory = reader.into_memory();
                prop_assert_eq!(memory.take_extra(), 0);
            }
            memory.finish();
            prop_assert!(sent == whole);
        }
    }
}

#[test]
fn a_shelf_keeps_crcs_for_all_links_of_a_tree_and_forgets_idle_ones() {
    let scratch = Scratch::new();
    scratch.file("file", &noise(10_000));
    let shelf = Shelf::default();
    let put = |link: u8, format| {
        shelf.put(&[link; 16], scratch.dir(), walk(&scratch.dir()).unwrap(), format).unwrap()
    };
    let first = put(1, Format::Zip);
    let again = put(1, Format::Zip);
    let other = put(2, Format::Zip);
    assert!(Arc::ptr_eq(&first.archive, &again.archive));
    assert!(Arc::ptr_eq(&first.archive, &other.archive));
    assert_eq!(shelf.memory(), first.archive.memory());
    let tar = put(1, Format::Tar);
    scratch.file("file", &noise(10_001));
    let changed = put(1, Format::Zip);
    assert_ne!(changed.archive.tag(), first.archive.tag());
    // A download of the former tree goes on.
    for packed in [&first, &tar, &changed] {
        let kept = shelf.get(&[1; 16], packed.archive.tag()).unwrap();
        assert!(Arc::ptr_eq(&kept.archive, &packed.archive));
    }
    assert!(shelf.get(&[2; 16], tar.archive.tag()).is_none());
    let later = Instant::now() + Duration::from_secs(301);
    shelf.sweep(Instant::now(), |_| false);
    shelf.sweep(later, |link| *link == [2; 16]);
    assert!(shelf.get(&[1; 16], first.archive.tag()).is_none());
    assert!(shelf.get(&[2; 16], first.archive.tag()).is_some());
    shelf.sweep(later + Duration::from_secs(1), |_| false);
    assert_eq!(shelf.memory(), 0);
}

#[test]
fn a_shelf_is_bounded_and_the_oldest_goes() {
    let shelf = Shelf::default();
    let scratch = Scratch::new();
    for link in 0..100_u8 {
        scratch.file(format!("{link}"), b"");
        shelf.put(&[link; 16], scratch.dir(), walk(&scratch.dir()).unwrap(), Format::Zip).unwrap();
    }
    let kept = |link: u8, shelf: &Shelf| shelf.holds(&[link; 16]);
    assert_eq!((0..100).filter(|&link| kept(link, &shelf)).count(), MAX_KEPT);
    assert!(kept(99, &shelf) && !kept(0, &shelf));

    // Names of 255 bytes make a large listing of few files.
    for number in 0..20_000 {
        scratch.link(format!("{number:0>255}"), "x");
    }
    let memory = |shelf: &Shelf| shelf.memory();
    let mut most = 0;
    for link in 100..116_u8 {
        scratch.file("file", &[0; 200][..usize::from(link)]);
        shelf.put(&[link; 16], scratch.dir(), walk(&scratch.dir()).unwrap(), Format::Tar).unwrap();
        most = most.max(memory(&shelf));
    }
    assert!(most <= MAX_MEMORY && most > MAX_MEMORY / 2, "{most}");
    assert!(kept(115, &shelf) && !kept(100, &shelf));
}

#[test]
fn two_trees_are_walked_at_a_time() {
    let shelf = Shelf::default();
    let mut turns: Vec<_> = (0..WALKS).map(|_| shelf.turn(Duration::ZERO).unwrap()).collect();
    assert!(shelf.turn(Duration::from_millis(1)).is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| shelf.turn(Duration::from_secs(30)).is_some());
        turns.pop();
        assert!(waiting.join().unwrap());
    });
    assert!(shelf.turn(Duration::ZERO).is_some());
    assert!(is_pause(&super::super::pause()));
}
