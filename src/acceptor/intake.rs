//! Fresh connections: accepting, and who gives way if there are too many.

use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::connections::{Held, MAKING_ROOM, Rank, State};
use super::{Acceptor, TAG_LISTENERS};
use crate::http::head::Place;
use crate::logging::throttle::Kind;
use crate::net::address::{ClientKey, Peer};
use crate::net::listener::Accepted;
use crate::net::socket::Socket;
use crate::pool::exchange::Connection;

/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 64;
/// How long accepting pauses if no descriptor could be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections to the control listener at a time.
const CONTROLS: usize = 32;
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
            let place = if source.is_control() { Place::Control } else { Place::Public };
            match source.accept() {
                Ok((accepted, peer)) => self.admit(accepted, peer, tls, place),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::WOULDBLOCK) => return,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        let Some(victim) = self.connections.victim().filter(|_| !shed) else {
                            return self.pause_accepting();
                        };
                        self.parts.shared.throttle.warn(
                            Kind::Descriptors,
                            None,
                            Instant::now(),
                            || format!("{error}; closing a connection of the busiest address"),
                        );
                        shed = self.shed(victim, MAKING_ROOM);
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

    /// Whether one more may come to the control listener. Whoever says nothing gives way, so that no
    /// user of this machine keeps the operator out.
    fn has_control_room(&mut self) -> bool {
        if self.controls < CONTROLS {
            return true;
        }
        let connections = &mut self.connections;
        let mut silent = connections.ids();
        silent.retain(|id| {
            connections.look(*id).is_some_and(|Held { connection, state }| {
                connection.place == Place::Control
                    && matches!(state, State::Reading { .. } | State::Body(_))
            })
        });
        let oldest = silent.into_iter().min_by_key(|id| connections.deadline(*id));
        oldest.is_some_and(|id| self.shed(id, "control: too many connections"))
    }

    /// Takes a fresh connection in, within the limits.
    fn admit(&mut self, accepted: Accepted, peer: Peer, tls: bool, place: Place) {
        let now = Instant::now();
        self.parts.shared.counters.accepted();
        let key = match peer.is_proxy(&self.settings.config) {
            true => None,
            false => peer.ip().map(ClientKey::of),
        };
        if place == Place::Control && !self.has_control_room() {
            return;
        }
        if !self.has_share(key, now) || !self.has_room(now) {
            return;
        }
        let Some(socket) = self.open_socket(accepted, tls) else { return };
        let id = self.connections.open(key);
        let connection =
            Box::new(Connection { id, peer, place, socket, input: Vec::new(), requests: 0 });
        self.controls += usize::from(place == Place::Control);
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
        let victim = self.connections.victim_of(key, Rank::Head);
        let closed = victim.is_some_and(|victim| self.shed(victim, MAKING_ROOM));
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
        let victim = self.connections.victim();
        let closed = victim.is_some_and(|victim| self.shed(victim, MAKING_ROOM));
        self.parts.shared.throttle.warn(Kind::Connections, None, now, || match closed {
            true => format!("{count} connections; closing one of the busiest address"),
            false => format!("{count} connections, all of them downloads; dropping a newcomer"),
        });
        closed
    }

    fn is_full(&self) -> bool {
        let (count, transfers) = (self.connections.len(), self.connections.transfers());
        count >= self.settings.config.max_connections
            || count + transfers >= self.parts.descriptor_room
    }

    /// Whether downloads and watched answers have all places but those that are kept for heads.
    pub(super) fn is_committed(&self) -> bool {
        let (count, transfers) = (self.connections.committed(), self.connections.transfers());
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
