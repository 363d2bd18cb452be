//! One client's byte stream: TCP or Unix, plain or TLS, never blocking.
//!
//! Besides reading and writing, it knows how much of what was written the other side has
//! acknowledged, which is what delivery accounting and stall detection go by.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

#[cfg(feature = "tls")]
use crate::net::tls::TlsStream;
use crate::sys;

/// Unsent data that the kernel may hold for one connection, in bytes. What is sent and not yet
/// acknowledged comes on top, as much as the path needs.
pub const NOTSENT_LOWAT: u32 = 128 * 1024;
/// The same while pages are lent to a client that takes whatever comes: so much that the kernel's own
/// limit holds. Waking for every 64 KiB costs half of the processor time of such a download, and lent
/// pages take no memory of their own.
const NOTSENT_LENT: u32 = 4 << 20;
/// The smallest read that is worth its system calls, in bytes.
const MIN_ROOM: usize = 16 * 1024;

/// A client's connection.
#[derive(Debug)]
pub struct Socket {
    wire: Wire,
    sent: u64,
    dead: bool,
    /// There may be something to read.
    unread: bool,
    /// The kernel may hold [`NOTSENT_LENT`].
    lent: bool,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Socket {
    /// Takes over a non-blocking TCP connection.
    pub fn tcp(stream: TcpStream) -> Socket {
        Socket { wire: Wire::Tcp(stream), sent: 0, dead: false, unread: false, lent: false }
    }

    /// Takes over a non-blocking Unix connection.
    pub fn unix(stream: UnixStream) -> Socket {
        Socket { wire: Wire::Unix(stream), sent: 0, dead: false, unread: false, lent: false }
    }

    /// Takes over a TLS connection, its handshake still to come.
    #[cfg(feature = "tls")]
    pub fn tls(stream: TlsStream) -> Socket {
        Socket {
            wire: Wire::Tls(Box::new(stream)),
            sent: 0,
            dead: false,
            unread: false,
            lent: false,
        }
    }

    /// Bytes written so far, over the whole connection.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The same in bytes on the wire: what TLS adds is counted.
    pub fn wire_sent(&self) -> u64 {
        match &self.wire {
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.raw_sent(),
            _ => self.sent,
        }
    }

    /// Bytes of [`Socket::sent`] that the other side's TCP has acknowledged; of a Unix peer, that
    /// it has read.
    ///
    /// # Errors
    /// Whatever the query returns.
    pub fn acknowledged(&mut self) -> io::Result<u64> {
        let outstanding = sys::unacknowledged(self.as_fd())?;
        Ok(match &mut self.wire {
            Wire::Tcp(_) => self.sent.saturating_sub(outstanding),
            // The kernel tells memory, not bytes: only zero is exact.
            Wire::Unix(_) if outstanding == 0 => self.sent,
            Wire::Unix(_) => self.sent.saturating_sub(outstanding),
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.acknowledged(outstanding),
        })
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and whatever the connection died of.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match &mut self.wire {
                Wire::Tcp(stream) => stream.read(buffer),
                Wire::Unix(stream) => stream.read(buffer),
                #[cfg(feature = "tls")]
                Wire::Tls(tls) => tls.read(buffer),
            };
            self.unread = match &result {
                // A plain connection that gives less than it may has given all (epoll(7)).
                Ok(count) => *count > 0 && (self.is_tls() || *count == buffer.len()),
                Err(_) => self.is_cut_short(),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Notes that something has come to be read.
    pub fn note_input(&mut self) {
        self.unread = true;
    }

    /// Returns true if something may be there that was not read yet, and of which the epoll set says
    /// nothing more.
    pub fn may_have_more(&self) -> bool {
        self.unread
    }

    /// Returns true if the last read gave up before it had seen all that is there.
    fn is_cut_short(&self) -> bool {
        match &self.wire {
            Wire::Tcp(_) | Wire::Unix(_) => false,
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.is_cut_short(),
        }
    }

    /// Hands as much of `bytes` to the kernel as it takes now.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing, and whatever the connection died of.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = match &mut self.wire {
                // MSG_NOSIGNAL comes with std's send; a dead peer is an error, not a signal.
                Wire::Tcp(stream) => stream.write(bytes),
                Wire::Unix(stream) => stream.write(bytes),
                #[cfg(feature = "tls")]
                Wire::Tls(tls) => tls.write(bytes),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.sent += count as u64;
                    return Ok(count);
                }
                result => return result,
            }
        }
    }

    /// The plain TCP connection, if this is one.
    pub fn tcp_stream(&self) -> Option<&TcpStream> {
        match &self.wire {
            Wire::Tcp(stream) => Some(stream),
            _ => None,
        }
    }

    /// Sets how much unsent data the kernel may hold: more if it is `lent` to a client that was never
    /// slow.
    pub fn bound_unsent(&mut self, lent: bool) {
        // Each call makes the kernel look whether somebody waits for room.
        if std::mem::replace(&mut self.lent, lent) == lent {
            return;
        }
        let bytes = if lent { NOTSENT_LENT } else { NOTSENT_LOWAT };
        // A kernel without the option bounds it by the size of its buffer.
        let _ = sys::set_notsent_lowat(self.as_fd(), bytes);
    }

    /// Notes that `count` bytes were written to [`Socket::tcp_stream`].
    pub fn note_written(&mut self, count: u64) {
        self.sent += count;
    }

    /// Pushes out what TLS still holds of earlier writes; nothing to do for plain connections.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel does not take all of it now.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Tcp(_) | Wire::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.flush(),
        }
    }

    /// Writes all of a small answer without waiting. `false` if the other side does not take it.
    pub fn write_at_once(&mut self, bytes: &[u8]) -> bool {
        self.write(bytes).is_ok_and(|count| count == bytes.len()) && self.flush().is_ok()
    }

    /// Reads below TLS what a client that does not speak it has sent so far.
    #[cfg(feature = "tls")]
    pub fn read_raw<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        let count = match &mut self.wire {
            Wire::Tls(tls) => tls.read_raw(buffer).unwrap_or(0),
            _ => 0,
        };
        &buffer[..count]
    }

    /// Writes below TLS what fits, to a client that does not speak it.
    #[cfg(feature = "tls")]
    pub fn write_raw(&mut self, bytes: &[u8]) {
        if let Wire::Tls(tls) = &mut self.wire {
            tls.write_raw(bytes);
        }
    }

    /// Says that nothing more will be sent: `close_notify` and FIN.
    pub fn finish_writing(&mut self) {
        let _ = match &mut self.wire {
            Wire::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Wire::Unix(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.finish_writing(),
        };
    }

    /// Makes closing a reset: what the kernel still holds of the answer is thrown away. Without it
    /// a client that was cut for standing still would keep megabytes of the kernel's memory for
    /// minutes, and could read on.
    pub fn reset_at_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    /// Whether TLS waits for room in the kernel's buffer.
    pub fn wants_write(&self) -> bool {
        match &self.wire {
            Wire::Tcp(_) | Wire::Unix(_) => false,
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.wants_write(),
        }
    }

    /// Returns true if the connection is encrypted, so that bytes may wait here that the kernel does
    /// not know of.
    pub fn is_tls(&self) -> bool {
        match &self.wire {
            Wire::Tcp(_) | Wire::Unix(_) => false,
            #[cfg(feature = "tls")]
            Wire::Tls(_) => true,
        }
    }

    /// Bytes of the next `wanted` ones that the socket is likely to take now: what is missing to
    /// [`NOTSENT_LOWAT`] of unsent bytes. A guess, never below 16 KiB.
    pub fn room(&self, wanted: u64) -> usize {
        let unsent = match &self.wire {
            // Not worth asking.
            _ if wanted <= MIN_ROOM as u64 => 0,
            Wire::Unix(_) => 0,
            _ => sys::unsent(self.as_fd()).unwrap_or(0),
        };
        usize::try_from(u64::from(NOTSENT_LOWAT).saturating_sub(unsent)).unwrap_or(0).max(MIN_ROOM)
    }

    /// Whether the kernel holds bytes of the client that nobody has read, or its FIN.
    pub fn has_unread_input(&self) -> bool {
        let mut poll = [PollFd::new(self, PollFlags::IN)];
        rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Whether the client sends no more: it has closed its end, or is gone.
    pub fn has_hung_up(&self) -> bool {
        let mut poll = [PollFd::new(self, PollFlags::RDHUP)];
        rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits until the socket takes bytes or its peer is gone. `false` after `timeout`.
    pub fn wait_writable(&self, timeout: Duration) -> bool {
        let mut poll = [PollFd::new(self, PollFlags::OUT)];
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // An interrupted wait counts as one in vain.
        rustix::event::poll(&mut poll, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    /// Takes note that reading failed.
    pub fn set_dead(&mut self) {
        self.dead = true;
    }

    /// Carries a TLS handshake on.
    ///
    /// # Errors
    /// `WouldBlock` if the client has to send more; `InvalidData` if it breaks the protocol.
    pub fn handshake(&mut self) -> io::Result<()> {
        match &mut self.wire {
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.handshake(),
            _ => Ok(()),
        }
    }

    /// Whether the TLS handshake has begun.
    pub fn saw_client_hello(&self) -> bool {
        match &self.wire {
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.saw_client_hello(),
            _ => true,
        }
    }

    /// Whether the connection has died of an error: a reset or a time-out.
    pub fn died(&mut self) -> bool {
        // The kernel clears the error when asked.
        self.dead |= !matches!(rustix::net::sockopt::socket_error(&*self), Ok(Ok(())));
        self.dead
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Tcp(stream) => stream.as_fd(),
            Wire::Unix(stream) => stream.as_fd(),
            #[cfg(feature = "tls")]
            Wire::Tls(tls) => tls.as_fd(),
        }
    }
}
