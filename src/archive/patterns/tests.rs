//! What git says of the same patterns and paths.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::super::hidden::Hidden;
use super::*;

/// A list of patterns, and paths with what git says of each.
struct Case {
    patterns: Vec<String>,
    paths: Vec<(String, bool)>,
}

/// `cases.txt`, which git has made.
fn cases() -> Vec<Case> {
    let text = include_str!("cases.txt");
    let blocks = text.split("\n\n").skip(1);
    blocks
        .map(|block| {
            let mut case = Case { patterns: Vec::new(), paths: Vec::new() };
            for line in block.trim_end_matches('\n').split('\n') {
                match line.split_at(2) {
                    ("p ", pattern) => case.patterns.push(pattern.to_owned()),
                    (verdict, path) => case.paths.push((path.to_owned(), verdict == "+ ")),
                }
            }
            case
        })
        .collect()
}

fn hides(patterns: &[String], path: &str) -> bool {
    let patterns = Patterns::new(patterns.iter().map(String::as_str));
    let Some(hidden) = Hidden::new([patterns.into()]) else { return false };
    hidden.hides(path.as_bytes(), path.ends_with('/'))
}

/// A repository of git's own, removed with everything in it.
struct Repository(PathBuf);

impl Repository {
    /// `None` if there is no git on this machine.
    fn new(name: &str) -> Option<Repository> {
        let path = std::env::temp_dir().join(format!("winglet-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let repository = Repository(path);
        let status = Command::new("git").args(["init", "-q"]).current_dir(&repository.0).status();
        status.is_ok_and(|status| status.success()).then_some(repository)
    }

    /// Which of `paths` git hides. All of them can be there at a time.
    fn hides(&self, patterns: &[String], paths: &[String]) -> Vec<bool> {
        fs::write(self.0.join(".git/info/exclude"), patterns.join("\n") + "\n").unwrap();
        for path in paths {
            let full = self.0.join(path);
            let directory =
                if path.ends_with('/') { full.as_path() } else { full.parent().unwrap() };
            fs::create_dir_all(directory).unwrap();
            if !path.ends_with('/') {
                fs::write(&full, b"").unwrap();
            }
        }
        let mut child = Command::new("git")
            .args(["-c", "core.excludesFile=/dev/null", "-c", "core.ignoreCase=false"])
            .args(["check-ignore", "--no-index", "-z", "--stdin"])
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asked: String =
            paths.iter().map(|path| format!("./{}\0", path.trim_end_matches('/'))).collect();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(asked.as_bytes()).unwrap());
        let output = child.wait_with_output().unwrap();
        // 1: nothing is hidden.
        assert!(output.status.code().is_some_and(|code| code < 2), "{patterns:?} {paths:?}");
        writer.join().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let named: Vec<&str> = text.split('\0').collect();
        self.clear();
        paths
            .iter()
            .map(|path| named.contains(&&*format!("./{}", path.trim_end_matches('/'))))
            .collect()
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.0).unwrap().map(Result::unwrap) {
            if entry.file_name() == ".git" {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => fs::remove_dir_all(entry.path()).unwrap(),
                false => fs::remove_file(entry.path()).unwrap(),
            }
        }
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn all_cases_agree_with_git() {
    let cases = cases();
    let count: usize = cases.iter().map(|case| case.paths.len()).sum();
    assert!(count >= 200, "{count}");
    for Case { patterns, paths } in &cases {
        for (path, hidden) in paths {
            assert_eq!(hides(patterns, path), *hidden, "{patterns:?} {path:?}");
        }
    }
}

#[test]
fn git_says_so_still() {
    let Some(repository) = Repository::new("cases") else { return };
    for Case { patterns, paths } in &cases() {
        for (path, hidden) in paths {
            // One at a time: one path may be a file, and a directory in another.
            let said = repository.hides(patterns, std::slice::from_ref(path));
            assert_eq!(said, [*hidden], "{patterns:?} {path:?}");
        }
    }
}

/// Draws one of `choices` after the other (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn text(&mut self, choices: &[&str], longest: usize) -> String {
        (0..=self.below(longest)).map(|_| choices[self.below(choices.len())]).collect()
    }
}

/// Lists of patterns from a nasty alphabet, and paths that they are about.
#[test]
fn any_pattern_means_what_git_takes_it_for() {
    const PATTERN: [&str; 23] = [
        "a", "a", "b", "ab", "/", "/", "*", "*", "**", "**/", "/**", "?", "[ab]", "[!a]", "[a-b/]",
        "[^b", "\\*", "\\a", "\\/", " ", "*a", "é", ".",
    ];
    const NAME: [&str; 9] = ["a", "a", "b", "b", "*", " ", "é", "[", "."];
    let Some(repository) = Repository::new("any") else { return };
    let seed = std::env::var("PATTERNS_SEED").ok().and_then(|seed| seed.parse().ok());
    let lists = std::env::var("PATTERNS_LISTS").ok().and_then(|count| count.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("PATTERNS_SEED={seed}");
    let mut draw = Draw(seed);
    for _ in 0..lists.unwrap_or(40) {
        let patterns: Vec<String> = (0..=draw.below(4))
            .map(|_| {
                let sign = ["", "", "!"][draw.below(3)];
                let end = ["", "", "/"][draw.below(3)];
                format!("{sign}{}{end}", draw.text(&PATTERN, 5))
            })
            .collect();
        let mut paths: Vec<String> = Vec::new();
        for _ in 0..20 {
            let names: Vec<String> = (0..=draw.below(4)).map(|_| draw.text(&NAME, 2)).collect();
            let path = names.join("/") + ["", "/"][draw.below(2)];
            let within = |path: &str, other: &str| path.starts_with(&format!("{other}/"));
            let fits = |other: &String| {
                let (path, other) = (path.trim_end_matches('/'), other.trim_end_matches('/'));
                path != other && !within(path, other) && !within(other, path)
            };
            let is_name = |name: &String| name != "." && name != "..";
            if names.iter().all(is_name) && paths.iter().all(fits) {
                paths.push(path);
            }
        }
        let said = repository.hides(&patterns, &paths);
        for (path, hidden) in paths.iter().zip(said) {
            assert_eq!(
                hides(&patterns, path),
                hidden,
                "{patterns:?} {path:?} PATTERNS_SEED={seed}"
            );
        }
    }
}

/// Patterns that take others hours, with the longest path that there is.
#[test]
fn no_pattern_takes_long() {
    let deep = "a/".repeat(2047) + "a";
    let long = vec!["ab".repeat(100); 20].join("/");
    for (pattern, times) in [("**/a*/", 60), ("**/*a*/", 60), ("**/*a*b*/", 30), ("*a", 120)] {
        let pattern = pattern.repeat(times) + "c";
        for path in [&deep, &long] {
            assert!(!hides(&[pattern.clone(), "!x".into()], path));
        }
    }
}
