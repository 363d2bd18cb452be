//! The document that the files make together, and typed access to one key of it.
//!
//! Every getter notes what is wrong and goes on with the default, so that one run reports the whole
//! file. It also notes the setting in force, for `check --print`. A key that is absent, or has no
//! value, is at its default.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::Listen;
use super::findings::{Notes, Setting};
use super::keys::{KEYS, Key};
use super::yaml::{self, Entries, Value};

/// What `{root_directory}` stands for if the file does not say.
const CALAGOPUS_ROOT: &str = "/var/lib/calagopus-wings";
/// The largest rate in bytes per second.
const MAX_RATE: f64 = (1_u64 << 40) as f64;
/// Units of a rate, and the bytes in each.
const UNITS: &[(&str, f64)] = &[
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

/// All files, and what is known besides.
pub(super) struct Document<'a> {
    /// In the order in which they were given: a later one's keys win.
    pub(super) layers: Vec<Entries>,
    pub(super) notes: Notes,
    /// The command line's addresses, which replace the files'.
    pub(super) listen: &'a [String],
    /// Looks up a variable.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// What was resolved before the sandbox was entered.
    pub(super) before: &'a [Listen],
}

impl Document<'_> {
    /// What the key with this name holds, if anything, and the number of the file that says so. One
    /// that has an empty text, as a place to fill in, leaves what an earlier one has.
    pub(super) fn find(&self, name: &str) -> Option<(&Value, usize)> {
        let layers = self.layers.iter().enumerate().rev();
        let found = layers.filter_map(|(file, layer)| Some((Value::at(layer, name)?, file)));
        let found: Vec<_> = found.filter(|(value, _)| **value != Value::Null).collect();
        let full = found.iter().find(|(value, _)| value.text() != Some(""));
        full.or(found.first()).copied()
    }

    /// What the key with this name holds, if anything.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.find(name).map(|(value, _)| value)
    }
}

/// What the document says about one key.
pub(super) struct Written<'a> {
    pub(super) key: &'static Key,
    pub(super) document: &'a Document<'a>,
}

