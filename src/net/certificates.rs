//! Certificate chain and key: loading, checking, and replacing them under a running server.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::certificate::Version;
use x509_cert::der::Decode;

use crate::clock;
use crate::config::TlsFiles;
use crate::error::StartError;

/// A certificate that ends within this many seconds is worth a warning.
const SOON: u64 = 14 * DAY;
const DAY: u64 = 24 * 3600;

/// The certificate in force.
#[derive(Debug)]
pub struct Certificates {
    current: RwLock<Arc<ServerConfig>>,
    loaded: Mutex<Loaded>,
    /// When the leaf's validity ends; 0 if that is unreadable.
    expires: AtomicU64,
}

/// What was loaded last, to see whether the files have changed since.
#[derive(Debug)]
struct Loaded {
    seen: Seen,
    failed: bool,
    report: CertificateReport,
    /// The day of the last warning, counted from the epoch.
    warned: u64,
}

/// Files and their times of modification.
type Seen = (TlsFiles, [Option<SystemTime>; 2]);

/// What a chain says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateReport {
    /// Certificates in the chain.
    pub length: usize,
    /// When the leaf's validity ends, in seconds since the epoch; `None` if that is unreadable.
    pub expires: Option<u64>,
}

impl CertificateReport {
    /// What to say if the leaf has expired by `now` (seconds since the epoch), or will soon.
    pub fn warning(&self, now: u64) -> Option<String> {
        let end = self.expires?;
        let date = clock::date(end);
        match end.saturating_sub(now) {
            0 => Some(format!("expired on {date}, and browsers refuse it; renew it")),
            left if left < SOON => {
                Some(format!("expires on {date}, in {} days; renew it", left / DAY))
            }
            _ => None,
        }
    }
}

impl Certificates {
    /// Loads what `files` name.
    ///
    /// # Errors
    /// Which file, what is wrong with it, and what would be right.
    pub fn load(files: &TlsFiles) -> Result<Certificates, StartError> {
        let seen = seen(files);
        let (config, report) = server_config(files)?;
        let loaded = Loaded { seen, failed: false, report, warned: 0 };
        let expires = AtomicU64::new(report.expires.unwrap_or(0));
        let (current, loaded) = (RwLock::new(Arc::new(config)), Mutex::new(loaded));
        Ok(Certificates { current, loaded, expires })
    }

    /// The configuration for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads again, if `files` are others or have changed. Whether anything was replaced.
    /// Connections that exist keep what they began with. A broken file is reported once, not at
    /// every look; `reload` says that somebody wants to hear of it again.
    ///
    /// # Errors
    /// As [`Certificates::load`]; what was in force stays.
    pub fn refresh(&self, files: &TlsFiles, reload: bool) -> Result<bool, StartError> {
        let now = seen(files);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.seen == now && !(reload && loaded.failed) {
            return Ok(false);
        }
        (loaded.seen, loaded.failed) = (now, true);
        let (config, report) = server_config(files)?;
        (loaded.failed, loaded.report, loaded.warned) = (false, report, 0);
        self.expires.store(report.expires.unwrap_or(0), Ordering::Relaxed);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(true)
    }

    /// A warning that the certificate has expired by `now` or will soon, once per day.
    pub fn daily_warning(&self, now: u64) -> Option<String> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).daily_warning(now)
    }

    /// When the leaf's validity ends, in seconds since the epoch. Takes no lock.
    pub fn expires(&self) -> Option<u64> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|expires| *expires > 0)
    }

    /// What the chain in force says about itself.
    pub fn report(&self) -> CertificateReport {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).report
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
    fn daily_warning(&mut self, now: u64) -> Option<String> {
        let warning = self.report.warning(now).filter(|_| self.warned != now / DAY)?;
        self.warned = now / DAY;
        Some(warning)
    }
}

fn seen(files: &TlsFiles) -> Seen {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (files.clone(), [changed(&files.certificate), changed(&files.key)])
}

