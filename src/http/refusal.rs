//! Why a request is refused: one enum for everything that a client can be told, and the only place
//! that turns an error of the program into a status and a text.
//!
//! The text never contains a path of the node, a key or a token. The cause, which may, goes to the
//! log through [`Refusal::cause`].

use crate::link::storage::{Missing, OpenError};
use crate::link::token::{TokenFault, Used};
use crate::replay::ClaimError;

/// Seconds after which a client may try again, unless something else is known.
pub const RETRY_AFTER: u32 = 5;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the request line or a header is malformed.
    Malformed(&'static str),
    /// 400: an archive in a format that is not offered.
    ArchiveFormat,
    /// 401: the token does not open this download (RFC 6750 §3.1). 414: it is too long.
    Token(TokenFault),
    /// 401: an order to the control listener without the node's token.
    Unauthorized,
    /// 307 or 401: another front end has the link.
    Elsewhere {
        /// Its name.
        owner: Box<str>,
        /// The link there, if that is known.
        location: Option<String>,
    },
    /// 404: no such path.
    UnknownPath,
    /// 404, 413, 500 or 503: the file cannot be opened, or the directory not be packed.
    Open(OpenError),
    /// 405: a method that these resources do not have (RFC 9110 §15.5.6).
    Method,
    /// 408: the head did not arrive in time.
    HeadTimeout,
    /// 412: a precondition of the request is false.
    Precondition,
    /// 413: the request has a body.
    Body,
    /// 413: the body is longer than the control listener takes, or does not say its length.
    BodyTooLong,
    /// 414: the request line is longer than a head may be.
    TargetTooLong,
    /// 416: no requested byte exists in a file of `length` bytes.
    Range {
        /// The file's length, for `Content-Range`.
        length: u64,
    },
    /// 417: an expectation other than `100-continue`.
    Expectation,
    /// 431: more headers than a head may hold.
    HeadersTooLarge,
    /// 501: an unknown method or transfer coding.
    NotImplemented,
    /// 503: this cannot be served now and may be served later.
    Busy(Busy),
    /// 505: a major version other than HTTP/1.
    Version,
}

