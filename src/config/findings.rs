//! What reading a configuration brings to light, collected instead of stopped at.
//!
//! An operator who fixes a file wants to hear of everything at once. Each finding names the key,
//! says what is wrong with its value and what would be right.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

/// How much a [`Finding`] weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The program does not start with it.
    Error,
    /// The program starts, and part of it will not do what the file seems to ask for.
    Warning,
}

impl Severity {
    /// The word at the beginning of a line of `winglet check`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// The key, dotted (`winglet.timeouts.head`), or the file or flag that it is about.
    pub key: String,
    /// What is wrong and what would be right, in lower case.
    pub message: String,
}

impl Finding {
    /// Something that the program does not start with.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Error, key: key.into(), message: message.into() }
    }

    /// Something that the operator should know.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, key: key.into(), message: message.into() }
    }

    /// Whether the program does not start with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file sets it.
    Default,
    /// This file sets it.
    File(PathBuf),
    /// An option of the command line.
    CommandLine,
    /// A variable of the environment.
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => path.display().fmt(f),
            Origin::CommandLine => f.write_str("command line"),
            Origin::Environment => f.write_str("environment"),
        }
    }
}

/// One setting in force, as `winglet check --print` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, dotted.
    pub key: String,
    /// The value as the file would show it; `None` if there is none. Never the token.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What is noted while a document is read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The document's files, absolute, in the order in which they were given.
    pub(super) files: Vec<PathBuf>,
    pub(super) findings: RefCell<Vec<Finding>>,
    pub(super) settings: RefCell<Vec<Setting>>,
}

impl Notes {
    pub(super) fn error(&self, key: impl Into<String>, message: impl Into<String>) {
        self.findings.borrow_mut().push(Finding::error(key, message));
    }

    pub(super) fn warning(&self, key: impl Into<String>, message: impl Into<String>) {
        self.findings.borrow_mut().push(Finding::warning(key, message));
    }

    pub(super) fn setting(&self, key: String, value: Option<String>, origin: Origin) {
        self.settings.borrow_mut().push(Setting { key, value, origin });
    }

    /// Puts other words in place of those noted for `key`.
    pub(super) fn replace(&self, key: &str, value: String, origin: Origin) {
        let mut settings = self.settings.borrow_mut();
        if let Some(setting) = settings.iter_mut().find(|setting| setting.key == key) {
            (setting.value, setting.origin) = (Some(value), origin);
        }
    }

    /// The directory that a relative path in file number `file` counts from.
    pub(super) fn base(&self, file: usize) -> PathBuf {
        let parent = self.files.get(file).and_then(|file| file.parent());
        parent.unwrap_or(std::path::Path::new("/")).to_owned()
    }
}
