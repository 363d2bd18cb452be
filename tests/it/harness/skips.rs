//! Tests that cannot run on this machine say so, each with its reason.
//!
//! The reason goes to standard error at once, past the capture of the test harness, and into the
//! file that `tests/summary.rs` prints at the end of `cargo test`. With `WINGLET_STRICT=1`, which
//! `.ci/run` sets, a skip is a failure.
//!
//! Tests that take long are left out unless `WINGLET_TESTS=all` asks for them, as `make test-all` does.
//! They are named at the end as well, and are no failures.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Notes that the calling test does not run, or not all of it, and why.
pub fn skip(reason: impl AsRef<str>) {
    let line = note(reason.as_ref());
    assert!(std::env::var_os("WINGLET_STRICT").is_none_or(|value| value == "0"), "skipped {line}");
}

/// Whether the calling test may take `time`, which is long; if not, that is noted.
pub fn may_take(time: &str) -> bool {
    let may = is_asked_for("all");
    if !may {
        note(&format!("takes {time}; `make test-all` runs it"));
    }
    may
}

/// Whether nothing else uses this machine's memory and disks; if not, or nobody knows, that is noted.
pub fn is_quiet() -> bool {
    let quiet = is_asked_for("quiet");
    if !quiet {
        note("needs a machine on which nothing else runs: WINGLET_TESTS=quiet");
    }
    quiet
}

/// Whether `what` is among the words of `WINGLET_TESTS`, which a comma divides.
fn is_asked_for(what: &str) -> bool {
    let asked = std::env::var("WINGLET_TESTS").unwrap_or_default();
    asked.split(',').any(|word| word == what)
}

fn note(reason: &str) -> String {
    let thread = thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a helper thread"));
    // By the number of the cargo that runs all tests.
    let cargo = std::os::unix::process::parent_id();
    let list = format!("{}/skipped-{cargo}", env!("CARGO_TARGET_TMPDIR"));
    let list = File::options().append(true).create(true).open(list);
    list.unwrap().write_all(line.as_bytes()).unwrap();
    // Not `eprint!`, which a test that passes keeps to itself.
    let _ = write!(std::io::stderr(), "skipped {line}");
    line
}

/// Whether a program that the calling test needs is there; a skip if it is not.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        skip(format!("{program} is not installed"));
    }
    found
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether the calling test, which needs root, runs as root; a skip if it does not.
pub fn must_be_root() -> bool {
    let root = is_root();
    if !root {
        skip("not root");
    }
    root
}

/// Lets this process open `count` descriptors and some. Returns how many are possible; fewer are a
/// skip.
pub fn descriptors_for(count: usize) -> usize {
    const SPARE: u64 = 1500;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let room = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(SPARE);
    let possible = usize::try_from(room).unwrap_or(usize::MAX).min(count);
    if possible < count {
        skip(format!("only {possible} of {count} connections: raise the limit on descriptors"));
    }
    possible
}
