//! To the workers and back: hands ready work to free workers through tiny_http, and parks, queues or
//! finishes what comes back.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::bandwidth::{Rates, Turn};
use super::connections::{Held, State};
use super::{Acceptor, TAG_PRIVATE};
use crate::delivery::pace::Broken;
use crate::delivery::running::Phase;
use crate::delivery::transfer::{Piece, Transfer};
use crate::pool::exchange::{Connection, Exchange, Next, Returned, Task};
use crate::pool::source::PULLERS;

impl Acceptor {
    /// Gives what is ready to free workers: a batch is one write.
    pub(super) fn hand_over(&mut self) {
        self.give_to_workers();
        self.widen();
        let waiting = self.queue.len();
        self.parts.shared.waiting.store(waiting, Ordering::Relaxed);
        if waiting > 0 {
            self.waiting_since.get_or_insert_with(Instant::now);
        } else if !self.queue.is_exhausted() {
            self.waiting_since = None;
        }
        #[cfg(feature = "tls")]
        self.give_handshakes();
        match self.parts.private.flush() {
            Ok(done) if done != self.private_full => {}
            Ok(done) => {
                self.private_full = !done;
                let flags = if done { EventFlags::empty() } else { EventFlags::OUT };
                let data = EventData::new_u64(TAG_PRIVATE);
                let _ = epoll::modify(&self.epoll, &self.parts.private, data, flags);
            }
            Err(_) => self.private_ended(),
        }
    }

    /// Gives free workers what is ready, without flushing.
    pub(super) fn give_to_workers(&mut self) {
        let now = Instant::now();
        let rates = Rates::of(&self.settings.config);
        self.send_again = None;
        while !self.failed {
            // Answers are free, content waits for its turn in the server's bandwidth.
            let wait = self.bandwidth.wait(&rates, now);
            let Some(id) = self.queue.pop(now, wait.is_none()) else {
                self.send_again = wait.filter(|_| self.queue.len() > 0).map(|wait| now + wait);
                return;
            };
            let Some(held) = self.connections.take(id) else {
                self.queue.worker_is_free(id);
                continue;
            };
            let Some((connection, task)) = self.task(held, &rates, now) else {
                self.queue.worker_is_free(id);
                continue;
            };
            self.exchanges += 1;
            let returns = self.parts.shared.returns.clone();
            let exchange = Exchange::new(self.exchanges, connection, task, returns);
            self.parts.shared.handed.put(exchange);
            self.parts.private.push(self.exchanges);
        }
    }

    /// What a worker has to do for a connection; `None` if that has to wait for its bandwidth.
    fn task(&mut self, held: Held, rates: &Rates, now: Instant) -> Option<(Box<Connection>, Task)> {
        let Held { connection, state } = held;
        let mut transfer = match state {
            State::Queued { request, .. } => return Some((connection, Task::Answer(request))),
            State::Ready(transfer) => transfer,
            state => {
                self.put_back(Held { connection, state });
                return None;
            }
        };
        let (_, key) = self.connections.turn(connection.id);
        let (link, reserved) = (transfer.delivery.link, transfer.reserved.take());
        let Turn { bytes, wait } = self.bandwidth.take(rates, key, link, reserved, now);
        if !wait.is_zero() {
            transfer.reserved = Some(bytes);
            let state = State::Ready(transfer);
            self.connections.put(Held { connection, state }, Some(now + wait));
            return None;
        }
        transfer.allowance = bytes;
        transfer.delivery.running.enter(Phase::Sending);
        transfer.allowed_at = connection.socket.wire_sent();
        Some((connection, Task::Piece(transfer)))
    }

    /// Lets one more worker in for each that has been at something for a while: it may stand still
    /// at a disk.
    fn widen(&mut self) {
        let now = Instant::now();
        let pullers = *PULLERS + self.queue.long(now);
        self.widen_at = self.queue.next_long(pullers, now);
        if pullers != std::mem::replace(&mut self.pullers, pullers) {
            self.parts.pool.set_limit(pullers);
        }
    }

    /// Whether every worker has been at the same piece for as long as a request may wait: the disk
    /// stands still.
    pub(super) fn is_stuck(&self) -> bool {
        let patience = self.settings.config.timeouts.queue;
        self.queue.is_exhausted()
            && self.waiting_since.is_some_and(|since| since.elapsed() >= patience)
    }

    /// Takes back what a worker is done with.
    pub(super) fn handle_return(&mut self, returned: Returned) {
        let Returned { id, is_handshake, connection } = returned;
        #[cfg(feature = "tls")]
        if is_handshake {
            return self.handshake_returned(id, connection);
        }
        debug_assert!(!is_handshake);
        self.waiting_since = None;
        self.queue.worker_is_free(id);
        let Some((connection, next)) = connection else { return self.connections.forget(id) };
        match next {
            Next::Answered(keep_alive) => self.answered(connection, keep_alive),
            Next::Piece(transfer, piece) => {
                self.settle_piece(&connection, &transfer);
                if transfer.delivery.running.is_revoked() {
                    let why = Broken::Revoked.to_string();
                    return self.break_off(connection, transfer, &why);
                }
                match piece {
                    Piece::Sent => self.watch(connection, transfer),
                    Piece::Full => self.park(connection, transfer),
                    Piece::TurnOver => self.make_ready(connection, transfer),
                }
            }
            _ => self.drop_connection(connection),
        }
    }

    /// Refunds the part of a piece's allowance that was not sent.
    fn settle_piece(&mut self, connection: &Connection, transfer: &Transfer) {
        let rates = Rates::of(&self.settings.config);
        // The first piece, which is the head alone, was not paid for.
        if transfer.allowance > 0 && rates.any() {
            let (_, key) = self.connections.turn(connection.id);
            let sent = connection.socket.wire_sent().saturating_sub(transfer.allowed_at);
            let link = transfer.delivery.link;
            self.bandwidth.settle(&rates, key, link, (transfer.allowance, sent));
        }
    }
}
