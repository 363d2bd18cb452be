//! Tokens as each Panel mints them, and as none ever would.
//!
//! Read from the Panels' sources:
//!
//! | Panel | commit | of | where |
//! | --- | --- | --- | --- |
//! | Pterodactyl to 1.11 | `706db62c` | 2024-10-24 | `NodeJWTService`, `FileController`, `DownloadLinkService` |
//! | Pterodactyl from 1.12 | PR 5636 | 2026-05-23 | `NodeJWTService` |
//! | Pelican | `235c8fb9` | 2026-08-22 | `NodeJWTService`, `DownloadFiles`, `WingsBackupSchema` |
//! | Calagopus | `76dfc96b` | 2026-08-22 | `jwt.rs`, `files/download.rs`, `server_backup` |
//!
//! Calagopus' links to files have no `ignored_files` at that commit, its links for uploads and for the
//! console have. `database` was read from a later state of `server_backup`.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Encoder};
use serde_json::{Value, json};

use crate::harness::{BACKUP, KEY, SERVER};

/// The user of every token.
pub const USER: &str = "99999999-2222-4333-8444-555555555555";
/// Their number, which Pterodactyl has besides.
pub const USER_NUMBER: u64 = 7;
/// MD5 of [`USER_NUMBER`] and [`SERVER`], the `jti` of Pterodactyl before 1.12.
pub const MD5_JTI: &str = "de1b3ace26186c19fa825758fa029a4f";

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A JSON object whose members stay in their order.
#[derive(Clone, Debug)]
pub struct Object(Vec<(String, Value)>);

impl From<Value> for Object {
    fn from(value: Value) -> Object {
        Object(value.as_object().unwrap().clone().into_iter().collect())
    }
}

impl Index<&str> for Object {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        &self.0.iter().find(|(known, _)| known == name).unwrap().1
    }
}

impl IndexMut<&str> for Object {
    fn index_mut(&mut self, name: &str) -> &mut Value {
        let place = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Value::Null));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> =
            self.0.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        write!(f, "{{{}}}", members.join(","))
    }
}

/// Members in the order in which they are written.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        Object(vec![$(($name.to_owned(), json!($value))),*])
    };
}

/// Who mints a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Pterodactyl before 1.12.
    Pterodactyl11,
    /// Pterodactyl from 1.12 on.
    Pterodactyl12,
    Pelican,
    Calagopus,
}

impl Panel {
    pub const ALL: [Panel; 4] =
        [Panel::Pterodactyl11, Panel::Pterodactyl12, Panel::Pelican, Panel::Calagopus];

    /// A link to a file of [`SERVER`].
    pub fn file(self, path: &str) -> Token {
        self.token("file", "file-download", object! {"file_path": path, "server_uuid": SERVER})
    }

    /// A link to [`BACKUP`].
    pub fn backup(self) -> Token {
        let what = match self {
            Panel::Calagopus => object! {"backup_uuid": BACKUP},
            _ => object! {"backup_uuid": BACKUP, "server_uuid": SERVER},
        };
        self.token("backup", "backup-download", what)
    }

    /// A link to a directory of [`SERVER`], as an archive. Only Calagopus has it: of the others, what
    /// `file` would be there.
    pub fn directory(self, path: &str) -> Token {
        Token { endpoint: "directory", ..self.file(path) }
    }

    /// A link to some of what a directory of [`SERVER`] holds, as an archive, as in
    /// [`Panel::directory`].
    pub fn files(self, path: &str, files: &[&str]) -> Token {
        let what = object! {"file_path": path, "file_paths": files, "server_uuid": SERVER};
        self.token("files", "file-download", what)
    }

    /// The call by which it takes [`USER`]'s access to [`SERVER`] away: path and body.
    pub fn revocation(self) -> (String, String) {
        let deny = format!("/api/servers/{SERVER}/ws/deny");
        let user = || json!({"user": USER, "servers": [SERVER]});
        let (path, body) = match self {
            Panel::Pterodactyl11 => (deny, json!({"jtis": [MD5_JTI]})),
            Panel::Pterodactyl12 => ("/api/deauthorize-user".to_owned(), user()),
            Panel::Pelican => ("/api/deauthorize-user".to_owned(), json!({"json": user()})),
            Panel::Calagopus => (deny, json!({"jtis": [USER]})),
        };
        (path, body.to_string())
    }

