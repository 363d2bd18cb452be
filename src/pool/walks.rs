//! Walks through folders that have begun: one per server and one per client at a time.

use std::sync::{Arc, Mutex, PoisonError};

use crate::net::address::ClientKey;

/// A walk that has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    id: u64,
    server: u128,
    client: Option<ClientKey>,
}

/// All walks that have begun.
#[derive(Clone, Debug, Default)]
pub struct Walks(Arc<Mutex<Vec<Begun>>>);

/// A walk's place among them, given up when it is dropped.
#[derive(Debug)]
pub struct Permit {
    walks: Walks,
    id: u64,
}

impl Walks {
    /// Begins a walk for connection `id`, unless its server or its client has another one.
    pub fn begin(&self, id: u64, server: u128, client: Option<ClientKey>) -> Option<Permit> {
        self.with(|begun| {
            if begun.iter().any(|other| other.conflicts(server, client)) {
                return None;
            }
            begun.push(Begun { id, server, client });
            Some(Permit { walks: self.clone(), id })
        })
    }

    /// Returns true if the walk of connection `id` has begun, or may begin now.
    pub(super) fn may_go_on(&self, id: u64, server: u128, client: Option<ClientKey>) -> bool {
        self.with(|begun| {
            begun.iter().any(|walk| walk.id == id)
                || !begun.iter().any(|other| other.conflicts(server, client))
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Begun>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Begun {
    fn conflicts(&self, server: u128, client: Option<ClientKey>) -> bool {
        self.server == server || (client.is_some() && self.client == client)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.walks.with(|begun| begun.retain(|walk| walk.id != self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_a_client_have_one_walk_each() {
        let (walks, a, b) = (Walks::default(), Some(ClientKey::V4(1)), Some(ClientKey::V4(2)));
        let first = walks.begin(1, 10, a).unwrap();
        assert!(walks.begin(2, 10, b).is_none(), "the same server");
        assert!(walks.begin(2, 11, a).is_none(), "the same client");
        assert!(walks.may_go_on(1, 10, a) && !walks.may_go_on(2, 10, b));
        let unknown = walks.begin(3, 12, None).unwrap();
        assert!(walks.begin(4, 13, None).is_some(), "nobody knows whether they are one");
        drop((first, unknown));
        assert!(walks.may_go_on(2, 10, b));
    }
}
