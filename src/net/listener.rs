//! Listening sockets: TCP and Unix, bound here or passed by a service manager.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::config::{Config, Listen};
use crate::error::StartError;
use crate::net::address::Peer;
use crate::net::socket::{NOTSENT_LOWAT, Socket};
use crate::sys;

/// The kernel's own limit (`net.core.somaxconn`) cuts this down.
const BACKLOG: i32 = i32::MAX;
/// Where sd_listen_fds(3) begins to count.
const FIRST_PASSED: i32 = 3;
/// Permissions of the control socket.
const CONTROL_MODE: u32 = 0o600;

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    tls: bool,
    control: bool,
    /// A socket file of ours, removed at the end.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Whether connections begin with a TLS handshake.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is the control listener.
    pub fn is_control(&self) -> bool {
        self.control
    }

    /// Returns true if only this machine reaches it.
    fn is_local(&self) -> bool {
        match &self.kind {
            Kind::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
            Kind::Unix(_) => true,
        }
    }

    /// Accepts one connection, non-blocking.
    ///
    /// # Errors
    /// `WouldBlock` if none is waiting; `EMFILE` and `ENFILE` if descriptors are exhausted.
    pub fn accept(&self) -> io::Result<(Accepted, Peer)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match &self.kind {
            Kind::Tcp(listener) => {
                let (fd, address) = rustix::net::acceptfrom_with(listener, flags)?;
                let address = address
                    .and_then(|address| SocketAddr::try_from(address).ok())
                    .ok_or(io::ErrorKind::ConnectionAborted)?;
                Ok((Accepted::Tcp(TcpStream::from(fd)), Peer::Tcp(address)))
            }
            Kind::Unix(listener) => {
                let fd = rustix::net::accept_with(listener, flags)?;
                Ok((Accepted::Unix(UnixStream::from(fd)), Peer::Unix))
            }
        }
    }
}

/// A fresh connection.
#[derive(Debug)]
pub enum Accepted {
    /// By TCP.
    Tcp(TcpStream),
    /// By a Unix socket.
    Unix(UnixStream),
}

impl From<Accepted> for Socket {
    fn from(accepted: Accepted) -> Socket {
        match accepted {
            Accepted::Tcp(stream) => Socket::tcp(stream),
            Accepted::Unix(stream) => Socket::unix(stream),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `http://ADDR:PORT`, `https://ADDR:PORT` or `unix:PATH`, as the ready line says it.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.kind {
            Kind::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{scheme}://{address}"),
                Err(_) => write!(f, "{scheme}://?"),
            },
            Kind::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                write!(f, "unix:{}", path.unwrap_or(Path::new("?")).display())
            }
        }
    }
}

/// Listens where `config` says, or on the sockets that a service manager passed.
///
/// # Errors
/// Which address, what is wrong with it, and what to do.
pub fn open(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = passed(config, environment)?;
    // What the configuration itself names was looked at when it was read.
    if let Some(open) = listeners.iter().find(|listener| !listener.is_local())
        && config.token.is_the_samples()
    {
        let message = format!(
            "is the sample's, and the socket {open} that was passed is open to others; copy `token` from the Panel"
        );
        return Err(StartError::new("token", message));
    }
    if listeners.is_empty() {
        for listen in &config.listen {
            listeners.push(
                bind(listen, config.unix_mode)
                    .map_err(|told| StartError::new("winglet.listen", told))?,
            );
        }
    }
    if let Some(control) = &config.control {
        let listener = bind(control, CONTROL_MODE);
        let mut listener = listener.map_err(|told| StartError::new("winglet.control", told))?;
        listener.control = true;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Sockets passed by a service manager (sd_listen_fds(3)).
fn passed(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Listener>, StartError> {
    let ours = environment("LISTEN_PID").and_then(|pid| pid.parse().ok());
    if ours != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = environment("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = environment("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (0..count)
        .map(|offset| {
            let tls = names.next() == Some("tls") || config.listen.iter().all(Listen::is_tls);
            let number = FIRST_PASSED + offset;
            let listener = sys::adopt_descriptor(number).and_then(|fd| adopt(fd, tls));
            match listener {
                // Without a certificate every connection would be closed in silence.
                Ok(listener) if listener.tls && config.tls.is_none() => Err(StartError::new(
                    "LISTEN_FDNAMES",
                    "a socket is named tls, and winglet.listen names no TLS address; add one (tls:ADDR:PORT), so that api.ssl counts",
                )),
                listener => listener.map_err(|error| {
                    StartError::new("LISTEN_FDS", format!("descriptor {number}: {error}"))
                }),
            }
        })
        .collect()
}

fn adopt(fd: OwnedFd, tls: bool) -> io::Result<Listener> {
    if !sockopt::socket_acceptconn(&fd)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening socket"));
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    if sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
        let kind = Kind::Unix(UnixListener::from(fd));
        return Ok(Listener { kind, tls: false, control: false, path: None });
    }
    let _ = sys::set_notsent_lowat(fd.as_fd(), NOTSENT_LOWAT);
    Ok(Listener { kind: Kind::Tcp(TcpListener::from(fd)), tls, control: false, path: None })
}

/// Binds `listen`; a socket file gets `mode`. The error says what is wrong, and what to do.
fn bind(listen: &Listen, mode: u32) -> Result<Listener, String> {
    let result = match listen {
        Listen::Tcp { address, tls, .. } => bind_tcp(*address).map(|listener| Listener {
            kind: Kind::Tcp(listener),
            tls: *tls,
            control: false,
            path: None,
        }),
        Listen::Unix { path } => bind_unix(path, mode).map(|listener| Listener {
            kind: Kind::Unix(listener),
            tls: false,
            control: false,
            path: Some(path.clone()),
        }),
    };
    result.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "something listens there already; Wings uses port 8080 by default: give one of the two another port"
            }
            io::ErrorKind::PermissionDenied => {
                "the server may not listen there; ports below 1024 need CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "choose another address",
        };
        format!("cannot listen on {listen}: {error}; {remedy}")
    })
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    // An old kernel without the option keeps larger buffers, and that is all.
    let _ = sys::set_notsent_lowat(socket.as_fd(), NOTSENT_LOWAT);
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file begins with the socket's own permissions: at no moment may others connect.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket file of a server that is gone: a socket on which nobody answers.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            // Never waits: a server that hangs, with a full backlog, is one that is there.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let probe =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
                Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
