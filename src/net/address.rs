//! Who a client is: its address, what of it limits and binding look at, and how to find it behind
//! trusted proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::Config;

/// What counts as one client: an IPv4 address or an IPv6 /64, since a host picks freely in its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// An IPv4 address; IPv4-mapped IPv6 addresses are made plain first.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl ClientKey {
    /// The key of `address`.
    pub fn of(address: IpAddr) -> ClientKey {
        match address.to_canonical() {
            IpAddr::V4(v4) => ClientKey::V4(v4.to_bits()),
            IpAddr::V6(v6) => ClientKey::V6((v6.to_bits() >> 64) as u64),
        }
    }

    /// The IPv6 /48 that it lies in: what one customer of a provider usually has.
    pub fn network(self) -> Option<u64> {
        match self {
            ClientKey::V4(_) => None,
            ClientKey::V6(bits) => Some(bits >> 16),
        }
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<ClientKey> {
        match text.strip_suffix("/64") {
            Some(prefix) => match ClientKey::of(IpAddr::V6(prefix.parse().ok()?)) {
                key @ ClientKey::V6(_) => Some(key),
                ClientKey::V4(_) => None,
            },
            None => Some(ClientKey::V4(text.parse::<std::net::Ipv4Addr>().ok()?.to_bits())),
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ClientKey::V4(bits) => std::net::Ipv4Addr::from_bits(bits).fmt(f),
            ClientKey::V6(bits) => {
                write!(f, "{}/64", std::net::Ipv6Addr::from_bits(u128::from(bits) << 64))
            }
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// Somebody on this host, through a Unix socket.
    Unix,
}

impl Peer {
    /// Whether this peer is a proxy that speaks for others: trusted by the configuration, or on
    /// the other side of a Unix socket, whose file permissions said so.
    pub fn is_proxy(self, config: &Config) -> bool {
        match self {
            Peer::Tcp(address) => config.trusts(address.ip().to_canonical()),
            Peer::Unix => true,
        }
    }

    /// The peer's own address, where it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// The address of the client behind this peer. `forwarded` is the whole `X-Forwarded-For`
    /// value, several lines joined by commas.
    ///
    /// Each proxy appends the address it saw, so the list is read from the right: as long as the
    /// entries are trusted proxies themselves, the next one to the left is believed. The left end
    /// is whatever the client wrote.
    pub fn client(self, forwarded: Option<&str>, config: &Config) -> Option<IpAddr> {
        let mut nearest = self.ip();
        if !self.is_proxy(config) {
            return nearest;
        }
        for entry in forwarded.unwrap_or("").rsplit(',') {
            let Some(address) = parse_forwarded(entry.trim()) else { break };
            nearest = Some(address);
            if !config.trusts(address) {
                break;
            }
        }
        nearest
    }
}

/// An address as proxies write it: plain, with a port, or an IPv6 address in brackets.
fn parse_forwarded(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_an_ipv4_address_or_a_64() {
        let key = |text: &str| ClientKey::of(text.parse().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        for text in ["192.0.2.1", "2001:db8::1", "::1"] {
            assert_eq!(ClientKey::parse(&key(text).to_string()), Some(key(text)));
        }
        assert_eq!(ClientKey::parse("2001:db8::1"), None);
    }

    #[test]
    fn forwarded_entries_in_every_spelling() {
        let parsed = |text: &str| parse_forwarded(text).map(|address| address.to_string());
        assert_eq!(parsed("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(parsed("192.0.2.1:80").as_deref(), Some("192.0.2.1"));
        assert_eq!(parsed("[2001:db8::1]:80").as_deref(), Some("2001:db8::1"));
        assert_eq!(parsed("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(parsed("unknown"), None);
        assert_eq!(parsed(""), None);
    }
}
