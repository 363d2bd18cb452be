//! Turns: clients are served one after the other, however much each of them has waiting.
//!
//! IPv6 takes turns at two levels, /48 and then /64: a customer who owns 65,536 networks of /64 weighs
//! as much as any other client.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::net::address::ClientKey;

/// Something that waiting items are taken from.
trait Line {
    type Item;

    fn pop(&mut self) -> Option<Self::Item>;

    fn is_empty(&self) -> bool;
}

impl<T> Line for VecDeque<T> {
    type Item = T;

    fn pop(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn is_empty(&self) -> bool {
        VecDeque::is_empty(self)
    }
}

/// Lines that take turns. None of them is empty.
#[derive(Debug)]
struct Ring<K, L> {
    order: VecDeque<K>,
    lines: HashMap<K, L>,
}

impl<K, L> Default for Ring<K, L> {
    fn default() -> Ring<K, L> {
        Ring { order: VecDeque::new(), lines: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, L: Line + Default> Ring<K, L> {
    /// The line of `key`, into which the caller puts something.
    fn line(&mut self, key: K) -> &mut L {
        self.lines.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            L::default()
        })
    }

    /// Takes something out of the line of `key`.
    fn take<T>(&mut self, key: K, take: impl FnOnce(&mut L) -> Option<T>) -> Option<T> {
        let line = self.lines.get_mut(&key)?;
        let taken = take(line);
        if line.is_empty() {
            self.lines.remove(&key);
            self.order.retain(|other| *other != key);
        }
        taken
    }
}

impl<K: Copy + Eq + Hash, L: Line> Line for Ring<K, L> {
    type Item = L::Item;

    fn pop(&mut self) -> Option<L::Item> {
        let key = self.order.pop_front()?;
        let line = self.lines.get_mut(&key)?;
        let item = line.pop();
        if line.is_empty() {
            self.lines.remove(&key);
        } else {
            self.order.push_back(key);
        }
        debug_assert_eq!(self.order.len(), self.lines.len());
        item
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// An IPv4 address or an IPv6 /48; unknown clients are one.
type Network = Option<ClientKey>;

fn network(key: Option<ClientKey>) -> Network {
    key.map(|key| match key {
        ClientKey::V4(_) => key,
        ClientKey::V6(bits) => ClientKey::V6(bits >> 16 << 16),
    })
}

/// The items of one client, with their ids.
type Items<T> = VecDeque<(u64, T)>;

/// What waits: first come, first served within a client, in turns among clients.
#[derive(Debug)]
pub(super) struct Turns<T> {
    networks: Ring<Network, Ring<Option<ClientKey>, Items<T>>>,
    length: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { networks: Ring::default(), length: 0 }
    }
}

impl<T> Turns<T> {
    /// Lets `item` wait for a turn of `key`.
    pub(super) fn push(&mut self, key: Option<ClientKey>, id: u64, item: T) {
        self.networks.line(network(key)).line(key).push_back((id, item));
        self.length += 1;
    }

    /// Takes the item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let popped = self.networks.pop();
        self.length -= usize::from(popped.is_some());
        popped
    }

    /// Takes out the item `id` of `key`, if it waits.
    pub(super) fn remove(&mut self, key: Option<ClientKey>, id: u64) -> Option<T> {
        let removed = self.networks.take(network(key), |clients| {
            clients.take(key, |items| {
                let position = items.iter().position(|(other, _)| *other == id)?;
                items.remove(position)
            })
        });
        self.length -= usize::from(removed.is_some());
        removed.map(|(_, item)| item)
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Option<ClientKey> {
        Some(ClientKey::of(address.parse().unwrap()))
    }

    fn drain(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop().map(|(_, item)| item)).collect()
    }

    #[test]
    fn clients_take_turns() {
        let (a, b) = (key("192.0.2.1"), key("192.0.2.2"));
        let mut turns = Turns::default();
        for (id, item) in ["a1", "a2", "a3"].into_iter().enumerate() {
            turns.push(a, id as u64, item);
        }
        turns.push(b, 3, "b1");
        assert_eq!(turns.len(), 4);
        assert_eq!(drain(&mut turns), ["a1", "b1", "a2", "a3"]);
        assert_eq!(turns.len(), 0);
    }

    #[test]
    fn a_48_weighs_as_much_as_one_client() {
        let mut turns = Turns::default();
        for (id, subnet) in (1..=3).enumerate() {
            turns.push(key(&format!("2001:db8:1:{subnet}::1")), id as u64, "crowd");
        }
        turns.push(key("2001:db8:2::1"), 8, "one");
        turns.push(key("192.0.2.1"), 9, "v4");
        assert_eq!(drain(&mut turns), ["crowd", "one", "v4", "crowd", "crowd"]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let (a, b) = (key("2001:db8::1"), key("192.0.2.2"));
        let mut turns = Turns::default();
        turns.push(a, 1, "a1");
        turns.push(b, 2, "b1");
        assert_eq!(turns.remove(a, 2), None);
        assert_eq!(turns.remove(a, 1), Some("a1"));
        assert_eq!(turns.remove(a, 1), None);
        assert_eq!(turns.networks.lines.len(), 1);
        assert_eq!(drain(&mut turns), ["b1"]);
    }
}
