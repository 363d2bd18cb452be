//! Many connections at once from many loopback addresses, held by one thread: what an attack, or a
//! busy evening, looks like from the server's side.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::connect_from;

/// Connections from one address: fewer than may wait by default.
const PER_ADDRESS: usize = 60;

/// Connections that are open and do nothing by themselves.
pub struct Crowd {
    streams: Vec<TcpStream>,
}

impl Crowd {
    /// `count` connections from 127.`net`.x.y to `to`, each of which has sent `bytes`.
    pub fn gather(to: SocketAddr, count: usize, net: u8, bytes: &[u8]) -> Crowd {
        let streams = (0..count).map(|number| {
            let host = number / PER_ADDRESS;
            let source = format!("127.{net}.{}.{}", host / 200, host % 200 + 1);
            let mut stream = connect_from(&source, to, None);
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(bytes);
            stream
        });
        Crowd { streams: streams.collect() }
    }

    /// Sends `bytes` on every connection that takes them.
    pub fn drip(&mut self, bytes: &[u8]) {
        for stream in &mut self.streams {
            let _ = stream.write(bytes);
        }
    }

    /// How many the server has left open.
    pub fn open(&self) -> usize {
        let is_open = |stream: &&TcpStream| {
            let peeked = stream.peek(&mut [0]);
            peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        self.streams.iter().filter(is_open).count()
    }
}
