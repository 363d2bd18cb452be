//! How many connections each address holds, from accept to close.

use std::collections::{BTreeSet, HashMap};

use crate::net::address::ClientKey;

/// A network (an IPv6 /48) may hold this many times what one address may.
const NETWORK_FACTOR: usize = 4;

/// Connections by address.
#[derive(Debug, Default)]
pub(super) struct Shares {
    members: HashMap<Option<ClientKey>, Vec<u64>>,
    weights: BTreeSet<(usize, ClientKey)>,
    networks: HashMap<u64, usize>,
    count: usize,
}

impl Shares {
    /// Counts `id` for `key`. `None` is a proxy between two requests, which has no share.
    pub(super) fn join(&mut self, key: Option<ClientKey>, id: u64) {
        let ids = self.members.entry(key).or_default();
        ids.push(id);
        self.count += 1;
        let count = ids.len();
        self.weigh(key, count - 1, count);
        if let Some(network) = key.and_then(ClientKey::network) {
            *self.networks.entry(network).or_default() += 1;
        }
    }

    /// No longer counts `id` for `key`.
    pub(super) fn leave(&mut self, key: Option<ClientKey>, id: u64) {
        let Some(ids) = self.members.get_mut(&key) else { return };
        let Some(position) = ids.iter().position(|member| *member == id) else { return };
        ids.swap_remove(position);
        self.count -= 1;
        let count = ids.len();
        if count == 0 {
            self.members.remove(&key);
        }
        self.weigh(key, count + 1, count);
        if let Some(network) = key.and_then(ClientKey::network)
            && let Some(count) = self.networks.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }

    fn weigh(&mut self, key: Option<ClientKey>, before: usize, now: usize) {
        let Some(key) = key else { return };
        self.weights.remove(&(before, key));
        if now > 0 {
            self.weights.insert((now, key));
        }
    }

    /// All connections.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The connections of `key`.
    pub(super) fn of(&self, key: Option<ClientKey>) -> &[u64] {
        self.members.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Returns true if `key` holds `share` connections, or its network four times that.
    pub(super) fn is_full(&self, key: ClientKey, share: usize) -> bool {
        let network = key.network().and_then(|network| self.networks.get(&network)).copied();
        self.of(Some(key)).len() >= share || network.unwrap_or(0) >= share * NETWORK_FACTOR
    }

    /// Returns true if `key` or its network is beyond what [`Shares::is_full`] allows.
    pub(super) fn is_exceeded(&self, key: ClientKey, share: usize) -> bool {
        let network = key.network().and_then(|network| self.networks.get(&network)).copied();
        self.of(Some(key)).len() > share || network.unwrap_or(0) > share * NETWORK_FACTOR
    }

    /// All addresses, the one with the most connections first.
    pub(super) fn heaviest(&self) -> impl Iterator<Item = ClientKey> {
        self.weights.iter().rev().map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> ClientKey {
        ClientKey::of(address.parse().unwrap())
    }

    #[test]
    fn the_address_with_most_connections_is_the_heaviest() {
        let (a, b) = (key("192.0.2.1"), key("192.0.2.2"));
        let mut shares = Shares::default();
        for id in 0..3 {
            shares.join(Some(a), id);
        }
        shares.join(Some(b), 3);
        shares.join(None, 4);
        assert_eq!(shares.heaviest().collect::<Vec<_>>(), [a, b]);
        assert!(shares.is_full(a, 3) && !shares.is_exceeded(a, 3) && !shares.is_full(b, 3));
        for id in 0..3 {
            shares.leave(Some(a), id);
        }
        assert_eq!(shares.heaviest().collect::<Vec<_>>(), [b]);
        assert_eq!(shares.of(None), [4]);
    }

    #[test]
    fn a_network_holds_four_times_what_an_address_may() {
        let mut shares = Shares::default();
        for id in 0..8u64 {
            shares.join(Some(key(&format!("2001:db8:1:{id:x}::1"))), id);
        }
        let (inside, outside) = (key("2001:db8:1:ffff::1"), key("2001:db8:2::1"));
        assert!(shares.is_full(inside, 2) && !shares.is_exceeded(inside, 2));
        assert!(!shares.is_full(inside, 3) && !shares.is_full(outside, 2));
    }
}
