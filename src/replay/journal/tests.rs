//! Tests of the journal: what damaged files cost, and what compaction keeps.

use std::os::unix::fs::PermissionsExt;

use super::super::tests::{State, deliver, request};
use super::super::{LinkStatus, Replay, Rules};
use super::*;
use crate::config::Reuse;

const RULES: Rules = Rules { reuse: Reuse::Resume, window: 86_400, bind: true };
const NOW: u64 = 1_800_000_000;

/// A state directory in which links `0..count` are spent, and its journal.
fn spent(count: u64) -> (State, PathBuf, Vec<u8>) {
    let state = State::new();
    let replay = state.open(&RULES);
    (0..count).for_each(|link| deliver(&replay, &request(link)));
    drop(replay);
    let path = state.0.join(CURRENT);
    let content = std::fs::read(&path).unwrap();
    (state, path, content)
}

fn standings(state: &State, count: u64) -> Vec<LinkStatus> {
    let replay = state.open(&RULES);
    (0..count).map(|link| replay.standing(&request(link).key)).collect()
}

fn refusal(state: &State) -> String {
    Replay::with_journal(10, &state.0, &RULES, NOW).unwrap_err().to_string()
}

#[test]
fn files_are_private_and_one_server_holds_them() {
    let (state, path, _) = spent(1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&state.0), mode(&path)), (0o700, 0o600));
    let held = state.open(&RULES);
    let refused = refusal(&state);
    assert!(refused.contains("in use by another server"), "{refused}");
    drop(held);
    assert_eq!(standings(&state, 1), [LinkStatus::Spent]);
}

#[test]
fn a_torn_last_line_costs_that_line_only() {
    let (state, path, content) = spent(3);
    let last = content[..content.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for end in last..content.len() {
        std::fs::write(&path, &content[..end]).unwrap();
        let loaded = read(&state.0).unwrap();
        let torn = usize::from(end > last && end < content.len() - 1);
        assert_eq!(loaded.skipped, torn, "cut at {end}");
        let standings = standings(&state, 3);
        assert_eq!(standings[..2], [LinkStatus::Spent, LinkStatus::Spent], "cut at {end}");
        // The claim before it is there: the link is in use, not new.
        assert_ne!(standings[2], LinkStatus::Unused, "cut at {end}");
    }
}

#[test]
fn garbage_between_good_lines_is_skipped() {
    let (state, path, content) = spent(4);
    let garbage: [&[u8]; 6] =
        [b"hello\n", b"\0\0\0\0\n", b"\xff\xfe\n", b"\n", &[b'x'; 100_000], b"\n"];
    let mut mixed = Vec::new();
    for (index, line) in content.split_inclusive(|byte| *byte == b'\n').enumerate() {
        mixed.extend_from_slice(line);
        mixed.extend_from_slice(garbage[index % garbage.len()]);
        if index % garbage.len() == 4 {
            mixed.push(b'\n');
        }
    }
    std::fs::write(&path, mixed).unwrap();
    assert!(read(&state.0).unwrap().skipped > 0);
    assert_eq!(standings(&state, 4), vec![LinkStatus::Spent; 4]);
    assert_eq!(read(&state.0).unwrap().skipped, 0, "the start has cleaned it");
}

#[test]
fn what_is_no_journal_is_never_an_empty_one() {
    let (state, path, content) = spent(2);
    let tables: [&[u8]; 7] = [
        b"",
        b"\n",
        b"winglet-jour",
        b"winglet-journal 2\nwhatever\n",
        b"winglet-journal 1 \n",
        b"\x7fELF garbage",
        &content[18..],
    ];
    for garbage in tables {
        std::fs::write(&path, garbage).unwrap();
        let refused = refusal(&state);
        assert!(refused.contains("cannot read") && refused.contains("move it away"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), garbage, "it is left as it was");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refusal(&state).contains("cannot read"));
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(refusal(&state).contains("cannot read"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, content).unwrap();
    assert_eq!(standings(&state, 2), vec![LinkStatus::Spent; 2]);
}

#[test]
fn a_crash_at_any_point_of_a_compaction_loses_nothing() {
    let (state, path, content) = spent(3);
    let old = state.0.join(OLD);
    // Renamed; made; half a header; half the copies.
    let stages: [Option<&[u8]>; 5] =
        [None, Some(b""), Some(b"winglet-"), Some(HEADER.as_bytes()), Some(&content[..200])];
    for stage in stages {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&old, &content).unwrap();
        stage.inspect(|stage| std::fs::write(&path, stage).unwrap());
        assert_eq!(standings(&state, 3), vec![LinkStatus::Spent; 3], "{stage:?}");
        assert!(!old.exists(), "the start has ended it");
    }
}

#[test]
fn lines_in_any_order_and_twice_say_the_same() {
    let (state, path, content) = spent(5);
    let mut lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').skip(1).collect();
    lines.reverse();
    let mut shuffled = HEADER.as_bytes().to_vec();
    lines.iter().chain(&lines).for_each(|line| shuffled.extend_from_slice(line));
    std::fs::write(&path, shuffled).unwrap();
    assert_eq!(standings(&state, 5), vec![LinkStatus::Spent; 5]);
}

#[test]
fn compaction_under_load_loses_nothing_and_keeps_the_file_small() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1500;
    let state = State::new();
    let replay = state.open(&RULES);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let replay = &replay;
                scope.spawn(move || {
                    (0..EACH).for_each(|i| deliver(replay, &request(thread * EACH + i)));
                })
            })
            .collect();
        while !loads.iter().all(|load| load.is_finished()) {
            replay.compact().unwrap();
        }
    });
    drop(replay);
    let loaded = read(&state.0).unwrap();
    assert_eq!((loaded.entries.len() as u64, loaded.skipped), (THREADS * EACH, 0));
    assert!(loaded.entries.iter().all(|(_, entry)| entry.spent));
}

#[test]
fn a_failed_write_is_made_up_for() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    // Every write to /dev/full fails with ENOSPC.
    journal.lock().file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    deliver(&replay, &request(1));
    assert!(journal.wants_compaction());
    assert_eq!(replay.standing(&request(1).key), LinkStatus::Spent, "in memory");
    replay.maintain(&RULES, NOW);
    assert!(!journal.wants_compaction());
    deliver(&replay, &request(2));
    drop(replay);
    assert_eq!(standings(&state, 3), vec![LinkStatus::Spent; 3]);
}
