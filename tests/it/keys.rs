//! config.yml, the list of keys in README.md and those in winglet.yml(5) say what the table of keys
//! says. With `UPDATE_DOCS=1` in the environment, the tests write them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use winglet::config::{self, Change, KEYS, Key, SAMPLE_TOKEN};

/// What config.yml sets for the sample node.
const SAMPLE: &[(&str, &str)] = &[
    ("remote", "\"https://panel.example.com\""),
    ("system.data", "contrib/sample/volumes"),
    ("system.backup_directory", "contrib/sample/backups"),
    ("winglet.listen", "[\"127.0.0.1:8080\"]"),
];
/// The width of config.yml.
const WIDTH: usize = 100;

/// Compares `made` with what stands in the file at `path` between `begin` and `end`.
fn is_documented(path: &str, begin: &str, end: &str, made: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&file).unwrap();
    let start = text.find(begin).unwrap_or_else(|| panic!("{path} has no {begin:?}")) + begin.len();
    let length = text[start..].find(end).unwrap_or(text.len() - start);
    let expected = format!("{}{made}{}", &text[..start], &text[start + length..]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let differs = text.lines().zip(expected.lines()).find(|(is, should)| is != should);
    assert!(
        text == expected || std::env::var_os("UPDATE_DOCS").is_some(),
        "{path} differs from the table of keys: {differs:?}; run UPDATE_DOCS=1 cargo test --test it keys::"
    );
}

/// What the key does, and what a change of it takes.
fn about(key: &Key) -> String {
    let about = key.about.trim();
    match key.change {
        Change::AtOnce => about.to_owned(),
        Change::Restart(_) => format!("{about} A change needs a restart."),
        Change::Confined(_) => format!("{about} Under the sandbox, a change needs a restart."),
    }
}

/// The sentences of `text`: none of them has a full stop inside, unless no space comes after it.
fn sentences(text: &str) -> Vec<String> {
    let ends = |text: &&str| !text.is_empty();
    let parts: Vec<&str> = text.split(". ").filter(ends).collect();
    parts.iter().map(|part| format!("{}.", part.trim_end_matches('.'))).collect()
}

/// The key's section and its name there.
fn place(key: &Key) -> (&'static str, &'static str) {
    key.name.rsplit_once('.').unwrap_or(("", key.name))
}

#[test]
fn config_yml_explains_every_key() {
    let mut made = String::new();
    let mut section = "";
    for key in KEYS {
        let (home, name) = place(key);
        let open: Vec<&str> = section.split('.').collect();
        for (depth, part) in home.split('.').enumerate().filter(|(_, part)| !part.is_empty()) {
            if open.get(depth) != Some(&part) {
                let gap = if depth == 0 { "\n" } else { "" };
                writeln!(made, "{gap}{}{part}:", "  ".repeat(depth)).unwrap();
            }
        }
        section = home;
        let indent = "  ".repeat(home.split('.').filter(|part| !part.is_empty()).count());
        let sample = SAMPLE.iter().find(|(name, _)| *name == key.name).map(|(_, value)| *value);
        let mut text = about(key);
        if let Some(default) = sample.map(|_| key.default).filter(|default| !default.is_empty()) {
            write!(text, " Default: {default}.").unwrap();
        }
        let token = format!("\"{SAMPLE_TOKEN}\"");
        let value = match (key.name, sample) {
            ("token", _) => {
                text += " This one is public: it is refused on any address that others reach.";
                &token
            }
            (_, Some(value)) => value,
            (_, None) if key.default.is_empty() => "\"\"",
            _ => key.default,
        };
        let mut line = format!("{indent}#");
        for word in text.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                writeln!(made, "{line}").unwrap();
                line = format!("{indent}#");
            }
            write!(line, " {word}").unwrap();
        }
        writeln!(made, "{line}\n{indent}{name}: {value}").unwrap();
    }
    is_documented("config.yml", "comes from.\n\n", "\u{0}", &made);
}

#[test]
fn the_readme_lists_every_key_with_its_default() {
    let mut made = String::new();
    for key in KEYS {
        let Some(name) = key.name.strip_prefix("winglet.") else { continue };
        let default = match key.default {
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let restart = if matches!(key.change, Change::AtOnce) { "" } else { " (restart)" };
        let first = &sentences(key.about.trim())[0];
        writeln!(made, "| `{name}` | {default} | {}{restart} |", first.trim_end_matches('.'))
            .unwrap();
    }
    is_documented(
        "README.md",
        "| key | default | meaning |\n| --- | --- | --- |\n",
        "\n\n",
        made.trim_end(),
    );
}

/// `text` for mdoc, with its literals in bold.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('"', "\\(dq");
    let mut bold = false;
    let parts = text.split('`').map(|part| {
        let font = if bold { format!("\\fB{part}\\fP") } else { part.to_owned() };
        bold = !bold;
        font
    });
    let text: String = parts.collect();
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[test]
fn the_manual_describes_every_key_with_its_default() {
    // Reading any file tells what fits each key.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wings.yml");
    let loaded = config::load(&[file], &[], &|_| None, &[]);
    let settings: BTreeMap<_, _> =
        loaded.settings.iter().map(|setting| (setting.key, &setting.fits)).collect();
    let list = |own: bool| {
        let mut made = String::new();
        for key in KEYS {
            let name = key.name.strip_prefix("winglet.");
            let Some(name) = name.or(Some(key.name)).filter(|_| name.is_some() == own) else {
                continue;
            };
            let fits = settings
                .get(key.name)
                .unwrap_or_else(|| panic!("{} is not read", key.name))
                .split(", such as")
                .next()
                .unwrap();
            let default = if key.default.is_empty() { "none" } else { key.default };
            writeln!(made, ".It Ic {name} Pq {}; default {}", roff(fits), roff(default)).unwrap();
            for sentence in sentences(&about(key)) {
                writeln!(made, "{}", roff(&sentence)).unwrap();
            }
        }
        made
    };
    for (heading, own) in [("Keys of Wings", false), ("Keys of the section winglet", true)] {
        let begin = format!(".Ss {heading}\n.Bl -tag -width Ds\n");
        is_documented("contrib/man/winglet.yml.5", &begin, ".El\n", &list(own));
    }
}
