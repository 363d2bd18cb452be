//! What a connection can be waiting for, and how readily it gives way to another one.

#[cfg(feature = "tls")]
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::INPUT;
use crate::download::Download;
use crate::download::job::Connection;

/// What a connection that no worker holds is waiting for.
#[derive(Debug)]
pub(super) enum State {
    /// Its TLS handshake to go on, until then.
    #[cfg(feature = "tls")]
    Handshake { until: Instant },
    /// A head, or the rest of one, of which so many bytes were screened already.
    Reading { screened: usize },
    /// Room in the socket.
    Parked(Box<Download>),
    /// Its share of the bandwidth, of which so many bytes are reserved; `None`: another download.
    Paced(Box<Download>, Option<u64>),
    /// The client to take the last bytes of an answer.
    Finishing(Box<Download>),
    /// The client to close its side, after ours was closed or before; so many bytes may still be
    /// thrown away.
    Closing { left: usize, hung_up: bool },
}

impl State {
    /// The events that matter to it, besides the connection's end.
    pub(super) fn interest(&self) -> EventFlags {
        match self {
            #[cfg(feature = "tls")]
            State::Handshake { .. } => INPUT,
            State::Reading { .. } | State::Closing { .. } => INPUT,
            State::Finishing(download) if download.wants_input() => INPUT,
            State::Finishing(_) | State::Paced(..) => EventFlags::empty(),
            State::Parked(_) => EventFlags::OUT,
        }
    }

    /// Returns true if a part of a head waits in the buffer of `connection`.
    pub(super) fn has_input(&self, connection: &Connection) -> bool {
        matches!(self, State::Reading { screened: 0 }) && !connection.input.is_empty()
    }
}

/// Why the log says that a connection was closed for another one.
pub(super) const MAKING_ROOM: &str = "closed to make room";

/// Who gives way first if there are too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Between two requests, or answered for good.
    Idle,
    /// A head has not come whole.
    Head,
    /// A request whose token nobody has verified yet.
    Queued,
    /// An answer that is in the kernel's hands.
    Finishing,
    /// A download.
    Transfer,
}

/// A connection and what it waits for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Box<Connection>,
    pub(super) state: State,
}

impl Held {
    pub(super) fn rank(&self) -> Rank {
        let connection = &self.connection;
        match &self.state {
            #[cfg(feature = "tls")]
            State::Handshake { .. } => Rank::Head,
            State::Reading { .. } if connection.requests > 0 && connection.input.is_empty() => {
                Rank::Idle
            }
            State::Reading { .. } => Rank::Head,
            State::Finishing(_) => Rank::Finishing,
            State::Parked(_) | State::Paced(..) => Rank::Transfer,
            State::Closing { .. } => Rank::Idle,
        }
    }
}