fn server_config(files: &TlsFiles) -> Result<(ServerConfig, CertificateReport), StartError> {
    let chain = read_chain(&files.certificate)?;
    let key = read_key(&files.key)?;
    let report = CertificateReport { length: chain.len(), expires: validity_end(&chain, files)? };
    let provider = ring::default_provider();
    let certified = certify(chain, key, &provider, files)?;
    let refused = |error: rustls::Error| StartError::new("api.ssl", error.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(refused)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // Stateless session tickets: resumption without memory for each client.
    config.ticketer = ring::Ticketer::new().map_err(refused)?;
    Ok((config, report))
}

/// Joins chain and key, unless they belong to different certificates.
fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    files: &TlsFiles,
) -> Result<CertifiedKey, StartError> {
    let matches = |certificate: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), provider).is_ok()
    };
    let later = chain.iter().skip(1).position(matches);
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        match later {
            Some(place) => StartError::new("api.ssl.cert", format!(
                "{certificate}: the key belongs to certificate {} of the file; put that first, and those that signed it after it",
                place + 2
            )),
            None => StartError::new("api.ssl", format!(
                "{certificate} and {key} do not go together: {error}; give the key that the certificate was made with"
            )),
        }
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let problem = |error: &dyn std::fmt::Display| {
        let path = path.display();
        StartError::new(
            "api.ssl.cert",
            format!("{path}: {error}; give a PEM file with the certificate chain, leaf first"),
        )
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| problem(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| problem(&error))?;
    match chain.is_empty() {
        // As long as a certificate is, it begins with these (X.690 section 8.1.3).
        true if fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0x30, 0x82])) => {
            Err(problem(&"it is DER (openssl x509 -inform DER -in OLD -out NEW makes a PEM file)"))
        }
        true => Err(problem(&"it holds no certificate")),
        false => Ok(chain),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        // A passphrase shows in the first lines, in one of two spellings.
        let encrypted = fs::read_to_string(path).is_ok_and(|text| text.contains("ENCRYPTED"));
        let message = match encrypted {
            true => "it is encrypted, and there is nobody to ask for the passphrase; decrypt it with openssl pkey -in OLD -out NEW".to_owned(),
            false if matches!(error, pem::Error::NoItemsFound) => {
                "it holds no private key; give a PEM file with one".to_owned()
            }
            false => format!("{error}; give a PEM file with the private key"),
        };
        StartError::new("api.ssl.key", format!("{}: {message}", path.display()))
    })
}

/// `notAfter` of the leaf (RFC 5280 §4.1), in seconds since the epoch.
fn validity_end(chain: &[CertificateDer<'_>], files: &TlsFiles) -> Result<Option<u64>, StartError> {
    let leaf = chain.first().and_then(|leaf| x509_cert::Certificate::from_der(leaf).ok());
    let Some(leaf) = leaf.map(|leaf| leaf.tbs_certificate) else { return Ok(None) };
    if leaf.version == Version::V1 {
        let path = files.certificate.display();
        let message = format!(
            "{path}: it is an X.509 version 1 certificate, which no browser accepts; have one made of version 3, with the host's name as subjectAltName"
        );
        return Err(StartError::new("api.ssl.cert", message));
    }
    Ok(Some(leaf.validity.not_after.to_unix_duration().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_comes_two_weeks_ahead() {
        let report = |expires| CertificateReport { length: 1, expires };
        let end = 1_800_000_000;
        assert_eq!(report(None).warning(end), None);
        assert_eq!(report(Some(end)).warning(end - 14 * DAY), None);
        let told = "expires on 2027-01-15T08:00:00Z, in 13 days; renew it";
        assert_eq!(report(Some(end)).warning(end - 14 * DAY + 1).as_deref(), Some(told));
        let told = report(Some(end)).warning(end).unwrap();
        assert!(told.starts_with("expired on 2027-01-15T08:00:00Z"), "{told}");
    }

    #[test]
    fn the_warning_is_repeated_daily() {
        let files = TlsFiles { certificate: "a".into(), key: "b".into() };
        let report = CertificateReport { length: 1, expires: Some(20 * DAY) };
        let mut loaded = Loaded { seen: seen(&files), failed: false, report, warned: 0 };
        let warned = |now: &u64| loaded.daily_warning(*now).is_some();
        let days: Vec<u64> = (0..30 * 24).map(|hour| hour * 3600).filter(warned).collect();
        assert_eq!(days.first(), Some(&(6 * DAY + 3600)));
        assert_eq!(days.len(), 24);
    }
}
