//! The private socket to tiny_http: one connection, through which only checked heads travel.
//!
//! tiny_http must not meet the network: one request with a huge `Content-Length` aborts the
//! process, one `EMFILE` ends its accept loop. What crosses here is `GET` or `HEAD`, a target in
//! printable ASCII, HTTP/1.1 and one number, none of which it can stumble over. Its listener is
//! bound in a directory of our own, connected to once, and gone before anything is served.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tiny_http::Server;

use crate::http::head::Method;
use crate::pool::NUMBER_FIELD;

/// How long tiny_http may take to answer its first request, at start.
const READY: Duration = Duration::from_secs(10);

/// Our end of the connection.
#[derive(Debug)]
pub struct PrivateSocket {
    stream: UnixStream,
    /// Heads that did not fit into the socket yet; bounded by the workers that wait for them.
    unsent: Vec<u8>,
}

impl PrivateSocket {
    /// Starts a tiny_http server that is reached by the returned socket and by nothing else. Its
    /// listener lives in a fresh directory below `base` for the moment of connecting.
    ///
    /// # Errors
    /// Where `base` cannot be written or descriptors are exhausted.
    pub fn open(base: &Path) -> io::Result<(Arc<Server>, PrivateSocket)> {
        let place = TempDir::new(base)?;
        let path = place.0.join("s");
        let listener = UnixListener::bind(&path)?;
        let closer = listener.try_clone()?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let mut stream = UnixStream::connect(&path)?;
        // One round trip proves that the connection is accepted and works; after it, closing the
        // listener ends tiny_http's accept thread, and all but one of its pool follow.
        stream.write_all(message(Method::Get, "/", 0).as_bytes())?;
        let ready = server.recv_timeout(READY);
        rustix::net::shutdown(&closer, rustix::net::Shutdown::Both)?;
        match ready? {
            Some(request) => drop(request.into_writer()),
            None => return Err(io::Error::new(io::ErrorKind::TimedOut, "tiny_http did not start")),
        }
        // The accept thread reports its end as an error; taken here, no worker has to see it.
        drop(server.recv_timeout(READY));
        // A Request that is dropped unanswered writes a 500 here. Unread they would fill the
        // socket and block its worker for good; shut, they fail at once.
        stream.shutdown(Shutdown::Read)?;
        stream.set_nonblocking(true)?;
        Ok((Arc::new(server), PrivateSocket { stream, unsent: Vec::new() }))
    }

    /// Queues the request `number` for sending.
    pub fn push(&mut self, method: Method, target: &str, number: u64) {
        self.unsent.extend_from_slice(message(method, target, number).as_bytes());
    }

    /// Sends what is queued. `Ok(false)` where the socket is full.
    ///
    /// # Errors
    /// Where tiny_http's end is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        let result = loop {
            if sent == self.unsent.len() {
                break Ok(true);
            }
            match self.stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        result
    }

    /// Ends tiny_http's side from ours: what a test does to see it rebuilt.
    pub fn sabotage(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// All that ever crosses the private socket.
fn message(method: Method, target: &str, number: u64) -> String {
    let mut message = String::with_capacity(target.len() + 64);
    let _ =
        write!(message, "{} {target} HTTP/1.1\r\n{NUMBER_FIELD}: {number}\r\n\r\n", method.name());
    message
}

/// A directory that nobody else can enter, removed when it goes out of scope.
struct TempDir(PathBuf);

impl TempDir {
    fn new(base: &Path) -> io::Result<TempDir> {
        use std::hash::{BuildHasher, Hasher, RandomState};
        for _ in 0..16 {
            let random = RandomState::new().build_hasher().finish();
            let path = base.join(format!("winglet-{random:016x}"));
            // Fails where something is there already, a symlink included.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TempDir(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.join("s"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Screened, screen};
    use proptest::prelude::*;

    #[test]
    fn nothing_is_left_in_the_file_system() {
        let base = std::env::temp_dir().join(format!("winglet-private-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let opened = PrivateSocket::open(&base).unwrap();
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
        drop(opened);
        std::fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_dropped_request_blocks_nothing() {
        let (server, mut socket) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
        for number in 0..600 {
            socket.push(Method::Get, "/", number);
            assert!(socket.flush().unwrap());
            drop(server.recv_timeout(READY).unwrap().unwrap());
        }
    }

    /// Whatever passes screening, tiny_http must read as one request.
    fn crosses(server: &Server, socket: &mut PrivateSocket, bytes: &[u8], number: u64) {
        let Screened::Ready(head, _) = screen(bytes, 0) else { return };
        if !matches!(head.method, Method::Get | Method::Head) {
            return;
        }
        socket.push(head.method, "/", number);
        assert!(socket.flush().unwrap());
        let request = server.recv_timeout(READY).unwrap().expect("tiny_http stumbled");
        assert_eq!(request.url(), "/");
        assert_eq!(request.method().as_str(), head.method.name());
        let field = request.headers().iter().find(|h| h.field.equiv(NUMBER_FIELD)).unwrap();
        assert_eq!(field.value.as_str(), number.to_string());
        drop(request.into_writer());
    }

    #[test]
    fn what_the_acceptor_hands_over_tiny_http_parses() {
        let (server, socket) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
        let state = std::cell::RefCell::new((socket, 0));
        let strategy = (
            "(GET|HEAD)",
            "(/|/download/file\\?token=|http://h/|//)[!-~]{0,60}",
            prop::collection::vec(
                "(Content-Length: 0|Expect: 100-continue|Connection: (close|upgrade|keep-alive)|Upgrade: h2c|X: [ -~]{0,20})\r\n",
                0..4,
            ),
            "1\\.[01]",
        );
        proptest!(|((method, target, fields, version) in strategy)| {
            let head = format!("{method} {target} HTTP/{version}\r\nHost: a\r\n{}\r\n", fields.concat());
            let (socket, number) = &mut *state.borrow_mut();
            *number += 1;
            crosses(&server, socket, head.as_bytes(), *number);
        });
    }
}
