//! An address to listen on: `ADDR:PORT`, `tls:ADDR:PORT` or `unix:PATH`.
//!
//! Names such as `localhost` are resolved here, once, to their first address. A reload happens in a
//! sandbox that keeps every resolver out, so that it takes over the addresses of names that it
//! finds unchanged.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

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
    /// Reads what `Display` writes; a socket's path counts from `base`. A name that is among `before`
    /// is not resolved again.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub(super) fn parse(text: &str, base: &Path, before: &[Listen]) -> Result<Self, String> {
        let (tls, rest) = match text.strip_prefix("tls:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let wrong = |what: &str, right: &str| Err(format!("{text:?} {what}; write {right}"));
        match rest.strip_prefix("unix:") {
            Some(_) if tls => {
                return wrong("asks for TLS on a socket, which speaks plain HTTP", rest);
            }
            Some("") => {
                return wrong("names no socket", "unix:PATH, such as unix:/run/winglet.sock");
            }
            Some(path) if path.contains('\0') => return wrong("holds a NUL", "another path"),
            Some(path) => return Self::unix(base.join(path)),
            None => {}
        }
        if let Ok(address) = rest.parse() {
            return Ok(Self::Tcp { address, tls, name: None });
        }
        match rest.rsplit_once(':').filter(|(host, _)| is_name(host)) {
            None => wrong(
                "is not an address",
                "ADDR:PORT, such as 0.0.0.0:8080 or [::]:8080, tls:ADDR:PORT or unix:PATH",
            ),
            Some((host, port)) => match port.parse() {
                Ok(port) => Self::tcp(host, port, tls, before),
                Err(_) => wrong("has no port", &format!("one from 0 to 65535, as in {host}:8080")),
            },
        }
    }

    /// A TCP listener from a host (an address, bracketed or not, or a name) and a port.
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
        let found = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = found.ok_or_else(|| {
            format!("{host:?} has no address; write one of this machine, such as 0.0.0.0")
        })?;
        Ok(Self::Tcp { address, tls, name: Some(host.to_owned()) })
    }

    fn unix(path: PathBuf) -> Result<Self, String> {
        match path.as_os_str().len() {
            0..=MAX_UNIX_PATH_BYTES => Ok(Self::Unix { path }),
            length => Err(format!(
                "the socket's path has {length} bytes and may have {MAX_UNIX_PATH_BYTES}; choose a shorter one"
            )),
        }
    }

    /// Returns true if connections begin with a TLS handshake.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Returns true if only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { address, .. } => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        matches!(self, Self::Tcp { address, .. } if address.is_ipv4())
    }

    /// Returns true if the system refuses the second of both, since one takes what arrives at the
    /// other. Port 0 is another one each time.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (Self::Tcp { address: a, .. }, Self::Tcp { address: b, .. }) = (self, other) else {
            return self == other;
        };
        let covers = |all: &SocketAddr, one: &SocketAddr| {
            all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
        };
        a.port() == b.port() && a.port() != 0 && (a == b || covers(a, b) || covers(b, a))
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

/// Returns true if `host` can be the name of a machine, so that `http://x` or `::1` is not looked up.
fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !host.is_empty() && host.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Listen, String> {
        Listen::parse(text, Path::new("/base"), &[])
    }

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
            "unix:/with space.sock",
        ] {
            let listen = parse(text).unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(listen.is_tls(), text.starts_with("tls:"));
        }
    }

    #[test]
    fn names_are_resolved() {
        // No address to Rust, and one to the system's resolver, which needs no file for it.
        let Listen::Tcp { address, tls, .. } = parse("tls:127.1:8080").unwrap() else { panic!() };
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
            ("unix:a\0b", "holds a NUL"),
            ("tls:unix:/x", "write unix:/x"),
            ("no-such-host.invalid:80", "has no address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_socket_path_counts_from_the_base_and_fits() {
        let unix = |path: &str| Listen::Unix { path: path.into() };
        assert_eq!(parse("unix:a.sock"), Ok(unix("/base/a.sock")));
        assert_eq!(parse("unix:/a.sock"), Ok(unix("/a.sock")));
        let longest = format!("unix:/{}", "x".repeat(MAX_UNIX_PATH_BYTES - 1));
        assert!(parse(&longest).is_ok());
        assert!(parse(&format!("{longest}x")).unwrap_err().contains("108 bytes"));
    }
}
