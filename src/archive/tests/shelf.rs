//! What is kept of the archives that are downloaded, and for whom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::shelf::{Asked, MAX_KEPT, MAX_MEMORY, MIN_MEMORY, Room, Seen, TooMuch, Usage};
use super::super::{Archive, Format, Packed, Shelf};
use super::tree::{Scratch, noise};
use super::walk;

const MIB: usize = 1 << 20;

fn shelf() -> Arc<Shelf> {
    Arc::new(Shelf::new(MAX_MEMORY))
}

/// Link `link` of server `server`.
fn asked(link: u8, server: u128, format: Format) -> Asked {
    Asked { link: [link; 16], resource: [0; 16], server, format }
}

/// Walks and keeps what was found.
fn put(shelf: &Arc<Shelf>, asked: &Asked, scratch: &Scratch) -> Packed {
    put_seen(shelf, asked, scratch, Seen::of(&scratch.dir()).unwrap())
}

fn put_seen(shelf: &Arc<Shelf>, asked: &Asked, scratch: &Scratch, seen: Seen) -> Packed {
    let room = shelf.room(asked.server);
    let root = Arc::new(scratch.dir());
    let listing = walk(&root).unwrap();
    match shelf.known(asked, &seen, &listing) {
        Some(packed) => packed,
        None => shelf.put(&room, asked, seen, &root, Archive::new(listing, asked.format)),
    }
}

/// The directory as a request would find it after so many milliseconds.
fn seen_after(scratch: &Scratch, milliseconds: u64) -> Seen {
    let mut seen = Seen::of(&scratch.dir()).unwrap();
    seen.at += Duration::from_millis(milliseconds);
    seen
}

/// The directory before a walk that takes so many milliseconds and ends now.
fn seen_before(scratch: &Scratch, milliseconds: u64) -> Seen {
    let mut seen = Seen::of(&scratch.dir()).unwrap();
    seen.at -= Duration::from_millis(milliseconds);
    seen
}

#[test]
fn a_shelf_keeps_crcs_for_all_links_of_a_tree_and_forgets_idle_ones() {
    let scratch = Scratch::new();
    scratch.file("file", &noise(10_000));
    let shelf = shelf();
    let put = |link: u8, format| put(&shelf, &asked(link, 1, format), &scratch);
    let first = put(1, Format::Zip);
    let again = put(1, Format::Zip);
    let other = put(2, Format::Zip);
    assert!(Arc::ptr_eq(&first.archive, &again.archive));
    assert!(Arc::ptr_eq(&first.archive, &other.archive));
    let bytes = first.archive.memory();
    assert_eq!(shelf.usage(), Usage { kept: 2, used: 2, walks: 0, bytes });
    let tar = put(1, Format::Tar).archive.tag();
    let zip = first.archive.tag();
    // A download in the other format goes on.
    assert!(shelf.keeps(&[1; 16], zip) && shelf.keeps(&[1; 16], tar));
    assert!(!shelf.keeps(&[2; 16], tar));
    drop((again, other));
    let later = Instant::now() + Duration::from_secs(301);
    shelf.sweep(Instant::now(), |_| false);
    shelf.sweep(later, |link| *link == [2; 16]);
    // One is used, one belongs to a link that is, and one is neither.
    assert!(shelf.keeps(&[1; 16], zip) && shelf.keeps(&[2; 16], zip));
    assert!(!shelf.keeps(&[1; 16], tar));
    drop(first);
    shelf.sweep(later + Duration::from_secs(1), |_| false);
    assert!(shelf.keeps(&[1; 16], zip), "it was used until a moment ago");
    shelf.sweep(later + Duration::from_secs(301), |_| false);
    assert_eq!(shelf.usage(), Usage::default());
}

