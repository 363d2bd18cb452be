//! Lends a file's pages to a socket without copying them: through a pipe of the worker's own, into
//! which splice(2) puts the pages and out of which `std::io::copy` hands them to the socket, by
//! splice(2) again.
//!
//! Pages that are on their way are the file's own: if it is rewritten in place meanwhile, the client
//! gets the bytes of either version, as with sendfile(2).

use std::cell::Cell;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::net::TcpStream;
use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

/// Bytes that a pipe holds unless the system is short of pages for pipes.
pub const CAPACITY: usize = 64 * 1024;

/// Set if this system lets pages go from a pipe to a socket. `std::io::copy` falls back to reading
/// and writing where it does not, and would lose what it had read if the socket is full.
static WORKS: LazyLock<bool> = LazyLock::new(|| works().is_ok());

thread_local! {
    /// The pipe of this worker, while it is empty and nobody has it.
    static IDLE: Cell<Option<Pipe>> = const { Cell::new(None) };
}

/// An empty pipe, or one with pages in it.
#[derive(Debug)]
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    held: usize,
}

impl Pipe {
    /// Returns true if this system lends pages to sockets.
    pub fn works() -> bool {
        *WORKS
    }

    /// The pipe of this worker; `None` if there is none to be had.
    pub fn take() -> Option<Pipe> {
        IDLE.take().or_else(|| Pipe::new().ok())
    }

    fn new() -> io::Result<Pipe> {
        let (reader, writer) = io::pipe()?;
        Ok(Pipe { reader, writer, held: 0 })
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts up to `length` bytes of `file` from `position` on into the pipe, which has to be empty.
    /// Returns how many that were.
    ///
    /// # Errors
    /// `Unsupported` if this file's pages cannot be lent, and whatever reading it returns.
    pub fn fill(&mut self, file: &File, position: u64, length: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let length = length.min(CAPACITY);
        loop {
            let mut from = position;
            match splice(file, Some(&mut from), &self.writer, None, length, SpliceFlags::empty()) {
                Ok(count) => {
                    self.held = count;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                // A file system or a filter that knows nothing of it.
                Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands to `socket` what the pipe holds. Returns how many bytes went, and how that ended.
    pub fn empty(&mut self, mut socket: &TcpStream) -> (usize, io::Result<()>) {
        // Never more than the pipe holds: we hold its other end, and the copy would wait for ever.
        let mut lent = (&self.reader).take(self.held as u64);
        let result = io::copy(&mut lent, &mut socket);
        let left = lent.limit() as usize;
        let went = std::mem::replace(&mut self.held, left) - left;
        (went, result.map(drop))
    }

    /// Gives it back for the worker's next piece. One with something left in it is closed: those are
    /// another client's bytes.
    pub fn put_back(self) {
        if self.held == 0 {
            IDLE.set(Some(self));
        }
    }
}

/// Sends a page through a pipe and a socket.
fn works() -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    io::Write::write_all(&mut writer, &[0; 16])?;
    let (near, _far) = std::os::unix::net::UnixStream::pair()?;
    match splice(&reader, None, &near, None, 16, SpliceFlags::empty()) {
        Ok(16) => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    fn file(length: usize) -> File {
        let path = std::env::temp_dir().join(format!("winglet-pipe-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_file_goes_through_whatever_the_socket_takes_at_a_time() {
        let length = 3 << 20;
        let file = file(length);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let client = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut position = 0;
        while position < length {
            let mut pipe = Pipe::take().unwrap();
            let filled = pipe.fill(&file, position as u64, 100_000).unwrap();
            assert!(filled > 0 && filled <= CAPACITY && pipe.held() == filled);
            let (went, result) = pipe.empty(&near);
            assert_eq!((result.is_ok(), pipe.held()), (went == filled, filled - went));
            position += went;
            pipe.put_back();
            if went < filled {
                let mut poll = [rustix::event::PollFd::new(&near, rustix::event::PollFlags::OUT)];
                rustix::event::poll(&mut poll, None).unwrap();
            }
        }
        drop(near);
        let bytes = client.join().unwrap();
        assert!(bytes.len() == length && (0..length).all(|at| bytes[at] == (at % 251) as u8));
    }

    #[test]
    fn what_is_left_in_a_pipe_reaches_nobody_else() {
        let file = file(CAPACITY);
        let mut pipe = Pipe::take().unwrap();
        pipe.fill(&file, 0, 10).unwrap();
        pipe.put_back();
        assert_eq!(Pipe::take().unwrap().held(), 0);
        assert!(IDLE.take().is_none(), "a pipe that holds something was kept");
        let mut end = Pipe::take().unwrap();
        assert_eq!(end.fill(&file, CAPACITY as u64, 10).unwrap(), 0, "nothing is there");
        end.put_back();
        assert!(IDLE.take().is_some());
    }
}
