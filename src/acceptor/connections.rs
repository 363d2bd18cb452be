//! The acceptor's table of connections: each with its state, its deadline and the address whose
//! share it takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::shares::Shares;
use super::state::{Held, Rank, State};
use crate::control::gauges::{Gauges, Waits};
use crate::net::address::ClientKey;
use crate::pool::queue::Ticket;

/// Where a connection is.
#[derive(Debug)]
enum Place {
    /// Here, waiting.
    Here(Held),
    /// In the queue for workers, or at one of them.
    Away(Ticket),
    /// In the hands of whoever has just taken it out.
    Taken,
}

/// One place in the table.
#[derive(Debug)]
struct Slot {
    generation: u32,
    place: Place,
    /// The address whose share it takes; `None` for a proxy between two requests.
    share: Option<ClientKey>,
    /// When it was last put here, in steps of a counter.
    since: u64,
    deadline: Option<Instant>,
    scheduled: Option<Instant>,
    /// True if it is in the epoll set.
    watched: bool,
    /// Events that came and were not acted on yet.
    events: EventFlags,
    rank: Rank,
    waits: Waits,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<usize>,
    generation: u32,
    deadlines: BTreeSet<(Instant, u64)>,
    shares: Shares,
    gauges: Arc<Gauges>,
    steps: u64,
    transfers: usize,
    finishing: usize,
}

/// A table larger than this gives its memory back when it is empty.
const SHRINK_ABOVE: usize = 256;

impl Connections {
    /// An empty table, which is counted in `gauges`.
    pub(super) fn new(gauges: Arc<Gauges>) -> Connections {
        Connections { gauges, ..Connections::default() }
    }

    /// Connections in the table, those at workers included.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Downloads among them.
    pub(super) fn transfers(&self) -> usize {
        self.transfers
    }

    /// Downloads, those included whose last bytes are on the way.
    pub(super) fn committed(&self) -> usize {
        self.transfers + self.finishing
    }

    /// Makes a place for a connection that takes the share of `key`, and returns its id, which is
    /// never used twice.
    pub(super) fn open(&mut self, key: Option<ClientKey>) -> u64 {
        // The highest bit of an id tells connections from what else is in the epoll set.
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let slot = Box::new(Slot {
            generation: self.generation,
            place: Place::Taken,
            share: key,
            since: 0,
            deadline: None,
            scheduled: None,
            watched: false,
            events: EventFlags::empty(),
            rank: Rank::Head,
            waits: Waits::Head,
        });
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(slot);
        self.gauges.enter(Waits::Head);
        let id = u64::from(self.generation) << 32 | index as u64;
        self.shares.join(key, id);
        debug_assert_eq!(self.shares.len(), self.len());
        id
    }

    fn slot(&self, id: u64) -> Option<&Slot> {
        let slot = self.slots.get((id & 0xffff_ffff) as usize)?.as_deref()?;
        (slot.generation == (id >> 32) as u32).then_some(slot)
    }

    fn slot_mut(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((id & 0xffff_ffff) as usize)?.as_deref_mut()?;
        (slot.generation == (id >> 32) as u32).then_some(slot)
    }

    /// Takes the connection out, to act on it; its place stays. `None` if it is away or gone.
    #[must_use]
    pub(super) fn take(&mut self, id: u64) -> Option<Held> {
        let slot = self.slot_mut(id)?;
        match std::mem::replace(&mut slot.place, Place::Taken) {
            Place::Here(held) => Some(held),
            other => {
                slot.place = other;
                None
            }
        }
    }

    /// What the connection waits for.
    pub(super) fn look(&self, id: u64) -> Option<&Held> {
        match &self.slot(id)?.place {
            Place::Here(held) => Some(held),
            _ => None,
        }
    }

