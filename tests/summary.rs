//! The last lines of `cargo test`: what was skipped on this machine, or left out because it takes long,
//! and why.
//!
//! Cargo runs the test binaries in the order of their names and this one last. The others write the
//! list (`tests/it/harness/skips.rs`, `src/archive/tests/tools.rs`). It has no tests of its own.

use std::os::unix::process::parent_id;
use std::path::Path;

fn main() {
    // Whoever lists tests, such as cargo-nextest, finds none here.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let list = directory.join(format!("skipped-{}", parent_id()));
    let skipped = std::fs::read_to_string(list).unwrap_or_default();
    let mut lines: Vec<&str> = skipped.lines().collect();
    lines.sort_unstable();
    match lines.len() {
        0 => println!("\nno test was skipped"),
        1 => println!("\n1 test, or a part of it, was skipped:"),
        count => println!("\n{count} tests, or parts of them, were skipped:"),
    }
    lines.iter().for_each(|line| println!("  {line}"));
    // Those of runs that never came to an end, too.
    for found in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = found.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("skipped-"));
        let is_old = |number: &str| !Path::new("/proc").join(number).exists();
        if number.is_some_and(|number| number == parent_id().to_string() || is_old(number)) {
            let _ = std::fs::remove_file(found.path());
        }
    }
}