/// What the server has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// No worker became free in time.
    Workers,
    /// This client already has its share of the connections.
    ClientShare,
    /// This link already has its share of streams.
    LinkShare,
    /// Another address holds this link, for this many seconds at least.
    LinkInUse(u32),
    /// The table of used tokens is full of live ones.
    Tracked,
    /// As many revocations are in force as may be.
    Revocations,
    /// Whether another front end has the link cannot be found out.
    SharedState,
    /// Nor for this many seconds, in which front ends say anew which links are theirs.
    SharedStateEmpty(u32),
    /// Other folders are being listed.
    Walks,
    /// Nobody has asked for it yet: a browser loads it in advance, and would use the link up.
    Prefetch,
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Refusal {
        Refusal::Token(fault)
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Refusal {
        Refusal::Open(error)
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Refusal {
        match error {
            ClaimError::Used(used) => Refusal::Token(TokenFault::Used(used)),
            ClaimError::Expired => Refusal::Token(TokenFault::Expired),
            ClaimError::InUse(seconds) => Refusal::Busy(Busy::LinkInUse(seconds)),
            ClaimError::TooManyStreams => Refusal::Busy(Busy::LinkShare),
            ClaimError::TableFull => Refusal::Busy(Busy::Tracked),
            ClaimError::Elsewhere(owner) => Refusal::Elsewhere { owner, location: None },
            ClaimError::Away => Refusal::Busy(Busy::SharedState),
            ClaimError::Emptied(seconds) => Refusal::Busy(Busy::SharedStateEmpty(seconds)),
        }
    }
}

impl Refusal {
    /// The status code (RFC 9110 §15).
    pub fn status(&self) -> u16 {
        self.answer().0
    }

    /// What the client is told: the `error` of the JSON body.
    pub fn client_message(&self) -> &'static str {
        self.answer().1
    }

    fn answer(&self) -> (u16, &'static str) {
        match self {
            Refusal::Malformed(what) => (400, what),
            Refusal::ArchiveFormat => (400, "archive_format is zip or tar; others are not offered"),
            Refusal::Token(TokenFault::TooLong) => (414, TOO_LONG),
            Refusal::Token(fault) => (401, token_message(fault)),
            Refusal::Unauthorized => (401, "Authorization: Bearer has to name the node's token"),
            Refusal::Elsewhere { location: Some(_), .. } => {
                (307, "this link is in use at another server; follow the redirect")
            }
            Refusal::Elsewhere { location: None, .. } => {
                (503, "this link is in use elsewhere; it works where the download was begun")
            }
            Refusal::UnknownPath => (404, "there is nothing at this address"),
            Refusal::Open(OpenError::NotFound(Missing::Backup)) => {
                (404, "this backup is not on this node; it may be stored in S3")
            }
            Refusal::Open(OpenError::NotFound(
                Missing::Server
                | Missing::File
                | Missing::Escape
                | Missing::NotRegular
                | Missing::HiddenFile,
            )) => (404, "the file does not exist"),
            Refusal::Open(OpenError::NotFound(Missing::Directory | Missing::HiddenDirectory)) => {
                (404, "the folder does not exist")
            }
            Refusal::Open(OpenError::NotFound(Missing::Files)) => (404, "the files do not exist"),
            Refusal::Open(OpenError::TooMany) => {
                (413, "the folder holds more than the 200,000 files that an archive may have")
            }
            Refusal::Open(OpenError::Failed(_)) => (500, "the file exists and could not be read"),
            Refusal::Method => {
                (405, "this method is not possible here; Allow names those that are")
            }
            Refusal::HeadTimeout => (408, "the request did not arrive in time"),
            Refusal::Precondition => (412, "the file has changed since the client saw it"),
            Refusal::Body => (413, "a download request has no body"),
            Refusal::BodyTooLong => (413, "the body is too long, or has no Content-Length"),
            Refusal::TargetTooLong => (414, TOO_LONG),
            Refusal::Range { .. } => (416, "the file does not have the requested bytes"),
            Refusal::Expectation => (417, "this expectation cannot be met"),
            Refusal::HeadersTooLarge => (431, "the request's headers are too large"),
            Refusal::NotImplemented => (501, "this method or transfer coding is not supported"),
            Refusal::Busy(Busy::LinkShare) => {
                (503, "this link already has as many streams as it may have")
            }
            Refusal::Busy(Busy::LinkInUse(_)) => (
                503,
                "this link is in use from another address; it works where the download was begun, and elsewhere once that has stopped for ten seconds",
            ),
            Refusal::Busy(Busy::Revocations) => {
                (503, "too many revocations are in force; revoke a server, a user or all")
            }
            Refusal::Busy(Busy::ClientShare) => {
                (503, "your address already has as many downloads as it may have")
            }
            Refusal::Busy(Busy::Prefetch) => {
                (503, "this link is not loaded in advance; it works once somebody opens it")
            }
            Refusal::Busy(
                Busy::Workers
                | Busy::Tracked
                | Busy::SharedState
                | Busy::SharedStateEmpty(_)
                | Busy::Walks,
            )
            | Refusal::Open(OpenError::NoDescriptors) => {
                (503, "the server is busy; try again in a moment")
            }
            Refusal::Open(OpenError::TooManyFolders) => {
                (503, "too many large folders are being downloaded; try again later")
            }
            Refusal::Open(OpenError::WalkTooLong) => {
                (503, "listing the folder takes too long; try a part of it, or try again later")
            }
            Refusal::Version => (505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        }
    }

    /// Seconds after which the client may try again: the `Retry-After` of a 503.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Refusal::Busy(Busy::Tracked)
            | Refusal::Open(OpenError::WalkTooLong | OpenError::TooManyFolders) => Some(60),
            Refusal::Busy(Busy::LinkInUse(seconds) | Busy::SharedStateEmpty(seconds)) => {
                Some(*seconds)
            }
            _ => (self.status() == 503).then_some(RETRY_AFTER),
        }
    }

    /// The cause, for the log. Clients are never shown it.
    pub fn cause(&self) -> String {
        match self {
            Refusal::Token(fault) => fault.cause(),
            Refusal::Open(error) => error.cause(),
            Refusal::Elsewhere { owner, .. } => {
                format!("link in use at the front end {owner}")
            }
            Refusal::Busy(busy) => match busy {
                Busy::Workers => "queue: no worker became free in time",
                Busy::ClientShare => "queue: max_connections_per_address reached",
                Busy::LinkShare => "too many streams of this link",
                Busy::LinkInUse(_) => "link in use from another address",
                Busy::Tracked => "max_tracked_tokens reached",
                Busy::Revocations => "too many revocations are in force",
                Busy::SharedState => "shared_state does not answer, or refuses",
                Busy::SharedStateEmpty(_) => {
                    "shared_state was found empty: new links wait until every front end has asserted its own"
                }
                Busy::Walks => "queue: no turn to list a folder came in time",
                Busy::Prefetch => "a prefetch, which would use the link up",
            }
            .into(),
            other => other.client_message().into(),
        }
    }
}

/// Links to many files carry all their names.
const TOO_LONG: &str = "the address is too long; instead of so many files, choose their folder";

/// Only the holder of a correctly signed token learns more than that the link is not valid.
fn token_message(fault: &TokenFault) -> &'static str {
    match fault {
        TokenFault::Missing => "the link has no token",
        TokenFault::Expired => "this link has expired",
        TokenFault::Used(Used::Revoked) => "this link was revoked",
        TokenFault::Used(
            Used::Spent
            | Used::OtherAddress
            | Used::OtherResource
            | Used::WindowOver
            | Used::BudgetSpent,
        ) => "this link was already used",
        TokenFault::TooLong
        | TokenFault::Malformed
        | TokenFault::Algorithm
        | TokenFault::Signature
        | TokenFault::NoExpiry
        | TokenFault::NotYetValid(_)
        | TokenFault::LifetimeTooLong
        | TokenFault::NoScope
        | TokenFault::WrongScope
        | TokenFault::WrongEndpoint
        | TokenFault::Database
        | TokenFault::NoClaim(_)
        | TokenFault::NotUuid(_) => "this link is not valid",
    }
}
