//! What the acceptor gives to a worker, and what it gets back.

use std::io;
use std::net::IpAddr;

use super::Download;
use crate::http::head::Head;
use crate::link::folder::Walking;
use crate::logging::access::Entry;
use crate::net::address::Peer;
use crate::net::socket::Socket;
use crate::pool::Exchange;
use crate::pool::walks::Permit;
use crate::replay::{ClaimRequest, LinkId, Seen};

/// One client's connection, owned by whoever holds it.
#[derive(Debug)]
pub struct Connection {
    /// What the acceptor knows it by; never used twice.
    pub id: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// Its byte stream.
    pub socket: Socket,
    /// Bytes read and not yet used: the beginning of a head, or further requests.
    pub input: Vec<u8>,
    /// Requests answered on it so far.
    pub requests: u32,
}

/// A request with what the acceptor knows about it.
#[derive(Debug)]
pub struct Request {
    /// The well-formed head.
    pub head: Box<Head>,
    /// The client's address, behind trusted proxies too; `None` if none is known.
    pub client: Option<IpAddr>,
    /// True if no proxy stands between this connection and the client.
    pub direct: bool,
    /// True if the connection has to close after this answer.
    pub last: bool,
    /// True if bandwidth is limited: content waits for its turn.
    pub limited: bool,
}

/// A request whose folder is being walked through, or waits for that.
#[derive(Debug)]
pub struct Walk {
    pub(super) request: Box<Request>,
    pub(super) entry: Entry,
    pub(super) admitted: Admitted,
    pub(super) walking: Box<Walking>,
    pub(super) permit: Option<Permit>,
}

impl Walk {
    /// The server whose folder it is.
    pub fn server(&self) -> u128 {
        self.walking.server()
    }

    /// The request, to refuse it.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns true once the walk has begun.
    pub fn has_begun(&self) -> bool {
        self.permit.is_some()
    }

    /// The request's line in the access log.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// A request whose token and link are good.
#[derive(Debug)]
pub(super) struct Admitted {
    /// How its link is claimed; `None` if its token is not one-time.
    pub(super) claim: Option<ClaimRequest>,
    /// What tells it from others.
    pub(super) id: LinkId,
    /// When the token expires, unless it has and only a grant keeps the link alive.
    pub(super) until: Option<u64>,
    /// What is known of the versions of the file that the link was used for.
    pub(super) seen: Seen,
}

/// How a piece ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything is in the kernel's hands.
    Sent,
    /// The socket is full.
    Full,
    /// It has had its turn.
    TurnOver,
    /// Another download is reading for checksums, which this one needs to do as well.
    Waits,
}

/// What a worker is to do.
#[derive(Debug)]
pub enum Task {
    /// Answer a request.
    Answer(Box<Request>),
    /// Walk on through the folder that a request asks for, and answer it.
    Walk(Box<Walk>),
    /// Send the next piece of a download, of this many bytes at most.
    Step(Box<Download>, u64),
    /// Carry on a TLS handshake.
    Handshake,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Job {
    /// The connection, which the worker holds meanwhile.
    pub connection: Box<Connection>,
    /// What to do with it.
    pub task: Task,
}

/// What is to become of a connection that a worker gives back.
#[derive(Debug)]
pub enum Next {
    /// An answer without content is complete. True: the connection may carry another request.
    Answered(bool),
    /// A walk is not at its end, or has not begun because another one is under way.
    Walk(Box<Walk>),
    /// A piece of a download was sent and ended this way.
    Step(Box<Download>, Step),
    /// A handshake was carried on.
    Handshake(io::Result<()>),
    /// The connection is of no more use.
    Abort,
}

/// A connection on its way back from a worker.
#[derive(Debug)]
pub struct Done {
    /// The connection.
    pub connection: Box<Connection>,
    /// What is to become of it.
    pub next: Next,
    /// Bytes of bandwidth that the job took and used. Equal if nothing was limited.
    pub bandwidth: (u64, u64),
}

/// The way to the workers and back.
pub type Crew = Exchange<Job, Done>;
