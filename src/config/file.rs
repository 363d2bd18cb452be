//! From the files that were named to one document, whatever an editor made of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::findings::Notes;
use super::yaml::{self, Entries, Value};

/// Where a configuration is if none is installed.
const HERE: &str = "config.yml";
/// The service's.
const SYSTEM: &str = "/etc/winglet/config.yml";
/// Wings' own, which comes before the service's on a node that has it.
const WINGS: &[&str] =
    &["/etc/calagopus-wings/config.yml", "/etc/pelican/config.yml", "/etc/pterodactyl/config.yml"];
/// Names the files if the command line does not, with colons between them.
const VARIABLE: &str = "WINGLET_CONFIG";

/// The files to read, absolute: those that the command line names, or the environment, or else the
/// usual ones.
pub fn files(named: &[PathBuf]) -> Vec<PathBuf> {
    let files = match std::env::var_os(VARIABLE).filter(|files| !files.is_empty()) {
        _ if !named.is_empty() => named.to_vec(),
        Some(files) => std::env::split_paths(&files).collect(),
        None => usual(Path::new(HERE), Path::new(SYSTEM), WINGS),
    };
    files.into_iter().map(|file| std::path::absolute(&file).unwrap_or(file)).collect()
}

/// What is installed, so that commands read what the service reads, wherever they are typed: Wings'
/// own file and the service's. Without either, the file in the current directory.
fn usual(here: &Path, system: &Path, wings: &[&str]) -> Vec<PathBuf> {
    // One that is there and cannot be read is not passed over.
    let there = |path: &Path| {
        !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let wings = wings.iter().map(PathBuf::from).find(|path| there(path));
    let system = Some(system.to_owned()).filter(|path| there(path));
    let installed: Vec<_> = wings.into_iter().chain(system).collect();
    if installed.is_empty() { vec![here.to_owned()] } else { installed }
}

/// Reads `paths`. `None` if one of them cannot be read: what the others lack may stand in it.
pub(super) fn read(paths: &[PathBuf], notes: &mut Notes) -> Option<Vec<Entries>> {
    let mut layers = Vec::new();
    for path in paths {
        notes.files.push(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        match read_one(path, paths.len() > 1) {
            Ok(entries) => layers.push(entries),
            Err(message) => notes.error(path.display().to_string(), message),
        }
    }
    Some(layers).filter(|layers| layers.len() == paths.len() && !paths.is_empty())
}

fn read_one(path: &Path, may_be_empty: bool) -> Result<Entries, String> {
    let bytes = fs::read(path).map_err(|error| unreadable(&error))?;
    let what = match yaml::parse(&decode(bytes)?)? {
        Value::Section(entries) => return Ok(entries),
        Value::Null if may_be_empty => return Ok(Entries::new()),
        // It may be a file with the token and nothing else.
        Value::Text(_) => "a text".to_owned(),
        other => other.describe(),
    };
    Err(format!("holds {what}; write a configuration: keys and values"))
}

fn unreadable(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run this as root (sudo), or as the user that the service runs as"
        }
        _ => "name the node's configuration with --config FILE",
    };
    format!("cannot be read ({}); {remedy}", reason(error))
}

/// The text, without a byte order mark.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let wide = bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || bytes.iter().take(64).any(|byte| *byte == 0);
    if wide {
        return Err("is UTF-16; save it as UTF-8".into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8, at line {line}; save it as UTF-8 (it may be Latin-1)")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The system's words for an error, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_comes_before_the_current_directory() {
        let directory = std::env::temp_dir().join(format!("winglet-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [here, system, wings] =
            ["here.yml", "system.yml", "wings.yml"].map(|name| directory.join(name));
        let usual = || usual(&here, &system, &["/no/such/file", wings.to_str().unwrap()]);
        assert_eq!(usual(), std::slice::from_ref(&here), "the message names the one to make");
        fs::write(&here, "").unwrap();
        assert_eq!(usual(), std::slice::from_ref(&here));
        fs::write(&wings, "").unwrap();
        assert_eq!(usual(), std::slice::from_ref(&wings));
        fs::write(&system, "").unwrap();
        assert_eq!(usual(), [wings.clone(), system.clone()]);
        fs::remove_file(&wings).unwrap();
        assert_eq!(usual(), std::slice::from_ref(&system));
        assert_eq!(files(&[system.clone(), here.clone()]), [system, here]);
        assert!(files(&["relative.yml".into()])[0].is_absolute());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_no_missing_one() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let told = "cannot be read (permission denied); run this as root (sudo), or as the user that the service runs as";
        assert_eq!(unreadable(&error), told);
    }

    #[test]
    fn whatever_an_editor_wrote() {
        assert_eq!(decode(b"\xef\xbb\xbftoken: x".to_vec()).unwrap(), "token: x");
        assert_eq!(decode("é".into()).unwrap(), "é");
        for (bytes, told) in [
            (&b"a: 1\nb: caf\xe9\n"[..], "is not UTF-8, at line 2; save it as UTF-8"),
            (b"\xff\xfea\0:\0", "is UTF-16"),
            (b"\xfe\xff\0a\0:", "is UTF-16"),
            (b"a\0:\0 \0", "is UTF-16"),
        ] {
            assert!(decode(bytes.to_vec()).unwrap_err().starts_with(told), "{told}");
        }
    }
}
