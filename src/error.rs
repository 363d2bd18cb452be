//! Why the server cannot start, and why a command cannot do what it was asked: for the operator,
//! saying what is wrong and what would be right.

use std::fmt;
use std::io;

/// A reason not to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// The key (`api.ssl.cert`), file or flag that it is about; `None` if it is about none of them.
    pub key: Option<&'static str>,
    /// What is wrong, with the value and the remedy, in lower case.
    pub message: String,
}

impl StartError {
    /// A reason that has to do with `key`.
    pub fn new(key: &'static str, message: impl Into<String>) -> StartError {
        StartError { key: Some(key), message: message.into() }
    }
}

/// The system is out of something: threads, descriptors, memory.
impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError { key: None, message: format!("cannot start: {error}") }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{key}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for StartError {}

/// A reason why a command ends with a failure: the text for standard error, without the program's
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(pub String);

impl<E: std::error::Error> From<E> for CommandError {
    fn from(error: E) -> CommandError {
        CommandError(error.to_string())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