#[test]
fn a_link_whose_tree_changes_takes_two_places_besides_those_in_use() {
    let scratch = Scratch::new();
    let shelf = shelf();
    scratch.file("file", b"");
    let bystander = put(&shelf, &asked(2, 1, Format::Zip), &scratch).archive.tag();
    let used = put(&shelf, &asked(1, 1, Format::Zip), &scratch);
    for length in 1..100 {
        scratch.file("file", &[0; 100][..length]);
        let newest = put(&shelf, &asked(1, 1, Format::Zip), &scratch).archive.tag();
        assert!(shelf.keeps(&[1; 16], newest), "{length}");
        // The newest one was in use when it came.
        assert!(shelf.usage().kept <= 5, "{length}");
    }
    assert!(shelf.keeps(&[2; 16], bystander) && shelf.keeps(&[1; 16], used.archive.tag()));
}

#[test]
fn a_walk_answers_whoever_asked_before_it_began() {
    let scratch = Scratch::new();
    scratch.file("file", b"1");
    let shelf = shelf();
    let before = Seen::of(&scratch.dir()).unwrap();
    let found = |link: &Asked, seen: &Seen| match shelf.since(link, seen) {
        Some(Ok(packed)) => Some(packed.archive.tag()),
        _ => None,
    };
    assert_eq!(found(&asked(2, 1, Format::Zip), &before), None);
    let tag = put(&shelf, &asked(1, 1, Format::Zip), &scratch).archive.tag();
    // Whichever link it was; but not in another format, and not a request that came afterwards.
    assert_eq!(found(&asked(2, 1, Format::Zip), &before), Some(tag));
    assert!(shelf.keeps(&[2; 16], tag));
    assert_eq!(found(&asked(2, 1, Format::Tar), &before), None);
    assert_eq!(found(&asked(2, 1, Format::Zip), &seen_after(&scratch, 1)), None);
}

#[test]
fn a_listing_answers_its_own_link_again_for_a_while() {
    let scratch = Scratch::new();
    scratch.file("file", b"1");
    let shelf = shelf();
    let link = asked(1, 1, Format::Zip);
    let first = put(&shelf, &link, &scratch);
    let found = |asked: &Asked, milliseconds| match shelf
        .recent(asked, &seen_after(&scratch, milliseconds))
    {
        Some(Ok(packed)) => Some(packed.archive.tag()),
        _ => None,
    };
    assert_eq!(found(&link, 1_000), Some(first.archive.tag()));
    assert_eq!(found(&link, 6_000), None);
    for other in
        [asked(2, 1, Format::Zip), asked(1, 1, Format::Tar), Asked { resource: [1; 16], ..link }]
    {
        assert_eq!(found(&other, 0), None, "{other:?}");
    }
    // Another directory in its place.
    assert!(shelf.recent(&link, &seen_after(&Scratch::new(), 0)).is_none());
    // The clock of a file system may stand still for some milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    scratch.file("new", b"");
    assert_eq!(found(&link, 0), None);
    let changed = put(&shelf, &link, &scratch);
    assert_eq!(found(&link, 0), Some(changed.archive.tag()));
}

#[test]
fn a_walk_that_took_long_is_not_done_anew_at_once() {
    let scratch = Scratch::new();
    let shelf = shelf();
    let (large, refused) = (asked(1, 1, Format::Zip), asked(2, 1, Format::Zip));
    put_seen(&shelf, &large, &scratch, seen_before(&scratch, 8_000));
    shelf.put_refused(&refused, seen_before(&scratch, 1_000), TooMuch::Entries);
    std::thread::sleep(Duration::from_millis(50));
    scratch.file("new", b"");
    let recent = |asked, milliseconds| shelf.recent(asked, &seen_after(&scratch, milliseconds));
    assert!(matches!(recent(&large, 4_000), Some(Ok(_))));
    // It took eight seconds.
    assert!(matches!(recent(&large, 7_000), Some(Ok(_))));
    assert!(recent(&large, 9_000).is_none());
    assert!(matches!(recent(&refused, 4_000), Some(Err(TooMuch::Entries))));
    assert!(recent(&refused, 6_000).is_none());
}

