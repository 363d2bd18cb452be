//! A connection that this program opens itself: to a server of its operator, over TCP or TLS.
//!
//! Whatever is done on it is done by a deadline, which is looked at anew before every system call:
//! a peer that sends one byte a second gains nothing by it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
#[cfg(feature = "shared-state-tls")]
use std::path::Path;
#[cfg(feature = "shared-state-tls")]
use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "shared-state-tls")]
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
#[cfg(feature = "shared-state-tls")]
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

/// Where the certificate authorities of the system are, in the order in which they are looked for:
/// Debian and Alpine, Red Hat, others.
#[cfg(feature = "shared-state-tls")]
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How the other side proves who it is.
#[cfg(feature = "shared-state-tls")]
#[derive(Clone, Debug)]
pub struct PeerTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

#[cfg(feature = "shared-state-tls")]
impl PeerTls {
    /// The peer is `host`, vouched for by one of the authorities in the PEM file `authorities`, or
    /// by one of the system's.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate, or `host` is no name.
    pub fn new(host: &str, authorities: Option<&Path>) -> io::Result<PeerTls> {
        let system = || SYSTEM_AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists());
        let path = authorities.or_else(system).ok_or_else(|| {
            io::Error::other("this system has no file of certificate authorities")
        })?;
        let explain = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {error}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|error| explain(&error))?.flatten()
        {
            // Of a system's hundreds, some may be older than what rustls takes.
            roots.add_parsable_certificates([certificate]);
        }
        if roots.is_empty() {
            return Err(explain(&"holds no certificate of an authority"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(PeerTls { config: Arc::new(config), name })
    }
}

/// The connection.
#[derive(Debug)]
pub struct Outgoing(Layer);

#[derive(Debug)]
enum Layer {
    Plain(Timed),
    #[cfg(feature = "shared-state-tls")]
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Outgoing {
    /// Connects to the first of `addresses` that answers, until `deadline`.
    ///
    /// # Errors
    /// What the last one failed with.
    pub fn plain(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Outgoing> {
        Ok(Outgoing(Layer::Plain(Timed::connect(addresses, deadline)?)))
    }

    /// As [`Outgoing::plain`], with a TLS handshake.
    ///
    /// # Errors
    /// As there, and `InvalidData` if the handshake fails.
    #[cfg(feature = "shared-state-tls")]
    pub fn tls(addresses: &[SocketAddr], tls: &PeerTls, deadline: Instant) -> io::Result<Outgoing> {
        let mut stream = Timed::connect(addresses, deadline)?;
        let mut connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Outgoing(Layer::Tls(Box::new(StreamOwned::new(connection, stream)))))
    }

    /// What is done from here on is done by `deadline`, or fails with `TimedOut`.
    pub fn set_deadline(&mut self, deadline: Instant) {
        match &mut self.0 {
            Layer::Plain(stream) => stream.deadline = deadline,
            #[cfg(feature = "shared-state-tls")]
            Layer::Tls(stream) => stream.sock.deadline = deadline,
        }
    }
}

impl Read for Outgoing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Plain(stream) => stream.read(buffer),
            #[cfg(feature = "shared-state-tls")]
            Layer::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Plain(stream) => stream.write(bytes),
            #[cfg(feature = "shared-state-tls")]
            Layer::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Layer::Plain(stream) => stream.flush(),
            #[cfg(feature = "shared-state-tls")]
            Layer::Tls(stream) => stream.flush(),
        }
    }
}

/// A socket with a deadline.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Timed> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        for (number, address) in addresses.iter().enumerate() {
            // One that swallows everything leaves time for the others.
            let others = u32::try_from(addresses.len() - number).unwrap_or(1);
            let connect = |left| TcpStream::connect_timeout(address, left / others);
            result = left(deadline).and_then(connect);
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        // A command is one small write, and its answer is waited for.
        stream.set_nodelay(true)?;
        Ok(Timed { stream, deadline })
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            match self.stream.read(buffer).map_err(timed_out) {
                // With a time-out, a signal interrupts even where others are restarted (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket's own time-out is `WouldBlock` (socket(7)).
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
