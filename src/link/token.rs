//! The Panel's tokens: signature, dates, scope and claims, verified into [`Claims`].
//!
//! jwt-simple reads the header and computes the signature. Its own reading of the payload is not
//! used: it is too lenient with dates (fifteen minutes past `exp`, tokens without `exp`), it refuses
//! claims that are `null`, and the payload would be decoded twice.

mod payload;

use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::reexports::ct_codecs::{self, Base64UrlSafeNoPadding, Decoder};
use jwt_simple::token::Token;

use crate::config::Config;
use crate::link::Uuid;
use crate::link::date::Date;
use payload::Payload;

/// Longest token in bytes, whatever it opens; longer ones are refused unread. It is as long as a
/// request head may be.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest token of an endpoint whose token names a single path.
const MAX_PLAIN_BYTES: usize = MAX_TOKEN_BYTES / 2;

/// Which of the downloads a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/download/file`
    File,
    /// `/download/backup`
    Backup,
    /// `/download/directory`
    Directory,
    /// `/download/files`
    Files,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 4] =
        [Endpoint::File, Endpoint::Backup, Endpoint::Directory, Endpoint::Files];

    /// Its name in the access log and in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::File => "file",
            Endpoint::Backup => "backup",
            Endpoint::Directory => "directory",
            Endpoint::Files => "files",
        }
    }

    /// Returns true if it sends an archive that is made on the way.
    pub fn is_archive(self) -> bool {
        matches!(self, Endpoint::Directory | Endpoint::Files)
    }

    /// Longest token, in bytes. Only a list of files needs more than half of a head.
    fn longest_token(self) -> usize {
        match self {
            Endpoint::File | Endpoint::Backup | Endpoint::Directory => MAX_PLAIN_BYTES,
            Endpoint::Files => MAX_TOKEN_BYTES,
        }
    }

    fn scope(self) -> &'static str {
        match self {
            Endpoint::File | Endpoint::Directory | Endpoint::Files => "file-download",
            Endpoint::Backup => "backup-download",
        }
    }
}

/// What a token gives access to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One file of a server, by its path below the server's root.
    File {
        /// The server.
        server: Uuid,
        /// As the Panel wrote it, not checked yet.
        path: String,
    },
    /// One backup.
    Backup {
        /// Its server. Calagopus does not name it.
        server: Option<Uuid>,
        /// The backup.
        backup: Uuid,
    },
    /// All of one directory of a server, as an archive. Its format is not the link's to say.
    Directory {
        /// The server.
        server: Uuid,
        /// As the Panel wrote it, not checked yet; empty or `/` is the whole server.
        path: String,
    },
    /// Some files and directories of one directory of a server, as an archive.
    Files {
        /// The server.
        server: Uuid,
        /// The directory, as in [`Resource::Directory`].
        path: String,
        /// Paths from there, not checked yet.
        files: Vec<String>,
    },
}

impl Resource {
    /// The server that it belongs to, if the link names it.
    pub fn server(&self) -> Option<Uuid> {
        match self {
            Resource::File { server, .. }
            | Resource::Directory { server, .. }
            | Resource::Files { server, .. } => Some(*server),
            Resource::Backup { server, .. } => *server,
        }
    }
}

/// The claims of a token with a valid signature, dates and scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What may be downloaded.
    pub resource: Resource,
    /// What makes the token one-time; `None` if the token has none or an empty one.
    pub unique_id: Option<String>,
    /// Patterns of what its user must not see, relative to the server's root.
    pub ignored_files: Vec<String>,
    /// Whom it was made for: `user_uuid`, a `jti` that is a UUID (Calagopus), or the number that
    /// older Panels write.
    pub user: Option<String>,
    /// `jti`: the same for every link of one user, or of one user of one server. It tells no link
    /// from another, and Panels take access away by it.
    pub jti: Option<String>,
    /// `iat`, in seconds since the epoch. It limits nothing but what a revocation is about.
    pub issued: Option<u64>,
    /// `exp`, in seconds since the epoch.
    pub expires: u64,
    /// `exp` has passed: only a grant that was opened before it can still be used.
    pub expired: bool,
}

/// Why a token does not open a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// No `token` parameter, or an empty one.
    Missing,
    /// Longer than this endpoint's tokens may be.
    TooLong,
    /// Not three parts of base64url with JSON in the first two.
    Malformed,
    /// The header names an algorithm other than HS256.
    Algorithm,
    /// Signed with another key, or changed after signing.
    Signature,
    /// No `exp`.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` is too far in the future, by this many seconds.
    NotYetValid(u64),
    /// `exp` is further in the future than `max_token_lifetime`.
    LifetimeTooLong,
    /// No `scope`, and the configuration requires one.
    NoScope,
    /// The `scope` does not cover this endpoint.
    WrongScope,
    /// It names single files of a directory, and this endpoint is not about those.
    WrongEndpoint,
    /// It is for the backup of a database, which is kept elsewhere.
    Database,
    /// A claim that this endpoint needs is missing.
    NoClaim(&'static str),
    /// A claim that must be a UUID is not one.
    NotUuid(&'static str),
    /// The link was used already, in this way.
    Used(Used),
}

/// In what way a link was used already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// Its one download is complete.
    Spent,
    /// It was delivered to other addresses, or the one that asks is not known.
    OtherAddress,
    /// The same `unique_id` opened another file or backup.
    OtherResource,
    /// `resume_window` has passed since its first use.
    WindowOver,
    /// It has paid for as many bytes as it may.
    BudgetSpent,
    /// It was revoked.
    Revoked,
}

