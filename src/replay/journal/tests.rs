//! Tests of the journal: what damaged files cost, and what compaction keeps.

use std::os::unix::fs::PermissionsExt;

use super::super::tests::{NOW, RULES, State, deliver, open, request};
use super::super::{LEAP, LinkId, LinkStatus, Replay};
use super::*;

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

fn statuses(state: &State, count: u64) -> Vec<LinkStatus> {
    let replay = state.open(&RULES);
    (0..count).map(|link| replay.status(&request(link).key, &RULES, NOW)).collect()
}

/// Damaged lines of the journal.
fn skipped(state: &State) -> usize {
    let file = File::open(state.0.join(CURRENT)).unwrap();
    read_file(file, &mut Remembered::default()).unwrap()
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
    assert_eq!(statuses(&state, 1), [LinkStatus::Spent]);
}

#[test]
fn a_torn_last_line_costs_that_line_only() {
    let (state, path, content) = spent(3);
    let last = content[..content.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for end in last..content.len() {
        std::fs::write(&path, &content[..end]).unwrap();
        let torn = usize::from(end > last && end < content.len() - 1);
        assert_eq!(skipped(&state), torn, "cut at {end}");
        let statuses = statuses(&state, 3);
        assert_eq!(statuses[..2], [LinkStatus::Spent, LinkStatus::Spent], "cut at {end}");
        // The claim before it is there: the link is in use, not new.
        assert_ne!(statuses[2], LinkStatus::Unused, "cut at {end}");
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
    assert!(skipped(&state) > 0);
    assert_eq!(statuses(&state, 4), vec![LinkStatus::Spent; 4]);
    assert_eq!(skipped(&state), 0, "the start has cleaned it");
}

#[test]
fn what_is_no_journal_is_never_an_empty_one() {
    let (state, path, content) = spent(2);
    let tables: [&[u8]; 7] = [
        b"",
        b"\n",
        b"winglet-jour",
        b"winglet-journal 2\nwhatever\n",
        b"winglet-journal 3 \n",
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
    assert_eq!(statuses(&state, 2), vec![LinkStatus::Spent; 2]);
}

#[test]
fn a_crash_at_any_point_of_a_rewrite_loses_nothing() {
    let (state, _, content) = spent(3);
    for half in [0, 5, content.len() / 2, content.len()] {
        std::fs::write(state.0.join(NEW), &content[..half]).unwrap();
        assert_eq!(statuses(&state, 3), vec![LinkStatus::Spent; 3], "{half}");
        assert!(!state.0.join(NEW).exists());
    }
}

#[test]
fn a_kind_of_line_that_is_not_known_costs_that_line_only() {
    let (state, path, mut content) = spent(2);
    let line = "revoked server 00 until 7";
    let sum = hmac_sha256::Hash::hash(line.as_bytes());
    let sum = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    content.extend_from_slice(format!("{line} *{sum:08x}\n").as_bytes());
    std::fs::write(&path, content).unwrap();
    assert_eq!(statuses(&state, 2), vec![LinkStatus::Spent; 2]);
}

#[test]
fn lines_in_any_order_and_twice_say_the_same() {
    let (state, path, content) = spent(5);
    let mut lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').skip(1).collect();
    lines.reverse();
    let mut shuffled = HEADER.as_bytes().to_vec();
    lines.iter().chain(&lines).for_each(|line| shuffled.extend_from_slice(line));
    std::fs::write(&path, shuffled).unwrap();
    assert_eq!(statuses(&state, 5), vec![LinkStatus::Spent; 5]);
}

#[test]
fn a_rewrite_under_load_loses_nothing_and_keeps_the_file_small() {
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
            replay.rewrite(replay.journal.as_ref().unwrap());
        }
    });
    assert!(!replay.journal.as_ref().unwrap().inner().behind);
    drop(replay);
    assert_eq!(skipped(&state), 0);
    let links = read(&state.0).unwrap().0;
    assert_eq!(links.len() as u64, THREADS * EACH);
    assert!(links.iter().all(|(_, entry)| entry.spent));
}

#[test]
fn a_failed_write_is_made_up_for() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    // Every write to /dev/full fails with ENOSPC.
    journal.inner().file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
    deliver(&replay, &request(1));
    assert!(journal.wants_rewrite(NOW));
    assert_eq!(replay.status(&request(1).key, &RULES, NOW), LinkStatus::Spent, "in memory");
    replay.maintain(&RULES, NOW);
    assert!(!journal.wants_rewrite(NOW));
    deliver(&replay, &request(2));
    drop(replay);
    assert_eq!(statuses(&state, 3), vec![LinkStatus::Spent; 3]);
}

#[test]
fn a_line_that_failed_half_way_costs_that_line_only() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    let mut file = journal.inner().file.as_ref().unwrap().try_clone().unwrap();
    file.write_all(b"link 0123").unwrap();
    journal.inner().fail(&state.0, &io::Error::other("no room"));
    deliver(&replay, &request(1));
    let mut all = Remembered::default();
    let skipped = read_file(File::open(state.0.join(CURRENT)).unwrap(), &mut all);
    assert_eq!((all.0.len(), skipped.unwrap()), (4, 1), "a claim and an end each");
}

#[test]
fn a_rewrite_that_fails_waits_a_minute_and_costs_nothing() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    // A directory in the place of the new file: it can be neither removed nor written.
    std::fs::create_dir(state.0.join(NEW)).unwrap();
    journal.inner().behind = true;
    let mut tries = Vec::new();
    for now in NOW..NOW + 200 {
        let before = journal.inner().retry_at;
        replay.maintain(&RULES, now);
        if journal.inner().retry_at > before {
            tries.push(now - NOW);
        }
    }
    assert_eq!(tries, [0, 60, 120, 180]);
    deliver(&replay, &request(1));
    std::fs::remove_dir(state.0.join(NEW)).unwrap();
    assert_eq!(read(&state.0).unwrap().0.len(), 2, "lines go to the old file meanwhile");
    replay.maintain(&RULES, NOW + 240);
    assert!(!journal.inner().behind);
}

