//! What would stop or hinder `serve`, found without starting it: addresses, the certificate, the
//! state directory, and volumes that the sandbox hides.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::config::{Config, Finding, Listen};

/// How long whoever listens at our address may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// The user of the service files.
const SERVICE_USER: &str = "winglet";
/// What to do about an address that is taken.
const TAKEN: &str =
    "something else listens there; give one of the two another (Wings uses port 8080 by default)";
/// So many volumes are named; of further ones, their number.
const NAMED: usize = 3;

/// Adds to `findings` what a look at the machine brings to light. What the certificate says of
/// itself, if there is one.
pub(super) fn look(config: &Config, findings: &mut Vec<Finding>) -> Option<String> {
    let listens = config.listen.iter();
    findings.extend(listens.filter_map(|listen| address(listen, "/health")));
    findings.extend(config.control.as_ref().and_then(control));
    findings.extend(config.state_directory.as_deref().and_then(state_directory));
    findings.extend(hidden_volumes(config));
    certificate(config, findings)
}

#[cfg(feature = "tls")]
fn certificate(config: &Config, findings: &mut Vec<Finding>) -> Option<String> {
    use crate::clock::{self, Clock};

    match crate::net::tls::Certificates::check(config.tls.as_ref()?) {
        Ok(report) => {
            let warning = report.warning(Clock::System.unix());
            findings.extend(warning.map(|warning| Finding::warning("api.ssl.cert", warning)));
            let end = clock::date(report.expires?);
            Some(format!("{} in the chain, valid until {end}", report.length))
        }
        Err(error) => {
            findings.push(Finding::error(error.key.unwrap_or("api.ssl"), error.message));
            None
        }
    }
}

#[cfg(not(feature = "tls"))]
fn certificate(_: &Config, _: &mut Vec<Finding>) -> Option<String> {
    None
}

/// As [`address`], for the control listener.
fn control(listen: &Listen) -> Option<Finding> {
    const KEY: &str = "winglet.control";
    let directory = match listen {
        Listen::Unix { path } => path.parent().filter(|directory| !directory.exists()),
        Listen::Tcp { .. } => None,
    };
    if let Some(directory) = directory {
        // The service makes it before it starts the server, and takes it away after that.
        let message = format!(
            "{} does not exist; the service files make /run/winglet, any other directory has to be there",
            directory.display()
        );
        return Some(Finding::warning(KEY, message));
    }
    address(listen, "/status").map(|finding| Finding { key: KEY.into(), ..finding })
}

/// What keeps `listen` from being bound, unless it is a running Winglet, which answers at `path`.
fn address(listen: &Listen, path: &str) -> Option<Finding> {
    const KEY: &str = "winglet.listen";
    let (address, error) = match listen {
        Listen::Tcp { address, .. } => (*address, bind(*address).err()?),
        Listen::Unix { path: socket } => return unix_path(socket, path),
    };
    let message = format!("cannot listen on {listen}: {error}");
    Some(match error.kind() {
        io::ErrorKind::AddrInUse if is_winglet(address, path) => return None,
        io::ErrorKind::AddrInUse => Finding::error(KEY, format!("{message}; {TAKEN}")),
        // The service may have the right that this user lacks.
        io::ErrorKind::PermissionDenied => Finding::warning(
            KEY,
            format!("{message}; ports below 1024 need CAP_NET_BIND_SERVICE, or winglet.socket"),
        ),
        io::ErrorKind::AddrNotAvailable => Finding::error(
            KEY,
            format!("{message}; name an address that this machine has, or 0.0.0.0"),
        ),
        _ => Finding::warning(KEY, message),
    })
}

/// Takes the address for a moment, without listening.
fn bind(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(rustix::net::bind(&socket, &address)?)
}

fn unix_path(path: &Path, asked: &str) -> Option<Finding> {
    use std::os::unix::fs::FileTypeExt;

    let directory = path.parent().unwrap_or(Path::new("/"));
    let answer = || UnixStream::connect(path).map(|stream| ask(stream, asked));
    let problem = match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            "there is a file that is no socket; remove it, or name another path".to_owned()
        }
        // Nobody answers at the socket of a server that is gone, which `serve` removes.
        Ok(_) if answer().is_ok_and(|answer| !is_ours(answer)) => TAKEN.to_owned(),
        Err(_) if !directory.is_dir() => {
            format!("{} does not exist; make it, or name another path", directory.display())
        }
        _ => return None,
    };
    let message = format!("cannot listen on unix:{}: {problem}", path.display());
    Some(Finding::error("winglet.listen", message))
}

/// Returns true if it is Winglet that listens there.
fn is_winglet(mut address: SocketAddr, path: &str) -> bool {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let answer = TcpStream::connect_timeout(&address, PATIENCE).map(|stream| ask(stream, path));
    answer.is_ok_and(is_ours)
}

