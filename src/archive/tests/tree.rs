//! Trees of files in a directory of their own, as written and at random.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};

/// Two directories that go when this does: `tree` to be packed, `out` for everything else.
pub(crate) struct Scratch {
    base: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    /// In memory, if the system has a directory there: for very many small files.
    pub(crate) fn in_memory() -> Scratch {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Scratch::below(memory) } else { Scratch::new() }
    }

    fn below(directory: &Path) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("winglet-archive-{}-{number}", std::process::id());
        let base = directory.join(name);
        for directory in ["tree", "out"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        Scratch { base }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.base.join("tree")
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.base.join("out").join(name)
    }

    pub(crate) fn dir(&self) -> Dir {
        Dir::open_ambient_dir(self.tree(), ambient_authority()).unwrap()
    }

    fn place(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub(crate) fn file(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.place(path);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn sparse(&self, path: impl AsRef<Path>, size: u64) -> PathBuf {
        let path = self.place(path);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    pub(crate) fn directory(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.place(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        symlink(target, self.place(path)).unwrap();
    }

    pub(crate) fn fifo(&self, path: impl AsRef<Path>) {
        mkfifoat(CWD, self.place(path), Mode::from(0o644)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // rm, since a tree may be deeper than std's own walk can go.
        let _ = std::process::Command::new("rm").arg("-rf").arg(&self.base).status();
    }
}

/// Sets what is to be found again after unpacking.
pub(crate) fn set(path: &Path, mode: u32, seconds: i64, nanoseconds: u32) {
    let length = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { epoch - length } else { epoch + length };
    let times = FileTimes::new().set_modified(time + Duration::from_nanos(nanoseconds.into()));
    OpenOptions::new().read(true).open(path).unwrap().set_times(times).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One member of a random tree.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    above: prop::sample::Index,
    name: String,
    /// Bytes of content; none is a directory.
    content: Option<usize>,
    mode: u32,
    seconds: i64,
    nanoseconds: u32,
}

/// Up to `most` files and directories with names that somebody will have.
pub(crate) fn nodes(most: usize) -> impl Strategy<Value = Vec<Node>> {
    let name = prop_oneof![
        4 => "[a-z]{1,8}\\.(jar|yml|dat)",
        1 => "[ \"'\\\\\n\t*?|<>:%&;$]{1,6}",
        1 => "[日本語éñß🎮]{1,20}",
        1 => "[A-Za-z]{150,250}",
    ];
    let content = prop_oneof![
        3 => Just(None),
        1 => Just(Some(0)),
        4 => (1..2000usize).prop_map(Some),
        1 => (60_000..140_000usize).prop_map(Some),
        1 => prop_oneof![Just(65_534usize), Just(65_535), Just(65_536), Just(131_070)].prop_map(Some),
    ];
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o600), Just(0o777), Just(0o4755)];
    let seconds = prop_oneof![4 => 0i64..4_000_000_000, 1 => -2_000_000_000i64..10_000_000_000];
    let nanoseconds = prop_oneof![Just(0u32), 0..1_000_000_000u32];
    let node = (any::<prop::sample::Index>(), name, content, mode, seconds, nanoseconds).prop_map(
        |(above, name, content, mode, seconds, nanoseconds)| Node {
            above,
            name,
            content,
            mode,
            seconds,
            nanoseconds,
        },
    );
    prop::collection::vec(node, 0..=most)
}

/// Makes `nodes` in a directory of their own. What cannot be made (a name that is taken, a path that
/// is too long) is not.
pub(crate) fn plant(nodes: &[Node]) -> Scratch {
    let scratch = Scratch::new();
    let mut directories = vec![scratch.tree()];
    let mut made = Vec::new();
    for node in nodes {
        let path = node.above.get(&directories).join(&node.name);
        let done = match node.content {
            None => fs::create_dir(&path),
            Some(_) if path.exists() => continue,
            Some(length) => fs::write(&path, noise(length)),
        };
        if done.is_err() {
            continue;
        }
        if node.content.is_none() {
            // Deep trees are likelier if the newest directories are.
            directories.push(path.clone());
            directories.push(path.clone());
        }
        made.push((path, node));
    }
    for (path, node) in made.iter().rev() {
        let mode = if node.content.is_none() { node.mode | 0o700 } else { node.mode };
        set(path, mode, node.seconds, node.nanoseconds);
    }
    scratch
}

/// Bytes that are not all alike.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u32 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
