//! Why the server cannot start: for the operator, saying what is wrong and what would be right.

use std::fmt;

/// A reason not to start. The text names the key, file or flag, the value, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// A reason in words.
    pub fn new(message: impl Into<String>) -> StartError {
        StartError(message.into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
