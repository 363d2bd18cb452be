//! The acceptor's table of connections: each with its state, its deadline and the address whose
//! share it takes.

use std::collections::BTreeSet;
use std::time::Instant;

use super::queue::Lane;
use super::shares::Shares;
use crate::delivery::record::Record;
use crate::delivery::transfer::Transfer;
use crate::delivery::watch::{DeliveryWatch, Look};
use crate::http::head::Head;
use crate::net::address::ClientKey;
use crate::pool::exchange::{Connection, Request};

/// What a connection that no worker holds is waiting for.
#[derive(Debug)]
pub(super) enum State {
    /// Its TLS handshake to go on.
    #[cfg(feature = "tls")]
    Handshake { until: Instant },
    /// A head, or the rest of one, of which so many bytes were screened already.
    Reading { screened: usize },
    /// A worker for its request.
    Queued { request: Box<Request>, until: Instant },
    /// Room in the socket.
    Parked(Box<Transfer>),
    /// A worker, or bandwidth, for the next piece of its transfer.
    Ready(Box<Transfer>),
    /// The client to take the last bytes of an answer.
    Watched(Box<DeliveryWatch>),
    /// The housekeeper to have room for the record of an ended delivery.
    Recording(Box<Record>, Option<Box<DeliveryWatch>>, Look),
    /// The rest of a request's body.
    Body(Box<Head>),
    /// Room for the rest of an answer, from `at` on.
    Answering { answer: Vec<u8>, at: usize, keep: bool },
    /// The client to close its side; so many bytes may still be thrown away.
    Lingering { left: usize },
}

/// Why the log says that a connection was closed for another one.
pub(super) const MAKING_ROOM: &str = "closed to make room";

/// Who gives way first if there are too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Between two requests, or answered for good.
    Idle,
    /// A head has not come whole.
    Head,
    /// A request whose token nobody has verified yet.
    Queued,
    /// An answer that is in the kernel's hands.
    Watched,
    /// A download.
    Transfer,
}

/// A connection and what it waits for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Box<Connection>,
    pub(super) state: State,
}

impl Held {
    fn rank(&self) -> Rank {
        let connection = &self.connection;
        match &self.state {
            #[cfg(feature = "tls")]
            State::Handshake { .. } => Rank::Head,
            State::Reading { .. } if connection.requests > 0 && connection.input.is_empty() => {
                Rank::Idle
            }
            State::Reading { .. } => Rank::Head,
            State::Body(_) => Rank::Head,
            State::Queued { .. } => Rank::Queued,
            // No download: it does not count among those that keep others out.
            State::Answering { .. } => Rank::Queued,
            State::Watched(_) | State::Recording(..) => Rank::Watched,
            State::Parked(_) | State::Ready(_) => Rank::Transfer,
            State::Lingering { .. } => Rank::Idle,
        }
    }
}

/// One place in the table.
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// `None` while a worker has it.
    held: Option<Held>,
    /// The address whose share it takes; `None` for a proxy between two requests.
    share: Option<ClientKey>,
    /// Whose turns its requests take, and in which lane.
    turn: (Lane, Option<ClientKey>),
    /// When it was last put here, in steps of a counter.
    since: u64,
    deadline: Option<Instant>,
    scheduled: Option<Instant>,
    /// In the epoll set, though perhaps disarmed.
    registered: bool,
    rank: Rank,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<usize>,
    generation: u32,
    deadlines: BTreeSet<(Instant, u64)>,
    shares: Shares,
    steps: u64,
    transfers: usize,
    watched: usize,
}

/// A table larger than this gives its memory back when it is empty.
const SHRINK_ABOVE: usize = 256;

impl Connections {
    /// Connections in the table, those at workers included.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Downloads among them.
    pub(super) fn transfers(&self) -> usize {
        self.transfers
    }

    /// Downloads, and answers that are being watched.
    pub(super) fn committed(&self) -> usize {
        self.transfers + self.watched
    }

