//! What becomes of a connection after its answer: its delivery is watched to the end, and the next
//! request waited for.

use std::time::Instant;

use super::Acceptor;
use super::connections::Phase;
use crate::delivery::watch::{DeliveryWatch, Look};
use crate::logging::access::Outcome;
use crate::net::address::ClientKey;
use crate::pool::exchange::{After, Returned};

impl Acceptor {
    pub(super) fn handle_return(&mut self, returned: Returned) {
        self.queue.worker_is_free(returned.number);
        let Some(index) = self.slots.find(returned.number) else { return };
        self.busy -= 1;
        let Some(slot) = self.slots.get_mut(index) else { return };
        self.queue.end(slot.stream_of.take());
        let Some((connection, after)) = returned.connection else {
            slot.phase = Phase::Head;
            self.close(index);
            return;
        };
        slot.connection = Some(connection);
        slot.phase = Phase::Head;
        slot.watch = returned.delivery.map(|delivery| {
            Box::new(DeliveryWatch::new(*delivery, &self.settings.pace, Instant::now()))
        });
        match after {
            After::Abort => self.close(index),
            After::KeepAlive if self.draining.is_none() => self.next_request(index),
            After::KeepAlive | After::Close => self.linger(index),
        }
    }

    /// Goes on with a connection whose answer is complete: a watched delivery first, then what the
    /// client has sent already, then what it sends next.
    pub(super) fn next_request(&mut self, index: usize) {
        if let Some(connection) = self.slots.get_mut(index).and_then(|s| s.connection.as_mut()) {
            connection.requests += 1;
        }
        if let Some(watch) = self.slots.get(index).and_then(|slot| slot.watch.as_ref()) {
            let accounted = watch.is_accounted();
            // A request that was sent before its answer could be read says nothing of how it was
            // read: a link waits for the grace.
            let more_input = !accounted && self.has_input(index);
            // Without a link to account for, closing loses nothing: the kernel delivers the rest
            // by itself. So it may make room, and counts for its address.
            if !accounted {
                self.start_waiting(index);
            }
            self.look_at_delivery(index, more_input);
        } else {
            self.wait_for_request(index);
        }
    }

    /// Waits for a further request, of which a part may have come already. The time begins here
    /// and not with the answer: a slow client may take long to read that.
    fn wait_for_request(&mut self, index: usize) {
        let timeouts = &self.settings.config.timeouts;
        let time = if self.has_input(index) { timeouts.head } else { timeouts.idle };
        self.slots.set_expiry(index, Some(Instant::now() + time));
        self.start_waiting(index);
        self.again.push(self.slots.number(index));
    }

    /// Puts `index` among the waiting, and closes the oldest of its address where they are more
    /// than its share: connections come back here without passing [`Acceptor::admit`].
    pub(super) fn start_waiting(&mut self, index: usize) {
        self.slots.start_waiting(index);
        if let Some(key) = self.slots.get(index).and_then(|slot| slot.share)
            && self.slots.waiting_of(key) > self.settings.config.max_waiting_per_address
            && let Some(oldest) = self.slots.longest_waiting_of(key)
        {
            self.shed_share(key, oldest);
        }
    }

    pub(super) fn shed_share(&mut self, key: ClientKey, oldest: usize) {
        self.noise
            .share
            .warn(Instant::now(), || format!("{key} has its share; closing its oldest"));
        self.close(oldest);
    }

    /// Looks whether the delivery on `index` has ended, and goes on with the connection if so.
    pub(super) fn look_at_delivery(&mut self, index: usize, more_input: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let (Some(watch), Some(connection)) = (&mut slot.watch, &mut slot.connection) else {
            return;
        };
        let fin = watch.has_fin();
        let look = watch.look(&mut connection.socket, Instant::now(), more_input);
        let Look::Ended(outcome) = look else {
            let expiry = slot.expiry;
            self.slots.set_expiry(index, expiry);
            self.arm(index);
            return;
        };
        let delivered = outcome == Outcome::Delivered;
        self.end_delivery(index, outcome);
        let Some(slot) = self.slots.get(index) else { return };
        let expiry = slot.expiry;
        if !delivered {
            self.close_with_reset(index);
        } else if fin && matches!(slot.phase, Phase::Lingering { .. }) {
            self.close(index);
        } else if matches!(slot.phase, Phase::Lingering { .. }) {
            self.slots.set_expiry(index, expiry);
            self.start_waiting(index);
            self.discard_input(index);
        } else {
            self.wait_for_request(index);
        }
    }

    pub(super) fn end_delivery(&mut self, index: usize, outcome: Outcome) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(watch) = slot.watch.take() else { return };
        let socket = slot.connection.as_mut().map(|connection| &mut connection.socket);
        let now = self.parts.shared.clock.unix();
        self.parts.shared.records.push(watch.end(socket, outcome, now));
    }
}
