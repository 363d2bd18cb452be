//! Trees on disk, packed, cut, joined and given to the programs that people unpack them with.

mod cuts;
mod formats;
mod large;
mod links;
mod names;
mod oracle;
mod pieces;
mod shelf;
mod sums;
mod tools;
pub(super) mod tree;
mod veils;
mod walks;

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;

use super::{Archive, ArchiveReader, Format, Listing, Packed, Pause, Place, Walk, WalkError};
use tree::Scratch;

const FORMATS: [Format; 2] = [Format::Zip, Format::Tar];

/// Walks to the end in one step.
fn finish(mut walk: Walk) -> Result<Listing, WalkError> {
    let far = Instant::now() + Duration::from_secs(3600);
    walk.step(far, usize::MAX).map(|listing| listing.expect("an hour is enough"))
}

/// Begins to list all of `root`, which is a volume.
fn begin(root: &Dir) -> Walk {
    let volume = Arc::new(root.try_clone().unwrap());
    let place = Place { volume, base: Vec::new(), hidden: None };
    Walk::new(root, &place, Format::Tar, &[String::new()]).unwrap()
}

fn walk(root: &Dir) -> Result<Listing, WalkError> {
    finish(begin(root))
}

/// Lists `base`, which is a directory of `volume`, for an archive in `format`.
fn list(volume: Dir, base: &str, format: Format) -> Listing {
    let root = if base.is_empty() { volume.try_clone() } else { volume.open_dir(base) };
    let place = Place { volume: Arc::new(volume), base: base.into(), hidden: None };
    finish(Walk::new(&root.unwrap(), &place, format, &[String::new()]).unwrap()).unwrap()
}

/// What `scratch` holds, laid out; no CRC is known yet.
fn pack(scratch: &Scratch, format: Format) -> Arc<Archive> {
    Arc::new(Archive::new(list(scratch.dir(), "", format), format))
}

fn reader(scratch: &Scratch, archive: &Arc<Archive>, range: Range<u64>) -> ArchiveReader {
    let packed = Packed::new(Arc::clone(archive), Arc::new(scratch.dir()));
    ArchiveReader::new(packed, &range, None)
}

/// All bytes of `range`, read `step` at a time, and how often the reader paused.
fn read_range(
    scratch: &Scratch,
    archive: &Arc<Archive>,
    range: Range<u64>,
    step: usize,
) -> (Vec<u8>, usize) {
    let (mut bytes, mut pauses) = (Vec::new(), 0);
    let mut buffer = vec![0; step];
    let mut reader = reader(scratch, archive, range.clone());
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if Pause::of(&error).is_some() => pauses += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(reader.position(), range.start + bytes.len() as u64);
    }
    (bytes, pauses)
}

fn read_whole(scratch: &Scratch, archive: &Arc<Archive>) -> Vec<u8> {
    let (bytes, pauses) = read_range(scratch, archive, 0..archive.length(), 256 << 10);
    assert_eq!((bytes.len() as u64, pauses), (archive.length(), 0));
    bytes
}