#[test]
fn a_rewrite_that_has_no_room_does_not_begin() {
    let state = State::new();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    let never = std::iter::from_fn(|| -> Option<String> { panic!("it begins") });
    journal.rewrite(NOW, u64::MAX, never);
    assert!(journal.inner().behind && !state.0.join(NEW).exists());
    assert!(journal.wants_rewrite(NOW), "it looks again at once");
    replay.maintain(&RULES, NOW);
    assert!(!journal.inner().behind);
}

#[test]
fn a_server_that_could_not_lock_writes_nothing_before_it_can() {
    let state = State::new();
    // A directory in the place of the lock file cannot be opened for writing, but locked.
    std::fs::create_dir_all(state.0.join("lock")).unwrap();
    let replay = state.open(&RULES);
    assert!(refusal(&state).contains("in use by another server"));
    drop(replay);
    std::fs::remove_dir(state.0.join("lock")).unwrap();
    std::os::unix::fs::symlink("/nowhere", state.0.join("lock")).unwrap();
    let replay = state.open(&RULES);
    deliver(&replay, &request(0));
    let journal = replay.journal.as_ref().unwrap();
    assert!(journal.inner().lock.is_none() && journal.inner().file.is_none());
    std::fs::remove_file(state.0.join("lock")).unwrap();
    (0..3).for_each(|minute| replay.maintain(&RULES, NOW + minute * LEAP));
    assert!(journal.inner().lock.is_some() && !journal.inner().behind);
    drop(replay);
    assert_eq!(statuses(&state, 1), [LinkStatus::Spent]);
}

#[test]
fn a_directory_that_cannot_be_made_costs_the_memory_only() {
    let state = State::new();
    std::fs::create_dir(&state.0).unwrap();
    let file = state.0.join("file");
    std::fs::write(&file, "").unwrap();
    // A path through a file: the journal in it cannot be read, and need not be empty.
    let below = file.join("state");
    assert!(Replay::with_journal(10, &below, &RULES, NOW).is_err());
    // /proc takes no directories.
    let nowhere = Path::new("/proc/winglet");
    let replay = std::sync::Arc::new(open(10, nowhere, &RULES, NOW));
    deliver(&replay, &request(0));
    assert!(replay.journal.as_ref().unwrap().inner().behind);
}

#[test]
fn revocations_outlive_a_restart_and_a_rewrite() {
    let state = State::new();
    let id =
        LinkId { link: [1; 16], server: Some([2; 16]), user: None, jti: None, issued: Some(NOW) };
    let target = Target { server: Some([2; 16]), ..Target::default() };
    let known = Revocation { issued: NOW, end: NOW + 86_400 };
    let replay = state.open(&RULES);
    assert!(replay.revoke(target, known, NOW).unwrap() && replay.is_revoked(&id));
    drop(replay);
    for _ in 0..2 {
        // Opening it rewrites it.
        let replay = state.open(&RULES);
        assert!(replay.is_revoked(&id) && replay.revocations() == 1);
        assert!(!replay.is_revoked(&LinkId { issued: Some(NOW + 1), ..id }));
        drop(replay);
    }
    let late = open(100, &state.0, &RULES, NOW + 2 * 86_400);
    for minute in 0..70 {
        late.maintain(&RULES, NOW + 2 * 86_400 + minute * 60);
    }
    assert_eq!(late.revocations(), 0, "what is over goes, an hour later");
}

#[test]
fn a_revocation_that_could_not_be_written_says_so() {
    let replay = Replay::in_memory(10);
    let known = Revocation { issued: NOW, end: NOW + 100 };
    assert_eq!(replay.revoke(Target::default(), known, NOW), Ok(false));
    let state = State::new();
    let replay = state.open(&RULES);
    replay.journal.as_ref().unwrap().inner().file =
        Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
    assert_eq!(replay.revoke(Target::default(), known, NOW), Ok(false));
}

/// A backup that is put back, or a wrong `rm`: then a crash revived every spent link.
#[test]
fn a_journal_that_is_replaced_or_removed_is_written_anew() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("the journal is gone", |path| std::fs::remove_file(path.join(CURRENT)).unwrap()),
        ("the lock is gone", |path| std::fs::remove_file(path.join(LOCK)).unwrap()),
        ("everything is gone", |path| std::fs::remove_dir_all(path).unwrap()),
        ("another directory", |path| {
            std::fs::remove_dir_all(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("an older journal", |path| {
            let (journal, copy) = (path.join(CURRENT), path.join("copy"));
            std::fs::write(&copy, HEADER).unwrap();
            std::fs::rename(copy, journal).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let state = State::new();
        let replay = state.open(&RULES);
        deliver(&replay, &request(0));
        let journal = replay.journal.as_ref().unwrap();
        assert!(!journal.wants_rewrite(NOW), "{name}");
        harm(&state.0);
        replay.maintain(&RULES, NOW);
        assert!(!journal.inner().behind && !journal.wants_rewrite(NOW), "{name}");
        // The lock is ours again.
        assert!(refusal(&state).contains("in use by another server"), "{name}");
        deliver(&replay, &request(1));
        drop(replay);
        assert_eq!(statuses(&state, 2), vec![LinkStatus::Spent; 2], "{name}");
    }
}