/// Returns true if it is Winglet that answers so: to [`ask`], and on a TLS port that it is one.
fn is_ours(answer: io::Result<String>) -> bool {
    let words = [r#""status":"ok""#, r#""draining":"#, "speaks HTTPS", r#""request_id":"#];
    answer.is_ok_and(|answer| words.iter().any(|words| answer.contains(words)))
}

/// What is answered to a request for `path`.
fn ask(stream: impl Into<OwnedFd>, path: &str) -> io::Result<String> {
    let socket = stream.into();
    for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    }
    let mut stream = fs::File::from(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // A reset after the answer takes nothing away from it.
    let _ = stream.take(4096).read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the server can keep used links in `directory`. It serves without, unless there is a
/// journal that it cannot read.
fn state_directory(directory: &Path) -> Option<Finding> {
    const KEY: &str = "winglet.state_directory";
    if let Err(error) = crate::replay::check_directory(directory) {
        return Some(Finding::error(KEY, error.message));
    }
    let path = directory.display();
    let there = directory.ancestors().find(|path| path.exists())?;
    let missing = there != directory;
    if let Err(error) = rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        let message = match missing {
            true => format!("{path} does not exist, and this user cannot make it ({error})"),
            false => format!("{path} is not writable by this user ({error})"),
        };
        let remedy = "serve would remember used links in memory only; give it to the user that serves (chown), or run the check as that user";
        return Some(Finding::warning(KEY, format!("{message}; {remedy}")));
    }
    if missing {
        return Some(Finding::warning(KEY, format!("{path} does not exist yet; serve makes it")));
    }
    // Root may write everywhere, which says nothing about the user of the service.
    let metadata = directory.metadata().ok()?;
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (user, group) = ids_of(SERVICE_USER, &passwd)?;
    if rustix::process::geteuid().is_root()
        && !writable(metadata.mode(), (metadata.uid(), metadata.gid()), (user, group))
    {
        let message = format!(
            "{path} is not writable by the user {SERVICE_USER}, which the service files use; if they start the server: chown {SERVICE_USER} {path}"
        );
        return Some(Finding::warning(KEY, message));
    }
    None
}

/// The numbers of a user and its group, as passwd(5) has them.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Whether a directory of these permissions and owners lets a user and its group make files.
fn writable(mode: u32, (owner, its_group): (u32, u32), (user, group): (u32, u32)) -> bool {
    let shift = match (owner == user, its_group == group) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    mode >> shift & 0o3 == 0o3
}

/// Volumes that are symbolic links to where the sandbox does not let the server.
fn hidden_volumes(config: &Config) -> Option<Finding> {
    if !config.sandbox {
        return None;
    }
    let allowed =
        [&config.data, &config.backup_directory].into_iter().chain(&config.extra_read_paths);
    let allowed: Vec<PathBuf> = allowed.filter_map(|path| path.canonicalize().ok()).collect();
    // A directory that may be searched and not listed is as good; it only cannot be checked.
    let volumes = fs::read_dir(&config.data).ok()?.flatten();
    let links = volumes.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let hidden: Vec<(PathBuf, PathBuf)> = links
        .filter_map(|entry| Some((entry.path(), entry.path().canonicalize().ok()?)))
        .filter(|(_, target)| !allowed.iter().any(|allowed| target.starts_with(allowed)))
        .collect();
    let (_, first) = hidden.first()?;
    let named = hidden
        .iter()
        .take(NAMED)
        .map(|(link, target)| format!("{} leads to {}", link.display(), target.display()));
    let mut message = named.collect::<Vec<_>>().join(", ");
    if hidden.len() > NAMED {
        message += &format!(" (and {} more)", hidden.len() - NAMED);
    }
    let parent = first.parent().unwrap_or(first).display();
    message += &format!(
        ", where the sandbox does not let the server; name that directory in winglet.extra_read_paths, such as [\"{parent}\"]"
    );
    Some(Finding::warning("system.data", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwinglet2:x:1:1::/:\nwinglet:x:998:997::/:/bin/false\n";
        assert_eq!(ids_of("winglet", passwd), Some((998, 997)));
        assert_eq!(ids_of("nobody", passwd), None);
        let us = (998, 997);
        for (mode, owners, expected) in [
            (0o700, (998, 0), true),
            (0o500, (998, 0), false),
            (0o770, (0, 997), true),
            (0o750, (0, 997), false),
            (0o755, (0, 0), false),
            (0o777, (0, 0), true),
            // The owner's bits count for the owner, however many the others have.
            (0o077, (998, 997), false),
        ] {
            assert_eq!(writable(mode, owners, us), expected, "{mode:o} {owners:?}");
        }
    }
}
