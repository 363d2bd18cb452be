//! The control listener: reports the server's state and carries out an operator's orders.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::Acceptor;
use super::connections::State;
use crate::control::{metrics, orders};
use crate::delivery::pace::Broken;
use crate::http::head::{Control, Field, Head, Method, Route};
use crate::http::refusal::{Busy, Refusal};
use crate::http::response::{self, ResponseContext};
use crate::net::address::Peer;
use crate::pool::exchange::Connection;

/// Whether `host` is an address or `localhost`. Any other name may be a web page's own, whose domain
/// leads here so that a browser on this machine reads for it (DNS rebinding).
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

impl Acceptor {
    /// Answers a request of the control listener once its body is complete.
    pub(super) fn read_body(&mut self, connection: Box<Connection>, head: Box<Head>) {
        if connection.input.len() >= head.body {
            return self.answer_control(connection, head);
        }
        let deadline = Some(Instant::now() + self.settings.config.timeouts.head);
        self.hold(connection, State::Body(head), deadline);
    }

    /// More of a request's body has arrived.
    pub(super) fn more_body(&mut self, mut connection: Box<Connection>, head: Box<Head>) {
        while connection.input.len() < head.body {
            match connection.socket.read(&mut self.scratch) {
                Ok(count @ 1..) => connection.input.extend_from_slice(&self.scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Without a new one the old deadline holds.
                    let deadline = self.connections.deadline(connection.id);
                    return self.hold(connection, State::Body(head), deadline);
                }
                _ => return self.drop_connection(connection),
            }
        }
        self.answer_control(connection, head);
    }

    /// The rest of a body has not come in time.
    pub(super) fn body_deadline(&mut self, connection: Box<Connection>, head: &Head) {
        self.refuse_and_close(connection, Some(head), &Refusal::HeadTimeout);
    }

    fn answer_control(&mut self, mut connection: Box<Connection>, head: Box<Head>) {
        let Route::Control(what) = head.route else { return self.drop_connection(connection) };
        let body: Vec<u8> = connection.input.drain(..head.body).collect();
        // Orders prove who gives them; whoever reaches a port may look.
        let named = head.field(Field::Host).is_none_or(names_this_machine);
        if head.method != Method::Post && connection.peer != Peer::Unix && !named {
            let refusal = Refusal::Malformed("Host has to be an address or localhost here");
            return self.refuse(connection, &head, &refusal);
        }
        match (what, head.method) {
            (Control::Status, Method::Get | Method::Head) => {
                let text = serde_json::to_string(&self.status(true)).unwrap_or_default() + "\n";
                self.report(connection, &head, "application/json", &text);
            }
            (Control::Metrics, Method::Get | Method::Head) => {
                let text = metrics::text(&self.status(false), &self.parts.shared.counters);
                self.report(connection, &head, metrics::MEDIA_TYPE, &text);
            }
            (Control::Revoke | Control::Deauthorize, Method::Post) => {
                match self.carry_out(what, &connection, &head, &body) {
                    Ok((kept, ended)) => self.confirm(connection, &head, kept, ended),
                    Err(refusal) => self.refuse(connection, &head, &refusal),
                }
            }
            _ => self.refuse(connection, &head, &Refusal::Method),
        }
    }

    /// Revokes what `body` names. Returns whether the journal has it, and how many downloads end.
    fn carry_out(
        &mut self,
        what: Control,
        connection: &Connection,
        head: &Head,
        body: &[u8],
    ) -> Result<(bool, usize), Refusal> {
        let (shared, now) = (&self.parts.shared, self.parts.shared.clock.unix());
        let config = &self.settings.config;
        let token = head.field(Field::Authorization).and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim())
        });
        // A port is open to every user of this machine, and to the pages that they look at.
        let open = connection.peer == Peer::Unix && what == Control::Revoke;
        let trusted = token.is_some_and(|token| {
            config.token.is(token.as_bytes())
                || self.settings.verifier.vouches(token, &orders::seal(body), now)
        });
        if !open && !trusted {
            return Err(Refusal::Unauthorized);
        }
        let orders = match what {
            Control::Deauthorize => orders::deauthorize(body, config, now),
            _ => orders::revoke(body, config, &self.settings.verifier, now).map(|one| vec![one]),
        };
        let (mut kept, mut ended) = (true, 0);
        for (target, known, what) in orders.map_err(Refusal::Malformed)? {
            let revoked = shared.replay.revoke(target, known, now);
            kept &= revoked.map_err(|_| Refusal::Busy(Busy::Revocations))?;
            let count = shared.downloads.revoke(&target, &known);
            log::info!("revoked: {what}; running downloads that end: {count}");
            ended += count;
        }
        self.end_revoked();
        Ok((kept, ended))
    }

    /// Ends the downloads whose link was revoked and that are here; those at workers end there.
    fn end_revoked(&mut self) {
        for id in self.connections.ids() {
            let revoked = self.connections.look(id).is_some_and(|held| match &held.state {
                State::Parked(transfer) | State::Ready(transfer) => {
                    transfer.delivery.running.is_revoked()
                }
                State::Watched(watch) => watch.is_revoked(),
                _ => false,
            });
            if revoked {
                self.shed(id, &Broken::Revoked.to_string());
            }
        }
    }

    /// Answers with the result of an order.
    fn confirm(&mut self, connection: Box<Connection>, head: &Head, kept: bool, ended: usize) {
        if head.route == Route::Control(Control::Deauthorize) {
            return self.answer(connection, head, 204, response::done);
        }
        let remembered = if kept { "journal" } else { "memory" };
        let text = format!("{{\"ended\":{ended},\"remembered\":\"{remembered}\"}}\n");
        self.report(connection, head, "application/json", &text);
    }

    fn report(&mut self, connection: Box<Connection>, head: &Head, media_type: &str, text: &str) {
        self.answer(connection, head, 200, |context| response::report(context, media_type, text));
    }

    fn answer(
        &mut self,
        connection: Box<Connection>,
        head: &Head,
        status: u16,
        make: impl FnOnce(&ResponseContext<'_>) -> Vec<u8>,
    ) {
        let id = self.parts.shared.next_id();
        let mut context = ResponseContext::of(Some(head), &id, &self.settings.config);
        context.cors = String::new();
        context.keep_alive = head.keep_alive && self.may_keep(&connection);
        let (answer, keep) = (make(&context), context.keep_alive);
        self.parts.shared.counters.answered(status);
        self.write_on(connection, answer, 0, keep);
    }

    /// Writes what the socket takes of `answer`, from `at` on.
    pub(super) fn write_on(
        &mut self,
        mut connection: Box<Connection>,
        answer: Vec<u8>,
        mut at: usize,
        keep: bool,
    ) {
        while at < answer.len() {
            match connection.socket.write(&answer[at..]) {
                Ok(count @ 1..) => at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let deadline = Some(Instant::now() + self.settings.config.timeouts.stall);
                    let state = State::Answering { answer, at, keep };
                    return self.hold(connection, state, deadline);
                }
                _ => return self.drop_connection(connection),
            }
        }
        self.answered(connection, keep);
    }
}
