//! Downloads that no worker holds: parked until the client takes more, and after their last byte
//! until the client has everything.

use std::io;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::state::{MAKING_ROOM, State};
use super::{Acceptor, INPUT};
use crate::config::Reuse;
use crate::download::Download;
use crate::download::end::How;
use crate::download::finish::{After, FinishRules, Look, Sign};
use crate::download::job::Connection;
use crate::download::pace::Pace;
use crate::logging::throttle::Kind;
use crate::replay::live::Phase;
use crate::shared::Record;

impl Acceptor {
    /// Parks a download until its socket has room.
    pub(super) fn park(&mut self, mut connection: Box<Connection>, mut download: Box<Download>) {
        let now = Instant::now();
        if self.failed {
            return self.cut(connection, download, "server stopping");
        }
        if download.wait_for_client(now) {
            connection.socket.bound_unsent(false);
            self.make_room_for_transfer(now);
        }
        download.live.enter(Phase::Parked);
        let deadline = Some(now + Pace::of(&self.settings.config).tick());
        self.hold(connection, State::Parked(download), deadline);
    }

    /// A verified link displaces an answer that is nearly delivered, or else the slowest download.
    fn make_room_for_transfer(&mut self, now: Instant) {
        if !self.is_committed() || self.settings.config.reuse == Reuse::Once {
            return;
        }
        let victim = self.connections.finishing_victim().or_else(|| self.connections.slowest(now));
        if let Some(victim) = victim {
            self.parts.shared.throttle.warn(Kind::Connections, None, now, || {
                "too many downloads; ending the slowest for a new one".to_owned()
            });
            self.shed(victim, MAKING_ROOM);
        }
    }

    /// Judges a parked download's client.
    pub(super) fn judge(&mut self, mut connection: Box<Connection>, mut download: Box<Download>) {
        let now = Instant::now();
        match download.judge(&mut connection.socket, &Pace::of(&self.settings.config), now) {
            Ok(()) => {
                let deadline = Some(now + Pace::of(&self.settings.config).tick());
                self.hold(connection, State::Parked(download), deadline);
            }
            Err(broken) => self.end(connection, download, How::Broken(broken), After::Reset),
        }
    }

    /// Looks after a download whose last byte is in the kernel's hands.
    pub(super) fn finish(&mut self, connection: Box<Connection>, mut download: Box<Download>) {
        let now = Instant::now();
        if self.draining.is_some() {
            download.close_after();
        }
        download.wait_for_client(now);
        download.live.enter(Phase::Finishing);
        match download.first_look(now) {
            Some(when) => self.hold(connection, State::Finishing(download), Some(when)),
            None => self.look(connection, download, Sign::None),
        }
    }

    /// Something has come from the client of a finished download, or there is room for what TLS
    /// holds.
    pub(super) fn finishing_event(
        &mut self,
        mut connection: Box<Connection>,
        download: Box<Download>,
        events: EventFlags,
    ) {
        let reads = download.wants_input() && events.intersects(INPUT);
        let sign = if reads { self.read_sign(&mut connection) } else { Sign::None };
        self.look(connection, download, sign);
    }

    /// Reads what the client of a finished download has sent.
    fn read_sign(&mut self, connection: &mut Connection) -> Sign {
        let (id, socket) = (connection.id, &mut connection.socket);
        let sign = match socket.read(&mut self.scratch) {
            // The end of TLS only: its FIN or a reset is still to come.
            Ok(0) if socket.is_tls() && !socket.has_hung_up() => Sign::Farewell,
            Ok(0) => {
                // Whatever follows the answer has to know.
                self.connections.remember(id, EventFlags::RDHUP);
                Sign::Fin
            }
            Ok(count) => {
                connection.input.extend_from_slice(&self.scratch[..count]);
                Sign::Input
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sign::None,
            Err(_) => {
                socket.set_dead();
                Sign::None
            }
        };
        if socket.may_have_more() {
            // The epoll set does not say it again.
            self.connections.remember(id, EventFlags::IN);
        }
        sign
    }

    /// Looks whether a finished download has ended, and goes on with the connection if so.
    pub(super) fn look(
        &mut self,
        mut connection: Box<Connection>,
        mut download: Box<Download>,
        sign: Sign,
    ) {
        let rules = FinishRules {
            pace: Pace::of(&self.settings.config),
            idle: self.settings.config.timeouts.idle,
        };
        match download.look(&mut connection.socket, sign, &rules, Instant::now()) {
            Look::Pending(next) => {
                self.hold(connection, State::Finishing(download), Some(next));
            }
            Look::HangUp(next) => {
                connection.socket.finish_writing();
                download.note_hung_up();
                self.hold(connection, State::Finishing(download), Some(next));
            }
            Look::Ended(how, after) => self.end(connection, download, how, after),
        }
    }

    /// Ends a download because its connection has to go.
    pub(super) fn cut(
        &mut self,
        connection: Box<Connection>,
        download: Box<Download>,
        why: &'static str,
    ) {
        let after = if download.is_whole() { After::Close } else { After::Reset };
        let how = download.how_if_closed(why);
        self.end(connection, download, how, after);
    }

    /// Ends a download, and goes on with its connection as `after` says.
    pub(super) fn end(
        &mut self,
        mut connection: Box<Connection>,
        download: Box<Download>,
        how: How,
        after: After,
    ) {
        let record = download.end(&mut connection.socket, how, &self.parts.shared);
        self.record(record);
        match after {
            After::NextRequest => self.answered(connection, true),
            After::HangUpSoon => self.close_soon(connection),
            After::Linger => self.answered(connection, false),
            After::Close => self.drop_connection(connection),
            After::Reset => {
                connection.socket.reset_at_close();
                self.drop_connection(connection);
            }
        }
    }

    /// Leaves `record` to the housekeeper.
    fn record(&mut self, record: Box<dyn Record>) {
        if self.backlog.is_empty() {
            self.backlog.extend(self.parts.shared.record(record).err());
        } else {
            // In their order: of two records of one link, the later one holds.
            self.backlog.push_back(record);
        }
    }

    /// Passes on records that the housekeeper had no room for.
    pub(super) fn pass_on_backlog(&mut self) {
        while let Some(record) = self.backlog.pop_front() {
            if let Err(record) = self.parts.shared.record(record) {
                return self.backlog.push_front(record);
            }
        }
    }
}
