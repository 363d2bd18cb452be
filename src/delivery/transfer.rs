//! A download that is under way: what is left to send, and what is known of the client's pace.
//!
//! A transfer is sent in pieces. Between two of them it is parked in the acceptor, where it costs
//! its descriptors and about a kilobyte: bytes that were read and not sent are not kept.

use std::ops::Range;
use std::time::Instant;

use super::content::Content;
use super::pace::{Broken, Pace, PaceWatch};
use super::record::Delivery;
use crate::net::socket::Socket;
use crate::replay::live::Stop;

/// A download between its first byte and its last.
#[derive(Debug)]
pub struct Transfer {
    /// Who gets it, and what is to be recorded of it.
    pub delivery: Delivery,
    /// The response head; empty once it is sent.
    head: Vec<u8>,
    content: Content,
    span: Range<u64>,
    /// The connection may carry another request afterwards.
    pub keep_alive: bool,
    /// It has been parked before, and so has a client slower than the server.
    pub was_parked: bool,
    /// The client had sent more before the last byte was handed to the kernel.
    pub early_input: bool,
    /// Content bytes that the next piece may have.
    pub allowance: u64,
    /// The same, reserved for when its turn in the bandwidth comes.
    pub reserved: Option<u64>,
    /// [`Socket::wire_sent`] when that was said.
    pub allowed_at: u64,
    pace: PaceWatch,
}

/// How a piece ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Everything is in the kernel's hands.
    Sent,
    /// The socket is full.
    Full,
    /// It has had its turn.
    TurnOver,
}

/// What is to be sent next.
#[derive(Debug)]
pub struct Rest<'a> {
    /// What is left of the response head.
    pub head: &'a [u8],
    /// Where the content comes from.
    pub content: &'a mut Content,
    /// What of the file is left.
    pub span: Range<u64>,
}

impl Rest<'_> {
    /// Bytes left, head and content.
    pub fn length(&self) -> u64 {
        (self.span.end - self.span.start).saturating_add(self.head.len() as u64)
    }
}

impl Transfer {
    /// A transfer of `head` and then `span` of `content`, nothing of which has been sent.
    pub fn new(
        delivery: Delivery,
        head: Vec<u8>,
        content: Content,
        span: Range<u64>,
        keep_alive: bool,
    ) -> Transfer {
        let pace = PaceWatch::new(Instant::now(), delivery.content_start);
        Transfer {
            delivery,
            head,
            content,
            span,
            keep_alive,
            was_parked: false,
            early_input: false,
            allowance: u64::MAX,
            reserved: None,
            allowed_at: 0,
            pace,
        }
    }

    /// What is left after the first `sent` bytes of the connection.
    pub fn rest(&mut self, sent: u64) -> Rest<'_> {
        let start = self.delivery.content_start;
        let head_left = usize::try_from(start.saturating_sub(sent)).unwrap_or(usize::MAX);
        if head_left == 0 {
            self.head = Vec::new();
        }
        let head = &self.head[self.head.len() - head_left.min(self.head.len())..];
        let done = sent.saturating_sub(start);
        Rest { head, content: &mut self.content, span: self.span.start + done..self.span.end }
    }

    /// A piece has ended. Returns the bytes that were read for it and are not part of it.
    pub fn rest_content(&mut self) -> u64 {
        self.content.rest()
    }

    /// Nothing more is sent than the first `sent` bytes of the connection.
    pub fn finish(&mut self, sent: u64) {
        let done = sent.saturating_sub(self.delivery.content_start);
        self.content.finish(self.span.start + done);
    }

    /// Judges the client while the transfer waits for it.
    ///
    /// # Errors
    /// Why the transfer has to end.
    pub fn judge(&mut self, socket: &mut Socket, pace: &Pace, now: Instant) -> Result<(), Broken> {
        if self.delivery.live.stopped().is_some_and(|stop| stop != Stop::Revoked) {
            return Err(Broken::LinkGone);
        }
        let acknowledged = socket.acknowledged().unwrap_or(0);
        self.delivery.note_progress(socket.sent(), acknowledged);
        self.pace.judge(pace, now, acknowledged)
    }

    /// Bytes per second that the client has acknowledged so far.
    pub fn rate(&self) -> u64 {
        self.pace.rate()
    }

    /// The server makes the client wait from here on.
    pub fn pause(&mut self, now: Instant) {
        self.pace.pause(now);
        self.delivery.live.pause(now);
    }

    /// The server waits for the client from here on.
    pub fn resume(&mut self, now: Instant) {
        self.pace.resume(now);
        self.delivery.live.resume(now);
    }
}