#[test]
fn the_oldest_goes_if_there_are_too_many() {
    let shelf = shelf();
    let scratch = Scratch::new();
    let holds = |link: u8, tag| shelf.keeps(&[link; 16], tag);
    let used = put(&shelf, &asked(200, 2, Format::Zip), &scratch);
    let mut tags = Vec::new();
    for link in 0..100_u8 {
        scratch.file(format!("{link}"), b"");
        tags.push(put(&shelf, &asked(link, 1, Format::Zip), &scratch).archive.tag());
    }
    // The newest one was in use when it came.
    assert_eq!(shelf.usage().kept, MAX_KEPT + 2);
    assert!(holds(200, used.archive.tag()) && holds(99, tags[99]) && holds(40, tags[40]));
    assert!(!holds(0, tags[0]));
}

/// Takes as much of `room` as there is, in pieces of `step` bytes.
fn fill(room: &Room, step: usize) -> usize {
    (1..).map(|count| count * step).take_while(|&bytes| room.grow(bytes)).last().unwrap_or(0)
}

#[test]
fn walks_take_the_memory_that_is_left_and_give_it_back() {
    for (memory, expected) in [(0, MIN_MEMORY), (16 * MIB, 16 * MIB), (1 << 40, MAX_MEMORY)] {
        let shelf = Arc::new(Shelf::new(memory));
        // The last eighth is for small ones, which one server after the other takes.
        let large = shelf.room(1);
        assert_eq!(fill(&large, 1 << 10), expected / 8 * 7);
        assert_eq!(fill(&shelf.room(2), MIB), 0);
        let small: Vec<Room> =
            (0..).map(|_| shelf.room(1)).take_while(|room| room.grow(256 << 10)).collect();
        assert_eq!(small.len(), expected / 8 / (256 << 10));
        assert_eq!(shelf.usage().bytes, expected);
        drop(large);
        assert_eq!(shelf.usage().bytes, expected / 8);
        drop(small);
        assert_eq!(shelf.usage(), Usage::default());
    }
}

#[test]
fn a_server_that_has_some_gets_no_more_than_half() {
    let shelf = shelf();
    let first = shelf.room(1);
    assert!(first.grow(MIB));
    let (second, other) = (shelf.room(1), shelf.room(2));
    assert_eq!(fill(&second, MIB), MAX_MEMORY / 2 - MIB);
    assert_eq!(fill(&other, MIB), MAX_MEMORY / 8 * 3);
}

#[test]
fn what_is_used_stays_and_the_oldest_of_the_rest_makes_room() {
    // Names of 255 bytes make a large listing of few files: some 2.5 MiB.
    let trees: Vec<Scratch> = (0..4)
        .map(|_| {
            let scratch = Scratch::new();
            for number in 0..8_000 {
                scratch.link(format!("{number:0>255}"), "x");
            }
            scratch
        })
        .collect();
    let shelf = Arc::new(Shelf::new(MIN_MEMORY));
    let put =
        |link: u8| put(&shelf, &asked(link, link.into(), Format::Tar), &trees[usize::from(link)]);
    let mut used = put(0);
    let old = put(1).archive.tag();
    let bytes = used.archive.memory();
    assert!((2 * MIB..3 * MIB).contains(&bytes), "{bytes}");
    let room = shelf.room(9);
    assert!(room.grow(MIB), "{:?}", shelf.usage());
    assert!(shelf.keeps(&[1; 16], old));
    assert!(room.grow(3 * MIB));
    assert!(!shelf.keeps(&[1; 16], old) && shelf.keeps(&[0; 16], used.archive.tag()));
    assert!(!room.grow(5 * MIB), "the used one stays");
    drop(room);
    // A stream that goes on with the archive of another link holds it, too.
    let shared = self::put(&shelf, &asked(5, 5, Format::Tar), &trees[0]);
    used = shared;
    assert_eq!(shelf.usage().bytes, bytes);
    drop(used);
    let room = shelf.room(9);
    assert!(room.grow(7 * MIB));
    assert_eq!(shelf.usage().kept, 0);
}
