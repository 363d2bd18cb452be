//! What a walk finds, what it leaves out and says so, and where it stops.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::super::listing::{FREE_DEPTH, HEADING};
use super::super::{Archive, Format, Kind, Listing, Place, Walk, WalkError};
use super::tree::Scratch;
use super::{FORMATS, begin, finish, pack, read_whole, walk};

fn paths(listing: &Listing) -> Vec<String> {
    let mut path = Vec::new();
    (0..listing.len())
        .map(|index| {
            let member = listing.member(index, &mut path);
            let mark = match member.kind {
                Kind::File => "",
                Kind::Directory => "/",
                Kind::Link => "@",
            };
            format!("{}{mark}", String::from_utf8_lossy(member.path))
        })
        .collect()
}

/// The text of the list of what was left out.
fn skipped(scratch: &Scratch, format: Format) -> String {
    let whole = read_whole(scratch, &pack(scratch, format));
    let text = String::from_utf8_lossy(&whole).into_owned();
    let Some(start) = text.find(HEADING) else { return String::new() };
    text[start..].split(['\0', 'P']).next().unwrap().to_owned()
}

#[test]
fn entries_come_after_their_directory_in_the_order_of_bytes() {
    let scratch = Scratch::new();
    for file in ["b/2", "b/10", "b/a/x", "b.txt", "a", "B", "é", "z/z/z"] {
        scratch.file(file, b"");
    }
    scratch.link("b/link", "../nowhere");
    let listing = walk(&scratch.dir()).unwrap();
    let expected = "B a b/ b/10 b/2 b/a/ b/a/x b/link@ b.txt z/ z/z/ z/z/z é";
    assert_eq!(paths(&listing).join(" "), expected);
}

#[test]
fn chosen_paths_bring_the_directories_that_lead_to_them() {
    let scratch = Scratch::new();
    for file in ["a/b/c/1", "a/b/c/2", "a/b/d", "a/e", "f", "g/h"] {
        scratch.file(file, b"");
    }
    let chosen = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let place = Place { volume: Arc::new(scratch.dir()), base: Vec::new(), hidden: None };
        Walk::new(&scratch.dir(), &place, Format::Zip, &names)
            .and_then(finish)
            .map(|listing| paths(&listing).join(" "))
    };
    assert_eq!(chosen(&["f", "/g/"]).unwrap(), "f g/ g/h");
    assert_eq!(chosen(&["a/b/c"]).unwrap(), "a/ a/b/ a/b/c/ a/b/c/1 a/b/c/2");
    assert_eq!(chosen(&["a/e", "a/b/c/2", "a//./e"]).unwrap(), "a/ a/b/ a/b/c/ a/b/c/2 a/e");
    assert_eq!(chosen(&["a/b/c", "a/b"]).unwrap(), "a/ a/b/ a/b/c/ a/b/c/1 a/b/c/2 a/b/d");
    assert_eq!(chosen(&["f", "none"]).unwrap(), "f");
    assert_eq!(chosen(&["f", "/"]).unwrap(), paths(&walk(&scratch.dir()).unwrap()).join(" "));
    for none in [&["none"][..], &["f/x/y", "no/ne"], &[]] {
        assert!(matches!(chosen(none), Err(WalkError::Missing)), "{none:?}");
    }
    for bad in [&["f", "a/../f"][..], &[".."], &["a\0b"]] {
        assert!(matches!(chosen(bad), Err(WalkError::BadPath)), "{bad:?}");
    }
}

#[test]
fn what_is_left_out_is_listed() {
    let scratch = Scratch::new();
    scratch.file("file", b"1");
    scratch.fifo("pipe\nline");
    scratch.link("link", "file");
    scratch.link("loop", "loop");
    let socket = scratch.tree().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    scratch.file(OsStr::from_bytes(b"caf\xe9"), b"2");
    let zip = skipped(&scratch, Format::Zip);
    for line in [
        "pipe%0Aline: neither a file nor a folder\n",
        "socket: neither a file nor a folder\n",
        "loop: a symbolic link to loop\n",
        "caf%E9: stored as caf%E9\n",
    ] {
        assert!(zip.contains(line), "{line:?} is not in {zip}");
    }
    let tar = skipped(&scratch, Format::Tar);
    assert!(!zip.contains("link: "), "its content is there: {zip}");
    assert!(tar.contains("socket: ") && !tar.contains("link: ") && !tar.contains("caf"), "{tar}");
    assert!(tar.contains("loop: a symbolic link out of this folder or in circles"), "{tar}");
}

