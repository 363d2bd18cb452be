//! Sends a file without copying it: its pages are lent to the socket through a pipe.

use std::io;
use std::time::Instant;

use super::Download;
use super::end::Broken;
use super::job::Step;
use super::source::Turn;
use super::step::{Ledger, Way};
use crate::disk::file::DROP;
use crate::disk::pipe::{CAPACITY, Pipe};

impl Download {
    /// Returns true if pages are worth lending from the `sent` bytes of the connection on.
    pub(super) fn lends_now(&mut self, sent: u64) -> bool {
        let rest = self.rest(sent);
        sent >= self.content_start && self.content.lendable(&rest).is_some()
    }

    /// Lends pages until the socket is full or the turn is over. `None`: what comes next is copied.
    pub(super) fn lend(
        &mut self,
        way: &mut Way<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Step>, Broken> {
        let Some(mut pipe) = Pipe::take() else { return Ok(None) };
        if !self.slow {
            way.socket.bound_unsent(true);
        }
        let mut noted = way.socket.sent();
        loop {
            let wanted = turn.take(CAPACITY);
            if wanted == 0 {
                break;
            }
            let (sent, rest) = (way.socket.sent(), self.rest(way.socket.sent()));
            let (content, mut ledger) = self.split();
            let Some((file, position)) = content.lendable(&rest) else { break };
            let wanted = ledger.allowed(sent, wanted)?;
            match file.lend(&mut pipe, position, wanted) {
                // Reading tells what has happened to a file that is at its end.
                Ok(None | Some(0)) => break,
                Ok(Some(_)) => {}
                Err(error) => return Err(Broken::File(error.to_string())),
            }
            if let Some(step) = empty(&mut pipe, way, turn, &ledger)? {
                pipe.put_back();
                return Ok(Some(step));
            }
            if way.socket.sent() - noted >= DROP {
                noted = way.socket.sent();
                self.note_progress(way.socket, Instant::now());
                self.drop_behind(way.socket.sent());
            }
        }
        pipe.put_back();
        Ok(None)
    }

    /// Drops from the page cache what the client has acknowledged, of `sent` bytes of the connection.
    pub(super) fn drop_behind(&mut self, sent: u64) {
        let start = self.live.span.start;
        let (acknowledged, position) = (start + self.live.acknowledged(), self.rest(sent).start);
        self.content.drop_behind(acknowledged, position);
    }
}

/// Hands what is in `pipe` to the socket. Returns how the piece ended if not all of it went.
fn empty(
    pipe: &mut Pipe,
    way: &mut Way<'_>,
    turn: &mut Turn<'_>,
    ledger: &Ledger<'_>,
) -> Result<Option<Step>, Broken> {
    while pipe.held() > 0 {
        let Some(stream) = way.socket.tcp_stream() else { return Ok(None) };
        let (went, result) = pipe.empty(stream);
        way.socket.note_written(went as u64);
        turn.note(went);
        ledger.note_written(way, went as u64);
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !ledger.waits(way) {
                    return Ok(Some(Step::Full));
                }
            }
            Err(error) => return Err(Broken::Client(error.kind().to_string())),
        }
    }
    Ok(None)
}
