//! From the first byte of a head to a request at a worker.

use std::time::Instant;
use std::{fmt, io};

use rustix::event::epoll::EventFlags;

use super::state::State;
use super::{Acceptor, bandwidth};
use crate::config::{Config, Reuse};
use crate::download::job::{Connection, Request, Task};
use crate::http::head::{Field, Head, Method, Place, Route, Screened, screen};
use crate::http::refusal::{Busy, Refusal};
use crate::link::token::Endpoint;
use crate::logging::throttle::Kind;
use crate::net::address::{Client, ClientKey, Peer};
use crate::pool::queue::{Kind as JobKind, Lane, Ticket};

/// Requests answered on one connection before it is closed.
pub(super) const MAX_REQUESTS: u32 = 1000;

/// What proxies add, and what to say of one that is not trusted. Cloudflare adds both.
const PROXY_FIELDS: [(Field, &str); 2] = [
    (
        Field::CfConnectingIp,
        "sends CF-Connecting-IP, as Cloudflare does: if that is in front, add its ranges \
         (cloudflare.com/ips) to api.trusted_proxies; until then all its clients count as one",
    ),
    (
        Field::XForwardedFor,
        "sends X-Forwarded-For: if it is your proxy, add it to api.trusted_proxies; until then all \
         its clients count as one",
    ),
];

/// What to say of a trusted proxy that does not tell for whom it speaks.
const NAMES_NO_CLIENT: &str = "forwards requests without X-Forwarded-For: have the proxy add it; \
                               until then links are bound to no client";

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
        let read = read_head(&mut connection, screened, &mut self.scratch);
        if connection.socket.may_have_more() {
            self.connections.remember(connection.id, EventFlags::IN);
        }
        match read {
            Read::More(screened) => {
                let before = self.connections.deadline(connection.id);
                // What has brought no byte of a head moves no deadline.
                let deadline = match connection.input.is_empty() {
                    true => before.or(deadline),
                    false => deadline.or(before),
                };
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

    /// Waits for a further request, of which a part may have come already. The time begins here
    /// and not with the answer: a slow client may take long to read that.
    pub(super) fn next_request(&mut self, connection: Box<Connection>) {
        let timeouts = &self.settings.config.timeouts;
        let time = if connection.input.is_empty() { timeouts.idle } else { timeouts.head };
        let deadline = Some(Instant::now() + time);
        self.hold(connection, State::Reading { screened: 0 }, deadline);
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
            (Route::Control(_), _) | (_, Method::Post) => {
                self.refuse(connection, &head, &Refusal::Method)
            }
            (Route::Health, _) => self.answer_health(connection, &head),
            (Route::Download(endpoint), _) => self.enqueue(connection, head, endpoint),
        }
    }

    fn enqueue(&mut self, connection: Box<Connection>, head: Box<Head>, endpoint: Endpoint) {
        let (id, config, now) = (connection.id, &self.settings.config, Instant::now());
        let peer = connection.peer;
        let client = peer.client(head.forwarded(), head.is_relayed(), config);
        let key = client.address.map(ClientKey::of);
        if let Some(mistake) = mistake_of_proxy(peer, client, &head, config) {
            let peer = peer.ip().map(ClientKey::of);
            self.parts.shared.throttle.warn(Kind::Proxy, peer, now, || mistake.to_string());
        }
        if let Some(busy) = self.too_busy(key, peer.is_proxy(config), now) {
            return self.refuse_busy(connection, &head, key, busy);
        }
        let last = !self.may_keep(&connection);
        let limited = bandwidth::is_limited(config);
        let Client { address, direct } = client;
        let request = Box::new(Request { head, client: address, direct, last, limited });
        let deadline = Some(now + config.timeouts.queue);
        self.connections.change_share(id, key);
        // In the epoll set from here on: a client that hangs up must not cost a worker.
        if !self.watch(&connection, false) {
            return self.drop_connection(connection);
        }
        let lane = if endpoint == Endpoint::Backup { Lane::Backups } else { Lane::Files };
        let ticket = Ticket { id, kind: JobKind::Answer, lane, client: key };
        self.send(ticket, connection, Task::Answer(request), deadline);
    }

    /// What there is too little of for a request of `key`, if anything.
    fn too_busy(&self, key: Option<ClientKey>, proxy: bool, now: Instant) -> Option<Busy> {
        let (config, shares) = (&self.settings.config, self.connections.shares());
        let share = config.max_connections_per_address;
        let over = key.is_some_and(|key| match proxy {
            // Its connections count as their clients' once there is a request.
            true => shares.is_full(key, share),
            false => shares.is_exceeded(key, share),
        });
        // With `once`, the first byte would spend the link, so that nothing may displace it afterwards.
        let kept_back = config.reuse == Reuse::Once && self.is_committed();
        match over {
            true => Some(Busy::ClientShare),
            false if kept_back || self.is_stuck(now) => Some(Busy::Workers),
            // The journal or the log takes nothing, and each answer would be one more record.
            false if self.backlog.len() >= config.max_connections => Some(Busy::Workers),
            false => None,
        }
    }

    pub(super) fn refuse_busy(
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

/// What is wrong with the proxy `peer`, if anything: it is not trusted, or names no client.
fn mistake_of_proxy(
    peer: Peer,
    client: Client,
    head: &Head,
    config: &Config,
) -> Option<impl fmt::Display> {
    let text = if !peer.is_proxy(config) {
        PROXY_FIELDS.iter().find(|(field, _)| head.has(*field))?.1
    } else if client.address.is_none() && head.is_relayed() {
        NAMES_NO_CLIENT
    } else {
        return None;
    };
    let peer = peer.ip().map_or_else(|| "a proxy".to_owned(), |ip| ip.to_string());
    Some(format!("{peer} {text}"))
}

/// Reads from `connection` until a head is complete, `screened` bytes of which were looked at.
fn read_head(connection: &mut Connection, mut screened: usize, scratch: &mut [u8]) -> Read {
    let mut is_drained = false;
    loop {
        if connection.input.len() > screened {
            match screen(&connection.input, screened, Place::Public) {
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
        if is_drained {
            return Read::More(screened);
        }
        match connection.socket.read(scratch) {
            Ok(0) => return Read::Finished,
            Ok(count) => {
                connection.input.extend_from_slice(&scratch[..count]);
                is_drained = !connection.socket.may_have_more();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::More(screened),
            Err(error) => return Read::Failed(error),
        }
    }
}
