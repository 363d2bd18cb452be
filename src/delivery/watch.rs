//! Watching a delivery to its end without holding a worker.
//!
//! Handing the last byte to the kernel is not delivering it. The acceptor looks at what the client's
//! TCP has acknowledged, ever less often, until all of it is. Then it waits for the client's own
//! end: its FIN, its next request, or silence. Winglet never hangs up first: a client that reads
//! exactly `Content-Length` bytes and closes would answer an unread `close_notify` with a reset.

use std::time::{Duration, Instant};

use super::pace::{Pace, PaceWatch};
use super::record::{Delivery, Record};
use crate::logging::access::Outcome;
use crate::net::socket::Socket;
use crate::replay::EndedBy;

/// The first look comes this soon…
const FIRST_LOOK: Duration = Duration::from_millis(4);
/// …and later ones at most this far apart.
const MAX_LOOK: Duration = Duration::from_millis(250);
/// Silence after the last acknowledgement before our own FIN.
const HANG_UP_AFTER: Duration = Duration::from_secs(1);

/// A delivery whose last byte is in the kernel's hands.
#[derive(Debug)]
pub struct DeliveryWatch {
    /// `None` once it is recorded, while the connection is still to be closed.
    delivery: Option<Delivery>,
    record: Option<Box<Record>>,
    pace: PaceWatch,
    pause: Duration,
    next: Instant,
    /// The end of the answer, in bytes of the connection.
    end: u64,
    /// Everything was acknowledged by then.
    whole_since: Option<Instant>,
    /// The connection may carry another request.
    keep_alive: bool,
    /// What the client sent on its own so far.
    client: FromClient,
    hung_up: bool,
}

/// What has come from the client since its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FromClient {
    Nothing,
    /// It had sent this before it had acknowledged everything: that proves nothing.
    Early,
    /// It has sent its FIN before that; whether it reads everything is not known yet.
    EarlyFin,
}

/// What the client has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing: it is only time to look.
    None,
    /// It has sent bytes: the beginning of a request.
    Input,
    /// It has sent FIN.
    Fin,
}

/// What is to become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Watch on, until [`DeliveryWatch::next_look`].
    Pending,
    /// Send our FIN, and watch on.
    HangUp,
    /// Everything arrived: the connection may carry the next request.
    NextRequest,
    /// Everything arrived: send our FIN, and throw away what the client still sends.
    Linger,
    /// The client has closed its side, or stayed silent.
    Close,
    /// The client gave up or was given up.
    Reset,
}

impl DeliveryWatch {
    /// Watches `delivery`, all of which was handed to the kernel by `now`. `early_input`: the client
    /// had sent more before that.
    pub fn new(
        delivery: Delivery,
        keep_alive: bool,
        early_input: bool,
        now: Instant,
    ) -> DeliveryWatch {
        let (start, end) = (delivery.content_start, delivery.content_start + delivery.content);
        DeliveryWatch {
            delivery: Some(delivery),
            record: None,
            pace: PaceWatch::new(now, start),
            pause: FIRST_LOOK,
            next: now + FIRST_LOOK,
            end,
            whole_since: None,
            keep_alive,
            client: if early_input { FromClient::Early } else { FromClient::Nothing },
            hung_up: false,
        }
    }

    /// When to look again.
    pub fn next_look(&self) -> Instant {
        self.next
    }

