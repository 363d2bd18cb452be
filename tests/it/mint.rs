//! Tokens as the Panel mints them, and as it never would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Encoder};
use serde_json::{Value, json};

use crate::harness::{BACKUP, KEY, SERVER};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token under construction.
#[derive(Clone)]
pub struct Token {
    /// The JOSE header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
    key: Vec<u8>,
    endpoint: &'static str,
}

impl Token {
    fn new(scope: &str) -> Token {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let jti = format!("{:064x}", 0xabcdef);
        let now = now();
        Token {
            header: json!({"typ": "JWT", "alg": "HS256", "jti": jti}),
            claims: json!({
                "iss": "https://panel.example",
                "aud": ["https://node.example:8080"],
                "jti": jti,
                "iat": now,
                "nbf": now - 300,
                "exp": now + 900,
                "server_uuid": SERVER,
                "user_uuid": "99999999-2222-4333-8444-555555555555",
                "unique_id": format!("u{:08}{count:07}", std::process::id()),
                "scope": scope,
            }),
            key: KEY.as_bytes().to_vec(),
            endpoint: "file",
        }
    }

    /// A link to a file of [`SERVER`].
    pub fn file(path: &str) -> Token {
        Token::new("file-download").with("file_path", path)
    }

    /// A link to [`BACKUP`].
    pub fn backup() -> Token {
        Token { endpoint: "backup", ..Token::new("backup-download") }.with("backup_uuid", BACKUP)
    }

    /// A link to a directory of [`SERVER`], as an archive.
    pub fn directory(path: &str) -> Token {
        Token { endpoint: "directory", ..Token::file(path) }
    }

    /// A link to some of what a directory of [`SERVER`] holds, as an archive.
    pub fn files(path: &str, files: &[&str]) -> Token {
        Token { endpoint: "files", ..Token::file(path) }.with("file_paths", files)
    }

    /// Sets a claim.
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Token {
        self.claims[claim] = value.into();
        self
    }

    /// Takes a claim out.
    pub fn without(mut self, claim: &str) -> Token {
        self.claims.as_object_mut().unwrap().remove(claim);
        self
    }

    /// Signs with another key.
    pub fn signed_with(mut self, key: &[u8]) -> Token {
        self.key = key.to_vec();
        self
    }

    /// `header.claims` in base64url, unsigned.
    pub fn unsigned(&self) -> String {
        let encode = |value: &Value| encode(value.to_string().as_bytes());
        format!("{}.{}", encode(&self.header), encode(&self.claims))
    }

    /// The token, signed with HMAC-SHA256 whatever its header says.
    pub fn sign(&self) -> String {
        let unsigned = self.unsigned();
        let tag = hmac_sha256::HMAC::mac(unsigned.as_bytes(), &self.key);
        format!("{unsigned}.{}", encode(&tag))
    }

    /// The target of a request with this token.
    pub fn target(&self) -> String {
        format!("/download/{}?token={}", self.endpoint, self.sign())
    }
}

/// base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    Base64UrlSafeNoPadding::encode_to_string(bytes).unwrap()
}