    fn token(self, endpoint: &'static str, scope: &str, what: Object) -> Token {
        let (header, mut claims) = match self {
            Panel::Calagopus => calagopus(scope),
            Panel::Pterodactyl11 => laravel(MD5_JTI),
            Panel::Pterodactyl12 | Panel::Pelican => laravel(&sha256_jti()),
        };
        claims.0.extend(what.0);
        claims.0.extend(self.end(scope).0);
        Token { header, claims, key: KEY.as_bytes().to_vec(), endpoint }
    }

    /// What follows after the claims of what is opened.
    fn end(self, scope: &str) -> Object {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique_id = format!("u{:08}{count:07}", std::process::id());
        match self {
            Panel::Pterodactyl11 => {
                object! {"user_uuid": USER, "user_id": USER_NUMBER, "unique_id": unique_id}
            }
            Panel::Pterodactyl12 => {
                object! {"scope": scope, "user_uuid": USER, "unique_id": unique_id}
            }
            Panel::Pelican => object! {"user_uuid": USER, "scope": scope, "unique_id": unique_id},
            Panel::Calagopus => {
                let (low, high) = (std::process::id(), count);
                object! {"unique_id": format!("{low:08x}-0000-4000-8000-{high:012x}")}
            }
        }
    }
}

/// `jti` of Pterodactyl from 1.12 on, and of Pelican.
fn sha256_jti() -> String {
    let hash = hmac_sha256::Hash::hash(format!("{USER_NUMBER}{SERVER}").as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the Panels that are written with Laravel begin with.
fn laravel(jti: &str) -> (Object, Object) {
    let now = now();
    let claims = object! {
        "iss": "https://panel.example",
        "aud": ["https://node.example:8080"],
        "jti": jti,
        "iat": now,
        "nbf": now - 300,
        "exp": now + 900,
    };
    (object! {"typ": "JWT", "alg": "HS256", "jti": jti}, claims)
}

fn calagopus(scope: &str) -> (Object, Object) {
    let now = now();
    let claims = object! {
        "scope": scope,
        "iss": "panel",
        "sub": Value::Null,
        "aud": [] as [&str; 0],
        "exp": now + 900,
        "nbf": Value::Null,
        "iat": now,
        "jti": USER,
    };
    (object! {"typ": "JWT", "alg": "HS256"}, claims)
}

/// A token under construction.
#[derive(Clone)]
pub struct Token {
    /// The JOSE header.
    pub header: Object,
    /// The claims.
    pub claims: Object,
    key: Vec<u8>,
    endpoint: &'static str,
}

/// Most tests are content with those of Pterodactyl as it is today.
impl Token {
    /// A link to a file of [`SERVER`].
    pub fn file(path: &str) -> Token {
        Panel::Pterodactyl12.file(path)
    }

    /// A link to [`BACKUP`].
    pub fn backup() -> Token {
        Panel::Pterodactyl12.backup()
    }

    /// A link to a directory of [`SERVER`], as an archive.
    pub fn directory(path: &str) -> Token {
        Panel::Pterodactyl12.directory(path)
    }

    /// A link to some of what a directory of [`SERVER`] holds, as an archive.
    pub fn files(path: &str, files: &[&str]) -> Token {
        Panel::Pterodactyl12.files(path, files)
    }

    /// Sets a claim.
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Token {
        self.claims[claim] = value.into();
        self
    }

    /// Takes a claim out.
    pub fn without(mut self, claim: &str) -> Token {
        self.claims.0.retain(|(name, _)| name != claim);
        self
    }

    /// Names patterns of what its user must not see.
    pub fn hiding(self, patterns: &[&str]) -> Token {
        self.with("ignored_files", patterns)
    }

    /// Signs with another key.
    pub fn signed_with(mut self, key: &[u8]) -> Token {
        self.key = key.to_vec();
        self
    }

    /// `header.claims` in base64url, unsigned.
    pub fn unsigned(&self) -> String {
        let encode = |value: &Object| encode(value.to_string().as_bytes());
        format!("{}.{}", encode(&self.header), encode(&self.claims))
    }

    /// The token, signed with HMAC-SHA256 whatever its header says.
    pub fn sign(&self) -> String {
        let unsigned = self.unsigned();
        let tag = hmac_sha256::HMAC::mac(unsigned.as_bytes(), &self.key);
        format!("{unsigned}.{}", encode(&tag))
    }

    /// The endpoint that it is for.
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
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
