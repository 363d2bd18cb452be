//! Pieces fetched from anywhere and joined are the whole, byte for byte.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::tree::{self, Scratch};
use super::{FORMATS, pack, read_range, read_whole};

fn check_cuts(scratch: &Scratch, cuts: &[prop::sample::Index], steps: &[usize]) {
    for format in FORMATS {
        let whole = read_whole(scratch, &pack(scratch, format));
        // Nothing known of CRCs at first; what one piece comes to know, the later ones use.
        let archive = pack(scratch, format);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let mut pieces: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        // The last first: it wants CRCs of what nobody has read.
        pieces.reverse();
        for (piece, step) in pieces.into_iter().zip(steps.iter().cycle()) {
            let range = piece.start as u64..piece.end as u64;
            let (bytes, _) = read_range(scratch, &archive, range, *step);
            assert!(bytes == whole[piece.clone()], "{format:?} differs in {piece:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn random_trees_cut_at_random_join_to_the_whole(
        nodes in tree::nodes(300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        steps in prop::collection::vec(1..300_000usize, 1..4),
    ) {
        check_cuts(&tree::plant(&nodes), &cuts, &steps);
    }
}

#[test]
fn five_thousand_entries_join_to_the_whole() {
    let scratch = Scratch::new();
    for index in 0..5_000usize {
        let path = format!("{}/{}/日本-{index}.txt", index % 7, index % 91);
        scratch.file(path, &tree::noise(index * 13 % 700));
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 50);
    let cuts = cuts.new_tree(&mut runner).unwrap().current();
    check_cuts(&scratch, &cuts, &[70_000, 8 << 10, 1 << 20]);
}

#[test]
fn every_position_of_a_small_archive_is_a_start() {
    let scratch = Scratch::new();
    scratch.file("a/one", b"1");
    scratch.file("a/none", b"");
    scratch.directory("empty");
    scratch.link("link", "a/one");
    scratch.file(format!("{}/end", "long".repeat(60)), &[7; 600]);
    for format in FORMATS {
        let whole = read_whole(&scratch, &pack(&scratch, format));
        for start in 0..=whole.len() {
            let archive = pack(&scratch, format);
            let range = start as u64..whole.len() as u64;
            let (bytes, _) = read_range(&scratch, &archive, range, 1 + start % 777);
            assert!(bytes == whole[start..], "{format:?} from {start}");
        }
    }
}
