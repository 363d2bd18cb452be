//! An address to listen on: `ADDR:PORT`, `tls:ADDR:PORT` or `unix:PATH`.
//!
//! Names such as `localhost` are resolved here, once, to their first address. A reload happens in a
//! sandbox that keeps every resolver out, so that it takes over the addresses of names that it
//! finds unchanged.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `sun_path` holds 108 bytes, the closing NUL among them (unix(7)).
const MAX_UNIX_PATH_BYTES: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP socket.
    Tcp {
        /// What to bind; port 0 lets the kernel choose.
        address: SocketAddr,
        /// Whether connections begin with a TLS handshake.
        tls: bool,
        /// The host as it was written, if it was a name.
        name: Option<String>,
    },
    /// A Unix stream socket, plain HTTP.
    Unix {
        /// The socket's path in the file system.
        path: PathBuf,
    },
}

impl Listen {
    /// A TCP listener from a host (an address, bracketed or not, or a name) and a port. A name that
    /// is among `before` is not resolved again.
    pub(super) fn tcp(host: &str, port: u16, tls: bool, before: &[Listen]) -> Result<Self, String> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Tcp { address: SocketAddr::new(address, port), tls, name: None });
        }
        let same = |listen: &&Listen| {
            matches!(listen, Self::Tcp { address, tls: before, name: Some(name) }
                if name == host && address.port() == port && *before == tls)
        };
        if let Some(known) = before.iter().find(same) {
            return Ok(known.clone());
        }
        let address = resolve(host, (host, port).to_socket_addrs())?;
        Ok(Self::Tcp { address, tls, name: Some(host.to_owned()) })
    }

    /// Makes a relative socket path count from `base`, and refuses one that no socket can have.
    pub(super) fn beneath(self, base: &Path) -> Result<Self, String> {
        let Self::Unix { path } = self else { return Ok(self) };
        let path = base.join(path);
        let length = path.as_os_str().len();
        if length > MAX_UNIX_PATH_BYTES {
            return Err(format!(
                "the socket's path has {length} bytes and may have {MAX_UNIX_PATH_BYTES}; choose a shorter one, such as unix:/run/winglet.sock"
            ));
        }
        Ok(Self::Unix { path })
    }

    /// Whether connections begin with a TLS handshake.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { address, .. } => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        matches!(self, Self::Tcp { address, .. } if address.is_ipv4())
    }

    /// Whether both are one place. Port 0 is another one each time.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { address, .. }, Self::Tcp { address: other, .. }) => {
                address == other && address.port() != 0
            }
            (this, other) => this == other,
        }
    }

    /// Whether this one takes every address of the other's port, so that the kernel refuses the
    /// second of them.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (Self::Tcp { address, .. }, Self::Tcp { address: other, .. }) = (self, other) else {
            return false;
        };
        let all = address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4());
        all && address.port() == other.port() && address.port() != 0
    }
}

impl Listen {
    /// Reads what `Display` writes. The error says what is wrong with the text and what would be
    /// right, for the operator.
    pub(super) fn parse(text: &str, before: &[Listen]) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.contains('\0') {
                return Err(format!(
                    "{text:?} names no socket; write unix:PATH, such as unix:/run/winglet.sock"
                ));
            }
            return Ok(Self::Unix { path: PathBuf::from(path) });
        }
        let (tls, rest) = match text.strip_prefix("tls:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.starts_with("unix:") {
            return Err(format!(
                "{text:?} asks for TLS on a Unix socket, which speaks plain HTTP; write {rest}"
            ));
        }
        if let Ok(address) = rest.parse() {
            return Ok(Self::Tcp { address, tls, name: None });
        }
        let Some((host, port)) = rest.rsplit_once(':').filter(|(host, _)| is_name(host)) else {
            return Err(format!(
                "{text:?} is not an address; write ADDR:PORT, such as 0.0.0.0:8080 or [::]:8080, tls:ADDR:PORT or unix:PATH"
            ));
        };
        let Ok(port) = port.parse() else {
            return Err(format!(
                "{text:?} has no port; end it with a number from 0 to 65535, such as {host}:8080"
            ));
        };
        Self::tcp(host, port, tls, before)
    }
}

/// As in `winglet.listen`.
impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Listen::parse(text, &[])
    }
}

/// The text that parses to the same value.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, tls, name } => {
                f.write_str(if *tls { "tls:" } else { "" })?;
                match name {
                    Some(name) => write!(f, "{name}:{}", address.port()),
                    None => address.fmt(f),
                }
            }
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether `host` can be the name of a machine, so that `http://x` or `::1` is not looked up.
fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn resolve(
    host: &str,
    answer: std::io::Result<impl Iterator<Item = SocketAddr>>,
) -> Result<SocketAddr, String> {
    let remedy = "write an address of this machine, such as 0.0.0.0";
    match answer {
        Ok(mut addresses) => {
            addresses.next().ok_or_else(|| format!("{host:?} has no address; {remedy}"))
        }
        Err(error) => Err(format!("{host:?} has no address ({error}); {remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_round_trips() {
        for text in [
            "0.0.0.0:8080",
            "127.0.0.1:0",
            "[::]:8080",
            "[fe80::1%2]:80",
            "tls:0.0.0.0:443",
            "tls:[::1]:443",
            "unix:/run/winglet.sock",
            "unix:relative/with space.sock",
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(listen.is_tls(), text.starts_with("tls:"));
        }
    }

    #[test]
    fn names_are_resolved() {
        // No address to Rust, and one to the system's resolver, which needs no file for it.
        let Listen::Tcp { address, tls, .. } = "tls:127.1:8080".parse().unwrap() else { panic!() };
        assert!(address.ip().is_loopback() && address.port() == 8080 && tls);
        for host in ["::", "[::]"] {
            assert_eq!(Listen::tcp(host, 80, false, &[]).unwrap().to_string(), "[::]:80");
        }
    }

    #[test]
    fn what_is_no_address_is_told_what_is() {
        for (text, told) in [
            ("", "is not an address"),
            ("8080", "is not an address"),
            (":8080", "is not an address"),
            ("::1:8080", "is not an address"),
            ("http://0.0.0.0:8080", "is not an address"),
            ("0.0.0.0", "is not an address"),
            ("0.0.0.0:", "has no port"),
            ("0.0.0.0:65536", "has no port"),
            ("localhost:http", "has no port"),
            ("unix:", "names no socket"),
            ("unix:a\0b", "names no socket"),
            ("tls:unix:/x", "write unix:/x"),
            ("no-such-host.invalid:80", "has no address"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_socket_path_counts_from_the_base_and_fits() {
        let unix = |path: String| Listen::Unix { path: path.into() };
        assert_eq!(
            unix("a.sock".into()).beneath(Path::new("/run")),
            Ok(unix("/run/a.sock".into()))
        );
        assert_eq!(unix("/a.sock".into()).beneath(Path::new("/run")), Ok(unix("/a.sock".into())));
        let longest = format!("/{}", "x".repeat(MAX_UNIX_PATH_BYTES - 1));
        assert!(unix(longest.clone()).beneath(Path::new("/")).is_ok());
        assert!(unix(longest + "x").beneath(Path::new("/")).unwrap_err().contains("108 bytes"));
    }
}
