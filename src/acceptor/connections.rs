//! The acceptor's table of connections, with what has to be found in it quickly: by number, by
//! deadline, by waiting time, by address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use crate::delivery::watch::DeliveryWatch;
use crate::http::head::Head;
use crate::net::address::{ClientKey, Peer};
use crate::pool::exchange::Connection;

/// Where a connection stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waiting for a head, or for the rest of one.
    Head,
    /// Its request waits for a worker.
    Queued(Box<Head>),
    /// A worker has it.
    Busy,
    /// Answered for good; what the client still sends is thrown away.
    Lingering {
        /// Bytes that may still be thrown away.
        left: usize,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) peer: Peer,
    /// The client behind the peer, as its queued request says.
    pub(super) client: Option<IpAddr>,
    pub(super) phase: Phase,
    /// `None` while a worker has it.
    pub(super) connection: Option<Box<Connection>>,
    /// Bytes of the input that were screened already.
    pub(super) screened: usize,
    /// In the epoll set, though perhaps disarmed.
    pub(super) registered: bool,
    /// A delivery that is being watched.
    pub(super) watch: Option<Box<DeliveryWatch>>,
    /// Whose stream this is, while it counts among an address's streams.
    pub(super) stream_of: Option<ClientKey>,
    /// When the phase is over.
    pub(super) expiry: Option<Instant>,
    scheduled: Option<Instant>,
    /// The place in the waiting set, while it is in there.
    waiting: Option<u64>,
    /// The address whose share of the waiting set it takes; `None` for proxies.
    pub(super) share: Option<ClientKey>,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<usize>,
    generation: u32,
    deadlines: BTreeSet<(Instant, usize)>,
    /// Waiting connections, longest first.
    waiting: BTreeSet<(u64, usize)>,
    /// The same by address.
    by_address: BTreeSet<(ClientKey, u64, usize)>,
    counts: HashMap<ClientKey, usize>,
    next_turn: u64,
}

impl Slots {
    /// Connections in the table.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(
        &mut self,
        peer: Peer,
        share: Option<ClientKey>,
        connection: Box<Connection>,
    ) -> usize {
        // The highest bit of a number tells connections from what else is in the epoll set.
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let slot = Box::new(Slot {
            generation: self.generation,
            peer,
            client: None,
            phase: Phase::Head,
            connection: Some(connection),
            screened: 0,
            registered: false,
            watch: None,
            stream_of: None,
            expiry: None,
            scheduled: None,
            waiting: None,
            share,
        });
        match self.free.pop() {
            Some(index) => {
                self.slots[index] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        }
    }

    /// Takes a connection out of the table and of all indexes.
    pub(super) fn remove(&mut self, index: usize) -> Option<Box<Slot>> {
        self.stop_waiting(index);
        self.set_expiry(index, None);
        let slot = self.slots.get_mut(index)?.take()?;
        if let Some(when) = slot.scheduled {
            self.deadlines.remove(&(when, index));
        }
        self.free.push(index);
        if self.len() == 0 && self.slots.len() > SHRINK_ABOVE {
            // After a flood the table's memory goes back.
            *self = Slots {
                generation: self.generation,
                next_turn: self.next_turn,
                ..Slots::default()
            };
        }
        Some(slot)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Slot> {
        self.slots.get(index)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)?.as_deref_mut()
    }

    /// The number by which the world knows the connection at `index`; never used twice.
    pub(super) fn number(&self, index: usize) -> u64 {
        let generation = self.get(index).map_or(0, |slot| slot.generation);
        u64::from(generation) << 32 | index as u64
    }

    /// The connection known by `number`, if it is still the same one.
    pub(super) fn find(&self, number: u64) -> Option<usize> {
        let index = (number & 0xffff_ffff) as usize;
        (self.get(index)?.generation == (number >> 32) as u32).then_some(index)
    }

    pub(super) fn indexes(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|index| self.slots[*index].is_some()).collect()
    }

    /// Sets when the phase of `index` is over, and schedules that or its watch's next look,
    /// whichever comes first.
    pub(super) fn set_expiry(&mut self, index: usize, expiry: Option<Instant>) {
        let Some(slot) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else { return };
        slot.expiry = expiry;
        // While a delivery is being watched, the connection lives.
        let when = slot.watch.as_ref().map(|watch| watch.next_look()).or(expiry);
        if when != slot.scheduled {
            if let Some(before) = slot.scheduled {
                self.deadlines.remove(&(before, index));
            }
            slot.scheduled = when;
            self.deadlines.extend(when.map(|when| (when, index)));
        }
    }

    /// The next moment at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(when, _)| *when)
    }

    /// A connection whose deadline has passed by `now`, taken off the schedule.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        let (when, index) = *self.deadlines.first()?;
        if when > now {
            return None;
        }
        self.deadlines.pop_first();
        if let Some(slot) = self.get_mut(index) {
            slot.scheduled = None;
        }
        Some(index)
    }

    /// Puts `index` at the end of the waiting set.
    pub(super) fn start_waiting(&mut self, index: usize) {
        let turn = self.next_turn;
        let Some(slot) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else { return };
        if slot.waiting.is_some() {
            return;
        }
        slot.waiting = Some(turn);
        let share = slot.share;
        self.next_turn += 1;
        self.waiting.insert((turn, index));
        if let Some(key) = share {
            self.by_address.insert((key, turn, index));
            *self.counts.entry(key).or_insert(0) += 1;
        }
    }

    pub(super) fn stop_waiting(&mut self, index: usize) {
        let Some(slot) = self.get_mut(index) else { return };
        let (Some(turn), share) = (slot.waiting.take(), slot.share) else { return };
        self.waiting.remove(&(turn, index));
        if let Some(key) = share {
            self.by_address.remove(&(key, turn, index));
            if let Some(count) = self.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    /// The connection that has waited longest for its head.
    pub(super) fn longest_waiting(&self) -> Option<usize> {
        self.waiting.first().map(|(_, index)| *index)
    }

    /// Waiting connections of `key`.
    pub(super) fn waiting_of(&self, key: ClientKey) -> usize {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// The connection of `key` that has waited longest.
    pub(super) fn longest_waiting_of(&self, key: ClientKey) -> Option<usize> {
        let first = self.by_address.range((key, 0, 0)..).next()?;
        (first.0 == key).then_some(first.2)
    }
}

/// A table larger than this gives its memory back when it is empty.
const SHRINK_ABOVE: usize = 256;
