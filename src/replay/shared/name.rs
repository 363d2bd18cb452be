//! What a front end is called.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::config::{Config, is_node_name};
use crate::replay::make_directory;

/// The file in the state directory that keeps the name.
const NAME_FILE: &str = "node";

/// What this front end is called, if the configuration or the state directory says so.
pub(super) fn kept(config: &Config) -> Option<String> {
    if let Some(node) = config.shared_state.as_ref().and_then(|shared| shared.node.clone()) {
        return Some(node);
    }
    let path = config.state_directory.as_ref()?.join(NAME_FILE);
    let kept = std::fs::read_to_string(path).ok()?.trim().to_owned();
    Some(kept).filter(|name| is_node_name(name))
}

/// A name for this front end: the host's with a random part, which `directory` keeps.
pub(super) fn make(directory: Option<&Path>) -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let host = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40);
    let mut name: String = host.collect();
    let _ = write!(name, "-{:08x}", random() as u32);
    if let Some(directory) = directory
        && let Err(error) =
            make_directory(directory).and_then(|()| keep(&directory.join(NAME_FILE), &name))
    {
        log::warn!(
            "state_directory: cannot keep this front end's name: {error}; it has another one after a restart"
        );
    }
    name
}

fn keep(path: &Path, name: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    io::Write::write_all(&mut options.custom_flags(libc::O_NOFOLLOW).open(path)?, name.as_bytes())
}

/// A number unlike any other process's.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
