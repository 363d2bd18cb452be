//! Looks at a download whose last byte is in the kernel's hands until it has ended.
//!
//! Handing over the last byte is not delivering it. The acceptor looks at what the client's TCP has
//! acknowledged, ever less often, until all of it is. Then it waits for the client's own end: its
//! FIN or its next request. Winglet does not hang up first: a client that reads exactly
//! `Content-Length` bytes and closes would answer an unread `close_notify` with a reset.

use std::time::{Duration, Instant};

use super::Download;
use super::end::{Broken, How};
use super::pace::Pace;
use crate::net::socket::Socket;
use crate::replay::EndedBy;

/// The first look comes this soon…
const FIRST_LOOK: Duration = Duration::from_millis(4);
/// …and later ones at most this far apart.
const MAX_LOOK: Duration = Duration::from_millis(250);
/// Silence after the last acknowledgement before our own FIN.
pub const HANG_UP_AFTER: Duration = Duration::from_secs(1);
/// The same after the client's `close_notify`: a client that closes sends its FIN, or a reset if it
/// has not read everything, right after that.
const HANG_UP_AFTER_FAREWELL: Duration = Duration::from_millis(500);

/// What is known of the end of a download.
#[derive(Debug)]
pub(super) struct Finish {
    /// The time between two looks.
    pause: Duration,
    /// Everything was acknowledged by then.
    whole_since: Option<Instant>,
    /// What the client sent on its own so far.
    client: FromClient,
    hung_up: bool,
}

/// What has come from the client since its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FromClient {
    Nothing,
    /// It had sent something before it had acknowledged everything: that proves nothing.
    Early,
    /// It had sent its FIN before that; whether it reads everything is not known yet.
    EarlyFin,
    /// It has sent `close_notify` then, and no FIN yet.
    Farewell(Instant),
}

/// What the client has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing: it is only time to look.
    None,
    /// It has sent bytes: the beginning of a request.
    Input,
    /// It has sent `close_notify` (RFC 8446 §6.1), and no FIN so far: a reset may follow.
    Farewell,
    /// It has sent FIN.
    Fin,
}

/// What is to become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It may carry the next request.
    NextRequest,
    /// Our FIN, and what the client still sends is thrown away.
    Linger,
    /// The same, once the client had a moment to hang up first.
    HangUpSoon,
    /// The client has closed its side, or stayed silent.
    Close,
    /// The client gave up or was given up.
    Reset,
}

/// What a look has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Look again then.
    Pending(Instant),
    /// Send our FIN, and look again then.
    HangUp(Instant),
    /// The download has ended.
    Ended(How, After),
}

/// What finished downloads are judged by.
#[derive(Clone, Copy, Debug)]
pub struct FinishRules {
    /// How slow the client may be.
    pub pace: Pace,
    /// Silence after which nothing more is expected.
    pub idle: Duration,
}

impl Finish {
    pub(super) fn new() -> Finish {
        let client = FromClient::Nothing;
        Finish { pause: FIRST_LOOK / 2, whole_since: None, client, hung_up: false }
    }

    /// Notes that the client sent something before the last byte left.
    pub(super) fn note_early_input(&mut self) {
        self.client = FromClient::Early;
    }
}

impl Download {
    /// Returns true if everything was acknowledged.
    pub fn is_whole(&self) -> bool {
        self.finish.whole_since.is_some()
    }

    /// Returns true if more is expected from the client: what it sent early stays in the kernel for
    /// now.
    pub fn wants_input(&self) -> bool {
        matches!(self.finish.client, FromClient::Nothing | FromClient::Farewell(_))
    }

    /// When a download whose last byte has just left is worth the first look. What needs proof needs
    /// time, too.
    pub fn first_look(&self, now: Instant) -> Option<Instant> {
        (self.needs_proof() && self.wants_input()).then(|| now + FIRST_LOOK)
    }

