//! An address to listen on: `ADDR:PORT`, `tls:ADDR:PORT` or `unix:PATH`.
//!
//! The command line says which, or else `winglet.listen`, or else `api`. Names such as `localhost`
//! are resolved here, once, to their first address; what exists afterwards can be bound without
//! asking anybody.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::findings::Findings;
use super::values::Section;
use super::{TlsFiles, defaults};

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
    },
    /// A Unix stream socket, plain HTTP.
    Unix {
        /// The socket's path in the file system.
        path: PathBuf,
    },
}

impl Listen {
    /// A TCP listener from a host (an address, bracketed or not, or a name) and a port.
    pub(super) fn tcp(host: &str, port: u16, tls: bool) -> Result<Self, String> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Tcp { address: SocketAddr::new(address, port), tls });
        }
        let address = resolve(host, (host, port).to_socket_addrs())?;
        Ok(Self::Tcp { address, tls })
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

    /// Whether the kernel chooses the port, so that two of these are two places.
    fn is_port_zero(&self) -> bool {
        matches!(self, Self::Tcp { address, .. } if address.port() == 0)
    }
}

/// All that says where to listen.
pub(super) struct Places<'a> {
    /// What relative paths count from.
    pub(super) base: &'a Path,
    pub(super) api: &'a Section<'a>,
    pub(super) winglet: &'a Section<'a>,
    /// The command line's addresses, which replace the file's.
    pub(super) given: &'a [String],
}

impl Places<'_> {
    /// The addresses, from the first of command line, `winglet.listen` and `api`, and the files
    /// that TLS needs where one of them is TLS.
    pub(super) fn resolve(&self, findings: &mut Findings) -> (Vec<Listen>, Option<TlsFiles>) {
        let ssl = self.api.section("ssl", findings);
        let enabled = ssl.bool("enabled", false, findings);
        // Looked at even where the command line replaces it, so that its type is checked.
        let written = self.winglet.strings("listen", findings);
        let given = self.given.iter().map(|text| ("--listen".to_owned(), text.clone()));
        let texts = if self.given.is_empty() { written } else { given.collect() };

        let mut listen: Vec<Listen> = Vec::new();
        for (name, text) in &texts {
            match text.parse::<Listen>().and_then(|one| one.beneath(self.base)) {
                Ok(one) if listen.contains(&one) && !one.is_port_zero() => {
                    findings.error(
                        name,
                        format!("{one} stands twice in the list; name each address once"),
                    );
                }
                Ok(one) => listen.push(one),
                Err(message) => findings.error(name, message),
            }
        }
        if texts.is_empty() {
            let host =
                self.api.string("host", findings).unwrap_or_else(|| defaults::API_HOST.to_owned());
            let port = self.api.integer("port", defaults::API_PORT, 0..=u16::MAX, findings);
            match Listen::tcp(&host, port, enabled) {
                Ok(one) => listen.push(one),
                Err(message) => findings.error("api.host", message),
            }
        }
        let tls = listen.iter().find(|one| one.is_tls());
        let tls = tls.and_then(|one| self.tls_files(&ssl, one, findings));
        (listen, tls)
    }

    fn tls_files(
        &self,
        ssl: &Section<'_>,
        listen: &Listen,
        findings: &mut Findings,
    ) -> Option<TlsFiles> {
        if !cfg!(feature = "tls") {
            let message = format!(
                "{listen} asks for TLS, which this build does not have; put a proxy in front"
            );
            findings.error("winglet.listen", message);
            return None;
        }
        let mut file = |key, what| {
            let path = ssl.string(key, findings);
            if path.is_none() {
                let message = format!(
                    "is missing, and {listen} needs it for TLS; name the PEM file of the {what}"
                );
                findings.error(ssl.name_of(key), message);
            }
            path.map(|path| self.base.join(path))
        };
        let (certificate, key) = (file("cert", "certificate chain"), file("key", "private key"));
        Some(TlsFiles { certificate: certificate?, key: key? })
    }
}

/// The error says what is wrong with the text and what would be right, for the operator.
impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
            return Ok(Self::Tcp { address, tls });
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
        Self::tcp(host, port, tls)
    }
}

/// The text that parses to the same value.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, tls: false } => write!(f, "{address}"),
            Self::Tcp { address, tls: true } => write!(f, "tls:{address}"),
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
    use super::super::tests::{Node, WINGS};
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
        let Listen::Tcp { address, tls } = "tls:127.1:8080".parse().unwrap() else { panic!() };
        assert!(address.ip().is_loopback() && address.port() == 8080 && tls);
        for host in ["::", "[::]"] {
            assert_eq!(Listen::tcp(host, 80, false).unwrap().to_string(), "[::]:80");
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

    #[test]
    fn the_command_line_replaces_the_addresses() {
        let node = Node::new();
        let text = WINGS.replace("api:", "winglet: {listen: ['not one']}\napi:");
        let (config, findings) = node.load_with(&text, &["127.0.0.1:0", "unix:/run/w.sock"], &[]);
        assert!(findings.is_empty(), "{findings}");
        let config = config.unwrap();
        assert_eq!(
            config.listen,
            ["127.0.0.1:0".parse().unwrap(), "unix:/run/w.sock".parse().unwrap()]
        );
        assert_eq!(config.tls, None);
        let (config, findings) = node.load_with(WINGS, &["nonsense"], &[]);
        assert!(
            config.is_none()
                && findings
                    .to_string()
                    .starts_with("error: --listen: \"nonsense\" is not an address")
        );
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy() {
        told_for_each(&[
            (
                "winglet: {listen: [':1']}",
                "winglet.listen[0]: \":1\" is not an address; write ADDR:PORT",
            ),
            (
                "winglet: {listen: ['[::]:1', '[::]:1']}",
                "winglet.listen[1]: [::]:1 stands twice in the list",
            ),
            (
                "api: {port: 65536}",
                "api.port: is the number 65536; write a whole number from 0 to 65535",
            ),
            ("api: {host: 'no host'}", "api.host: \"no host\" has no address"),
        ]);
    }

    #[test]
    #[cfg(feature = "tls")]
    fn tls_without_its_files_is_a_mistake() {
        told_for_each(&[
            (
                "winglet: {listen: ['tls:[::]:1']}",
                "api.ssl.cert: is missing, and tls:[::]:1 needs it for TLS",
            ),
            (
                "api: {ssl: {enabled: true, cert: a, key: ''}}",
                "api.ssl.key: is missing, and tls:0.0.0.0:8080 needs it",
            ),
        ]);
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_without_the_feature_is_a_mistake() {
        told_for_each(&[(
            "api: {ssl: {enabled: true, cert: a, key: b}}",
            "winglet.listen: tls:0.0.0.0:8080 asks for TLS, which this build does not have",
        )]);
    }

    fn told_for_each(table: &[(&str, &str)]) {
        let node = Node::new();
        for (rest, told) in table {
            let (config, findings) = node.load(rest);
            let findings = findings.to_string();
            assert!(config.is_none(), "{rest}");
            assert!(findings.starts_with(&format!("error: {told}")), "{rest}: {findings}");
        }
    }
}
