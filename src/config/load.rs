//! From configuration files to a [`Config`], with everything that is wrong reported at once.
//!
//! Nothing is opened for use; directories and the token's file are only looked at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, reason};
use super::findings::{Finding, Notes, Setting};
use super::keys::KEYS;
use super::written::{Document, Written};
use super::{Config, Listen, token, unknown, urls};

/// What became of the files that were named.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The configuration, unless a finding is an error.
    pub config: Option<Config>,
    /// What is wrong, in the order of the checks.
    pub findings: Vec<Finding>,
    /// Every setting in force, section by section.
    pub settings: Vec<Setting>,
}

/// Reads and resolves the configuration files `paths`: a later one's keys win over an earlier
/// one's.
///
/// `listen` (the command line's) replaces the files' addresses unless it is empty. `environment`
/// looks up `WINGS_TOKEN` and the variables that `token` names. A name that `before` has an address
/// for is not resolved again: the process may be confined by now.
pub fn load(
    paths: &[PathBuf],
    listen: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
    before: &[Listen],
) -> Loaded {
    let mut notes = Notes::default();
    let Some(layers) = file::read(paths, &mut notes) else {
        return Loaded { findings: notes.findings.into_inner(), ..Loaded::default() };
    };
    let document = Document { layers, notes, listen, environment, before };
    let config = resolve(&document);
    unknown::report(&document);
    let (findings, settings) = (document.notes.findings, document.notes.settings);
    let (findings, mut settings) = (findings.into_inner(), settings.into_inner());
    let settings = KEYS.iter().filter_map(|key| settings.remove(key.name)).collect();
    let config = Some(config).filter(|_| !findings.iter().any(|finding| finding.is_error));
    Loaded { config, findings, settings }
}

/// The configuration, as far as it can be understood.
fn resolve(document: &Document<'_>) -> Config {
    let mut config = Config { files: document.notes.files.clone(), ..Config::default() };
    for key in KEYS {
        (key.read)(&mut config, &Written { key, document });
    }
    let notes = &document.notes;
    directories(&config, document);
    token::must_be_secret(&config, notes);
    urls::must_fit(&config, document);
    config
}

/// Looks at volumes and backups. A node may well have only one of the two: if nobody set the other,
/// nobody misses it.
fn directories(config: &Config, document: &Document<'_>) {
    let notes = &document.notes;
    let both = [
        ("system.data", &config.data, "/download/file", "volumes"),
        ("system.backup_directory", &config.backup_directory, "/download/backup", "backups"),
    ];
    let problems = both.map(|(_, path, ..)| usable(path).err());
    let none_works = problems.iter().all(Option::is_some);
    for ((key, path, endpoint, what), problem) in both.into_iter().zip(problems) {
        let Some(problem) = problem else { continue };
        let path = path.display();
        match none_works {
            true => notes
                .error(key, format!("{path} {problem}; name the directory of the node's {what}")),
            false if document.value(key).is_none() => {}
            false => notes.warning(key, format!("{path} {problem}; {endpoint} will answer 404")),
        }
    }
}

/// Looks whether files beneath `path` can be reached; listing it is not needed.
fn usable(path: &Path) -> Result<(), String> {
    // The `.` asks for the right to search the directory, which a stat of itself does not.
    let Err(error) = fs::metadata(path.join(".")) else { return Ok(()) };
    Err(match error.kind() {
        io::ErrorKind::NotADirectory => "is not a directory".to_owned(),
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be read ({})", reason(&error)),
    })
}
