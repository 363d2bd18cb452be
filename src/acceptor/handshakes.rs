//! TLS handshakes, one step at a time. A private key operation takes milliseconds, for which the
//! acceptor must not stand still: the pool does it, in turns by address and one at a time.

use std::io;
use std::time::Instant;

use super::Acceptor;
use super::state::{Held, State};
use crate::download::job::{Connection, Task};
use crate::net::address::ClientKey;
use crate::pool::buckets::{Buckets, Flow};
use crate::pool::queue::{Kind, Lane, Ticket};

/// Handshakes that one address may begin at once, and per second later on.
const LIMIT: Flow = Flow { rate: 8.0, depth: 64.0 };

/// Handshakes that each address may still begin.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Buckets<ClientKey>);

impl Acceptor {
    /// A client has sent a part of its handshake.
    pub(super) fn carry_on_handshake(&mut self, connection: Box<Connection>, until: Instant) {
        let (id, now) = (connection.id, Instant::now());
        let client = self.connections.share(id);
        if !connection.socket.saw_client_hello()
            && let Some(key) = client
        {
            let bucket = self.handshakes.0.get(key, LIMIT, now);
            let wait = bucket.wait(1.0, LIMIT);
            if !wait.is_zero() {
                // Whatever it sends meanwhile, it is looked at when the bucket has one.
                let held = Held { connection, state: State::Handshake { until } };
                return self.connections.put(held, Some(until.min(now + wait)));
            }
            bucket.take(1.0);
        }
        let ticket = Ticket { id, kind: Kind::Handshake, lane: Lane::None, client };
        self.send(ticket, connection, Task::Handshake, Some(until));
    }

    /// A worker has carried a handshake on.
    pub(super) fn handshake_returned(
        &mut self,
        connection: Box<Connection>,
        result: io::Result<()>,
    ) {
        let until = self.connections.deadline(connection.id).unwrap_or_else(Instant::now);
        match result {
            Ok(()) => self.read_first_head(connection, until),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.hold(connection, State::Handshake { until }, Some(until));
            }
            Err(error) if crate::net::tls::is_plain_http(&error) => self.refuse_plain(connection),
            Err(error) => {
                log::debug!("handshake failed: {error}");
                self.drop_connection(connection);
            }
        }
    }

    /// The time for the handshake is over, or its address may begin another one.
    pub(super) fn handshake_deadline(&mut self, connection: Box<Connection>, until: Instant) {
        if Instant::now() >= until {
            self.drop_connection(connection);
        } else {
            self.carry_on_handshake(connection, until);
        }
    }
}
