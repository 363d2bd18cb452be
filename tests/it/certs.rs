//! Certificates of a test's own, made by `openssl` in its node's directory: an authority, an
//! intermediate one, and leaves for `node.test` and 127.0.0.1.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::client::connect_from;
use crate::harness::{Node, PATIENCE};

/// What a certificate's key is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The P-256 curve.
    Ec,
    /// RSA with 2048 bits.
    Rsa,
}

/// An authority and its intermediate, in the node's directory `tls`.
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes both.
    pub fn new(node: &Node) -> Authority {
        let authority = Authority { directory: node.path().join("tls") };
        fs::create_dir_all(&authority.directory).unwrap();
        let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
        fs::write(authority.path("ca.ext"), ca).unwrap();
        let san = "subjectAltName=DNS:node.test,IP:127.0.0.1\n";
        fs::write(authority.path("leaf.ext"), san).unwrap();
        authority.key("root.key", Kind::Ec);
        authority.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            "root.key",
            "-subj",
            "/CN=test root",
            "-days",
            "30",
            "-out",
            "root.pem",
        ]);
        authority.issue("middle", "ca.ext", "root", "30", Kind::Ec);
        authority
    }

    /// A file in the authority's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The root's certificate.
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// Makes a leaf that is valid for `days`, its chain in `NAME.pem` and its key in `NAME.key`.
    pub fn leaf(&self, name: &str, kind: Kind, days: &str) {
        self.issue(name, "leaf.ext", "middle", days, kind);
        let leaf = fs::read(self.path(&format!("{name}.pem"))).unwrap();
        let chain = [leaf, fs::read(self.path("middle.pem")).unwrap()].concat();
        fs::write(self.path(&format!("{name}.pem")), chain).unwrap();
    }

    /// The first certificate of `NAME.pem`.
    pub fn der(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()
    }

    /// Puts chain and key of `name` in the place of those of `place`, each in one step.
    pub fn replace(&self, place: &str, name: &str) {
        for end in ["key", "pem"] {
            let fresh = self.path("fresh");
            fs::copy(self.path(&format!("{name}.{end}")), &fresh).unwrap();
            fs::rename(fresh, self.path(&format!("{place}.{end}"))).unwrap();
        }
    }

    fn key(&self, out: &str, kind: Kind) {
        let algorithm: &[&str] = match kind {
            Kind::Ec => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Kind::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        self.openssl(&[&["genpkey", "-out", out], algorithm].concat());
    }

    fn issue(&self, name: &str, extensions: &str, by: &str, days: &str, kind: Kind) {
        let [key, request, out] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
        let [ca, ca_key] = ["pem", "key"].map(|end| format!("{by}.{end}"));
        self.key(&key, kind);
        let subject = format!("/CN={name}");
        self.openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            extensions,
            "-out",
            &out,
        ]);
    }

    /// Runs openssl in the authority's directory.
    pub fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(&self.directory).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    }
}

/// A node that serves TLS with a leaf of `kind`, called `leaf`.
pub fn tls_node(kind: Kind) -> (Node, Authority) {
    let node = Node::new().top_level(SSL).winglet("listen: [\"tls:127.0.0.1:0\"]");
    let authority = Authority::new(&node);
    authority.leaf("leaf", kind, "30");
    (node, authority)
}

/// The section `api` for the leaf called `leaf`.
pub const SSL: &str = "api:\n  ssl: {enabled: true, cert: tls/leaf.pem, key: tls/leaf.key}";

/// A TLS connection whose every step a test decides.
pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// A client's side of TLS in exactly this version, before its first byte.
pub fn handshake(root: &Path, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("node.test").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Connects and completes the handshake. `receive_buffer` as in [`connect_from`].
pub fn connect(root: &Path, to: SocketAddr, receive_buffer: Option<usize>) -> TlsClient {
    let stream = connect_from("127.0.0.1", to, receive_buffer);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let connection = handshake(root, &rustls::version::TLS13);
    let mut client = StreamOwned::new(connection, stream);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    client
}

/// The certificate that a new connection is shown.
pub fn shown(root: &Path, to: SocketAddr) -> CertificateDer<'static> {
    let client = connect(root, to, None);
    client.conn.peer_certificates().unwrap()[0].clone().into_owned()
}