impl<'a> Written<'a> {
    /// What it says about another key of the table.
    pub(super) fn at(&self, name: &str) -> Written<'a> {
        let key = KEYS.iter().find(|key| key.name == name);
        debug_assert!(key.is_some(), "{name} is not in the table");
        Written { key: key.unwrap_or(self.key), document: self.document }
    }

    /// What the key holds, if anything.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.document.value(self.key.name)
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.document.notes.error(self.key.name, message);
    }

    pub(super) fn warning(&self, message: impl Into<String>) {
        self.document.notes.warning(self.key.name, message);
    }

    /// What came out of it, unless that is an error, which is noted.
    pub(super) fn ok<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.error(message)).ok()
    }

    /// Where the value comes from.
    pub(super) fn origin(&self) -> String {
        let found = self.document.find(self.key.name);
        let file = found.and_then(|(_, file)| self.document.notes.files.get(file));
        file.map_or("default".into(), |file| file.display().to_string())
    }

    /// The directory that a relative path in the value counts from.
    pub(super) fn base(&self) -> PathBuf {
        self.document.notes.base(self.document.find(self.key.name).map_or(0, |(_, file)| file))
    }

    /// Sets what is shown as the setting in force.
    pub(super) fn set(&self, value: Option<String>, origin: &str) {
        let set = |setting: &mut Setting| (setting.value, setting.origin) = (value, origin.into());
        self.document.notes.setting(self.key.name, set);
    }

    /// What `meaning` makes of the value, or else of the default. `fits` says what a value may be.
    pub(super) fn get<T: Default>(&self, fits: &str, meaning: impl Fn(&Value) -> Option<T>) -> T {
        // Defaults are parsed as a file is: the tests read every one.
        let default = yaml::parse(self.key.default).unwrap_or(Value::Null);
        let written = self.value();
        let shown = Some(written.unwrap_or(&default)).filter(|value| **value != Value::Null);
        self.set(shown.map(Value::plain), &self.origin());
        self.document.notes.setting(self.key.name, |setting| setting.fits = fits.to_owned());
        let meant = written.and_then(|value| {
            let meant = meaning(value);
            if meant.is_none() {
                self.error(format!("is {}; write {fits}", value.describe()));
            }
            meant
        });
        meant.or_else(|| meaning(&default)).unwrap_or_default()
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<String> {
        let text: String =
            self.get("a text, in quotes", |value| Some(value.text()?.trim().to_owned()));
        let text = if text.is_empty() { self.key.default.to_owned() } else { text };
        Some(text).filter(|text| !text.is_empty())
    }

    /// A path; a relative one counts from the directory of the file that sets it.
    pub(super) fn path(&self) -> Option<PathBuf> {
        // As Calagopus' Wings writes paths.
        let root = self.document.value("system.root_directory").and_then(Value::text);
        let text = self.text()?.replace("{root_directory}", root.unwrap_or(CALAGOPUS_ROOT));
        self.ok(path_of(&text, &self.base()))
    }

    /// The path of a directory that may be made later.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let path = self.path()?;
        let there = path.ancestors().find(|path| path.exists());
        if let Some(file) = there.filter(|path| !path.is_dir()) {
            self.error(format!("{} is not a directory; name another one", file.display()));
        }
        Some(path)
    }

    /// A list of paths that should be there.
    pub(super) fn existing_paths(&self, example: &str) -> Vec<PathBuf> {
        let paths = self.list(example).into_iter();
        let paths: Vec<_> =
            paths.filter_map(|path| self.ok(path_of(&path, &self.base()))).collect();
        for path in paths.iter().filter(|path| !path.exists()) {
            self.warning(format!("{} does not exist; the sandbox can't let it in", path.display()));
        }
        paths
    }

    /// A switch. `yes`, `no`, `on` and `off` count: YAML 1.1 has them, and Wings reads that.
    pub(super) fn switch(&self) -> bool {
        self.get("true or false", |value| match value {
            Value::Switch(switch) => Some(*switch),
            value => match &*value.text()?.to_ascii_lowercase() {
                "yes" | "on" => Some(true),
                "no" | "off" => Some(false),
                _ => None,
            },
        })
    }

    /// A whole number within `range`; digits in quotes count.
    pub(super) fn count<T>(&self, range: RangeInclusive<T>) -> T
    where
        T: Copy + Default + PartialOrd + Display + TryFrom<u64>,
    {
        let fits = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(&fits, |value| {
            T::try_from(whole(value)?).ok().filter(|number| range.contains(number))
        })
    }

    /// A rate in bytes per second. A plain number counts `unit` bytes.
    pub(super) fn rate(&self, unit: u64, unit_name: &str) -> u64 {
        let fits = format!("a number of {unit_name} or a rate, such as 500KiB or 10MB");
        self.get(&fits, |value| {
            let text = match value {
                Value::Number(text) | Value::Text(text) => text.trim().trim_end_matches("/s"),
                _ => return None,
            };
            let unit = ("", unit as f64);
            let unit_of = |(name, bytes): &(&str, f64)| Some((text.strip_suffix(name)?, *bytes));
            let (number, bytes) = UNITS.iter().chain([&unit]).find_map(unit_of)?;
            let rate = number.trim_end().parse::<f64>().ok()? * bytes;
            // Rounded up: a tiny limit must not become 0, which is none.
            (0.0..=MAX_RATE).contains(&rate).then_some(rate.ceil() as u64)
        })
    }

    /// A duration: `24h`, `1m 30s`, `500ms`, or a plain number of seconds.
    pub(super) fn time(&self, shortest: &str, longest: &str) -> Duration {
        let parse = |text: &str| humantime::parse_duration(text.trim()).ok();
        let range = parse(shortest).unwrap_or_default()..=parse(longest).unwrap_or_default();
        let fits = format!(
            "a duration from {shortest} to {longest}, such as 24h, 10s or 500ms; a plain number is seconds"
        );
        self.get(&fits, |value| {
            let seconds = whole(value).map(Duration::from_secs);
            seconds.or_else(|| parse(value.text()?)).filter(|duration| range.contains(duration))
        })
    }

    /// Permission bits as octal digits.
    ///
    /// A bare YAML number is refused: `660` would be decimal and mean other permissions than it
    /// shows. (An unquoted `0660` reaches this as text.)
    pub(super) fn mode(&self) -> u32 {
        self.get(
            "permissions as octal digits in quotes, such as \"0660\", up to \"0777\"",
            |value| {
                let digits = value.text()?.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
                u32::from_str_radix(value.text()?, 8).ok().filter(|mode| digits && *mode <= 0o777)
            },
        )
    }

    /// The value that one of the words stands for.
    pub(super) fn word<T: Copy + Default>(&self, words: &[(&str, T)]) -> T {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.get(&format!("one of {}", names.join(", ")), |value| {
            let text = value.text()?;
            words.iter().find(|(word, _)| text == *word).map(|word| word.1)
        })
    }

    /// A list of texts such as `example`, each with its name (`listen[0]`); one text alone counts as
    /// a list of one.
    pub(super) fn texts(&self, example: &str) -> Vec<(String, String)> {
        let fits = format!("a list of texts, such as [{example}]");
        let items = self.get(&fits, |value| match value {
            Value::List(items) => Some(items.clone()),
            Value::Text(_) => Some(vec![value.clone()]),
            _ => None,
        });
        let mut texts = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let name = format!("{}[{number}]", self.key.name);
            match item.text() {
                Some(text) => texts.push((name, text.trim().to_owned())),
                None => {
                    let message =
                        format!("is {}; write a text, such as {example}", item.describe());
                    self.document.notes.error(name, message);
                }
            }
        }
        texts
    }

    /// As [`Written::texts`], without the names.
    pub(super) fn list(&self, example: &str) -> Vec<String> {
        self.texts(example).into_iter().map(|(_, text)| text).collect()
    }

    /// A list of address blocks; a bare address is a block of one.
    pub(super) fn networks(&self) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (name, text) in self.texts("\"127.0.0.1\"") {
            let address = text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
            match address.or_else(|_| text.parse::<IpNet>()) {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => {
                    let brackets = if text.starts_with('[') { ", without brackets" } else { "" };
                    let right = "an address or a block, such as 127.0.0.1, ::1 or 10.0.0.0/8";
                    let message = format!("is the text {text:?}; write {right}{brackets}");
                    self.document.notes.error(name, message);
                }
            }
        }
        networks
    }
}

/// The path that `written` means; a relative one counts from `base`.
fn path_of(written: &str, base: &Path) -> Result<PathBuf, String> {
    let problem = if written == "~" || written.starts_with("~/") {
        "only a shell knows what ~ is"
    } else if written.starts_with('$') || written.contains("${") {
        "variables count in `token` only"
    } else {
        return Ok(base.join(written));
    };
    Err(format!("is {written:?}, and {problem}; write the whole path, from its first /"))
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(text) => text.parse().ok(),
        Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