    /// Makes a place for a connection that takes the share of `key`, and returns its id, which is
    /// never used twice.
    pub(super) fn open(&mut self, key: Option<ClientKey>) -> u64 {
        // The highest bit of an id tells connections from what else is in the epoll set.
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let slot = Box::new(Slot {
            generation: self.generation,
            held: None,
            share: key,
            turn: (Lane::Files, key),
            since: 0,
            deadline: None,
            scheduled: None,
            registered: false,
            rank: Rank::Head,
        });
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(slot);
        let id = u64::from(self.generation) << 32 | index as u64;
        self.shares.join(key, id);
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

    /// Takes the connection out, to act on it; its place stays. `None` if a worker has it, or if it
    /// is gone.
    pub(super) fn take(&mut self, id: u64) -> Option<Held> {
        self.slot_mut(id)?.held.take()
    }

    /// What the connection waits for.
    pub(super) fn look(&mut self, id: u64) -> Option<&mut Held> {
        self.slot_mut(id)?.held.as_mut()
    }

    /// Puts a connection back, to wait until `deadline` at most.
    pub(super) fn put(&mut self, held: Held, deadline: Option<Instant>) {
        let id = held.connection.id;
        let rank = held.rank();
        self.steps += 1;
        let since = self.steps;
        self.note_rank(id, rank);
        let Some(slot) = self.slot_mut(id) else { return };
        slot.held = Some(held);
        slot.since = since;
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

    fn note_rank(&mut self, id: u64, rank: Rank) {
        let Some(slot) = self.slot_mut(id) else { return };
        let before = std::mem::replace(&mut slot.rank, rank);
        if before == rank {
            return;
        }
        for (rank, step) in [(before, -1), (rank, 1)] {
            match rank {
                Rank::Transfer => self.transfers = self.transfers.wrapping_add_signed(step),
                Rank::Watched => self.watched = self.watched.wrapping_add_signed(step),
                _ => {}
            }
        }
    }

    /// Gives up the place of `id`. Its connection is closed by being dropped.
    pub(super) fn forget(&mut self, id: u64) {
        self.note_rank(id, Rank::Head);
        let index = (id & 0xffff_ffff) as usize;
        let Some(slot) = self.slot(id) else { return };
        let (share, scheduled) = (slot.share, slot.scheduled);
        self.shares.leave(share, id);
        scheduled.map(|when| self.deadlines.remove(&(when, id)));
        self.slots[index] = None;
        self.free.push(index);
        if self.len() == 0 && self.slots.len() > SHRINK_ABOVE {
            // After a flood the table's memory goes back.
            let (generation, steps) = (self.generation, self.steps);
            *self = Connections { generation, steps, ..Connections::default() };
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

    /// Until when the connection waits, as last set.
    pub(super) fn deadline(&self, id: u64) -> Option<Instant> {
        self.slot(id).and_then(|slot| slot.deadline)
    }

    /// Who counts how many connections.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Whose turns the requests of `id` take, and in which lane.
    pub(super) fn turn(&self, id: u64) -> (Lane, Option<ClientKey>) {
        self.slot(id).map_or((Lane::Files, None), |slot| slot.turn)
    }

    /// Sets what [`Connections::turn`] returns.
    pub(super) fn set_turn(&mut self, id: u64, lane: Lane, key: Option<ClientKey>) {
        if let Some(slot) = self.slot_mut(id) {
            slot.turn = (lane, key);
        }
    }

    /// Whether `id` was in the epoll set before; from here on it is.
    pub(super) fn register(&mut self, id: u64) -> bool {
        self.slot_mut(id).is_some_and(|slot| std::mem::replace(&mut slot.registered, true))
    }

    /// The ids of all connections.
    pub(super) fn ids(&self) -> Vec<u64> {
        let id = |(index, slot): (usize, &Option<Box<Slot>>)| {
            slot.as_ref().map(|slot| u64::from(slot.generation) << 32 | index as u64)
        };
        self.slots.iter().enumerate().filter_map(id).collect()
    }

    /// All connections; `None` for one that is at a worker.
    pub(super) fn all(&self) -> impl Iterator<Item = Option<&Held>> {
        self.slots.iter().flatten().map(|slot| slot.held.as_ref())
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
            let Some(deadline) = slot.deadline.filter(|_| slot.held.is_some()) else { continue };
            if deadline <= now {
                slot.deadline = None;
                return Some(id);
            }
            slot.scheduled = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// The connection that gives way to a newcomer: an idle one of a proxy, else one of the address
    /// that holds most; the lowest rank first, then the one that has waited longest.
    pub(super) fn victim(&self) -> Option<u64> {
        let idle = self.first_of(self.shares.of(None), Rank::Idle);
        idle.or_else(|| self.shares.heaviest().find_map(|key| self.victim_of(key, Rank::Watched)))
    }

    /// The connection of `key` that gives way, if one is of `highest` rank or lower.
    pub(super) fn victim_of(&self, key: ClientKey, highest: Rank) -> Option<u64> {
        self.first_of(self.shares.of(Some(key)), highest)
    }

    /// An answer that is being watched, of the address that holds most.
    pub(super) fn watched_victim(&self) -> Option<u64> {
        self.shares.heaviest().find_map(|key| {
            let watched =
                |id: &&u64| self.slot(**id).is_some_and(|slot| slot.rank == Rank::Watched);
            let held = |id: &&u64| self.slot(**id).is_some_and(|slot| slot.held.is_some());
            self.shares.of(Some(key)).iter().filter(watched).find(held).copied()
        })
    }

    /// The parked download whose client takes its bytes most slowly.
    pub(super) fn slowest(&self) -> Option<u64> {
        let rate = |slot: &Slot| match slot.held.as_ref() {
            Some(Held { connection, state: State::Parked(transfer) }) => {
                Some((transfer.rate(), connection.id))
            }
            _ => None,
        };
        let rates = self.slots.iter().flatten().filter_map(|slot| rate(slot));
        rates.min().map(|(_, id)| id)
    }

    fn first_of(&self, ids: &[u64], highest: Rank) -> Option<u64> {
        let candidates = ids.iter().filter_map(|id| {
            let slot = self.slot(*id)?;
            let held = slot.held.as_ref()?;
            let rank = held.rank();
            (rank <= highest).then_some((rank, slot.since, *id))
        });
        candidates.min().map(|(_, _, id)| id)
    }
}
