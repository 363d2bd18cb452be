//! The Panel's tokens: signature, dates, scope and claims, down to a [`Claims`] that is sound.
//!
//! The signature is jwt-simple's business. Its own rules for dates are too soft here (fifteen
//! minutes past `exp`, tokens without `exp`), so dates are judged in this file, against a clock
//! that is passed in.

use std::borrow::Cow;
use std::fmt;

use jwt_simple::JWTError;
use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::claims::NoCustomClaims;
use jwt_simple::common::VerificationOptions;
use jwt_simple::reexports::coarsetime::UnixTimeStamp;
use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::Config;
use crate::link::uuid::Uuid;

/// Tokens above this length, in bytes, are refused unread.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Which of the two downloads is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/download/file`
    File,
    /// `/download/backup`
    Backup,
}

impl Endpoint {
    /// The word in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::File => "file",
            Endpoint::Backup => "backup",
        }
    }

    fn scope(self) -> &'static str {
        match self {
            Endpoint::File => "file-download",
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
        /// As the Panel wrote it: not yet looked at.
        path: String,
    },
    /// One backup of a server.
    Backup {
        /// The server.
        server: Uuid,
        /// The backup.
        backup: Uuid,
    },
}

impl Resource {
    /// The server that it belongs to.
    pub fn server(&self) -> &Uuid {
        match self {
            Resource::File { server, .. } | Resource::Backup { server, .. } => server,
        }
    }
}

/// The claims of a token whose signature, dates and scope are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What may be downloaded.
    pub resource: Resource,
    /// What makes the token one-time; `None` where the token has none or an empty one.
    pub unique_id: Option<String>,
    /// `exp`, in seconds since the epoch.
    pub expires: u64,
    /// `exp` has passed: only a grant that was opened before it can still be used.
    pub expired: bool,
}

/// Why a token opens nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// No `token` parameter, or an empty one.
    Missing,
    /// Over [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Not three parts of base64url with JSON in the first two.
    Malformed,
    /// The header names an algorithm other than HS256.
    Algorithm,
    /// Signed with another key, or changed since.
    Signature,
    /// No `exp`.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` lies too far ahead: the claim and by how many seconds.
    NotYetValid(&'static str, u64),
    /// `exp` lies further ahead than `max_token_lifetime`.
    LifetimeTooLong,
    /// No `scope`, and the configuration requires one.
    NoScope,
    /// The `scope` does not hold what this endpoint needs.
    WrongScope,
    /// A claim that this endpoint needs is missing.
    NoClaim(&'static str),
    /// A claim that must be a UUID is none.
    NotUuid(&'static str),
    /// The link was used; how.
    Used(Used),
}

/// In what way a link was used already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// Its one download is complete.
    Spent,
    /// Another address opened it.
    OtherAddress,
    /// The same `unique_id` opened another file or backup.
    OtherResource,
    /// `resume_window` has passed since its first use.
    WindowOver,
    /// It has paid for as many bytes as it may.
    BudgetSpent,
}

impl TokenFault {
    /// What the client is told. Only a rightly signed token's holder learns more than that the
    /// link is not valid.
    pub fn client_message(&self) -> &'static str {
        match self {
            TokenFault::Missing => "the link has no token",
            TokenFault::Expired => "this link has expired",
            TokenFault::Used(_) => "this link was already used",
            _ => "this link is not valid",
        }
    }

    /// Whether the token is not known to come from the Panel: anybody can send such a one.
    pub fn is_unsigned(&self) -> bool {
        matches!(
            self,
            TokenFault::Missing
                | TokenFault::TooLong
                | TokenFault::Malformed
                | TokenFault::Algorithm
                | TokenFault::Signature
        )
    }

    /// What the log and `explain` say.
    pub fn cause(&self) -> String {
        match self {
            TokenFault::Missing => "no token in the request".into(),
            TokenFault::TooLong => format!("token longer than {MAX_TOKEN_BYTES} bytes"),
            TokenFault::Malformed => "token malformed".into(),
            TokenFault::Algorithm => "token not signed with HS256".into(),
            TokenFault::Signature => "token's signature is wrong".into(),
            TokenFault::NoExpiry => "token without exp".into(),
            TokenFault::Expired => "token expired".into(),
            TokenFault::NotYetValid(claim, ahead) => {
                format!("token not valid yet: {claim} lies {ahead} s ahead")
            }
            TokenFault::LifetimeTooLong => "token valid for longer than max_token_lifetime".into(),
            TokenFault::NoScope => "token without scope, and require_scope is set".into(),
            TokenFault::WrongScope => "token's scope does not cover this endpoint".into(),
            TokenFault::NoClaim(claim) => format!("token without {claim}"),
            TokenFault::NotUuid(claim) => format!("token's {claim} is not a UUID"),
            TokenFault::Used(used) => match used {
                Used::Spent => "link already used: its download is complete",
                Used::OtherAddress => "link already used: bound to another address",
                Used::OtherResource => {
                    "link already used: its unique_id belongs to another resource"
                }
                Used::WindowOver => "link already used: resume_window is over",
                Used::BudgetSpent => "link already used: it has paid for three times the file",
            }
            .into(),
        }
    }
}

