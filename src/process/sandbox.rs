//! Gives up, after start-up, every right in the file system and on the network that a download
//! does not need (Landlock, landlock(7)).
//!
//! Landlock binds a thread and those it starts later, so it is taken before any other thread
//! exists; and it cannot be widened again, so a reload that moves a directory needs a restart.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::config::Config;

/// The newest Landlock whose rights are handled; on older kernels, what they know of it.
const NEWEST: ABI = ABI::V6;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Everything that this program asks for.
    Full,
    /// Part of it: an older kernel.
    Partial,
    /// Nothing: the kernel has no Landlock, or it is switched off.
    None,
}

impl std::fmt::Display for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sandbox::Full => "Landlock, in full",
            Sandbox::Partial => "Landlock, as far as this kernel knows it",
            Sandbox::None => "none: this kernel has no Landlock, or it is switched off",
        })
    }
}

/// Paths that stay usable, and for what.
#[derive(Debug, Default)]
pub struct Allowed {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// Directories from which files of ours are removed at the end.
    remove: Vec<PathBuf>,
    /// Where the private socket may be bound.
    bind: Vec<PathBuf>,
    /// The one port that is connected to.
    connect: Option<u16>,
}

impl Allowed {
    /// What `config` needs. `base` is where private sockets are bound; `pid_file` is removed at the
    /// end.
    pub fn by(config: &Config, base: &Path, pid_file: Option<&Path>) -> Allowed {
        let mut allowed = Allowed::default();
        allowed.read.extend([config.data.clone(), config.backup_directory.clone()]);
        allowed.read.extend(config.extra_read_paths.iter().cloned());
        // The directory, not the file: editors replace a file by another of its name.
        allowed.read.extend(config.files.iter().filter_map(|file| parent(file)));
        for file in config.secret_files() {
            // A certificate, for one, is reached through certbot's `live/` link and lies in its `archive/`.
            allowed.read.extend(parent(&file));
            allowed.read.extend(file.canonicalize().ok().as_deref().and_then(parent));
        }
        allowed.write.extend(config.state_directory.clone());
        if config.state_directory.as_deref() != Some(base) {
            allowed.bind.push(base.to_owned());
        }
        allowed.connect = config.shared_state.as_ref().map(|shared| shared.port);
        allowed.remove.extend(pid_file.and_then(parent));
        allowed.remove.extend(config.listen.iter().chain(&config.control).filter_map(|listen| {
            match listen {
                crate::config::Listen::Unix { path } => parent(path),
                crate::config::Listen::Tcp { .. } => None,
            }
        }));
        allowed
    }
}

fn parent(path: &Path) -> Option<PathBuf> {
    path.parent().map(Path::to_owned)
}

/// Confines this thread, and all that it starts from here on, to `allowed`.
///
/// # Errors
/// If the kernel has Landlock and refuses these rules.
pub fn enter(allowed: &Allowed) -> Result<Sandbox, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        // Listeners are bound by now, and nothing is connected to but the shared state.
        .handle_access(AccessNet::from_all(NEWEST))?
        // Signals to others and their abstract sockets. That of a service manager is connected by now.
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let bind = AccessFs::MakeDir | AccessFs::MakeSock | AccessFs::RemoveDir | AccessFs::RemoveFile;
    let ruleset = allow(ruleset, &allowed.read, read)?;
    let ruleset = allow(ruleset, &allowed.write, AccessFs::from_all(NEWEST) & !AccessFs::Execute)?;
    let ruleset = allow(ruleset, &allowed.remove, AccessFs::RemoveFile.into())?;
    let mut ruleset = allow(ruleset, &allowed.bind, bind)?;
    if let Some(port) = allowed.connect {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Sandbox::Full,
        RulesetStatus::PartiallyEnforced => Sandbox::Partial,
        RulesetStatus::NotEnforced => Sandbox::None,
    })
}

fn allow(
    mut ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    for path in paths {
        // What does not exist now cannot be allowed; the start-up log says so of directories.
        if let Ok(fd) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    Ok(ruleset)
}

/// What [`enter`] would come to on this machine, without entering.
pub fn probe() -> Sandbox {
    // A thread of its own takes the rules and ends with them.
    std::thread::spawn(|| enter(&Allowed::default()))
        .join()
        .ok()
        .and_then(Result::ok)
        .unwrap_or(Sandbox::None)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn one_port_can_be_connected_to_and_no_other() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (shared, other) = (listen(), listen());
        let shared = shared.local_addr().unwrap();
        let other = other.local_addr().unwrap();
        let allowed = Allowed { connect: Some(shared.port()), ..Allowed::default() };
        let confined = std::thread::spawn(move || {
            let sandbox = enter(&allowed).unwrap();
            let refused = |address| TcpStream::connect(address).err().map(|error| error.kind());
            (sandbox, refused(shared), refused(other))
        });
        let (sandbox, shared, other) = confined.join().unwrap();
        assert_ne!(shared, Some(ErrorKind::PermissionDenied));
        // Older kernels know of no ports.
        if sandbox == Sandbox::Full {
            assert_eq!(other, Some(ErrorKind::PermissionDenied));
        }
    }
}
