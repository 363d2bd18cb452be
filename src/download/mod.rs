//! One download from its claim to its end.
//!
//! A [`Download`] is sent in pieces (`Download::step`) by whichever worker is free. Between two
//! of them it is parked in the acceptor, where it costs its descriptors and about a kilobyte: bytes
//! that were read and not sent are not kept. Once its last byte is in the kernel's hands the
//! acceptor looks until the client has everything ([`Download::look`]), and however it ends, it
//! ends in [`Download::end`].

pub mod answer;
pub mod content;
pub mod end;
pub mod finish;
pub mod job;
mod lend;
pub mod pace;
mod source;
pub mod step;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use content::Content;
use end::{Broken, How};
use finish::Finish;
use job::{Connection, Crew, Done, Job, Next, Step, Task};
use pace::{Pace, PaceWatch};
use step::Way;

use crate::net::socket::Socket;
use crate::replay::Stream;
use crate::replay::live::Live;
use crate::shared::{Record, Shared};

/// A download that is under way.
#[derive(Debug)]
pub struct Download {
    /// The part of it that everyone sees.
    pub live: Arc<Live>,
    /// The link's stream; `None` if the link is not one-time.
    stream: Option<Stream>,
    /// True if no proxy stands between this connection and the client.
    direct: bool,
    /// True if the connection may carry another request afterwards.
    keep_alive: bool,
    /// The response head; empty once it is sent.
    head: Vec<u8>,
    content: Content,
    /// The value of [`Socket::sent`] at the first content byte.
    content_start: u64,
    pace: PaceWatch,
    /// True once the client was slower than the server: no worker waits for it any more.
    slow: bool,
    finish: Finish,
}

impl Download {
    /// A download of `content` behind `head`, nothing of which has been sent on `socket`.
    fn new(live: Arc<Live>, stream: Option<Stream>, answer: Answer, socket: &Socket) -> Download {
        let Answer { head, content, direct, keep_alive } = answer;
        Download {
            stream,
            direct,
            keep_alive,
            content_start: socket.sent() + head.len() as u64,
            head,
            content,
            pace: PaceWatch::new(live.began),
            slow: false,
            finish: Finish::new(),
            live,
        }
    }

    /// How many content bytes are among the first `bytes` of the connection.
    fn content_of(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.content_start).min(self.live.length())
    }

    /// The end of the answer, in bytes of the connection.
    fn end_of_answer(&self) -> u64 {
        self.content_start + self.live.length()
    }

    /// What of the file is left after the first `sent` bytes of the connection.
    fn rest(&self, sent: u64) -> Range<u64> {
        self.live.span.start + self.content_of(sent)..self.live.span.end
    }

    /// Returns true if acknowledgements alone do not tell that the client has its bytes: on a direct
    /// connection they may lie unread. To a proxy they say all that can be known, and without a
    /// link nobody asks.
    fn needs_proof(&self) -> bool {
        self.direct && self.stream.is_some()
    }

    /// Tells everyone how far it has come. Returns how many bytes of the connection the client has
    /// acknowledged.
    fn note_progress(&self, socket: &mut Socket, now: Instant) -> u64 {
        self.live.note_sent(self.content_of(socket.sent()));
        let acknowledged = socket.acknowledged().unwrap_or(0);
        self.live.note_acknowledged(self.content_of(acknowledged), now);
        acknowledged
    }

    /// Judges the client at `now`, while the download waits for it.
    ///
    /// # Errors
    /// Why the download has to end.
    pub fn judge(&mut self, socket: &mut Socket, pace: &Pace, now: Instant) -> Result<(), Broken> {
        if let Some(stop) = self.live.stopped() {
            return Err(Broken::Stopped(stop));
        }
        self.note_progress(socket, now);
        self.pace.judge(pace, &self.live, now)
    }

    /// The server makes the client wait from `now` on.
    pub fn pause(&self, now: Instant) {
        self.live.pause(now);
    }

    /// The server waits for the client from `now` on. Returns true the first time.
    pub fn wait_for_client(&mut self, now: Instant) -> bool {
        self.pace.leave_out(self.live.resume(now));
        !std::mem::replace(&mut self.slow, true)
    }

    /// The connection will carry no further request.
    pub fn close_after(&mut self) {
        self.keep_alive = false;
    }
}

/// What an answer with content is made of.
struct Answer {
    head: Vec<u8>,
    content: Content,
    direct: bool,
    keep_alive: bool,
}

/// Does what a job asks for.
pub fn serve(shared: &Shared, crew: &Crew, job: Job) -> Done {
    let Job { mut connection, task } = job;
    let mut bandwidth = (0, 0);
    let next = match task {
        Task::Answer(request) => answer::answer(shared, crew, &mut connection, request),
        Task::Walk(walk) => answer::walk_on(shared, crew, &mut connection, walk),
        Task::Step(mut download, bytes) => {
            let before = connection.socket.wire_sent();
            let (step, extra) =
                download.step(&mut way(&mut connection.socket, shared, crew), bytes);
            bandwidth = (bytes, connection.socket.wire_sent() - before + extra);
            after_step(shared, &mut connection, download, step)
        }
        Task::Handshake => Next::Handshake(connection.socket.handshake()),
    };
    Done { connection, next, bandwidth }
}

fn way<'a>(socket: &'a mut Socket, shared: &'a Shared, crew: &'a Crew) -> Way<'a> {
    Way { socket, downloads: &shared.downloads, crew }
}

/// Records a download that has ended. A worker may wait for the disk: it does so on the spot.
fn after_step(
    shared: &Shared,
    connection: &mut Connection,
    mut download: Box<Download>,
    step: Result<Step, Broken>,
) -> Next {
    match step {
        Ok(step) => {
            if step == Step::Sent {
                download.content.finish();
            }
            Next::Step(download, step)
        }
        Err(broken) => {
            let socket = &mut connection.socket;
            if matches!(broken, Broken::Stopped(_)) {
                socket.reset_at_close();
            }
            download.end(socket, How::Broken(broken), shared).write();
            Next::Abort
        }
    }
}