/// The rules that tokens are judged by.
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
    /// An expired token passes with [`Claims::expired`] set: whether it still has a grant is for
    /// the replay table to say.
    ///
    /// # Errors
    /// The first fault found, signature first.
    pub fn verify(&self, token: &str, endpoint: Endpoint, now: u64) -> Result<Claims, TokenFault> {
        let payload = self.payload(token)?;
        let payload = Payload::parse(&payload)?;
        let expires = payload.expires()?;
        let expired = now >= expires;
        if expires.saturating_sub(now) > self.max_lifetime {
            return Err(TokenFault::LifetimeTooLong);
        }
        for (name, date) in [("nbf", payload.nbf), ("iat", payload.iat)] {
            let ahead = date.map_or(0, Date::seconds).saturating_sub(now);
            if ahead > self.clock_skew {
                return Err(TokenFault::NotYetValid(name, ahead));
            }
        }
        self.check_scope(payload.scope.as_deref(), endpoint)?;
        Ok(Claims {
            resource: payload.resource(endpoint)?,
            unique_id: payload.unique_id.filter(|id| !id.is_empty()).map(Cow::into_owned),
            expires,
            expired,
        })
    }

    /// The decoded JSON of a rightly signed token.
    fn payload(&self, token: &str) -> Result<Vec<u8>, TokenFault> {
        if token.is_empty() {
            return Err(TokenFault::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::TooLong);
        }
        // Dates are judged by `verify`: at the epoch nothing has expired, and the future is accepted.
        let options = VerificationOptions {
            accept_future: true,
            time_tolerance: None,
            artificial_time: Some(UnixTimeStamp::from_secs(0)),
            max_token_length: Some(MAX_TOKEN_BYTES),
            ..VerificationOptions::default()
        };
        self.key.verify_token::<NoCustomClaims>(token, Some(options)).map_err(|error| {
            match error.downcast_ref::<JWTError>() {
                Some(JWTError::InvalidAuthenticationTag) => TokenFault::Signature,
                Some(JWTError::AlgorithmMismatch) => TokenFault::Algorithm,
                _ => TokenFault::Malformed,
            }
        })?;
        let encoded = token.split('.').nth(1).ok_or(TokenFault::Malformed)?;
        Base64UrlSafeNoPadding::decode_to_vec(encoded, None).map_err(|_| TokenFault::Malformed)
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

/// What of the payload matters here; everything else that the Panel puts in is ignored.
#[derive(Deserialize)]
struct Payload<'a> {
    exp: Option<Date>,
    nbf: Option<Date>,
    iat: Option<Date>,
    #[serde(borrow)]
    scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    server_uuid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    file_path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    backup_uuid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unique_id: Option<Cow<'a, str>>,
}

impl<'a> Payload<'a> {
    fn parse(json: &'a [u8]) -> Result<Payload<'a>, TokenFault> {
        serde_json::from_slice(json).map_err(|_| TokenFault::Malformed)
    }

    fn expires(&self) -> Result<u64, TokenFault> {
        self.exp.map(Date::seconds).ok_or(TokenFault::NoExpiry)
    }

    fn resource(&self, endpoint: Endpoint) -> Result<Resource, TokenFault> {
        let uuid = |name, value: &Option<Cow<'_, str>>| {
            let text = value.as_deref().ok_or(TokenFault::NoClaim(name))?;
            Uuid::parse(text).ok_or(TokenFault::NotUuid(name))
        };
        let server = uuid("server_uuid", &self.server_uuid)?;
        match endpoint {
            Endpoint::File => {
                let path = self.file_path.as_deref().ok_or(TokenFault::NoClaim("file_path"))?;
                Ok(Resource::File { server, path: path.to_owned() })
            }
            Endpoint::Backup => {
                let backup = uuid("backup_uuid", &self.backup_uuid)?;
                Ok(Resource::Backup { server, backup })
            }
        }
    }
}

/// A NumericDate (RFC 7519 §2): a JSON integer or float, in whole seconds since the epoch; what
/// lies before the epoch counts as the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Date(u64);

impl Date {
    fn seconds(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        struct DateVisitor;
        impl Visitor<'_> for DateVisitor {
            type Value = Date;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the epoch")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Date, E> {
                Ok(Date(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Date, E> {
                Ok(Date(u64::try_from(value).unwrap_or(0)))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Date, E> {
                // JSON has no NaN; `as` saturates at both ends.
                Ok(Date(value as u64))
            }
        }
        deserializer.deserialize_any(DateVisitor)
    }
}
