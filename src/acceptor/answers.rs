//! What the acceptor answers itself, and how it closes a connection so that the answer arrives.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::Acceptor;
use super::requests::MAX_REQUESTS;
use super::state::State;
use crate::download::finish::HANG_UP_AFTER;
use crate::download::job::Connection;
use crate::http::head::{Head, Method};
#[cfg(feature = "tls")]
use crate::http::head::{Place, Screened, screen, secure_address};
use crate::http::refusal::Refusal;
use crate::http::response::{self, ResponseContext};
use crate::logging::access::{Entry, Outcome};

/// How long a client may take to hang up after its last answer.
const LINGER: Duration = Duration::from_secs(5);
/// The same once the server stops, which waits for it.
pub(super) const LAST_LINGER: Duration = Duration::from_millis(250);
/// Bytes that are thrown away of what it still sends meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

impl Acceptor {
    /// Refuses a request on a connection that may go on.
    pub(super) fn refuse(&mut self, connection: Box<Connection>, head: &Head, refusal: &Refusal) {
        self.answer_refusal(connection, Some(head), refusal, head.keep_alive);
    }

    /// Refuses a request after which nobody knows where the next one begins.
    pub(super) fn refuse_and_close(
        &mut self,
        connection: Box<Connection>,
        head: Option<&Head>,
        refusal: &Refusal,
    ) {
        self.answer_refusal(connection, head, refusal, false);
    }

    fn answer_refusal(
        &mut self,
        connection: Box<Connection>,
        head: Option<&Head>,
        refusal: &Refusal,
        keep: bool,
    ) {
        let settings = self.settings.clone();
        let id = self.parts.shared.next_id();
        let mut context = ResponseContext::of(head, &id, &settings.config);
        context.keep_alive = keep && self.may_keep(&connection);
        let answer = response::refusal(&context, refusal);
        let keep = context.keep_alive;
        self.log_refusal(&connection, head, refusal, id);
        self.write_answer(connection, &answer, keep);
    }

    pub(super) fn answer_health(&mut self, connection: Box<Connection>, head: &Head) {
        let id = self.parts.shared.next_id();
        let mut context = ResponseContext::of(Some(head), &id, &self.settings.config);
        context.keep_alive = head.keep_alive && self.may_keep(&connection);
        let moving = !self.is_stuck(Instant::now());
        self.parts.shared.counters.answered(if moving { 200 } else { 503 });
        let answer = response::health(&context, moving);
        let keep = context.keep_alive;
        self.write_answer(connection, &answer, keep);
    }

    pub(super) fn answer_options(&mut self, connection: Box<Connection>, head: &Head) {
        let id = self.parts.shared.next_id();
        let mut context = ResponseContext::of(Some(head), &id, &self.settings.config);
        context.keep_alive = head.keep_alive && self.may_keep(&connection);
        self.parts.shared.counters.answered(204);
        let answer = response::options(&context);
        let keep = context.keep_alive;
        self.write_answer(connection, &answer, keep);
    }

    /// Tells a client that speaks plain HTTP to a TLS port, in plain HTTP.
    #[cfg(feature = "tls")]
    pub(super) fn refuse_plain(&mut self, mut connection: Box<Connection>) {
        let id = self.parts.shared.next_id();
        let refusal = Refusal::Malformed("this port speaks HTTPS: use https:// in the address");
        let bytes = connection.socket.read_raw(&mut self.scratch);
        let head = match screen(bytes, 0, Place::Public) {
            Screened::Ready(head, _) => Some(head),
            _ => None,
        };
        let mut context = ResponseContext::of(head.as_deref(), &id, &self.settings.config);
        context.keep_alive = false;
        let answer = match secure_address(bytes).filter(|_| context.html) {
            Some(link) => response::plain_http(&context, &link),
            None => response::refusal(&context, &refusal),
        };
        self.log_refusal(&connection, None, &refusal, id);
        connection.socket.write_raw(&answer);
        self.linger(connection);
    }

    pub(super) fn may_keep(&self, connection: &Connection) -> bool {
        self.draining.is_none() && connection.requests + 1 < MAX_REQUESTS
    }

    /// Writes without waiting: a client that does not read its answers is closed.
    pub(super) fn write_answer(
        &mut self,
        mut connection: Box<Connection>,
        answer: &[u8],
        keep: bool,
    ) {
        if connection.socket.write_at_once(answer) {
            self.answered(connection, keep);
        } else {
            connection.socket.reset_at_close();
            self.drop_connection(connection);
        }
    }

    /// Goes on with a connection whose answer is complete.
    pub(super) fn answered(&mut self, mut connection: Box<Connection>, keep: bool) {
        connection.requests += 1;
        if connection.peer.is_proxy(&self.settings.config) {
            self.connections.change_share(connection.id, None);
        }
        if keep && self.draining.is_none() {
            self.next_request(connection);
        } else {
            self.linger(connection);
        }
    }

    /// Waits a moment for the client to hang up first, then closes cleanly.
    pub(super) fn close_soon(&mut self, mut connection: Box<Connection>) {
        connection.requests += 1;
        self.connections.remember(connection.id, EventFlags::IN);
        let deadline = Some(Instant::now() + HANG_UP_AFTER.min(self.settings.config.timeouts.idle));
        self.hold(connection, State::Closing { left: LINGER_BYTES, hung_up: false }, deadline);
    }

    /// Closes cleanly: says that nothing more is coming, and reads on for a moment, because data
    /// that arrives at a closed socket causes a reset, which takes the answer from the client.
    pub(super) fn linger(&mut self, mut connection: Box<Connection>) {
        connection.input = Vec::new();
        connection.socket.finish_writing();
        // Its end may have been reported before.
        self.connections.remember(connection.id, EventFlags::IN);
        let time = if self.draining.is_some() { LAST_LINGER } else { LINGER };
        let deadline = Some(Instant::now() + time);
        self.hold(connection, State::Closing { left: LINGER_BYTES, hung_up: true }, deadline);
    }

    /// Throws away what a client sends that is done with.
    pub(super) fn discard_input(
        &mut self,
        mut connection: Box<Connection>,
        mut left: usize,
        hung_up: bool,
    ) {
        loop {
            match connection.socket.read(&mut self.scratch) {
                Ok(count) if count > 0 && count <= left => left -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What it sends in vain is no reason to stay for more.
                    self.connections.take_events(connection.id);
                    let deadline = self.connections.deadline(connection.id);
                    return self.hold(connection, State::Closing { left, hung_up }, deadline);
                }
                Ok(_) | Err(_) => return self.drop_connection(connection),
            }
        }
    }

    fn log_refusal(
        &mut self,
        connection: &Connection,
        head: Option<&Head>,
        refusal: &Refusal,
        id: String,
    ) {
        self.parts.shared.counters.answered(refusal.status());
        let forwarded = head.into_iter().flat_map(Head::forwarded);
        let relayed = head.is_some_and(Head::is_relayed);
        let client = connection.peer.client(forwarded, relayed, &self.settings.config);
        let entry = Entry {
            client: client.address,
            method: head.map_or("-", |head| Method::name(head.method)),
            endpoint: "-",
            status: refusal.status(),
            part: false,
            resource: None,
            began: Instant::now(),
            id,
        };
        entry.log_bounded(&Outcome::Refused(refusal.cause()), &self.parts.shared.throttle);
    }
}