    /// Whether its link was revoked and it has not ended.
    pub fn is_revoked(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| delivery.running.is_revoked())
    }

    /// Whether everything was acknowledged.
    pub fn is_whole(&self) -> bool {
        self.whole_since.is_some()
    }

    /// Whether to wait for more from the client: what it sent early stays in the kernel for now.
    pub fn wants_input(&self) -> bool {
        self.client == FromClient::Nothing
    }

    /// Whether both sides have sent their FIN: nothing but a reset can come, and the kernel would
    /// report the hang-up for ever.
    pub fn is_shut(&self) -> bool {
        self.hung_up && self.client == FromClient::EarlyFin
    }

    /// The connection will carry no further request.
    pub fn close_after(&mut self) {
        self.keep_alive = false;
    }

    /// What is to be recorded, once the delivery has ended.
    pub fn take_record(&mut self) -> Option<Box<Record>> {
        self.record.take()
    }

    /// Looks at what has been acknowledged on `socket`.
    pub fn look(
        &mut self,
        socket: &mut Socket,
        sign: Sign,
        rules: &WatchRules,
        now: Instant,
    ) -> Look {
        let acknowledged = socket.acknowledged().unwrap_or(0);
        if acknowledged >= self.end {
            self.whole_since.get_or_insert(now);
            // Of a proxy that has everything, nothing more is to be learned: it resets, too, when
            // its own client has read all and gone.
            if !self.delivery.as_ref().is_some_and(Delivery::needs_proof) {
                self.delivered(EndedBy::Other, rules);
            }
        }
        self.note_progress(socket, acknowledged);
        // Who has just sent something has not died.
        if sign == Sign::None && socket.died() {
            let whole = self.whole_since.is_some();
            let why = if whole { "client reset with unread data" } else { "client gone" };
            self.interrupted(socket, acknowledged, EndedBy::Reset, why, rules);
            return Look::Reset;
        }
        if let Some(since) = self.whole_since {
            return self.look_at_end(sign, since, rules, now);
        }
        self.note(sign);
        if let Err(broken) = self.pace.judge(&rules.pace, now, acknowledged) {
            let why = broken.to_string();
            self.interrupted(socket, acknowledged, EndedBy::Other, &why, rules);
            return Look::Reset;
        }
        self.pause = (self.pause * 2).min(MAX_LOOK);
        self.next = now + self.pause;
        Look::Pending
    }

    fn look_at_end(
        &mut self,
        sign: Sign,
        since: Instant,
        rules: &WatchRules,
        now: Instant,
    ) -> Look {
        let look = match (sign, self.client) {
            (Sign::Fin, FromClient::Nothing) => Look::Close,
            (Sign::Input, FromClient::Nothing) if self.keep_alive => Look::NextRequest,
            (Sign::Input, FromClient::Nothing) => Look::Linger,
            (_, FromClient::Early) => {
                self.delivered(EndedBy::Other, rules);
                return if self.keep_alive { Look::NextRequest } else { Look::Linger };
            }
            _ => return self.look_at_silence(since, rules, now),
        };
        self.delivered(EndedBy::Client, rules);
        look
    }

    /// Everything is acknowledged, and the client has said nothing since.
    fn look_at_silence(&mut self, since: Instant, rules: &WatchRules, now: Instant) -> Look {
        let silent = now.saturating_duration_since(since);
        if silent >= rules.idle {
            self.delivered(EndedBy::Client, rules);
            return Look::Close;
        }
        // Nothing is left to learn, and the next request has its own deadline.
        if self.delivery.is_none() && self.keep_alive && self.client == FromClient::Nothing {
            return Look::NextRequest;
        }
        let hang_up_after = HANG_UP_AFTER.min(rules.idle);
        if self.keep_alive || self.hung_up {
            self.next = since + rules.idle;
        } else if silent < hang_up_after {
            self.next = since + hang_up_after;
        } else {
            self.hung_up = true;
            self.next = since + rules.idle;
            return Look::HangUp;
        }
        Look::Pending
    }

    fn note(&mut self, sign: Sign) {
        match sign {
            Sign::None => {}
            Sign::Input => self.client = FromClient::Early,
            Sign::Fin => self.client = FromClient::EarlyFin,
        }
    }

    /// Ends the delivery whatever it is at, because its connection has to go.
    pub fn cut(&mut self, socket: &mut Socket, why: &str, rules: &WatchRules) {
        if self.is_whole() {
            return self.delivered(EndedBy::Other, rules);
        }
        let acknowledged = socket.acknowledged().unwrap_or(0);
        self.interrupted(socket, acknowledged, EndedBy::Other, why, rules);
    }

    fn delivered(&mut self, by: EndedBy, rules: &WatchRules) {
        if let Some(delivery) = self.delivery.take() {
            let end = self.end;
            self.record = Some(delivery.end(end, end, by, Outcome::Delivered, rules.now));
        }
    }

    fn interrupted(
        &mut self,
        socket: &Socket,
        acknowledged: u64,
        by: EndedBy,
        why: &str,
        rules: &WatchRules,
    ) {
        if let Some(delivery) = self.delivery.take() {
            let outcome = Outcome::Interrupted(why.into());
            self.record = Some(delivery.end(socket.sent(), acknowledged, by, outcome, rules.now));
        }
    }

    fn note_progress(&self, socket: &Socket, acknowledged: u64) {
        if let Some(delivery) = &self.delivery {
            delivery.note_progress(socket.sent(), acknowledged);
        }
    }
}

/// What deliveries are judged by.
#[derive(Clone, Copy, Debug)]
pub struct WatchRules {
    /// How slow the client may be.
    pub pace: Pace,
    /// Silence after which everything counts as read.
    pub idle: Duration,
    /// Seconds since the epoch.
    pub now: u64,
}