#[test]
fn the_list_takes_no_ones_name() {
    let scratch = Scratch::new();
    scratch.fifo("pipe");
    scratch.file(".winglet-skipped.txt", b"somebody's own");
    scratch.directory(".winglet-skipped-2.txt");
    let archive = Archive::new(walk(&scratch.dir()).unwrap(), Format::Tar);
    let mut path = Vec::new();
    let last = archive.member(archive.members() - 1, &mut path);
    assert_eq!(last.path, b".winglet-skipped-3.txt");
}

#[test]
fn what_may_not_be_read_is_listed() {
    let scratch = Scratch::new();
    scratch.file("open", b"1");
    let secret = scratch.file("secret", b"2");
    let closed = scratch.directory("closed");
    for path in [&secret, &closed] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    }
    if fs::read(&secret).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    assert_eq!(paths(&walk(&scratch.dir()).unwrap()), ["closed/", "open"]);
    let text = skipped(&scratch, Format::Tar);
    assert!(text.contains("secret: could not be opened (permission denied)"), "{text}");
    assert!(text.contains("closed: not all of it could be listed (permission denied)"), "{text}");
}

#[test]
fn the_bound_counts_everything() {
    let scratch = Scratch::new();
    for index in 0..10 {
        scratch.file(format!("a/{index}"), b"");
    }
    scratch.fifo("pipe");
    let within = |limit| finish(begin(&scratch.dir()).limited(limit));
    assert_eq!(within(12).unwrap().len(), 11);
    assert!(matches!(within(11), Err(WalkError::TooMany)));
}

#[test]
fn files_that_claim_more_than_there_is_are_too_many() {
    let scratch = Scratch::new();
    let claim = |name: &str| {
        let file = fs::File::create(scratch.tree().join(name)).unwrap();
        // As much as the file system lets a file claim: 16 TiB on ext4, 8 EiB on tmpfs and XFS.
        (32..63).rev().any(|bits| file.set_len(1 << bits).is_ok())
    };
    assert!(["a", "b", "c"].into_iter().all(claim));
    match walk(&scratch.dir()) {
        Ok(listing) => assert!(Archive::new(listing, Format::Zip).length() > 3 << 32),
        Err(error) => assert!(matches!(error, WalkError::TooMany), "{error:?}"),
    }
}

/// `depth` directories, one in the other, and beside each of them another one.
pub(super) fn chain(dir: &Dir, depth: usize) {
    let mut dir = dir.try_clone().unwrap();
    for _ in 0..depth {
        dir.create_dir("a").unwrap();
        dir.create_dir("b").unwrap();
        dir = dir.open_dir("a").unwrap();
    }
}

#[test]
fn a_walk_in_small_steps_finds_the_same() {
    let scratch = Scratch::new();
    chain(&scratch.dir(), 300);
    for number in 0..600 {
        scratch.file(format!("flat/{number:0>100}"), b"");
    }
    let at_once = walk(&scratch.dir()).unwrap();
    assert_eq!(at_once.len(), 600 + 601);
    let mut walk = begin(&scratch.dir());
    let mut steps = 1;
    let listing = loop {
        match walk.step(Instant::now(), usize::MAX).unwrap() {
            Some(listing) => break listing,
            None => steps += 1,
        }
    };
    // Each lists one name, or reads a buffer of them.
    assert!(steps > 2 * 600, "{steps}");
    assert_eq!(paths(&listing), paths(&at_once));
    assert_eq!(listing.tag(Format::Zip), at_once.tag(Format::Zip));
}

/// Steps until `count` entries are listed.
fn walk_until(walk: &mut Walk, count: usize) {
    while walk.len() < count {
        assert!(walk.step(Instant::now(), usize::MAX).unwrap().is_none());
    }
}

#[test]
fn what_is_moved_during_a_walk_costs_nothing_but_itself() {
    let scratch = Scratch::new();
    chain(&scratch.dir(), 100);
    scratch.file("z/file", b"");
    let tree = scratch.tree();
    let at = |depth: usize| tree.join(vec!["a"; depth].join("/"));
    let mut walk = begin(&scratch.dir());
    // Down to the lowest `a`. Those above the last few are closed.
    walk_until(&mut walk, 100);
    fs::rename(at(50), scratch.out("moved")).unwrap();
    let listing = finish(walk).unwrap();
    let found = paths(&listing);
    // From the moved one there is no way back up but from the root.
    assert!(found.contains(&format!("{}/b/", vec!["a"; 49].join("/"))));
    assert!(found.contains(&"z/file".to_owned()) && found.contains(&"b/".to_owned()));
    assert_eq!(found.iter().filter(|path| path.ends_with("b/")).count(), 100);
}

