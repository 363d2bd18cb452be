//! Keys that nothing has read: misspelt, misplaced, gone, or one of Wings' own.
//!
//! The file is Wings' own, so that a key which is not ours is none of our business, unless it looks
//! as if it were meant for us. In the `winglet` section every key is ours, and an unknown one is an
//! error.

use super::findings::Notes;
use super::values::Section;

/// Keys of earlier versions that are settings no more.
const GONE: &[(&str, &str)] = &[
    ("copy_buffer", "the buffer has one size now"),
    ("max_requests_per_connection", "the number is fixed now"),
];

/// Reports every key of `root` and its sections that is not among the settings noted so far.
pub(super) fn unread(root: &Section<'_>) {
    let known: Vec<String> =
        root.notes.settings.borrow().iter().map(|setting| setting.key.clone()).collect();
    for path in ["", "api", "api.ssl", "system", "winglet", "winglet.timeouts"] {
        let Some(entries) = root.at(path) else { continue };
        for (key, _) in entries {
            let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let is_section = |known: &String| known.starts_with(&format!("{name}."));
            if known.contains(&name) || known.iter().any(is_section) {
                continue;
            }
            let present = |known: &str| entries.iter().any(|(name, _)| name == known);
            match path.starts_with("winglet") {
                true => ours(path, key, &name, &known, root.notes),
                false => of_wings(path, key, &name, &known, &present, root.notes),
            }
        }
    }
}

/// An unknown key of our section.
fn ours(path: &str, key: &str, name: &str, known: &[String], notes: &Notes) {
    if let Some((_, why)) = GONE.iter().find(|(gone, _)| *gone == key) {
        return notes.warning(name, format!("is gone: {why}; remove the key"));
    }
    if let Some(home) = home_of(path, key, known) {
        return notes.error(name, format!("is an unknown key; {home}"));
    }
    // Those of a section below this one are easily written here by mistake.
    let candidates = known.iter().filter_map(|known| known.strip_prefix(&format!("{path}.")));
    let distance = |known: &&str| strsim::damerau_levenshtein(key, last(known));
    let nearest = candidates.min_by_key(distance).unwrap_or_default();
    notes.error(name, format!("is an unknown key; the nearest known one is {nearest}"));
}

/// A key that only Wings can know, or a mistake.
fn of_wings(
    path: &str,
    key: &str,
    name: &str,
    known: &[String],
    present: &dyn Fn(&str) -> bool,
    notes: &Notes,
) {
    if let Some(home) = home_of(path, key, known) {
        return notes.warning(name, format!("is ignored here; {home}"));
    }
    let here = |known: &String| {
        let below =
            if path.is_empty() { known } else { known.strip_prefix(&format!("{path}."))? };
        below.split('.').next().map(str::to_owned)
    };
    // Of a short word, two letters are half of it.
    let near = |known: &String| {
        strsim::damerau_levenshtein(&key.to_lowercase(), known)
            <= if known.len() < 5 { 1 } else { 2 }
    };
    if let Some(meant) = known.iter().filter_map(here).find(|known| near(known) && !present(known))
    {
        notes.warning(
            name,
            format!("is ignored, as every key of Wings' that is not needed; did you mean {meant}?"),
        );
    }
}

/// Where, if not in the section `path`, a key of this name belongs.
fn home_of(path: &str, key: &str, known: &[String]) -> Option<String> {
    let homes = known.iter().map(|known| known.rsplit_once('.').unwrap_or(("", known)));
    let (home, _) = homes.filter(|(home, _)| *home != path).find(|(_, name)| *name == key)?;
    Some(match home {
        "" => "it belongs at the top level".into(),
        _ => format!("it belongs under {home}:"),
    })
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
