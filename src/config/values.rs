//! Typed access to the sections of a YAML document.
//!
//! Every getter notes what is wrong in [`Findings`] and goes on with the default, so that one run
//! reports the whole file. A key that is absent, or has no value, is at its default.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde_yaml::{Mapping, Value};

use super::findings::Findings;

/// A mapping of the document, and the name that its keys are reported under.
pub(super) struct Section<'a> {
    name: String,
    /// None where the file does not have the section: all its keys are at their defaults.
    mapping: Option<&'a Mapping>,
}

impl<'a> Section<'a> {
    /// The document itself; its keys have no prefix.
    pub(super) fn root(mapping: &'a Mapping) -> Self {
        Self { name: String::new(), mapping: Some(mapping) }
    }

    /// The section under `key`.
    pub(super) fn section(&self, key: &str, findings: &mut Findings) -> Section<'a> {
        let mapping = match self.value(key) {
            None => None,
            Some(Value::Mapping(mapping)) => Some(mapping),
            Some(other) => {
                self.wrong(key, other, "write a section: its keys indented below it", findings);
                None
            }
        };
        Section { name: self.name_of(key), mapping }
    }

    /// The full name of `key`, as an operator would write it.
    pub(super) fn name_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The value of `key`, where it has one.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.mapping?.get(key).filter(|value| !value.is_null())
    }

    /// The section's keys; one that is no text is given as YAML shows it.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        self.mapping.into_iter().flat_map(|mapping| mapping.keys()).map(|key| match key {
            Value::String(text) => text.clone(),
            other => describe(other),
        })
    }

    /// A text that is not empty.
    pub(super) fn string(&self, key: &str, findings: &mut Findings) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            other => {
                self.wrong(key, other, "write a text, in quotes", findings);
                None
            }
        }
    }

    /// A switch. `yes`, `no`, `on` and `off` count: YAML 1.1 has them, and Wings reads that.
    pub(super) fn bool(&self, key: &str, default: bool, findings: &mut Findings) -> bool {
        let Some(value) = self.value(key) else { return default };
        let word = value.as_str().map(str::to_ascii_lowercase);
        match (value, word.as_deref()) {
            (Value::Bool(switch), _) => *switch,
            (_, Some("yes" | "on")) => true,
            (_, Some("no" | "off")) => false,
            _ => {
                self.wrong(key, value, "write true or false", findings);
                default
            }
        }
    }

    /// A whole number within `range`; digits in quotes count.
    pub(super) fn integer<T>(
        &self,
        key: &str,
        default: T,
        range: RangeInclusive<T>,
        findings: &mut Findings,
    ) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let Some(value) = self.value(key) else { return default };
        let number = whole(value).and_then(|number| T::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let right =
                    format!("write a whole number from {} to {}", range.start(), range.end());
                self.wrong(key, value, &right, findings);
                default
            }
        }
    }

    /// A number within `range` that may have decimals.
    pub(super) fn decimal(
        &self,
        key: &str,
        default: f64,
        range: RangeInclusive<f64>,
        findings: &mut Findings,
    ) -> f64 {
        let Some(value) = self.value(key) else { return default };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                self.wrong(
                    key,
                    value,
                    &format!("write a number from {} to {}", range.start(), range.end()),
                    findings,
                );
                default
            }
        }
    }

    /// A duration within `range`: `24h`, `1m 30s`, `500ms`, or a plain number of seconds.
    pub(super) fn duration(
        &self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
        findings: &mut Findings,
    ) -> Duration {
        let Some(value) = self.value(key) else { return default };
        let duration = match whole(value) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => value.as_str().and_then(|text| humantime::parse_duration(text.trim()).ok()),
        };
        match duration.filter(|duration| range.contains(duration)) {
            Some(duration) => duration,
            None => {
                let (shortest, longest) = (
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end()),
                );
                let right = format!(
                    "write a duration from {shortest} to {longest}, such as 24h, 10s or 500ms; a plain number is seconds"
                );
                self.wrong(key, value, &right, findings);
                default
            }
        }
    }

    /// Permission bits as octal digits.
    ///
    /// A bare YAML number is refused: `660` would be decimal and mean other permissions than it
    /// shows. (An unquoted `0660` reaches this as text.)
    pub(super) fn octal(&self, key: &str, default: u32, findings: &mut Findings) -> u32 {
        let Some(value) = self.value(key) else { return default };
        let mode = value
            .as_str()
            .filter(|text| text.bytes().all(|byte| matches!(byte, b'0'..=b'7')))
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|mode| *mode <= 0o777);
        match mode {
            Some(mode) => mode,
            None => {
                let right = "write permissions as octal digits in quotes, from \"0000\" to \"0777\", such as \"0660\"";
                self.wrong(key, value, right, findings);
                default
            }
        }
    }

    /// A list of texts, each with its key (`listen[0]`); one text alone counts as a list of one.
    pub(super) fn strings(&self, key: &str, findings: &mut Findings) -> Vec<(String, String)> {
        let items = match self.value(key) {
            None => return Vec::new(),
            Some(Value::Sequence(items)) => items.as_slice(),
            Some(text @ Value::String(_)) => std::slice::from_ref(text),
            Some(other) => {
                self.wrong(
                    key,
                    other,
                    "write a list of texts, such as [\"one\", \"two\"]",
                    findings,
                );
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let name = format!("{key}[{number}]");
            match item.as_str() {
                Some(text) => texts.push((self.name_of(&name), text.trim().to_owned())),
                None => self.wrong(&name, item, "write a text, in quotes", findings),
            }
        }
        texts
    }

    /// The value that one of the words stands for.
    pub(super) fn one_of<T: Copy>(
        &self,
        key: &str,
        default: T,
        words: &[(&str, T)],
        findings: &mut Findings,
    ) -> T {
        let Some(value) = self.value(key) else { return default };
        match words.iter().find(|(word, _)| value.as_str() == Some(*word)) {
            Some((_, meaning)) => *meaning,
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                self.wrong(key, value, &format!("write one of {}", words.join(", ")), findings);
                default
            }
        }
    }

    /// A list of address blocks; a bare address is a block of one.
    pub(super) fn networks(&self, key: &str, findings: &mut Findings) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (name, text) in self.strings(key, findings) {
            let network = match text.parse::<IpAddr>() {
                Ok(address) => Ok(IpNet::from(address.to_canonical())),
                Err(_) => text.parse::<IpNet>().map(|network| network.trunc()),
            };
            match network {
                Ok(network) => networks.push(network),
                Err(_) => findings.error(
                    name,
                    format!("is the text {text:?}; write an address or a block, such as 127.0.0.1 or 10.0.0.0/8"),
                ),
            }
        }
        networks
    }

    /// Reports each key that is not among `known`, with the nearest that is. `nearby` are known
    /// keys of sections below this one, dotted, that are easily written here by mistake.
    pub(super) fn unknown_keys(&self, known: &[&str], nearby: &[&str], findings: &mut Findings) {
        for key in self.keys().filter(|key| !known.contains(&key.as_str())) {
            let distance = |name: &&&str| {
                let last = name.rsplit('.').next().unwrap_or_default();
                strsim::damerau_levenshtein(&key, last)
            };
            let nearest = known.iter().chain(nearby).min_by_key(distance).unwrap_or(&"");
            let message = format!("is an unknown key; the nearest known one is {nearest}");
            findings.error(self.name_of(&key), message);
        }
    }

    fn wrong(&self, key: &str, value: &Value, right: &str, findings: &mut Findings) {
        findings.error(self.name_of(key), format!("is {}; {right}", describe(value)));
    }
}

