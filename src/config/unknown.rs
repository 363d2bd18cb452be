//! Keys that are none of ours: misspelt, misplaced, or one of Wings' own.
//!
//! The file is Wings' own, so that a key which is not ours is none of our business, unless it looks
//! as if it were meant for us. In the section `winglet` every key is ours, and an unknown one is an
//! error.

use std::collections::BTreeSet;

use super::findings::Finding;
use super::keys::KEYS;
use super::written::Document;
use super::yaml::Value;

/// What people write for something that has another name.
#[rustfmt::skip] // a table
const MEANT: &[(&str, &str)] = &[
    ("tls", "set api.ssl, or write tls:ADDR:PORT in winglet.listen"),
    ("log", "what is logged is for winglet.access_log, winglet.log_format and debug to say"),
    ("url", "the Panel's address is remote, and what links begin with is winglet.base_url"),
    ("volumes", "the directory of the servers' volumes is system.data"),
    ("backups", "the directory of the backups is system.backup_directory"),
    ("user", "the unit (User=) or the init script (WINGLET_USER) says whom the service runs as"),
];

/// Reports every key of the sections that we read which is not in the table.
pub(super) fn report(document: &Document<'_>) {
    let sections = sections();
    let entries = document.layers.iter().flat_map(|layer| {
        sections.iter().flat_map(|section| {
            let entries = match Value::at(layer, section) {
                _ if section.is_empty() => layer.as_slice(),
                Some(Value::Section(entries)) => entries,
                _ => &[],
            };
            entries.iter().map(|(key, value)| (*section, key, value))
        })
    });
    for (section, key, value) in entries {
        let name = join(section, key);
        let found = match value {
            _ if key.contains('.') => judge(document, section, key, name),
            _ if KEYS.iter().any(|key| key.name == name) => None,
            Value::Section(_) | Value::Null if sections.contains(&*name) => None,
            value if sections.contains(&*name) => {
                let what = value.describe();
                let message = format!("is {what}; write a section: its keys indented below it");
                Some(Finding::error(name, message))
            }
            _ => judge(document, section, key, name),
        };
        document.notes.findings.borrow_mut().extend(found);
    }
}

/// The sections that the table's keys are in, with `""` for the document itself.
fn sections() -> BTreeSet<&'static str> {
    let parents = |name: &'static str| name.match_indices('.').map(move |(at, _)| &name[..at]);
    KEYS.iter().flat_map(|key| parents(key.name)).chain([""]).collect()
}

/// What to say of an unknown key. In a section of Wings' it may be Wings' own.
fn judge(document: &Document<'_>, section: &str, key: &str, name: String) -> Option<Finding> {
    if let Some(nested) = nested(key, &name) {
        return Some(Finding::error(name, format!("is not read with a dot in it; write {nested}")));
    }
    let ours = section.starts_with("winglet");
    let meant = || MEANT.iter().find(|(word, _)| *word == key).map(|(_, meant)| *meant);
    let meant = if ours || section.is_empty() { meant() } else { None };
    let near = nearest(section, key);
    Some(match (home_of(section, key).or(meant.map(str::to_owned)), near) {
        (Some(remedy), _) if ours => Finding::error(name, format!("is an unknown key; {remedy}")),
        (Some(remedy), _) => Finding::warning(name, format!("is ignored here; {remedy}")),
        (None, Some(near)) if ours => {
            Finding::error(name, format!("is an unknown key; the nearest known one is {near}"))
        }
        (None, None) if ours => {
            Finding::error(name, "is an unknown key; winglet.yml(5) lists the known ones")
        }
        (None, near) => {
            let near = near.filter(|near| document.value(&join(section, near)).is_none())?;
            Finding::warning(name, format!("is a key that is not read; did you mean {near}?"))
        }
    })
}

/// The form in which a known key is read, if it was written with dots.
fn nested(key: &str, name: &str) -> Option<String> {
    let below = format!("winglet.{key}");
    let mut all = KEYS.iter().map(|key| key.name).chain(sections());
    let known = all.find(|known| key.contains('.') && [name, key, &below].contains(known))?;
    let (sections, last) = known.rsplit_once('.')?;
    let (open, depth) = (sections.replace('.', ": {"), sections.split('.').count());
    Some(format!("{open}: {{{last}: ...{}", "}".repeat(depth)))
}

/// Where, if not in `section`, a key or section with this name belongs.
fn home_of(section: &str, key: &str) -> Option<String> {
    let all = KEYS.iter().map(|key| key.name).chain(sections());
    let mut homes = all.map(|name| name.rsplit_once('.').unwrap_or(("", name)));
    match homes.find(|(home, name)| *name == key && *home != section)? {
        ("", _) => Some("it belongs at the top level".into()),
        (home, _) => Some(format!("it belongs under {home}:")),
    }
}

/// The name in `section` that is `key`, but for a slip of the finger.
fn nearest(section: &str, key: &str) -> Option<&'static str> {
    let below = join(section, "");
    let names = KEYS.iter().filter_map(|key| key.name.strip_prefix(&*below)?.split('.').next());
    let distance = |name: &str| strsim::damerau_levenshtein(&key.to_lowercase(), name);
    let near = names.filter(|name| distance(name) <= (name.len() / 3).min(3));
    near.min_by_key(|name| distance(name))
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}
