//! Certificate chain and key: loading, checking, and replacing them under a running server.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::error::StartError;

/// The certificate in force.
#[derive(Debug)]
pub struct Certificates {
    current: RwLock<Arc<ServerConfig>>,
    loaded: Mutex<Loaded>,
}

/// What was loaded last, to see whether the files have changed since.
#[derive(Debug, Clone, PartialEq)]
struct Loaded {
    files: TlsFiles,
    changed: [Option<SystemTime>; 2],
}

/// What a chain says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateReport {
    /// Certificates in the chain.
    pub length: usize,
    /// When the leaf's validity ends, in seconds since the epoch; `None` where that is unreadable.
    pub expires: Option<u64>,
}

impl Certificates {
    /// Loads what `files` name.
    ///
    /// # Errors
    /// Which file, what is wrong with it, and what would be right.
    pub fn load(files: &TlsFiles) -> Result<Certificates, StartError> {
        let loaded = Loaded::now(files);
        let (config, _) = server_config(files)?;
        Ok(Certificates { current: RwLock::new(Arc::new(config)), loaded: Mutex::new(loaded) })
    }

    /// The configuration for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads again, if `files` are others or have changed. Whether anything was replaced.
    /// Connections that exist keep what they began with.
    ///
    /// # Errors
    /// As [`Certificates::load`]; what was in force stays.
    pub fn refresh(&self, files: &TlsFiles) -> Result<bool, StartError> {
        let now = Loaded::now(files);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if *loaded == now {
            return Ok(false);
        }
        // Noted before loading: a broken file is reported once, not at every look.
        *loaded = now;
        let (config, _) = server_config(files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(true)
    }

    /// Checks `files` without putting them in force.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn check(files: &TlsFiles) -> Result<CertificateReport, StartError> {
        server_config(files).map(|(_, report)| report)
    }
}

impl Loaded {
    fn now(files: &TlsFiles) -> Loaded {
        let changed =
            |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Loaded { changed: [changed(&files.certificate), changed(&files.key)], files: files.clone() }
    }
}

fn server_config(files: &TlsFiles) -> Result<(ServerConfig, CertificateReport), StartError> {
    let chain = read_chain(&files.certificate)?;
    let key = read_key(&files.key)?;
    let report = CertificateReport {
        length: chain.len(),
        expires: chain.first().and_then(|leaf| validity_end(leaf)),
    };
    let provider = ring::default_provider();
    // Refuses a key that does not belong to the leaf.
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        StartError::new(format!(
            "api.ssl: {} and {} do not go together: {error}; give the key that the certificate was made with",
            files.certificate.display(),
            files.key.display()
        ))
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| StartError::new(format!("api.ssl: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Stateless session tickets: resumption without memory for each client.
    config.ticketer =
        ring::Ticketer::new().map_err(|error| StartError::new(format!("api.ssl: {error}")))?;
    Ok((config, report))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let problem = |error: &dyn std::fmt::Display| {
        StartError::new(format!(
            "api.ssl.cert: {}: {error}; give a PEM file with the certificate chain, leaf first",
            path.display()
        ))
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| problem(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| problem(&error))?;
    if chain.is_empty() { Err(problem(&"it holds no certificate")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        StartError::new(format!(
            "api.ssl.key: {}: {error}; give a PEM file with the private key",
            path.display()
        ))
    })
}

/// `notAfter` of a DER certificate (RFC 5280 §4.1), in seconds since the epoch.
fn validity_end(certificate: &[u8]) -> Option<u64> {
    let (certificate, _) = element(certificate, 0x30)?;
    let (mut rest, _) = element(certificate, 0x30)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest, 0xa0)?.1;
    }
    for tag in [0x02, 0x30, 0x30] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, 0x30)?;
    let (_, not_after) = any_element(validity)?;
    let tag = *not_after.first()?;
    let (text, _) = element(not_after, tag)?;
    parse_time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of the DER element that `bytes` begin with, if it has `tag`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    (*bytes.first()? == tag).then(|| any_element(bytes))?
}

fn any_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *bytes.get(1)?;
    let (length, start) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        if count > 4 {
            return None;
        }
        let digits = bytes.get(2..2 + count)?;
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), 2 + count)
    };
    let rest = bytes.get(start..)?;
    Some((rest.get(..length)?, rest.get(length..)?))
}

/// UTCTime (`YYMMDDHHMMSSZ`) or GeneralizedTime (`YYYYMMDDHHMMSSZ`).
fn parse_time(tag: u8, text: &str) -> Option<u64> {
    let full = match tag {
        // RFC 5280 §4.1.2.5.1: two digits mean 1950 to 2049.
        0x17 => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let stamp = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    let time = humantime::parse_rfc3339(&stamp).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_date() {
        assert_eq!(parse_time(0x17, "700101000001Z"), Some(1));
        assert_eq!(parse_time(0x17, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(parse_time(0x18, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(parse_time(0x18, "2050"), None);
        assert_eq!(parse_time(0x02, "700101000001Z"), None);
    }

    #[test]
    fn garbage_has_no_validity() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80]] {
            assert_eq!(validity_end(bytes), None);
        }
    }
}
