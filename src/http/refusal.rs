//! Why a request gets no content: one enum for everything that a client can be told, mapped in
//! one exhaustive match to status and fixed public text.
//!
//! The public text never holds a path of the node, a key or a token. The cause, which may, goes to
//! the log through [`Refusal::cause`].

use crate::link::token::TokenFault;
use crate::replay::ClaimError;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the request line or a header is malformed.
    Malformed(&'static str),
    /// 401: the token does not open this download (RFC 6750 §3.1).
    Token(TokenFault),
    /// 404: no such path.
    UnknownPath,
    /// 404: no such server, file or backup that may be served; the cause for the log.
    NotFound(Missing),
    /// 405: a method that these resources do not have (RFC 9110 §15.5.6).
    Method,
    /// 408: the head did not arrive in time.
    HeadTimeout,
    /// 412: a precondition of the request is false.
    Precondition,
    /// 413: the request has a body.
    Body,
    /// 414: the request line is longer than a head may be.
    TargetTooLong,
    /// 416: no requested byte exists in a file of `length` bytes.
    Range {
        /// The file's length, for `Content-Range`.
        length: u64,
    },
    /// 417: an expectation other than `100-continue`.
    Expectation,
    /// 431: more header than a head may hold.
    HeadersTooLarge,
    /// 500: the file exists and could not be opened or read.
    Storage(String),
    /// 501: an unknown method or transfer coding.
    NotImplemented,
    /// 503: this cannot be served now and may be served later.
    Busy(Busy),
    /// 505: not HTTP/1.0 or HTTP/1.1.
    Version,
}

/// What could not be found, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The server has no volume here.
    Server,
    /// The volume has no such file.
    File,
    /// The path leaves the server's directory.
    Escape,
    /// There is something, and it is not a regular file.
    NotRegular,
    /// None of the backup's possible files exists.
    Backup,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// No worker became free in time.
    Workers,
    /// This client already holds its share of the workers.
    ClientShare,
    /// This link already holds its share of streams.
    LinkShare,
    /// The table of used tokens is full of live ones.
    Tracked,
    /// The request was lost on its way to a worker.
    Handover,
    /// No descriptor is left to open the file with.
    Descriptors,
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Refusal {
        match error {
            ClaimError::Used(used) => Refusal::Token(TokenFault::Used(used)),
            ClaimError::Expired => Refusal::Token(TokenFault::Expired),
            ClaimError::TooManyStreams => Refusal::Busy(Busy::LinkShare),
            ClaimError::TableFull | ClaimError::ServerShare => Refusal::Busy(Busy::Tracked),
        }
    }
}

impl Refusal {
    /// The status code (RFC 9110 §15).
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Token(_) => 401,
            Refusal::UnknownPath | Refusal::NotFound(_) => 404,
            Refusal::Method => 405,
            Refusal::HeadTimeout => 408,
            Refusal::Precondition => 412,
            Refusal::Body => 413,
            Refusal::TargetTooLong => 414,
            Refusal::Range { .. } => 416,
            Refusal::Expectation => 417,
            Refusal::HeadersTooLarge => 431,
            Refusal::Storage(_) => 500,
            Refusal::NotImplemented => 501,
            Refusal::Busy(_) => 503,
            Refusal::Version => 505,
        }
    }

    /// What the client is told: the `error` of the JSON body, one sentence.
    pub fn client_message(&self) -> &'static str {
        match self {
            Refusal::Malformed(what) => what,
            Refusal::Token(fault) => fault.client_message(),
            Refusal::UnknownPath => "there is nothing at this address",
            Refusal::NotFound(Missing::Backup) => {
                "this backup is not on this node; it may be stored in S3"
            }
            Refusal::NotFound(_) => "the file does not exist",
            Refusal::Method => "only GET and HEAD are possible here",
            Refusal::HeadTimeout => "the request did not arrive in time",
            Refusal::Precondition => "the file has changed since the client saw it",
            Refusal::Body => "a download request has no body",
            Refusal::TargetTooLong => "the address is too long",
            Refusal::Range { .. } => "the file does not have the requested bytes",
            Refusal::Expectation => "this expectation cannot be met",
            Refusal::HeadersTooLarge => "the request's headers are too large",
            Refusal::Storage(_) => "the file exists and could not be read",
            Refusal::NotImplemented => "this method or transfer coding is not supported",
            Refusal::Busy(Busy::LinkShare) => {
                "this link already has as many streams as it may have"
            }
            Refusal::Busy(Busy::ClientShare) => {
                "your address already has as many downloads as it may have"
            }
            Refusal::Busy(_) => "the server is busy; try again in a moment",
            Refusal::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
        }
    }

    /// What a person is told to do, in plain words, on the HTML page.
    pub fn advice(&self) -> (&'static str, &'static str) {
        match self {
            Refusal::Token(TokenFault::Expired | TokenFault::Used(_)) => (
                "This link has expired or was already used",
                "Go back to the panel and press Download again. Each link is good for one download and for a short time.",
            ),
            Refusal::Token(_) => (
                "This link does not work",
                "It may have been cut short or changed on its way. Go back to the panel and press Download again.",
            ),
            Refusal::NotFound(Missing::Backup) => (
                "This backup is not here",
                "It may be stored elsewhere, or it was deleted. Go back to the panel, reload the list of backups and try again.",
            ),
            Refusal::NotFound(_) => (
                "This file does not exist",
                "It may have been moved, renamed or deleted. Go back to the panel, reload the file list and try again.",
            ),
            Refusal::UnknownPath => {
                ("There is nothing here", "Downloads start from a link that the panel makes.")
            }
            Refusal::Busy(_) => (
                "The server is busy",
                "Too many downloads are running at the moment. Wait a little, then try the same link again.",
            ),
            Refusal::Storage(_) => (
                "The file could not be read",
                "The file exists, but this node could not read it. Tell whoever runs the panel, with the number below.",
            ),
            Refusal::Precondition | Refusal::Range { .. } => (
                "The file has changed",
                "It is no longer the file that your download began with. Delete the partial download and start again from the panel.",
            ),
            _ => (
                "That request could not be understood",
                "Go back to the panel and press Download again.",
            ),
        }
    }

    /// The cause for the log: never shown to the client.
    pub fn cause(&self) -> String {
        match self {
            Refusal::Token(fault) => fault.cause(),
            Refusal::NotFound(missing) => match missing {
                Missing::Server => "no volume of this server",
                Missing::File => "no such file",
                Missing::Escape => "the path leads outside the volume",
                Missing::NotRegular => "not a regular file",
                Missing::Backup => "no such backup in any layout",
            }
            .into(),
            Refusal::Storage(cause) => cause.clone(),
            Refusal::Busy(busy) => match busy {
                Busy::Workers => "queue: no worker became free in time",
                Busy::ClientShare => "queue: max_streams_per_address reached",
                Busy::LinkShare => "too many streams of this link",
                Busy::Tracked => "max_tracked_tokens reached",
                Busy::Handover => "lost on the way to a worker",
                Busy::Descriptors => "no descriptor is left to open the file with",
            }
            .into(),
            other => other.client_message().into(),
        }
    }
}
