//! Typed access to the sections of a document.
//!
//! Every getter notes what is wrong and goes on with the default, so that one run reports the whole
//! file. It also notes the setting in force: `check --print` shows them, and a key that nothing has
//! read is unknown. A key that is absent, or has no value, is at its default.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::findings::{Notes, Origin};
use super::yaml::{Node, Value};

/// A section of the document, and the name that its keys are reported under.
pub(super) struct Section<'a> {
    name: String,
    /// None if the file does not have the section: all its keys are at their defaults.
    entries: Option<&'a [(String, Node)]>,
    pub(super) notes: &'a Notes,
}

impl<'a> Section<'a> {
    /// The document itself; its keys have no prefix.
    pub(super) fn root(entries: &'a [(String, Node)], notes: &'a Notes) -> Self {
        Self { name: String::new(), entries: Some(entries), notes }
    }

    /// The section under `key`.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let entries = match self.node(key) {
            None => None,
            Some(Node { value: Value::Section(entries), .. }) => Some(entries.as_slice()),
            Some(other) => {
                self.wrong(key, &other.value, "write a section: its keys indented below it");
                None
            }
        };
        Section { name: self.name_of(key), entries, notes: self.notes }
    }

    /// The full name of `key`, as an operator would write it.
    pub(super) fn name_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The entries of the section at the dotted `path` below this one.
    pub(super) fn at(&self, path: &str) -> Option<&'a [(String, Node)]> {
        let mut parts = path.split('.').filter(|part| !part.is_empty());
        parts.try_fold(self.entries?, |entries, part| {
            let (_, node) = entries.iter().find(|(name, _)| name == part)?;
            match &node.value {
                Value::Section(entries) => Some(entries.as_slice()),
                _ => None,
            }
        })
    }

    /// What `key` holds, if anything.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        let (_, node) = self.entries?.iter().find(|(name, _)| name == key)?;
        (node.value != Value::Null).then_some(node)
    }

    /// Where the value of `key` comes from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let file = self.node(key).and_then(|node| self.notes.files.get(node.file));
        file.map_or(Origin::Default, |file| Origin::File(file.clone()))
    }

    /// Notes that `key` has `value`.
    pub(super) fn note(&self, key: &str, value: Option<String>) {
        self.notes.setting(self.name_of(key), value, self.origin(key));
    }

    /// What `get` makes of the value of `key`, or `default`, which `shown` shows. `right` says what
    /// would be right if `get` makes nothing of it.
    fn read<T>(
        &self,
        key: &str,
        default: T,
        shown: impl FnOnce(&T) -> Option<String>,
        right: impl FnOnce() -> String,
        get: impl FnOnce(&Value) -> Option<T>,
    ) -> T {
        let Some(node) = self.node(key) else {
            self.note(key, shown(&default));
            return default;
        };
        self.note(key, Some(node.value.plain()));
        get(&node.value).unwrap_or_else(|| {
            self.wrong(key, &node.value, &right());
            default
        })
    }

    /// A text that is not empty.
    pub(super) fn string(&self, key: &str) -> Option<String> {
        let text = |value: &Value| match value {
            Value::Text(text) => Some(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            _ => None,
        };
        self.read(key, None, |_| None, || "write a text, in quotes".into(), text)
    }

    /// A text; an empty one is at its default.
    pub(super) fn string_or(&self, key: &str, default: &str) -> String {
        let text = self.string(key);
        if text.is_none() {
            self.notes.replace(&self.name_of(key), default.to_owned(), self.origin(key));
        }
        text.unwrap_or_else(|| default.to_owned())
    }

    /// A path; a relative one counts from the directory of the file that sets it.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        let path = self.string(key)?;
        Some(self.base(key).join(path))
    }

    /// A path that has a default.
    pub(super) fn path_or(&self, key: &str, default: &str) -> PathBuf {
        self.base(key).join(self.string_or(key, default))
    }

    /// A list of paths, relative ones as with [`Section::path`].
    pub(super) fn paths(&self, key: &str, example: &str) -> Vec<PathBuf> {
        let paths = self.strings(key, example).into_iter();
        paths.map(|(_, path)| self.base(key).join(path)).collect()
    }

    /// The directory that relative paths under `key` count from.
    fn base(&self, key: &str) -> PathBuf {
        self.notes.base(self.node(key).map_or(0, |node| node.file))
    }

    /// A switch. `yes`, `no`, `on` and `off` count: YAML 1.1 has them, and Wings reads that.
    pub(super) fn bool(&self, key: &str, default: bool) -> bool {
        let switch = |value: &Value| match value {
            Value::Switch(switch) => Some(*switch),
            Value::Text(word) if ["yes", "on"].contains(&&*word.to_ascii_lowercase()) => Some(true),
            Value::Text(word) if ["no", "off"].contains(&&*word.to_ascii_lowercase()) => {
                Some(false)
            }
            _ => None,
        };
        let shown = |switch: &bool| Some(switch.to_string());
        self.read(key, default, shown, || "write true or false".into(), switch)
    }

    /// A whole number within `range`; digits in quotes count.
    pub(super) fn integer<T>(&self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let right = || format!("write a whole number from {} to {}", range.start(), range.end());
        let number = |value: &Value| {
            let number = T::try_from(whole(value)?).ok()?;
            range.contains(&number).then_some(number)
        };
        self.read(key, default, |default| Some(default.to_string()), right, number)
    }

    /// A number within `range` that may have decimals.
    pub(super) fn decimal(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let right = || format!("write a number from {} to {}", range.start(), range.end());
        let number = |value: &Value| match value {
            Value::Number(text) => text.parse().ok().filter(|number| range.contains(number)),
            _ => None,
        };
        self.read(key, default, |default| Some(default.to_string()), right, number)
    }

    /// A duration within `range`: `24h`, `1m 30s`, `500ms`, or a plain number of seconds.
    pub(super) fn duration(
        &self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let text = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let right = || {
            let (shortest, longest) = (text(range.start()), text(range.end()));
            format!(
                "write a duration from {shortest} to {longest}, such as 24h, 10s or 500ms; a plain number is seconds"
            )
        };
        let duration = |value: &Value| {
            let duration = match (whole(value), value) {
                (Some(seconds), _) => Duration::from_secs(seconds),
                (None, Value::Text(text)) => humantime::parse_duration(text.trim()).ok()?,
                _ => return None,
            };
            range.contains(&duration).then_some(duration)
        };
        self.read(key, default, |default| Some(text(default)), right, duration)
    }

    /// Permission bits as octal digits.
    ///
    /// A bare YAML number is refused: `660` would be decimal and mean other permissions than it
    /// shows. (An unquoted `0660` reaches this as text.)
    pub(super) fn octal(&self, key: &str, default: u32) -> u32 {
        let right = "write permissions as octal digits in quotes, from \"0000\" to \"0777\", such as \"0660\"";
        let mode = |value: &Value| match value {
            Value::Text(text) if text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) => {
                u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
            }
            _ => None,
        };
        self.read(key, default, |mode| Some(format!("{mode:04o}")), || right.into(), mode)
    }

    /// A list of texts such as `example`, each with its key (`listen[0]`); one text alone counts as
    /// a list of one.
    pub(super) fn strings(&self, key: &str, example: &str) -> Vec<(String, String)> {
        let right = || format!("write a list of texts, such as [{example}]");
        let list = |value: &Value| match value {
            Value::List(items) => Some(items.iter().map(|item| item.value.clone()).collect()),
            text @ Value::Text(_) => Some(vec![text.clone()]),
            _ => None,
        };
        let items = self.read(key, Vec::new(), |_| Some("[]".into()), right, list);
        let mut texts = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let name = format!("{key}[{number}]");
            match item {
                Value::Text(text) => texts.push((self.name_of(&name), text.trim().to_owned())),
                _ => self.wrong(&name, item, &format!("write a text, such as {example}")),
            }
        }
        texts
    }

    /// The value that one of the words stands for.
    pub(super) fn one_of<T: Copy + PartialEq>(
        &self,
        key: &str,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        let right = || {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("write one of {}", words.join(", "))
        };
        let shown = |default: &T| {
            words.iter().find(|(_, meaning)| meaning == default).map(|(word, _)| (*word).to_owned())
        };
        let meaning = |value: &Value| match value {
            Value::Text(text) => words.iter().find(|(word, _)| text == word).map(|word| word.1),
            _ => None,
        };
        self.read(key, default, shown, right, meaning)
    }

    /// A list of address blocks; a bare address is a block of one.
    pub(super) fn networks(&self, key: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (name, text) in self.strings(key, "\"127.0.0.1\"") {
            let network = match text.parse::<IpAddr>() {
                Ok(address) => Ok(IpNet::from(address.to_canonical())),
                Err(_) => text.parse::<IpNet>().map(|network| network.trunc()),
            };
            match network {
                Ok(network) => networks.push(network),
                Err(_) => self.notes.error(
                    name,
                    format!("is the text {text:?}; write an address or a block, such as 127.0.0.1 or 10.0.0.0/8"),
                ),
            }
        }
        networks
    }

    fn wrong(&self, key: &str, value: &Value, right: &str) {
        self.notes.error(self.name_of(key), format!("is {}; {right}", value.describe()));
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(text) => text.parse().ok(),
        Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    /// Reads `key` of a one-key document, and what was found.
    fn read<T>(value: &str, get: impl FnOnce(&Section<'_>) -> T) -> (T, String) {
        let notes = Notes::default();
        let document = yaml::parse(&format!("key: {value}"), 0).unwrap();
        let Value::Section(entries) = document.value else { panic!() };
        let got = get(&Section::root(&entries, &notes));
        let found: Vec<_> = notes.findings.borrow().iter().map(ToString::to_string).collect();
        (got, found.join("\n"))
    }

    #[test]
    fn switches() {
        for (text, right) in
            [("true", true), ("off", false), ("Yes", true), ("", true), ("~", true)]
        {
            assert_eq!(read(text, |s| s.bool("key", true)), (right, String::new()), "{text}");
        }
        let (got, found) = read("1", |s| s.bool("key", true));
        assert!(got);
        assert_eq!(found, "key: is the number 1; write true or false");
    }

    #[test]
    fn whole_numbers() {
        let get = |text: &str| read(text, |s| s.integer("key", 64usize, 1..=1024));
        for (text, right) in [("1", 1), ("1024", 1024), ("\"80\"", 80), ("", 64)] {
            assert_eq!(get(text), (right, String::new()), "{text}");
        }
        for text in
            ["0", "1025", "-1", "1.5", "many", "[1]", "\"99999999999999999999\"", "\"\"", "true"]
        {
            let (got, found) = get(text);
            assert_eq!(got, 64);
            assert!(found.ends_with("write a whole number from 1 to 1024"), "{text}: {found}");
        }
    }

    #[test]
    fn durations() {
        let range = Duration::from_millis(1)..=Duration::from_secs(86_400);
        let get =
            |text: &str| read(text, |s| s.duration("key", Duration::from_secs(7), range.clone()));
        for (text, millis) in
            [("24h", 86_400_000), ("500ms", 500), ("1m 30s", 90_000), ("15", 15_000), ("", 7000)]
        {
            assert_eq!(get(text), (Duration::from_millis(millis), String::new()), "{text}");
        }
        for text in ["soon", "0", "25h", "-1", "1.5", "{}", "10 parsecs"] {
            let (got, found) = get(text);
            assert_eq!(got, Duration::from_secs(7));
            assert!(found.contains("write a duration from 1ms to 1day"), "{text}: {found}");
        }
    }

    #[test]
    fn permissions() {
        let get = |text: &str| read(text, |s| s.octal("key", 0o660));
        for (text, right) in [("\"0660\"", 0o660), ("0600", 0o600), ("\"777\"", 0o777), ("", 0o660)]
        {
            assert_eq!(get(text), (right, String::new()), "{text}");
        }
        for text in ["660", "\"0668\"", "\"1777\"", "\"\"", "rw-rw----", "0o660"] {
            assert!(get(text).1.contains("octal digits"), "{text}");
        }
    }

    #[test]
    fn texts_and_lists() {
        assert_eq!(read("\" a \"", |s| s.string("key")), (Some("a".to_owned()), String::new()));
        assert_eq!(read("\"\"", |s| s.string("key")).0, None);
        assert!(read("[]", |s| s.string("key")).1.contains("is a list"));
        let get = |text: &str| read(text, |s| s.strings("key", "\"a\""));
        let named = |n: usize, text: &str| (format!("key[{n}]"), text.to_owned());
        assert_eq!(get("[a, b]").0, [named(0, "a"), named(1, "b")]);
        assert_eq!(get("a").0, [named(0, "a")]);
        let (got, found) = get("[a, 5]");
        assert_eq!(got, [named(0, "a")]);
        assert_eq!(found, "key[1]: is the number 5; write a text, such as \"a\"");
        assert!(get("{a: b}").1.contains("write a list"));
    }

    #[test]
    fn decimals_and_sections() {
        let get = |text: &str| read(text, |s| s.decimal("key", 0.0, 0.0..=100.0));
        assert_eq!(get("2.5"), (2.5, String::new()));
        assert_eq!(get("3"), (3.0, String::new()));
        for text in ["-1", "100.5", ".nan", ".inf", "fast"] {
            assert!(get(text).1.contains("from 0 to 100"), "{text}");
        }
        let (name, found) = read("5", |s| s.section("key").name_of("inner"));
        assert_eq!(name, "key.inner");
        assert!(found.contains("write a section"));
    }
}
