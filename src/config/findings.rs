//! What reading a configuration brings to light, collected instead of stopped at.
//!
//! An operator who fixes a file wants to hear of everything at once. Each finding names the key,
//! says what is wrong with its value and what would be right.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The program does not start with it. Otherwise it starts, and part of it will not do what the
    /// file seems to ask for.
    pub is_error: bool,
    /// The key, dotted (`winglet.timeouts.head`), or the file or flag that it is about.
    pub key: String,
    /// What is wrong and what would be right, in lower case.
    pub message: String,
}

impl Finding {
    /// Something that the program does not start with.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { is_error: true, key: key.into(), message: message.into() }
    }

    /// Something that the operator should know.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { is_error: false, ..Finding::error(key, message) }
    }

    /// The word at the beginning of a line of `winglet check`.
    pub fn severity(&self) -> &'static str {
        if self.is_error { "error" } else { "warning" }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// One setting in force, as `winglet check --print` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, dotted.
    pub key: &'static str,
    /// The value as the file would show it; `None` if there is none. Never the token.
    pub value: Option<String>,
    /// What the key may hold, such as `true or false`.
    pub fits: String,
    /// The file that sets it, or `default`, `command line` or `environment`.
    pub origin: String,
}

/// What is noted while a document is read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The document's files, absolute, in the order in which they were given.
    pub(super) files: Vec<PathBuf>,
    pub(super) findings: RefCell<Vec<Finding>>,
    /// By key.
    pub(super) settings: RefCell<BTreeMap<&'static str, Setting>>,
}

impl Notes {
    pub(super) fn error(&self, key: impl Into<String>, message: impl Into<String>) {
        self.findings.borrow_mut().push(Finding::error(key, message));
    }

    pub(super) fn warning(&self, key: impl Into<String>, message: impl Into<String>) {
        self.findings.borrow_mut().push(Finding::warning(key, message));
    }

    /// Changes what is noted about the setting `key`.
    pub(super) fn setting(&self, key: &'static str, change: impl FnOnce(&mut Setting)) {
        let blank = Setting { key, value: None, fits: String::new(), origin: String::new() };
        change(self.settings.borrow_mut().entry(key).or_insert(blank));
    }

    /// The directory that a relative path in file number `file` counts from.
    pub(super) fn base(&self, file: usize) -> PathBuf {
        let parent = self.files.get(file).and_then(|file| file.parent());
        parent.unwrap_or(Path::new("/")).to_owned()
    }

    /// The directory that a relative path outside the files counts from: the last file's.
    pub(super) fn last_base(&self) -> PathBuf {
        self.base(self.files.len().saturating_sub(1))
    }
}
