//! What is unpacked is what was listed: random trees with nasty names, packed here and by Python's own
//! modules, give the same files, whoever unpacks them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::super::{Archive, ArchiveReader, Packed};
use super::tools::{has, may_take, run};
use super::tree::{Scratch, noise, set};
use super::{FORMATS, list};

/// Rounds of trees, and those of a short run.
const ROUNDS: u64 = 10;
const SHORT: u64 = 1;
/// Trees that are on disk at a time.
const AT_ONCE: u64 = 100;

/// A number that makes the same trees again; it is printed.
const SEED: &str = "WINGLET_TEST_SEED";

/// What names are made of: what readers stumble over, what that is turned into, and what disks take
/// for the same.
const PIECES: [&[u8]; 36] = [
    b"a",
    b"A",
    b"b.txt",
    b".",
    b" ",
    b"%",
    b"%E9",
    b"%01",
    b"%5C",
    b"%3A",
    b"\xe9",
    b"\xc9",
    b"\xff",
    b"\xed\xa0\x80",
    b"\x01",
    b"\n",
    b"\t",
    b"\x1b",
    b"\x7f",
    b"\\",
    b"..\\",
    b":",
    b"c:",
    b"*",
    b"?",
    b"\"",
    b"'",
    b"~",
    b" (2)",
    b" (3).txt",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"\xc3\x89",
    b"\xe6\x97\xa5\xe6\x9c\xac",
    b"\xf0\x9f\x8e\xae",
    b"\xe2\x80\xae",
];

/// xorshift64*: enough for names, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        for _ in 0..=self.below(3) {
            name.extend_from_slice(self.pick(&PIECES));
        }
        if self.below(12) == 0 {
            name.extend(self.pick(&PIECES).repeat(80));
            name.truncate(250);
            name.extend_from_slice(self.pick(&[&b""[..], b".jar", b".\xff"]));
        }
        name
    }

    fn seconds(&mut self) -> i64 {
        match self.below(8) {
            0 => -(self.below(2_100_000_000) as i64),
            1 => self.below(320_000_000) as i64,
            2 => 2_140_000_000 + self.below(2_230_000_000) as i64,
            3 => 4_350_000_000 + self.below(9_000_000_000) as i64,
            _ => 1_000_000_000 + self.below(800_000_000) as i64,
        }
    }

    /// Where a link in a directory `depth` below the tree leads: to one of `made`, or elsewhere.
    fn target(&mut self, depth: usize, made: &[Vec<u8>]) -> Vec<u8> {
        let one = self.pick(made);
        let two = self.pick(made);
        let up = b"../".repeat(depth);
        match self.below(10) {
            9 => [&up, &b"../server.jar"[..]].concat(),
            0 => [b"/home/container/world/", &one[..]].concat(),
            1 => [b"/home/container/plugins/", &one[..]].concat(),
            2 => b"/etc/passwd".to_vec(),
            3 => [&up, &b"../"[..], &one].concat(),
            4 => [&up, &one, &b"/../"[..], &two].concat(),
            5 => [&up, &one, &b"/../.."[..]].concat(),
            6 => b"..".to_vec(),
            _ => [&up, &one[..]].concat(),
        }
    }
}

/// Makes a tree at `root`. What cannot be made, because a name is taken or too long, is not.
fn plant(random: &mut Random, root: &Path) {
    fs::create_dir(root).unwrap();
    let mut directories = vec![Vec::new()];
    let mut made: Vec<Vec<u8>> = vec![b"nowhere".to_vec()];
    let mut to_set: Vec<PathBuf> = Vec::new();
    for _ in 0..random.below(24) {
        let above: Vec<u8> = random.pick(&directories);
        let name = random.name();
        if name == b"." || name == b".." {
            continue;
        }
        let path = if above.is_empty() { name } else { [&above[..], b"/", &name].concat() };
        let at = root.join(OsStr::from_bytes(&path));
        if at.symlink_metadata().is_ok() {
            continue;
        }
        let depth = path.iter().filter(|&&byte| byte == b'/').count();
        let is_made = match random.below(10) {
            0..3 => fs::create_dir(&at).map(|()| directories.push(path.clone())),
            3..5 => symlink(OsStr::from_bytes(&random.target(depth, &made)), &at),
            5 => fs::write(&at, noise(65_530 + random.below(12) as usize)),
            _ => fs::write(&at, noise(random.below(40) as usize)),
        };
        if is_made.is_ok() {
            if !at.is_symlink() {
                to_set.push(at);
            }
            made.push(path);
        }
    }
    for path in to_set.iter().rev() {
        let mode =
            random.pick(&[0o644, 0o600, 0o755, 0o777, 0o4755, 0o6711, 0o1777, 0o2770, 0o440]);
        let mode = if path.is_dir() { mode | 0o700 } else { mode };
        set(path, mode, random.seconds(), random.below(1_000_000_000) as u32);
    }
}

fn write(packed: Packed, path: &Path) {
    let range = 0..packed.archive.length();
    let mut reader = ArchiveReader::new(packed, &range, None);
    let (mut file, mut buffer) = (File::create(path).unwrap(), vec![0; 1 << 18]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            count => file.write_all(&buffer[..count]).unwrap(),
        }
    }
}

#[test]
fn random_trees_unpack_as_those_that_python_packs() {
    if !["python3", "unzip", "tar"].into_iter().all(has) {
        return;
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var(SEED).map_or(now, |seed| seed.parse().unwrap());
    let told = format!("{SEED}={seed}");
    // Not `eprint!`, which a test that passes keeps to itself.
    let _ = writeln!(std::io::stderr(), "random trees: {told}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/archive/tests/oracle.py");
    let mut random = Random(seed | 1);
    let rounds = if may_take("a minute with 1,000 trees; 100 are tried") { ROUNDS } else { SHORT };
    for _ in 0..rounds {
        let scratch = Scratch::in_memory();
        for number in 0..AT_ONCE {
            plant_and_pack(&mut random, &scratch.directory(format!("{number}")));
        }
        let trees = scratch.tree();
        let arguments = [script.to_str().unwrap(), trees.to_str().unwrap(), &told];
        run("python3", &arguments, Stdio::null());
    }
}

/// Makes the tree `world` in `place`, which is the volume, and its archives beside it.
fn plant_and_pack(random: &mut Random, place: &Path) {
    let open = |path: &Path| Dir::open_ambient_dir(path, ambient_authority()).unwrap();
    fs::write(place.join("server.jar"), b"beside the tree").unwrap();
    let tree = place.join("world");
    plant(random, &tree);
    let root = Arc::new(open(&tree));
    for format in FORMATS {
        let archive = Arc::new(Archive::new(list(open(place), "world", format), format));
        let packed = Packed::new(archive, Arc::clone(&root));
        write(packed, &place.join(format.extension()));
    }
}