    /// The ticket of a connection that is in the queue or at a worker.
    pub(super) fn ticket(&self, id: u64) -> Option<Ticket> {
        match self.slot(id)?.place {
            Place::Away(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// Puts a connection back, to wait until `deadline` at most.
    pub(super) fn put(&mut self, held: Held, deadline: Option<Instant>) {
        let (id, rank) = (held.connection.id, held.rank());
        let waits = match rank {
            Rank::Idle => Waits::Idle,
            Rank::Head | Rank::Queued => Waits::Head,
            Rank::Finishing => Waits::Finish,
            Rank::Transfer => Waits::Download,
        };
        self.note(id, rank, waits);
        self.steps += 1;
        let since = self.steps;
        let Some(slot) = self.slot_mut(id) else { return };
        debug_assert!(matches!(slot.place, Place::Taken | Place::Away(_)), "{:?}", slot.place);
        slot.place = Place::Here(held);
        slot.since = since;
        self.schedule(id, deadline);
    }

    /// Notes that a connection is in the queue, or at a worker, as `ticket` says, and will be asked
    /// for at `deadline`.
    pub(super) fn send(&mut self, ticket: Ticket, rank: Rank, deadline: Option<Instant>) {
        self.note(ticket.id, rank, Waits::Worker);
        self.steps += 1;
        let since = self.steps;
        let Some(slot) = self.slot_mut(ticket.id) else { return };
        debug_assert!(matches!(slot.place, Place::Taken), "{:?}", slot.place);
        slot.place = Place::Away(ticket);
        slot.since = since;
        self.schedule(ticket.id, deadline);
    }

    /// Notes that a connection that was away is in our hands.
    pub(super) fn note_back(&mut self, id: u64) {
        if let Some(slot) = self.slot_mut(id) {
            debug_assert!(matches!(slot.place, Place::Away(_)), "{:?}", slot.place);
            slot.place = Place::Taken;
        }
    }

    fn schedule(&mut self, id: u64, deadline: Option<Instant>) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.deadline = deadline;
        // A deadline that was moved back is found to be later when it comes: most never come.
        if let Some(when) = deadline
            && slot.scheduled.is_none_or(|scheduled| when < scheduled)
        {
            let before = slot.scheduled.replace(when);
            before.map(|before| self.deadlines.remove(&(before, id)));
            self.deadlines.insert((when, id));
        }
    }

    fn note(&mut self, id: u64, rank: Rank, waits: Waits) {
        let Some(slot) = self.slot_mut(id) else { return };
        let before = std::mem::replace(&mut slot.rank, rank);
        let waited = std::mem::replace(&mut slot.waits, waits);
        if waited != waits {
            self.gauges.leave(waited);
            self.gauges.enter(waits);
        }
        if before != rank {
            for (rank, step) in [(before, -1), (rank, 1)] {
                match rank {
                    Rank::Transfer => self.transfers = self.transfers.wrapping_add_signed(step),
                    Rank::Finishing => self.finishing = self.finishing.wrapping_add_signed(step),
                    _ => {}
                }
            }
            debug_assert!(self.committed() <= self.len());
        }
    }

    /// Gives up the place of `id`. Its connection is closed by being dropped.
    pub(super) fn forget(&mut self, id: u64) {
        self.note(id, Rank::Head, Waits::Head);
        let index = (id & 0xffff_ffff) as usize;
        let Some(slot) = self.slot(id) else { return };
        let (share, scheduled) = (slot.share, slot.scheduled);
        self.gauges.leave(Waits::Head);
        self.shares.leave(share, id);
        scheduled.map(|when| self.deadlines.remove(&(when, id)));
        self.slots[index] = None;
        self.free.push(index);
        debug_assert_eq!(self.shares.len(), self.len());
        if self.len() == 0 && self.slots.len() > SHRINK_ABOVE {
            // After a flood the table's memory goes back.
            let (generation, steps) = (self.generation, self.steps);
            let fresh = Connections::new(Arc::clone(&self.gauges));
            *self = Connections { generation, steps, ..fresh };
        }
    }

    /// Lets `id` take the share of `key` from here on.
    pub(super) fn change_share(&mut self, id: u64, key: Option<ClientKey>) {
        let Some(slot) = self.slot_mut(id) else { return };
        let before = std::mem::replace(&mut slot.share, key);
        if before != key {
            self.shares.leave(before, id);
            self.shares.join(key, id);
        }
    }

    /// The address whose share `id` takes.
    #[cfg(feature = "tls")]
    pub(super) fn share(&self, id: u64) -> Option<ClientKey> {
        self.slot(id).and_then(|slot| slot.share)
    }

    /// Until when the connection waits, as last set.
    pub(super) fn deadline(&self, id: u64) -> Option<Instant> {
        self.slot(id).and_then(|slot| slot.deadline)
    }

    /// Who counts how many connections.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Returns true if `id` is in the epoll set.
    pub(super) fn is_watched(&self, id: u64) -> bool {
        self.slot(id).is_some_and(|slot| slot.watched)
    }

    /// Notes that `id` is in the epoll set.
    pub(super) fn note_watched(&mut self, id: u64) {
        if let Some(slot) = self.slot_mut(id) {
            slot.watched = true;
        }
    }

    /// Remembers events that nobody could act on: the epoll set reports each only once.
    pub(super) fn remember(&mut self, id: u64, events: EventFlags) {
        if let Some(slot) = self.slot_mut(id) {
            slot.events |= events;
        }
    }

    /// Returns the events that were remembered, and forgets them.
    pub(super) fn take_events(&mut self, id: u64) -> EventFlags {
        let taken = |slot: &mut Slot| std::mem::replace(&mut slot.events, EventFlags::empty());
        self.slot_mut(id).map_or(EventFlags::empty(), taken)
    }

    /// The ids of all connections.
    pub(super) fn ids(&self) -> Vec<u64> {
        let id = |(index, slot): (usize, &Option<Box<Slot>>)| {
            slot.as_ref().map(|slot| u64::from(slot.generation) << 32 | index as u64)
        };
        self.slots.iter().enumerate().filter_map(id).collect()
    }

    /// The next moment at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(when, _)| *when)
    }

    /// A connection whose deadline has passed by `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        loop {
            let (when, id) = *self.deadlines.first()?;
            if when > now {
                return None;
            }
            self.deadlines.pop_first();
            let Some(slot) = self.slot_mut(id) else { continue };
            slot.scheduled = None;
            let Some(deadline) = slot.deadline else { continue };
            if deadline <= now {
                slot.deadline = None;
                return Some(id);
            }
            slot.scheduled = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// The connections that may give way to a newcomer, the first choice first: idle ones of a
    /// proxy, then those of the addresses that hold most; the lowest rank first, then those that
    /// have waited longest.
    pub(super) fn victims(&self) -> impl Iterator<Item = u64> {
        let idle = self.victims_among(self.shares.of(None), Rank::Idle);
        let heavy = self.shares.heaviest().flat_map(|key| self.victims_of(key, Rank::Finishing));
        idle.into_iter().chain(heavy)
    }

    /// The connections of `key` that may give way, of `highest` rank or lower.
    pub(super) fn victims_of(&self, key: ClientKey, highest: Rank) -> Vec<u64> {
        self.victims_among(self.shares.of(Some(key)), highest)
    }

    fn victims_among(&self, ids: &[u64], highest: Rank) -> Vec<u64> {
        let candidate = |id: &u64| {
            let slot = self.slot(*id).filter(|slot| slot.rank <= highest)?;
            Some((slot.rank, slot.since, *id))
        };
        let mut candidates: Vec<_> = ids.iter().filter_map(candidate).collect();
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, id)| id).collect()
    }

    /// An answer whose last bytes are on the way, of the address that holds most.
    pub(super) fn finishing_victim(&self) -> Option<u64> {
        let finishing = |id: &&u64| {
            self.look(**id).is_some_and(|held| matches!(held.state, State::Finishing(_)))
        };
        self.shares
            .heaviest()
            .find_map(|key| self.shares.of(Some(key)).iter().find(finishing).copied())
    }

    /// The parked download whose client takes its bytes most slowly.
    pub(super) fn slowest(&self, now: Instant) -> Option<u64> {
        let rate = |slot: &Slot| match &slot.place {
            Place::Here(Held { connection, state: State::Parked(download) }) => {
                Some((download.live.rate(now), connection.id))
            }
            _ => None,
        };
        let rates = self.slots.iter().flatten().filter_map(|slot| rate(slot));
        rates.min().map(|(_, id)| id)
    }
}
