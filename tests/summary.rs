//! The last lines of `cargo test`: what the integration tests skipped on this machine, and why.
//!
//! Cargo runs the test binaries in the order of their names and this one after `it`, whose harness
//! writes the list (`tests/it/harness/skips.rs`). It has no tests of its own.

fn main() {
    // Whoever lists tests, such as cargo-nextest, finds none here.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let list = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped");
    // No list: the run was of other tests.
    let Ok(skipped) = std::fs::read_to_string(list) else { return };
    let mut lines: Vec<&str> = skipped.lines().collect();
    lines.sort_unstable();
    match lines.len() {
        0 => println!("\nno integration test was skipped"),
        1 => println!("\n1 integration test, or a part of it, was skipped:"),
        count => println!("\n{count} integration tests, or parts of them, were skipped:"),
    }
    lines.iter().for_each(|line| println!("  {line}"));
    let _ = std::fs::remove_file(list);
}
