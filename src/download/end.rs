//! How a download ends, and the record of that on its way to the journal and the access log.
//!
//! The acceptor must not wait for a disk or a log reader. It ends a stream in memory, where that
//! counts at once, and leaves the rest to the housekeeper.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::Download;
use crate::logging::access::{Bytes, Outcome};
use crate::net::socket::Socket;
use crate::replay::live::{Live, Stop};
use crate::replay::{EndedBy, Finished};
use crate::shared::{Record, Shared};

/// Why a stream ended before its last byte was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client is gone.
    Client(String),
    /// The client took everything and reset the connection: it may not have read it.
    ResetUnread,
    /// No byte was acknowledged for the `stall` timeout.
    Stalled,
    /// The client took less than `min_rate`.
    TooSlow,
    /// The file is shorter than it was when it was opened.
    FileShrank,
    /// The file could not be read.
    File(String),
    /// The link has paid for as many bytes as it may.
    Budget,
    /// Somebody else wanted it to end.
    Stopped(Stop),
    /// Its connection had to go, for this reason.
    Closed(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Client(error) if error.is_empty() => f.write_str("client gone"),
            Broken::Client(error) => write!(f, "client gone ({error})"),
            Broken::ResetUnread => f.write_str("client reset with unread data"),
            Broken::Stalled => f.write_str("stall: nothing acknowledged in time"),
            Broken::TooSlow => f.write_str("stall: slower than min_rate"),
            Broken::FileShrank => f.write_str("the file was truncated meanwhile"),
            Broken::File(error) => write!(f, "read: {error}"),
            Broken::Budget => f.write_str("the link has paid for three times the file"),
            Broken::Stopped(Stop::HandedOver) => {
                f.write_str("the link was taken over by another address")
            }
            Broken::Stopped(Stop::Displaced) => {
                f.write_str("another stream of the link took its place")
            }
            Broken::Stopped(Stop::TakenOver) => {
                f.write_str("the link was taken over by another front end")
            }
            Broken::Stopped(Stop::Revoked) => f.write_str("the link was revoked"),
            Broken::Closed(why) => f.write_str(why),
        }
    }
}

/// How a download ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Everything was acknowledged. By the client: it then ended the answer itself.
    Delivered(EndedBy),
    /// Something was not.
    Broken(Broken),
}

impl Download {
    /// Ends the download in memory at once. The record still has to be written.
    pub fn end(mut self: Box<Self>, socket: &mut Socket, how: How, shared: &Shared) -> Box<End> {
        if let How::Broken(_) = how {
            self.note_progress(socket, Instant::now());
        }
        self.content.finish();
        let by = match &how {
            How::Delivered(by) => *by,
            How::Broken(Broken::Client(_) | Broken::ResetUnread) => EndedBy::Reset,
            How::Broken(_) if socket.died() => EndedBy::Reset,
            How::Broken(_) => EndedBy::Other,
        };
        let now = shared.clock.unix();
        let finished = self.stream.map(|stream| stream.finish(by, now));
        let outcome = match how {
            How::Delivered(_) => Outcome::Delivered,
            How::Broken(broken) => Outcome::Interrupted(broken.to_string()),
        };
        let is_first = self.live.end();
        if is_first {
            shared.counters.ended(&outcome, self.live.entry.part);
        }
        Box::new(End { live: self.live, finished, outcome, is_first })
    }
}

/// A download that has ended in memory, and not yet in the journal and the log.
#[derive(Debug)]
#[must_use = "neither the journal nor the log knows of it yet"]
pub struct End {
    live: Arc<Live>,
    finished: Option<Finished>,
    outcome: Outcome,
    /// False if the server has stopped and recorded it before the worker that held it was done.
    is_first: bool,
}

impl End {
    /// The end of `live`, which a worker still holds when the server stops; `None` if it has ended.
    pub fn of_abandoned(live: Arc<Live>, shared: &Shared) -> Option<Box<End>> {
        if !live.end() {
            return None;
        }
        let finished = Some(shared.replay.cut(&live, shared.clock.unix()));
        let outcome = Outcome::Interrupted("server stopping".into());
        shared.counters.ended(&outcome, live.entry.part);
        Some(Box::new(End { live, finished, outcome, is_first: true }))
    }

    fn log(&self, link: Option<(u64, u64)>) {
        if self.is_first {
            let sent = self.live.acknowledged();
            let bytes = Bytes { sent, content: self.live.length(), link };
            self.live.entry.log(&bytes, &self.outcome);
        }
    }
}

impl Record for End {
    /// What the log calls delivered, the journal knows.
    fn write(mut self: Box<Self>) {
        let link = self.finished.take().and_then(Finished::record);
        self.log(link.map(|progress| (progress.delivered, progress.length)));
    }

    fn write_log(mut self: Box<Self>) -> Option<Finished> {
        self.log(None);
        self.finished.take()
    }
}