/// The kind of a value and, where it is short, the value.
pub(super) fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(switch) => format!("the switch {switch}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= SHOWN => format!("the text {text:?}"),
        Value::String(_) => "a long text".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a section".to_owned(),
        Value::Tagged(_) => "a value with a YAML tag".to_owned(),
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `key` of a one-key document, and what was found.
    fn read<T>(value: &str, get: impl FnOnce(&Section<'_>, &mut Findings) -> T) -> (T, String) {
        let mapping: Mapping = serde_yaml::from_str(&format!("key: {value}")).unwrap();
        let mut findings = Findings::default();
        let got = get(&Section::root(&mapping), &mut findings);
        (got, findings.to_string())
    }

    #[test]
    fn switches() {
        for (text, right) in
            [("true", true), ("off", false), ("Yes", true), ("", true), ("~", true)]
        {
            assert_eq!(read(text, |s, f| s.bool("key", true, f)), (right, String::new()), "{text}");
        }
        let (got, found) = read("1", |s, f| s.bool("key", true, f));
        assert!(got);
        assert_eq!(found, "error: key: is the number 1; write true or false");
    }

    #[test]
    fn whole_numbers() {
        let get = |text: &str| read(text, |s, f| s.integer("key", 64usize, 1..=1024, f));
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
        let get = |text: &str| {
            read(text, |s, f| s.duration("key", Duration::from_secs(7), range.clone(), f))
        };
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
        let get = |text: &str| read(text, |s, f| s.octal("key", 0o660, f));
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
        assert_eq!(
            read("\" a \"", |s, f| s.string("key", f)),
            (Some("a".to_owned()), String::new())
        );
        assert_eq!(read("\"\"", |s, f| s.string("key", f)).0, None);
        assert!(read("[]", |s, f| s.string("key", f)).1.contains("is a list"));
        let get = |text: &str| read(text, |s, f| s.strings("key", f));
        let named = |n: usize, text: &str| (format!("key[{n}]"), text.to_owned());
        assert_eq!(get("[a, b]").0, [named(0, "a"), named(1, "b")]);
        assert_eq!(get("a").0, [named(0, "a")]);
        let (got, found) = get("[a, 5]");
        assert_eq!(got, [named(0, "a")]);
        assert_eq!(found, "error: key[1]: is the number 5; write a text, in quotes");
        assert!(get("{a: b}").1.contains("write a list"));
    }

    #[test]
    fn decimals_and_sections() {
        let get = |text: &str| read(text, |s, f| s.decimal("key", 0.0, 0.0..=100.0, f));
        assert_eq!(get("2.5"), (2.5, String::new()));
        assert_eq!(get("3"), (3.0, String::new()));
        for text in ["-1", "100.5", ".nan", ".inf", "fast"] {
            assert!(get(text).1.contains("from 0 to 100"), "{text}");
        }
        let (name, found) = read("5", |s, f| s.section("key", f).name_of("inner"));
        assert_eq!(name, "key.inner");
        assert!(found.contains("write a section"));
    }
}
