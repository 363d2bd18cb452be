//! From the first byte of a head to a request at a worker.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Acceptor;
use super::bandwidth::Rates;
use super::connections::{Held, State};
use super::queue::{self, Lane};
use crate::config::Reuse;
use crate::http::head::{Field, Head, Method, Route, Screened, screen};
use crate::http::refusal::{Busy, Refusal};
use crate::link::token::Endpoint;
use crate::logging::throttle::Kind;
use crate::net::address::ClientKey;
use crate::pool::exchange::{Connection, Request};

/// Requests answered on one connection before it is closed.
pub(super) const MAX_REQUESTS: u32 = 1000;

/// A request that has waited this long for a worker is watched for a hang-up.
const WATCH_AFTER: Duration = Duration::from_millis(100);

/// What proxies add, and what to say of one that is not trusted. Cloudflare adds both.
const PROXY_FIELDS: [(Field, &str); 2] = [
    (
        Field::CfConnectingIp,
        "CF-Connecting-IP, as Cloudflare does: if that is in front, add its ranges (cloudflare.com/ips)",
    ),
    (Field::XForwardedFor, "X-Forwarded-For: if it is your proxy, add it"),
];

/// What reading a head has come to.
enum Read {
    /// More bytes are needed.
    More(usize),
    /// A well-formed head.
    Head(Box<Head>),
    /// Something that is none.
    Refused(Option<Box<Head>>, Refusal),
    /// The client has closed its side.
    Finished,
    /// The connection is of no more use.
    Failed(io::Error),
}

impl Acceptor {
    /// Reads what a fresh connection has sent already.
    pub(super) fn read_first_head(&mut self, connection: Box<Connection>, deadline: Instant) {
        self.read(connection, 0, Some(deadline));
    }

    /// Reads what a client has sent, and acts on it.
    pub(super) fn read_head(&mut self, connection: Box<Connection>, screened: usize) {
        let timeouts = &self.settings.config.timeouts;
        // The first byte of a further request: from here on the head has its own deadline.
        let begins = connection.requests > 0 && connection.input.is_empty();
        let deadline = begins.then(|| Instant::now() + timeouts.head);
        self.read(connection, screened, deadline);
    }

    fn read(
        &mut self,
        mut connection: Box<Connection>,
        screened: usize,
        deadline: Option<Instant>,
    ) {
        match read_head(&mut connection, screened, &mut self.scratch) {
            Read::More(screened) => {
                // Without a new one the old deadline holds.
                let deadline = deadline.or_else(|| self.connections.deadline(connection.id));
                self.hold(connection, State::Reading { screened }, deadline);
            }
            Read::Head(head) => self.dispatch(connection, head),
            Read::Refused(head, refusal) => {
                self.refuse_and_close(connection, head.as_deref(), &refusal);
            }
            // With half a head read, too: nobody is there to read an answer.
            Read::Finished => self.drop_connection(connection),
            Read::Failed(error) => self.input_failed(connection, &error),
        }
    }

    /// Reads the next request of a connection that may have sent it already.
    pub(super) fn read_on(&mut self, id: u64) {
        let Some(Held { connection, state }) = self.connections.take(id) else { return };
        match state {
            State::Reading { screened } => self.read_head(connection, screened),
            state => self.put_back(Held { connection, state }),
        }
    }

    /// Waits for a further request, of which a part may have come already. The time begins here
    /// and not with the answer: a slow client may take long to read that.
    pub(super) fn next_request(&mut self, connection: Box<Connection>) {
        let timeouts = &self.settings.config.timeouts;
        let (id, fresh) = (connection.id, connection.input.is_empty());
        let time = if fresh { timeouts.idle } else { timeouts.head };
        let deadline = Some(Instant::now() + time);
        let may_have_more = !fresh || connection.socket.is_tls();
        let held = Held { connection, state: State::Reading { screened: 0 } };
        self.connections.put(held, deadline);
        if may_have_more {
            self.again.push(id);
        } else {
            self.arm(id);
        }
    }

    fn input_failed(&mut self, connection: Box<Connection>, error: &io::Error) {
        log::debug!("connection closed: {error}");
        self.drop_connection(connection);
    }

    /// Answers a well-formed request, or queues it for a worker.
    fn dispatch(&mut self, connection: Box<Connection>, head: Box<Head>) {
        match (head.route, head.method) {
            (Route::Unknown | Route::Asterisk, Method::Options) => {
                self.answer_options(connection, &head);
            }
            (Route::Unknown, _) => self.refuse(connection, &head, &Refusal::UnknownPath),
            (_, Method::Options) => self.answer_options(connection, &head),
            (_, Method::Other) | (Route::Asterisk, _) => {
                self.refuse(connection, &head, &Refusal::Method);
            }
            (Route::Control(_), _) => self.read_body(connection, head),
            (_, Method::Post) => self.refuse(connection, &head, &Refusal::Method),
            (Route::Health, _) => self.answer_health(connection, &head),
            (Route::Download(endpoint), _) => self.enqueue(connection, head, endpoint),
        }
    }

