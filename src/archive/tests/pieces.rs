//! An archive that is sent in pieces, some of which the client takes only in part.

use std::io::Read;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{ArchiveReader, Packed};
use super::tree::{self, noise};
use super::{FORMATS, pack, read_whole};
use crate::disk::readers::Readers;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A piece reads some, and only part of that is sent.
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
            let packed = Packed::new(Arc::clone(&archive), root);
            let readers = spare.then(Arc::<Readers>::default);
            let mut reader = ArchiveReader::new(packed, &(0..archive.length()), readers);
            let mut sent = Vec::new();
            let mut turns = pieces.iter().cycle();
            while (sent.len() as u64) < archive.length() {
                let &(size, percent, reads) = turns.next().unwrap();
                for turn in 1..=reads {
                    reader.seek(sent.len() as u64).unwrap();
                    let mut buffer = vec![0; size];
                    let count = reader.read(&mut buffer).unwrap();
                    // The last read of a piece may be sent in part.
                    let part = if turn < reads { count } else { count * percent / 100 };
                    sent.extend_from_slice(&buffer[..part.max(1.min(count))]);
                }
                prop_assert_eq!(reader.take_extra(), 0);
            }
            reader.finish();
            prop_assert!(sent == whole);
        }
    }
}
