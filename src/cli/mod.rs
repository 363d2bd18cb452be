//! The commands behind the command line.

pub mod args;
mod check;
mod explain;
mod serve;
mod sign;

use std::path::Path;

pub use check::check;
pub use explain::explain;
pub use serve::serve;
pub use sign::sign;

use crate::config::{self, Config, Severity};
use crate::error::StartError;

/// A variable of the environment, where it is text.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads a configuration for a command that needs it sound; warnings are left to `check`.
fn load(file: &Path) -> Result<Config, StartError> {
    let (config, findings) = config::load(file, &[], &environment);
    config.ok_or_else(|| {
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        StartError::new(errors.join("\nwinglet: "))
    })
}
