//! Downloads between two pieces, and after their last one: parked, ready, watched to their end.

use std::io;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::Acceptor;
use super::bandwidth::Rates;
use super::connections::{Held, MAKING_ROOM, State};
use super::queue;
use crate::config::Reuse;
use crate::delivery::record::Record;
use crate::delivery::running::Phase;
use crate::delivery::transfer::Transfer;
use crate::delivery::watch::{DeliveryWatch, Look, Sign, WatchRules};
use crate::logging::access::Outcome;
use crate::logging::throttle::Kind;
use crate::pool::exchange::Connection;
use crate::replay::EndedBy;

impl Acceptor {
    /// Parks a transfer until its socket has room.
    pub(super) fn park(&mut self, connection: Box<Connection>, mut transfer: Box<Transfer>) {
        let now = Instant::now();
        if self.failed {
            return self.break_off(connection, transfer, "server stopping");
        }
        if !transfer.was_parked {
            transfer.was_parked = true;
            self.make_room_for_transfer();
        }
        transfer.resume(now);
        transfer.delivery.running.enter(Phase::Parked);
        let deadline = Some(now + self.settings.pace.tick());
        self.hold(connection, State::Parked(transfer), deadline);
    }

    /// A verified link displaces a watched answer, or else the slowest download.
    fn make_room_for_transfer(&mut self) {
        if !self.is_committed() || self.settings.config.reuse == Reuse::Once {
            return;
        }
        let victim = self.connections.watched_victim().or_else(|| self.connections.slowest());
        if let Some(victim) = victim {
            self.parts.shared.throttle.warn(Kind::Connections, None, Instant::now(), || {
                "too many downloads; ending the slowest for a new one".to_owned()
            });
            self.shed(victim, MAKING_ROOM);
        }
    }

    /// Lets a transfer wait for a worker to send its next piece.
    pub(super) fn make_ready(&mut self, connection: Box<Connection>, mut transfer: Box<Transfer>) {
        if self.failed {
            return self.break_off(connection, transfer, "server stopping");
        }
        let id = connection.id;
        transfer.pause(Instant::now());
        let limited = Rates::of(&self.settings.config).any();
        transfer.delivery.running.enter(if limited { Phase::Limited } else { Phase::Sending });
        // Not armed: an event that comes now is still there when the socket is written to.
        self.connections.put(Held { connection, state: State::Ready(transfer) }, None);
        self.queue.push(self.connections.turn(id), queue::Kind::Piece, id);
        self.give_to_workers();
    }

    /// Judges a parked transfer's client.
    pub(super) fn judge(&mut self, mut connection: Box<Connection>, mut transfer: Box<Transfer>) {
        let now = Instant::now();
        match transfer.judge(&mut connection.socket, &self.settings.pace, now) {
            Ok(()) => {
                let deadline = Some(now + self.settings.pace.tick());
                self.hold(connection, State::Parked(transfer), deadline);
            }
            Err(broken) => self.break_off(connection, transfer, &broken.to_string()),
        }
    }

    /// Ends a transfer before its last byte.
    pub(super) fn break_off(
        &mut self,
        mut connection: Box<Connection>,
        transfer: Box<Transfer>,
        why: &str,
    ) {
        let socket = &mut connection.socket;
        let (sent, acknowledged) = (socket.sent(), socket.acknowledged().unwrap_or(0));
        let by = if socket.died() { EndedBy::Reset } else { EndedBy::Other };
        let outcome = Outcome::Interrupted(why.into());
        let now = self.parts.shared.clock.unix();
        let delivery = transfer.delivery;
        let record = delivery.end(sent, acknowledged, by, outcome, now);
        self.record(connection, record, None, Look::Reset);
    }

    /// Watches an answer, all of which is in the kernel's hands.
    pub(super) fn watch(&mut self, connection: Box<Connection>, transfer: Box<Transfer>) {
        let Transfer { delivery, keep_alive, early_input, .. } = *transfer;
        let keep_alive = keep_alive && self.draining.is_none();
        delivery.running.enter(Phase::Finishing);
        // What needs proof needs time, too.
        let later = delivery.needs_proof() && !early_input;
        let watch = Box::new(DeliveryWatch::new(delivery, keep_alive, early_input, Instant::now()));
        if later {
            let deadline = Some(watch.next_look());
            return self.hold(connection, State::Watched(watch), deadline);
        }
        self.look(connection, watch, Sign::None);
    }

    /// Something has come from the client of a watched answer, or there is room for what TLS holds.
    pub(super) fn watched_event(
        &mut self,
        mut connection: Box<Connection>,
        watch: Box<DeliveryWatch>,
        flags: EventFlags,
    ) {
        let mut sign = Sign::None;
        if watch.wants_input() && flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            sign = match connection.socket.read(&mut self.scratch) {
                Ok(0) => Sign::Fin,
                Ok(count) => {
                    connection.input.extend_from_slice(&self.scratch[..count]);
                    Sign::Input
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sign::None,
                Err(_) => {
                    connection.socket.set_dead();
                    Sign::None
                }
            };
        }
        self.look(connection, watch, sign);
    }

    /// Looks whether the delivery has ended, and goes on with the connection if so.
    pub(super) fn look(
        &mut self,
        mut connection: Box<Connection>,
        mut watch: Box<DeliveryWatch>,
        sign: Sign,
    ) {
        let rules = self.watch_rules();
        let look = watch.look(&mut connection.socket, sign, &rules, Instant::now());
        match watch.take_record() {
            Some(record) => self.record(connection, record, Some(watch), look),
            None => self.after_look(connection, Some(watch), look),
        }
    }

    /// Leaves `record` to the housekeeper; if that has too many, the connection waits with it.
    pub(super) fn record(
        &mut self,
        connection: Box<Connection>,
        record: Box<Record>,
        watch: Option<Box<DeliveryWatch>>,
        look: Look,
    ) {
        match self.parts.shared.record(record) {
            Ok(()) => self.after_look(connection, watch, look),
            Err(record) => {
                self.unrecorded.push(connection.id);
                let state = State::Recording(record, watch, look);
                self.connections.put(Held { connection, state }, None);
            }
        }
    }

    fn after_look(
        &mut self,
        mut connection: Box<Connection>,
        watch: Option<Box<DeliveryWatch>>,
        look: Look,
    ) {
        match (look, watch) {
            (Look::Pending | Look::HangUp, Some(watch)) => {
                if look == Look::HangUp {
                    connection.socket.finish_writing();
                }
                let deadline = Some(watch.next_look());
                self.hold(connection, State::Watched(watch), deadline);
            }
            (Look::NextRequest, _) => self.answered(connection, true),
            (Look::Linger, _) => self.answered(connection, false),
            (Look::Close, _) => self.drop_connection(connection),
            _ => {
                connection.socket.reset_at_close();
                self.drop_connection(connection);
            }
        }
    }

    /// Ends a watched delivery, because its connection has to go.
    pub(super) fn cut_watched(
        &mut self,
        mut connection: Box<Connection>,
        mut watch: Box<DeliveryWatch>,
        why: &str,
    ) {
        let rules = self.watch_rules();
        let look = if watch.is_whole() { Look::Close } else { Look::Reset };
        watch.cut(&mut connection.socket, why, &rules);
        match watch.take_record() {
            Some(record) => self.record(connection, record, Some(watch), look),
            None => self.after_look(connection, Some(watch), look),
        }
    }

    fn watch_rules(&self) -> WatchRules {
        WatchRules {
            pace: self.settings.pace,
            idle: self.settings.config.timeouts.idle,
            now: self.parts.shared.clock.unix(),
        }
    }
}
