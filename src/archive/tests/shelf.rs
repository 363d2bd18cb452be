//! What is kept of the archives that are downloaded, and for whom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::shelf::{Asked, MAX_KEPT, MAX_MEMORY, Recent, Seen, TooMuch};
use super::super::{Archive, Format, Packed, Shelf};
use super::tree::{Scratch, noise};
use super::walk;

/// Link `link` of server `server`.
fn asked(link: u8, server: u128, format: Format) -> Asked {
    Asked { link: [link; 16], resource: [0; 16], server, format }
}

/// Walks and keeps what was found.
fn put(shelf: &Shelf, asked: &Asked, scratch: &Scratch) -> Packed {
    put_seen(shelf, asked, scratch, Seen::of(&scratch.dir()).unwrap())
}

fn put_seen(shelf: &Shelf, asked: &Asked, scratch: &Scratch, seen: Seen) -> Packed {
    let root = Arc::new(scratch.dir());
    let listing = walk(&root).unwrap();
    match shelf.known(asked, &seen, &listing) {
        Some(packed) => packed,
        None => shelf.put(asked, seen, &root, Archive::new(listing, asked.format)),
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
    let shelf = Shelf::default();
    let put = |link: u8, format| put(&shelf, &asked(link, 1, format), &scratch);
    let first = put(1, Format::Zip);
    let again = put(1, Format::Zip);
    let other = put(2, Format::Zip);
    assert!(Arc::ptr_eq(&first.archive, &again.archive));
    assert!(Arc::ptr_eq(&first.archive, &other.archive));
    assert_eq!(shelf.usage().1, first.archive.memory());
    let tar = put(1, Format::Tar);
    // A download in the other format goes on.
    for packed in [&first, &tar] {
        assert!(shelf.keeps(&[1; 16], packed.archive.tag()));
    }
    assert!(!shelf.keeps(&[2; 16], tar.archive.tag()));
    let later = Instant::now() + Duration::from_secs(301);
    shelf.sweep(Instant::now(), |_| false);
    shelf.sweep(later, |link| *link == [2; 16]);
    assert!(!shelf.keeps(&[1; 16], first.archive.tag()));
    assert!(shelf.keeps(&[2; 16], first.archive.tag()));
    shelf.sweep(later + Duration::from_secs(1), |_| false);
    assert_eq!(shelf.usage().1, 0);
}

#[test]
fn a_link_whose_tree_changes_takes_two_places() {
    let scratch = Scratch::new();
    let shelf = Shelf::default();
    scratch.file("file", b"");
    let bystander = put(&shelf, &asked(2, 1, Format::Zip), &scratch).archive.tag();
    for length in 1..100 {
        scratch.file("file", &[0; 100][..length]);
        let newest = put(&shelf, &asked(1, 1, Format::Zip), &scratch);
        assert!(shelf.keeps(&[1; 16], newest.archive.tag()), "{length}");
        assert_eq!(shelf.usage().0, 3.min(length + 1), "{length}");
    }
    assert!(shelf.keeps(&[2; 16], bystander));
}

#[test]
fn a_listing_answers_its_own_link_again_for_a_while() {
    let scratch = Scratch::new();
    scratch.file("file", b"1");
    let shelf = Shelf::default();
    let link = asked(1, 1, Format::Zip);
    let first = put(&shelf, &link, &scratch);
    let found = |asked: &Asked, milliseconds| match shelf
        .recent(asked, &seen_after(&scratch, milliseconds))
    {
        Some(Recent::Packed(packed)) => Some(packed.archive.tag()),
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
    let shelf = Shelf::default();
    let (large, refused) = (asked(1, 1, Format::Zip), asked(2, 1, Format::Zip));
    put_seen(&shelf, &large, &scratch, seen_before(&scratch, 8_000));
    shelf.put_refused(&refused, seen_before(&scratch, 1_000), TooMuch::Entries);
    std::thread::sleep(Duration::from_millis(50));
    scratch.file("new", b"");
    let recent = |asked, milliseconds| shelf.recent(asked, &seen_after(&scratch, milliseconds));
    assert!(matches!(recent(&large, 4_000), Some(Recent::Packed(_))));
    // It took eight seconds.
    assert!(matches!(recent(&large, 7_000), Some(Recent::Packed(_))));
    assert!(recent(&large, 9_000).is_none());
    assert!(matches!(recent(&refused, 4_000), Some(Recent::Refused(TooMuch::Entries))));
    assert!(recent(&refused, 6_000).is_none());
}

#[test]
fn a_shelf_is_bounded_and_the_server_that_holds_most_gives_way() {
    let shelf = Shelf::default();
    let scratch = Scratch::new();
    let holds = |link: u8| shelf.holds(&[link; 16]);
    put(&shelf, &asked(200, 2, Format::Zip), &scratch);
    for link in 0..100_u8 {
        scratch.file(format!("{link}"), b"");
        put(&shelf, &asked(link, 1, Format::Zip), &scratch);
    }
    assert_eq!(shelf.usage().0, MAX_KEPT);
    assert!(holds(200) && holds(99) && !holds(0));

    // Names of 255 bytes make a large listing of few files.
    for number in 0..20_000 {
        scratch.link(format!("{number:0>255}"), "x");
    }
    put(&shelf, &asked(201, 2, Format::Tar), &scratch);
    let mut most = 0;
    for link in 100..116_u8 {
        scratch.file("file", &[0; 200][..usize::from(link)]);
        put(&shelf, &asked(link, 1, Format::Tar), &scratch);
        most = most.max(shelf.usage().1);
    }
    assert!(most <= MAX_MEMORY && most > MAX_MEMORY / 2, "{most}");
    // The large ones of the same server, and none of its small ones.
    assert!(holds(200) && holds(201) && holds(99) && holds(115) && !holds(100));
}
