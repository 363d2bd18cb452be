//! The private socket to tiny_http: one connection, through which only calls travel.
//!
//! tiny_http must not meet the network: one request with a huge `Content-Length` aborts the
//! process, one `EMFILE` ends its accept loop. What crosses here is `GET / HTTP/1.1`, so that it
//! never sees a byte that a stranger chose. Its listener is bound in a directory of our own,
//! connected to once, and gone before anything is served.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiny_http::Server;

/// What wakes a worker.
const CALL: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// How long tiny_http may take to answer its first request, at start.
const READY: Duration = Duration::from_secs(10);

/// What the names of the listeners' directories begin with.
const PREFIX: &str = "winglet-";

/// Our end of the connection.
#[derive(Debug)]
pub struct PrivateSocket(UnixStream);

impl PrivateSocket {
    /// Starts a tiny_http server that is reached by the returned socket and by nothing else. Its
    /// listener lives in a fresh directory below `base` for the moment of connecting.
    ///
    /// # Errors
    /// If `base` cannot be written or descriptors are exhausted.
    pub fn open(base: &Path) -> io::Result<(Server, PrivateSocket)> {
        let directory = TempDir::new(base)?;
        let path = directory.0.join("s");
        let listener = UnixListener::bind(&path)?;
        let closer = listener.try_clone()?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let stream = UnixStream::connect(&path)?;
        let mut socket = PrivateSocket(stream);
        // One round trip proves that the connection is accepted and works; after it, closing the
        // listener ends tiny_http's accept thread, and all but one of its pool follow.
        socket.call(1)?;
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
        socket.0.shutdown(Shutdown::Read)?;
        socket.0.set_nonblocking(true)?;
        Ok((server, socket))
    }

    /// Returns true if `base` has room for the listener's directory: a full or read-only disk has
    /// none.
    pub fn fits_into(base: &Path) -> bool {
        TempDir::new(base).is_ok()
    }

    /// Removes what servers that were killed while they opened such a socket have left in `base`,
    /// which has to be this server's own.
    pub fn tidy(base: &Path) {
        for found in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = found.file_name();
            let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).unwrap_or("");
            if random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                // A directory with anything else in it is none of ours, and stays.
                let _ = std::fs::remove_file(found.path().join("s"));
                let _ = std::fs::remove_dir(found.path());
            }
        }
    }

    /// Calls `count` workers. There are no more calls under way than workers, which the socket's
    /// buffer holds many times over: one that is full is not read any more.
    ///
    /// # Errors
    /// If tiny_http's end is gone.
    pub fn call(&mut self, count: usize) -> io::Result<()> {
        if count > 0 { self.0.write_all(&CALL.repeat(count)) } else { Ok(()) }
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A directory that nobody else can enter, removed when it goes out of scope.
struct TempDir(PathBuf);

impl TempDir {
    fn new(base: &Path) -> io::Result<TempDir> {
        use std::hash::{BuildHasher, Hasher, RandomState};
        for _ in 0..16 {
            let random = RandomState::new().build_hasher().finish();
            let path = base.join(format!("{PREFIX}{random:016x}"));
            // Fails if something is there already, a symlink included.
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
    fn what_killed_servers_left_goes_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("winglet-tidy-{}", std::process::id()));
        let left = ["winglet-0123456789abcdef", "winglet-fedcba9876543210"];
        let others = ["winglet-0123", "winglet-0123456789abcdeg", "0123456789abcdef", "journal"];
        for name in left.iter().chain(&others) {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        std::fs::write(base.join(left[0]).join("s"), "").unwrap();
        std::fs::write(base.join("winglet-0000000000000000"), "a file").unwrap();
        PrivateSocket::tidy(&base);
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), others.len() + 1);
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_dropped_request_blocks_nothing() {
        let (server, mut socket) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
        for _ in 0..600 {
            socket.call(1).unwrap();
            drop(server.recv_timeout(READY).unwrap().unwrap());
        }
    }

    #[test]
    fn every_call_arrives() {
        let (server, mut socket) = PrivateSocket::open(&std::env::temp_dir()).unwrap();
        for count in [1, 8, 64] {
            socket.call(count).unwrap();
            for _ in 0..count {
                let call = server.recv_timeout(READY).unwrap().expect("tiny_http stumbled");
                drop(call.into_writer());
            }
        }
    }
}
