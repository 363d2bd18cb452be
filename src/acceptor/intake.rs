//! Fresh connections: accepting, and who gives way if there are too many.

use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

#[cfg(feature = "tls")]
use super::state::State;
use super::state::{MAKING_ROOM, Rank};
use super::{Acceptor, TAG_LISTENERS};
use crate::download::job::Connection;
use crate::logging::throttle::Kind;
use crate::net::address::{ClientKey, Peer};
use crate::net::listener::Accepted;
use crate::net::socket::Socket;

/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 64;
/// How long accepting pauses if no descriptor could be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are asked to give way for one newcomer. More workers than this never hold one.
const VICTIMS: usize = 64;
/// Places that are kept for connections whose head is still to come, so that an address below its
/// share always gets in, and `/health` always answers.
const KEPT_FOR_HEADS: usize = 32;

impl Acceptor {
    pub(super) fn accept_from(&mut self, listener: usize) {
        self.accept_some(listener, ACCEPTS);
    }

    /// Accepts up to `most` connections.
    pub(super) fn accept_some(&mut self, listener: usize, most: usize) {
        let mut shed = false;
        for _ in 0..most {
            let Some(source) = self.parts.listeners.get(listener) else { return };
            let tls = source.is_tls();
            match source.accept() {
                Ok((accepted, peer)) => self.admit(accepted, peer, tls),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::WOULDBLOCK) => return,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        if shed || !self.shed_one() {
                            return self.pause_accepting();
                        }
                        shed = true;
                        self.parts.shared.throttle.warn(
                            Kind::Descriptors,
                            None,
                            Instant::now(),
                            || format!("{error}; closed a connection of the busiest address"),
                        );
                    }
                    // The one connection is gone; the next is another matter.
                    _ => {}
                },
            }
        }
    }

    /// Stops watching the listeners until something closes, or a moment has passed: the kernel
    /// would report them ready for ever.
    fn pause_accepting(&mut self) {
        self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
        self.watch_listeners(EventFlags::empty());
    }

    pub(super) fn resume_accepting(&mut self) {
        self.accept_again = None;
        self.watch_listeners(EventFlags::IN);
    }

    fn watch_listeners(&self, flags: EventFlags) {
        for (index, listener) in self.parts.listeners.iter().enumerate() {
            let data = EventData::new_u64(TAG_LISTENERS + index as u64);
            let _ = epoll::modify(&self.epoll, listener, data, flags);
        }
    }

    /// Takes a fresh connection in, within the limits.
    fn admit(&mut self, accepted: Accepted, peer: Peer, tls: bool) {
        let now = Instant::now();
        self.parts.shared.counters.accepted();
        let key = match peer.is_proxy(&self.settings.config) {
            true => None,
            false => peer.ip().map(ClientKey::of),
        };
        if !self.has_share(key, now) || !self.has_room(now) {
            return;
        }
        let Some(socket) = self.open_socket(accepted, tls) else { return };
        let id = self.connections.open(key);
        let connection = Box::new(Connection { id, peer, socket, input: Vec::new(), requests: 0 });
        let deadline = now + self.settings.config.timeouts.head;
        #[cfg(feature = "tls")]
        if tls {
            return self.hold(connection, State::Handshake { until: deadline }, Some(deadline));
        }
        // Most clients have sent their head by now: the fast path arms nothing.
        self.read_first_head(connection, deadline);
    }

    /// Makes room within the share of `key`. One connection beyond it is taken in if all others are
    /// busy, to be told so.
    fn has_share(&mut self, key: Option<ClientKey>, now: Instant) -> bool {
        let share = self.settings.config.max_connections_per_address;
        let Some(key) = key.filter(|key| self.connections.shares().is_full(*key, share)) else {
            return true;
        };
        let victims = self.connections.victims_of(key, Rank::Head);
        let closed = victims.into_iter().any(|victim| self.shed(victim, MAKING_ROOM));
        let taken = closed || !self.connections.shares().is_exceeded(key, share);
        self.parts.shared.throttle.warn(Kind::Share, Some(key), now, || match closed {
            true => format!("{key} has its share; closing one of its waiting connections"),
            false => format!("{key} has its share of busy connections"),
        });
        taken
    }

    /// Makes room in a full table.
    fn has_room(&mut self, now: Instant) -> bool {
        if !self.is_full() {
            return true;
        }
        let count = self.connections.len();
        let closed = self.shed_one();
        self.parts.shared.throttle.warn(Kind::Connections, None, now, || match closed {
            true => format!("{count} connections; closing one of the busiest address"),
            false => format!("{count} connections, all of them downloads; dropping a newcomer"),
        });
        closed
    }

    /// Closes the connection that gives way first. Returns false if none does.
    fn shed_one(&mut self) -> bool {
        // One that a worker has just taken cannot: the next may.
        let victims: Vec<u64> = self.connections.victims().take(VICTIMS).collect();
        victims.into_iter().any(|victim| self.shed(victim, MAKING_ROOM))
    }

    fn is_full(&self) -> bool {
        let count = self.connections.len() + self.backlog.len();
        let transfers = self.connections.transfers();
        count >= self.settings.config.max_connections
            || count + transfers >= self.parts.descriptor_room
    }

    /// Returns true if downloads have all places but those that are kept for heads.
    pub(super) fn is_committed(&self) -> bool {
        let count = self.connections.committed() + self.backlog.len();
        let transfers = self.connections.transfers();
        let full = |count: usize, bound: usize| count + KEPT_FOR_HEADS.min(bound / 4) >= bound;
        full(count, self.settings.config.max_connections)
            || full(count + transfers, self.parts.descriptor_room)
    }

    #[cfg(feature = "tls")]
    fn open_socket(&self, accepted: Accepted, tls: bool) -> Option<Socket> {
        if !tls {
            return Some(accepted.into());
        }
        let Accepted::Tcp(stream) = accepted else { return None };
        let certificates = self.parts.tls.as_ref()?;
        Some(Socket::tls(crate::net::tls::TlsStream::new(stream, certificates).ok()?))
    }

    #[cfg(not(feature = "tls"))]
    fn open_socket(&self, accepted: Accepted, _tls: bool) -> Option<Socket> {
        Some(accepted.into())
    }
}