    /// Looks at `now` at what has been acknowledged on `socket`.
    pub fn look(
        &mut self,
        socket: &mut Socket,
        sign: Sign,
        rules: &FinishRules,
        now: Instant,
    ) -> Look {
        let acknowledged = self.note_progress(socket, now);
        if sign == Sign::Farewell {
            self.close_after();
        }
        if let Some(stop) = self.live.stopped() {
            return Look::Ended(How::Broken(Broken::Stopped(stop)), After::Reset);
        }
        if acknowledged >= self.end_of_answer() {
            self.finish.whole_since.get_or_insert(now);
            // Once a proxy has everything, it can't tell us more: it resets, too, when its own client
            // has read all and gone.
            if !self.needs_proof() {
                let after = if self.keep_alive { After::NextRequest } else { After::HangUpSoon };
                return Look::Ended(How::Delivered(EndedBy::Other), after);
            }
        }
        // A client that has just sent something has not died; one that is closing may have: its reset
        // follows its FIN if it has not read everything.
        if sign != Sign::Input && socket.died() {
            let broken = match self.is_whole() {
                true => Broken::ResetUnread,
                false => Broken::Client(String::new()),
            };
            return Look::Ended(How::Broken(broken), After::Reset);
        }
        if let Some(since) = self.finish.whole_since {
            return self.look_at_end(sign, since, rules.idle, now);
        }
        match sign {
            Sign::None => {}
            Sign::Input => self.finish.client = FromClient::Early,
            Sign::Farewell | Sign::Fin => self.finish.client = FromClient::EarlyFin,
        }
        if let Err(broken) = self.pace.judge(&rules.pace, &self.live, now) {
            return Look::Ended(How::Broken(broken), After::Reset);
        }
        self.finish.pause = (self.finish.pause * 2).min(MAX_LOOK);
        Look::Pending(now + self.finish.pause)
    }

    /// Everything is acknowledged: what has the client done since?
    fn look_at_end(&mut self, sign: Sign, since: Instant, idle: Duration, now: Instant) -> Look {
        if (sign, self.finish.client) == (Sign::Farewell, FromClient::Nothing) {
            self.finish.client = FromClient::Farewell(now);
        }
        match (sign, self.finish.client) {
            (Sign::Fin, FromClient::Nothing | FromClient::Farewell(_)) => {
                Look::Ended(How::Delivered(EndedBy::Client), After::Close)
            }
            (Sign::Input, FromClient::Nothing) => self.delivered(EndedBy::Client),
            (_, FromClient::Early) => self.delivered(EndedBy::Other),
            _ => self.look_at_silence(since, idle, now),
        }
    }

    /// The client has done nothing since `since`.
    fn look_at_silence(&self, since: Instant, idle: Duration, now: Instant) -> Look {
        let silent = now.saturating_duration_since(since);
        if silent >= idle {
            return Look::Ended(How::Delivered(EndedBy::Other), After::Close);
        }
        let hang_up_at = match self.finish.client {
            FromClient::Farewell(at) => at + HANG_UP_AFTER_FAREWELL,
            _ => since + HANG_UP_AFTER.min(idle),
        };
        let may_ask_again = self.keep_alive && self.finish.client == FromClient::Nothing;
        if may_ask_again || self.finish.hung_up {
            Look::Pending(since + idle)
        } else if now < hang_up_at {
            Look::Pending(hang_up_at)
        } else {
            Look::HangUp(since + idle)
        }
    }

    /// Notes that our FIN was sent.
    pub fn note_hung_up(&mut self) {
        self.finish.hung_up = true;
    }

    /// Everything was acknowledged and nothing more is to be learned.
    fn delivered(&self, by: EndedBy) -> Look {
        let after = if self.keep_alive { After::NextRequest } else { After::Linger };
        Look::Ended(How::Delivered(by), after)
    }

    /// How a download ends whose connection has to go for the reason `why`.
    pub fn how_if_closed(&self, why: &'static str) -> How {
        match (self.is_whole(), self.live.stopped()) {
            (true, _) => How::Delivered(EndedBy::Other),
            (false, Some(stop)) => How::Broken(Broken::Stopped(stop)),
            (false, None) => How::Broken(Broken::Closed(why)),
        }
    }
}
