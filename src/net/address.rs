//! Who a client is: its address, the part of it that limits and binding look at, and how it is found
//! behind trusted proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::Config;

/// What counts as one client: an IPv4 address, or an IPv6 /64, since a host picks its address freely
/// within its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// An IPv4 address, or the one in an IPv4-mapped IPv6 address.
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
    /// Whether this peer is a proxy that speaks for others: trusted by the configuration, or
    /// connected through a Unix socket, whose file permissions decide who may be.
    pub fn is_proxy(self, config: &Config) -> bool {
        match self {
            Peer::Tcp(address) => config.trusts(address.ip().to_canonical()),
            Peer::Unix => true,
        }
    }

    /// The peer's own address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// The client behind this peer. `forwarded` has the entries of `X-Forwarded-For`, nearest proxy
    /// first; `relayed`: the request has another field that only proxies add.
    ///
    /// Each proxy appends the address that it saw. As long as an entry is a trusted proxy itself,
    /// the next one is believed. Whatever is not an address ends the walk, and the last address
    /// before it counts: the far end of the list is what the client itself wrote. A trusted address
    /// that forwards nothing is a client itself: `curl` on the proxy's machine.
    pub fn client<'a>(
        self,
        forwarded: impl Iterator<Item = &'a [u8]>,
        relayed: bool,
        config: &Config,
    ) -> Client {
        let own = Client { address: self.ip(), direct: self != Peer::Unix };
        if !self.is_proxy(config) {
            return own;
        }
        let mut forwarded = forwarded.peekable();
        match (forwarded.peek().is_some(), relayed) {
            (true, _) => {
                let trusts = |address| config.trusts(address);
                Client { address: believed(own.address, forwarded, trusts), direct: false }
            }
            (false, true) => Client { address: None, direct: false },
            (false, false) => own,
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
    /// True if no proxy is between: what the peer acknowledges, the client has.
    pub direct: bool,
}

/// The last address that is believed, beginning with the peer's own.
fn believed<'a>(
    own: Option<IpAddr>,
    forwarded: impl Iterator<Item = &'a [u8]>,
    trusts: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut nearest = own;
    for address in forwarded.map_while(parse_forwarded) {
        nearest = Some(address);
        if !trusts(address) {
            break;
        }
    }
    nearest
}

/// An address as proxies write it: plain, with a port, or an IPv6 address in brackets.
fn parse_forwarded(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
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
    fn what_is_not_an_address_ends_the_walk() {
        let proxies = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse::<IpAddr>().unwrap()];
        // As nginx's `$proxy_add_x_forwarded_for` writes it: the client's own words come first.
        let table: [(&[u8], &str); 7] = [
            (b"", "10.0.0.1"),
            (b"192.0.2.1", "192.0.2.1"),
            (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
            (b"6.6.6.6, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            (b"\xff, 192.0.2.1", "192.0.2.1"),
            (b"192.0.2.1, \xff, 10.0.0.2", "10.0.0.2"),
            (b"192.0.2.1, ", "10.0.0.1"),
        ];
        for (line, expected) in table {
            let entries = line.rsplit(|byte| *byte == b',');
            let client = believed(Some(proxies[0]), entries, |address| proxies.contains(&address));
            assert_eq!(client, Some(expected.parse().unwrap()), "{}", line.escape_ascii());
        }
        assert_eq!(believed(None, [b"x".as_slice()].into_iter(), |_| true), None);
    }

    #[test]
    fn forwarded_entries_in_every_spelling() {
        let parsed =
            |text: &str| parse_forwarded(text.as_bytes()).map(|address| address.to_string());
        assert_eq!(parsed("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(parsed("192.0.2.1:80").as_deref(), Some("192.0.2.1"));
        assert_eq!(parsed("[2001:db8::1]:80").as_deref(), Some("2001:db8::1"));
        assert_eq!(parsed("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(parsed(" \t192.0.2.1 ").as_deref(), Some("192.0.2.1"));
        assert_eq!(parsed("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        for other in ["unknown", "", "_hidden", "192.0.2.1 x", "192.0.2.256", "2001:db8::1]:80"] {
            assert_eq!(parsed(other), None, "{other:?}");
        }
        assert_eq!(parse_forwarded(b"192.0.2.1\xff"), None);
    }
}