impl TokenFault {
    /// The cause, for the log and `explain`. Clients are never shown it.
    pub fn cause(&self) -> String {
        match self {
            TokenFault::Missing => "no token in the request".into(),
            TokenFault::TooLong => "token longer than a link of this kind may be".into(),
            TokenFault::Malformed => "token malformed".into(),
            TokenFault::Algorithm => "token not signed with HS256".into(),
            TokenFault::Signature => "token's signature is wrong".into(),
            TokenFault::NoExpiry => "token without exp".into(),
            TokenFault::Expired => "token expired".into(),
            TokenFault::NotYetValid(ahead) => {
                format!("token not valid yet: nbf is {ahead} s in the future")
            }
            TokenFault::LifetimeTooLong => "token valid for longer than max_token_lifetime".into(),
            TokenFault::NoScope => "token without scope, and require_scope is set".into(),
            TokenFault::WrongScope => "token's scope does not cover this endpoint".into(),
            TokenFault::WrongEndpoint => "token with file_paths is for /download/files only".into(),
            TokenFault::Database => "token is for the backup of a database (database: true)".into(),
            TokenFault::NoClaim(claim) => format!("token without {claim}"),
            TokenFault::NotUuid(claim) => format!("token's {claim} is not a UUID"),
            TokenFault::Used(used) => match used {
                Used::Spent => "link already used: its download is complete",
                Used::OtherAddress => "link already used: from another address",
                Used::OtherResource => {
                    "link already used: its unique_id belongs to another resource"
                }
                Used::WindowOver => "link already used: resume_window is over",
                Used::Revoked => "link revoked",
                Used::BudgetSpent => "link already used: it has paid for three times the file",
            }
            .into(),
        }
    }
}

/// Verifies tokens by the rules of the configuration.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: HS256Key,
    clock_skew: u64,
    max_lifetime: u64,
    require_scope: bool,
}

impl Verifier {
    /// The verifier that `config` describes.
    pub fn new(config: &Config) -> Verifier {
        Verifier {
            key: HS256Key::from_bytes(config.token.as_bytes()),
            clock_skew: config.clock_skew.as_secs(),
            max_lifetime: config.max_token_lifetime.as_secs(),
            require_scope: config.require_scope,
        }
    }

    /// Verifies `token` for `endpoint` at `now` (seconds since the epoch).
    ///
    /// An expired token passes with [`Claims::expired`] set, since only the replay table knows
    /// whether it still has a grant.
    ///
    /// # Errors
    /// The first fault found; the signature is checked before the claims.
    pub fn verify(&self, token: &str, endpoint: Endpoint, now: u64) -> Result<Claims, TokenFault> {
        if token.len() > endpoint.longest_token() {
            return Err(TokenFault::TooLong);
        }
        let json = self.payload(token)?;
        let mut payload = Payload::parse(&json)?;
        let Date(expires) = payload.exp.ok_or(TokenFault::NoExpiry)?;
        let expired = now >= expires;
        if expires.saturating_sub(now) > self.max_lifetime {
            return Err(TokenFault::LifetimeTooLong);
        }
        payload.check_support()?;
        // `iat` sets no limit (RFC 7519 §4.1.6).
        let ahead = payload.nbf.map_or(0, |Date(date)| date.saturating_sub(now));
        if ahead > self.clock_skew {
            return Err(TokenFault::NotYetValid(ahead));
        }
        self.check_scope(payload.scope.as_deref(), endpoint)?;
        Ok(Claims {
            resource: payload.resource(endpoint)?,
            ignored_files: std::mem::take(&mut payload.ignored_files).unwrap_or_default(),
            user: payload.user(),
            jti: payload.jti(),
            issued: payload.issued(),
            unique_id: payload.unique_id(),
            expires,
            expired,
        })
    }

    /// The decoded payload of a token with a valid signature.
    pub(super) fn payload(&self, token: &str) -> Result<Vec<u8>, TokenFault> {
        if token.is_empty() {
            return Err(TokenFault::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Malformed);
        };
        let metadata = Token::decode_metadata(token).map_err(|_| TokenFault::Malformed)?;
        if metadata.algorithm() != HS256Key::jwt_alg_name() {
            return Err(TokenFault::Algorithm);
        }
        // RFC 7515 §4.1.11: extensions that a recipient must understand. None is understood here.
        if metadata.critical().is_some_and(|names| !names.is_empty()) {
            return Err(TokenFault::Malformed);
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        // In constant time: the tag must not be guessable byte by byte.
        if !ct_codecs::verify(&self.key.authentication_tag(signed.as_bytes()), &decode(tag)?) {
            return Err(TokenFault::Signature);
        }
        decode(payload)
    }

    fn check_scope(&self, scope: Option<&str>, endpoint: Endpoint) -> Result<(), TokenFault> {
        match scope {
            None if self.require_scope => Err(TokenFault::NoScope),
            None => Ok(()),
            Some(scope) if scope.split(' ').any(|word| word == endpoint.scope()) => Ok(()),
            Some(_) => Err(TokenFault::WrongScope),
        }
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenFault> {
    Base64UrlSafeNoPadding::decode_to_vec(part, None).map_err(|_| TokenFault::Malformed)
}

#[cfg(test)]
mod tests;