    fn enqueue(&mut self, connection: Box<Connection>, head: Box<Head>, endpoint: Endpoint) {
        let (id, config) = (connection.id, &self.settings.config);
        let client = connection.peer.client(head.forwarded(), config);
        let key = client.map(ClientKey::of);
        let direct = !connection.peer.is_proxy(config);
        if direct && let Some(field) = PROXY_FIELDS.iter().find(|(field, _)| head.has(*field)) {
            let message = || untrusted(client, field.1);
            self.parts.shared.throttle.warn(Kind::Proxy, key, Instant::now(), message);
        }
        let share = config.max_connections_per_address;
        let over = key.is_some_and(|key| match direct {
            true => self.connections.shares().is_exceeded(key, share),
            false => self.connections.shares().is_full(key, share),
        });
        if over {
            return self.refuse_busy(connection, &head, key, Busy::ClientShare);
        }
        // Its first byte would spend the link, so that nothing may displace it afterwards.
        if config.reuse == Reuse::Once && self.is_committed() {
            return self.refuse_busy(connection, &head, key, Busy::Workers);
        }
        let lane = if endpoint == Endpoint::Backup { Lane::Backups } else { Lane::Files };
        let kind = if endpoint.is_archive() { queue::Kind::Walk } else { queue::Kind::Request };
        if self.is_stuck() {
            return self.refuse_busy(connection, &head, key, Busy::Workers);
        }
        let last = !self.may_keep(&connection);
        let head_only = Rates::of(config).any();
        let request = Box::new(Request { head, client, direct, last, head_only });
        let now = Instant::now();
        let until = now + config.timeouts.queue;
        self.connections.change_share(id, key);
        self.connections.set_turn(id, lane, key);
        // Watched for a hang-up only if it has to wait for long: most are given away at once.
        let state = State::Queued { request, until };
        self.connections.put(Held { connection, state }, Some(until.min(now + WATCH_AFTER)));
        self.queue.push((lane, key), kind, id);
        self.give_to_workers();
    }

    pub(super) fn queue_deadline(
        &mut self,
        connection: Box<Connection>,
        request: Box<Request>,
        until: Instant,
    ) {
        if Instant::now() < until {
            return self.hold(connection, State::Queued { request, until }, Some(until));
        }
        let (lane, key) = self.connections.turn(connection.id);
        self.queue.remove((lane, key), connection.id);
        self.refuse_busy(connection, &request.head, key, Busy::Workers);
    }

    fn refuse_busy(
        &mut self,
        connection: Box<Connection>,
        head: &Head,
        key: Option<ClientKey>,
        busy: Busy,
    ) {
        self.parts.shared.throttle.warn(Kind::Queue, key, Instant::now(), || {
            let client = key.map_or_else(|| "-".to_owned(), |key| key.to_string());
            format!("{client}: {}", Refusal::Busy(busy).cause())
        });
        self.refuse(connection, head, &Refusal::Busy(busy));
    }

    pub(super) fn head_deadline(&mut self, connection: Box<Connection>) {
        if connection.input.is_empty() {
            // Nothing of a request has come: there is nothing to answer.
            self.drop_connection(connection);
        } else {
            self.refuse_and_close(connection, None, &Refusal::HeadTimeout);
        }
    }
}

/// The warning about the proxy `peer`, which is not trusted.
fn untrusted(peer: Option<IpAddr>, what: &str) -> String {
    let peer = peer.map_or_else(|| "a peer".to_owned(), |peer| peer.to_string());
    format!("{peer} sends {what} to api.trusted_proxies; until then all its clients count as one")
}

/// Reads from `connection` until a head is complete, `screened` bytes of which were looked at.
fn read_head(connection: &mut Connection, mut screened: usize, scratch: &mut [u8]) -> Read {
    loop {
        if connection.input.len() > screened {
            match screen(&connection.input, screened, connection.place) {
                Screened::Incomplete => screened = connection.input.len(),
                Screened::Ready(head, length) => {
                    if length == connection.input.len() {
                        // Frees the buffer: a connection at work keeps none.
                        connection.input = Vec::new();
                    } else {
                        connection.input.drain(..length);
                    }
                    return Read::Head(head);
                }
                Screened::Refused(head, refusal) => return Read::Refused(head, refusal),
            }
        }
        match connection.socket.read(scratch) {
            Ok(0) => return Read::Finished,
            Ok(count) => connection.input.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::More(screened),
            Err(error) => return Read::Failed(error),
        }
    }
}
