//! What the acceptor answers itself, and how it closes a connection so that the answer arrives.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use super::Acceptor;
use super::connections::Phase;
use crate::http::cors;
use crate::http::head::{Field, Head, Method};
use crate::http::refusal::Refusal;
use crate::http::response::{self, ResponseContext};
use crate::logging::access::{Bytes, Entry, Outcome};

/// How long a client may take to hang up after its last answer.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes that are thrown away of what it still sends meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

impl Acceptor {
    /// Refuses a request on a connection that may go on.
    pub(super) fn refuse(&mut self, index: usize, head: Option<&Head>, refusal: &Refusal) {
        self.answer_refusal(index, head, refusal, head.is_some_and(|head| head.keep_alive));
    }

    /// Refuses a request after which nobody knows where the next one begins.
    pub(super) fn refuse_and_close(
        &mut self,
        index: usize,
        head: Option<&Head>,
        refusal: &Refusal,
    ) {
        self.answer_refusal(index, head, refusal, false);
    }

    fn answer_refusal(&mut self, index: usize, head: Option<&Head>, refusal: &Refusal, keep: bool) {
        let keep = keep && self.may_keep(index);
        let settings = self.settings.clone();
        let id = self.parts.shared.next_id();
        let cors = head.map(|head| cors::lines(head, &settings.config)).unwrap_or_default();
        let mut frame = ResponseContext::of(head, &id, settings.config.remote.as_deref());
        frame.keep_alive = keep;
        frame.cors = &cors;
        let answer = response::refusal(&frame, refusal);
        self.log_refusal(index, head, refusal, id.clone());
        self.write_answer(index, &answer, keep);
    }

    pub(super) fn answer_health(&mut self, index: usize, head: &Head) {
        let id = self.parts.shared.next_id();
        let mut frame = ResponseContext::of(Some(head), &id, None);
        frame.keep_alive = head.keep_alive && self.may_keep(index);
        let answer = response::health(&frame);
        let keep = frame.keep_alive;
        self.write_answer(index, &answer, keep);
    }

    pub(super) fn answer_options(&mut self, index: usize, head: &Head) {
        let id = self.parts.shared.next_id();
        let cors = cors::lines(head, &self.settings.config);
        let mut frame = ResponseContext::of(Some(head), &id, None);
        frame.keep_alive = head.keep_alive && self.may_keep(index);
        frame.cors = &cors;
        let answer = response::options(&frame);
        let keep = frame.keep_alive;
        self.write_answer(index, &answer, keep);
    }

    /// Tells a client that speaks plain HTTP to a TLS port, in plain HTTP.
    #[cfg(feature = "tls")]
    pub(super) fn refuse_plain(&mut self, index: usize) {
        let id = self.parts.shared.next_id();
        let refusal = Refusal::Malformed("this port speaks HTTPS: use https:// in the address");
        let answer = response::refusal(&ResponseContext::of(None, &id, None), &refusal);
        self.log_refusal(index, None, &refusal, id);
        if let Some(connection) = self.slots.get_mut(index).and_then(|s| s.connection.as_mut()) {
            connection.socket.write_raw(&answer);
        }
        self.linger(index);
    }

    fn may_keep(&self, index: usize) -> bool {
        let requests = self
            .slots
            .get(index)
            .and_then(|slot| slot.connection.as_ref())
            .map_or(0, |connection| connection.requests);
        self.draining.is_none() && requests + 1 < super::MAX_REQUESTS
    }

    /// Writes without waiting: a client that does not read its answers is closed.
    fn write_answer(&mut self, index: usize, answer: &[u8], keep: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(connection) = &mut slot.connection else { return };
        slot.phase = Phase::Head;
        if !connection.socket.write_at_once(answer) {
            self.close_with_reset(index);
        } else if keep {
            self.next_request(index);
        } else {
            self.linger(index);
        }
    }

    /// Closes in order: says that nothing more is coming, and reads on for a moment, because data
    /// that arrives at a closed socket makes a reset, which takes the answer from the client.
    pub(super) fn linger(&mut self, index: usize) {
        self.slots.stop_waiting(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(connection) = &mut slot.connection else { return };
        connection.input = Vec::new();
        connection.socket.finish_writing();
        slot.phase = Phase::Lingering { left: LINGER_BYTES };
        let watched = slot.watch.as_ref().is_some_and(|watch| watch.is_accounted());
        self.slots.set_expiry(index, Some(Instant::now() + LINGER));
        // A watched delivery may not be closed for a newcomer.
        if !watched {
            self.start_waiting(index);
        }
        // The client's FIN takes a moment: reading now would find nothing.
        self.arm(index);
    }

    /// Throws away what a lingering client sends.
    pub(super) fn discard_input(&mut self, index: usize) {
        loop {
            let Some(slot) = self.slots.get_mut(index) else { return };
            let Some(connection) = &mut slot.connection else { return };
            let Phase::Lingering { left } = &mut slot.phase else { return };
            match connection.socket.read(&mut self.scratch) {
                Ok(0) => match &mut slot.watch {
                    Some(watch) if !watch.has_fin() => {
                        watch.saw_fin();
                        return self.look_at_delivery(index, false);
                    }
                    // The look will end it.
                    Some(_) => return,
                    None => return self.close(index),
                },
                Ok(count) if count <= *left => *left -= count,
                Ok(_) if slot.watch.is_some() => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.arm(index),
                Ok(_) | Err(_) => return self.close(index),
            }
        }
    }

    fn log_refusal(&mut self, index: usize, head: Option<&Head>, refusal: &Refusal, id: String) {
        let now = Instant::now();
        if !self.noise.refused.allows(now) {
            return;
        }
        let client = self.slots.get(index).and_then(|slot| {
            let forwarded = head.and_then(|head| head.list(Field::XForwardedFor));
            slot.peer.client(forwarded.as_ref().map(Cow::as_ref), &self.settings.config)
        });
        let entry = Entry {
            client,
            method: head.map_or("-", |head| Method::name(head.method)),
            endpoint: "-",
            status: refusal.status(),
            resource: None,
            began: now,
            id,
        };
        entry.log(&Bytes::default(), &Outcome::Refused(refusal.cause()));
    }
}