#[test]
fn a_directory_that_another_took_the_place_of_is_not_listed() {
    let scratch = Scratch::new();
    chain(&scratch.dir(), 100);
    scratch.file("z/file", b"");
    let tree = scratch.tree();
    let at = |depth: usize| tree.join(vec!["a"; depth].join("/"));
    let mut walk = begin(&scratch.dir());
    walk_until(&mut walk, 100);
    // The way up leads to a stranger, and so does the path from the root.
    fs::rename(at(50), scratch.out("moved")).unwrap();
    fs::rename(at(30), scratch.out("also moved")).unwrap();
    for depth in 30..=49 {
        fs::create_dir(at(depth)).unwrap();
    }
    fs::create_dir(at(49).join("b")).unwrap();
    let listing = finish(walk).unwrap();
    let found = paths(&listing);
    let siblings = found.iter().filter(|path| path.ends_with("b/")).count();
    // Below 50 all is found; from 30 to 49 nothing is what it was.
    assert_eq!(siblings, 30 + 50);
    let text = Archive::new(listing, Format::Tar);
    let text = String::from_utf8_lossy(text.text(text.members() - 1).unwrap()).into_owned();
    let lost = format!("{}/b: could not be opened", vec!["a"; 49].join("/"));
    assert!(text.contains(&lost), "{text}");
    assert!(found.contains(&"z/file".to_owned()));
}

/// Opening a directory costs the sandbox a look at each one above it.
#[test]
fn few_trees_may_be_as_deep_as_paths_go() {
    let scratch = Scratch::new();
    for chain_of in ["first", "second"] {
        chain(
            &Dir::open_ambient_dir(scratch.directory(chain_of), ambient_authority()).unwrap(),
            1_600,
        );
    }
    let listing = walk(&scratch.dir()).unwrap();
    let found = paths(&listing);
    let deepest = |name: &str| {
        let depths = found.iter().filter(|path| path.starts_with(name));
        depths.map(|path| path.matches('/').count()).max().unwrap()
    };
    assert_eq!(deepest("first"), 1_601);
    // A directory is listed, and what is in it not.
    assert_eq!(deepest("second"), usize::from(FREE_DEPTH) + 2);
    let text = skipped(&scratch, Format::Tar);
    let second = format!("second/{}: nothing in it", ["a"; 17].join("/"));
    assert!(text.contains(&second), "{text}");
}

/// 5,000 directories, one in the other: longer than any path that can be opened.
#[test]
fn a_deep_tree_ends_where_paths_end_and_says_so() {
    let scratch = Scratch::new();
    let mut dir = scratch.dir();
    for _ in 0..5_000 {
        dir.create_dir("d").unwrap();
        dir = dir.open_dir("d").unwrap();
    }
    let work = move || {
        assert_eq!(walk(&scratch.dir()).unwrap().len(), 1920);
        for format in FORMATS {
            let text = skipped(&scratch, format);
            assert!(text.contains("d: its path is longer than 3840 bytes"), "{text}");
        }
    };
    // A worker's stack.
    let worker = std::thread::Builder::new().stack_size(256 << 10);
    worker.spawn(work).unwrap().join().unwrap();
}

#[test]
fn the_tag_follows_the_tree_and_the_format() {
    let scratch = Scratch::new();
    let path = scratch.file("a/file", b"1");
    super::tree::set(&path, 0o644, 1000, 5);
    let tag = |format| walk(&scratch.dir()).unwrap().tag(format);
    let first = tag(Format::Zip);
    assert_eq!(first, tag(Format::Zip));
    assert_ne!(first, tag(Format::Tar));
    let mut tags = vec![first];
    super::tree::set(&path, 0o600, 1000, 5);
    tags.push(tag(Format::Zip));
    super::tree::set(&path, 0o600, 1000, 6);
    tags.push(tag(Format::Zip));
    scratch.link("link", "a");
    tags.push(tag(Format::Zip));
    scratch.fifo("pipe");
    tags.push(tag(Format::Zip));
    fs::rename(&path, path.with_file_name("fill")).unwrap();
    tags.push(tag(Format::Zip));
    let before = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), before);
}

/// A directory that is now a directory and now a link to its parent, while it is walked.
#[test]
fn swapped_links_lead_nowhere() {
    let scratch = Scratch::new();
    for index in 0..50 {
        scratch.file(format!("a/b/{index}/file"), b"x");
    }
    scratch.link("other", "..");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, tree) = (Arc::clone(&stop), scratch.tree());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(tree.join("a/b"), tree.join("real"));
                let _ = fs::rename(tree.join("other"), tree.join("a/b"));
                let _ = fs::rename(tree.join("a/b"), tree.join("other"));
                let _ = fs::rename(tree.join("real"), tree.join("a/b"));
            }
        })
    };
    for _ in 0..200 {
        let listing = walk(&scratch.dir()).unwrap();
        for path in paths(&listing) {
            let deep = path.split('/').count();
            assert!(deep <= 5 && !path.contains("tree"), "{path}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
}
