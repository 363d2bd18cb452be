//! TLS on a client's connection: rustls over a non-blocking TCP stream.
//!
//! A handshake runs in steps, which workers carry out, so that a client which stalls in it costs a
//! waiting place and nothing more. Bytes are counted on both sides of the encryption, so that
//! delivery accounting knows which content an acknowledgement covers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ServerConnection;

pub use super::certificates::{CertificateReport, Certificates};

use crate::sys;

/// The first byte of a TLS handshake record (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// Longer than any real handshake; what comes of one is kept in memory.
const MAX_HANDSHAKE_BYTES: usize = 16 * 1024;
/// Encrypted bytes that may wait for room in the kernel: four records.
const BUFFER_LIMIT: usize = 64 * 1024;
/// Reads from the kernel before others get their turn.
const READS: usize = 16;
/// Content bytes of a full record (RFC 8446 §5.1), which rustls cuts everything into…
const RECORD: u64 = 16 * 1024;
/// …and more than any cipher adds to one.
const MAX_OVERHEAD: u64 = 64;
/// Marks kept before the oldest are compared with what is acknowledged.
const MAX_MARKS: usize = 256;

/// A TLS connection, handshake included.
#[derive(Debug)]
pub struct TlsStream {
    stream: TcpStream,
    connection: ServerConnection,
    greeted: bool,
    /// Bytes that the client has sent of its handshake.
    handshake_bytes: usize,
    /// The client speaks plain HTTP, and has been told so.
    plain: bool,
    /// Once everything is out, a FIN follows.
    closing: bool,
    /// Encrypted bytes handed to the kernel.
    raw_sent: u64,
    /// Content bytes encrypted.
    plain_sent: u64,
    /// What was handed to the kernel whole.
    marks: VecDeque<Mark>,
    /// [`TlsStream::raw_sent`] at the beginning of the last write.
    write_start: u64,
    /// Encrypted bytes that a record has besides its content.
    overhead: u64,
    /// Content bytes of all writes that are acknowledged whole.
    plain_acknowledged: u64,
    /// The last read ended before the kernel had nothing more.
    cut_short: bool,
    /// `TCP_NODELAY` is set, for the first write.
    hurries: bool,
}

/// One write: its encrypted bytes, and all content bytes up to its end.
#[derive(Clone, Copy, Debug)]
struct Mark {
    start: u64,
    end: u64,
    plain: u64,
}

/// Marks an `io::Error` that says: this client speaks plain HTTP.
#[derive(Debug)]
struct PlainHttp;

impl std::fmt::Display for PlainHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("plain HTTP on a TLS port")
    }
}

impl std::error::Error for PlainHttp {}

/// Whether `error` means that the client speaks plain HTTP.
pub fn is_plain_http(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PlainHttp>())
}

impl TlsStream {
    /// A connection that is about to begin its handshake.
    ///
    /// # Errors
    /// If rustls refuses its configuration.
    pub fn new(stream: TcpStream, certificates: &Certificates) -> io::Result<TlsStream> {
        let mut connection =
            ServerConnection::new(certificates.current()).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(BUFFER_LIMIT));
        Ok(TlsStream {
            stream,
            connection,
            greeted: false,
            handshake_bytes: 0,
            plain: false,
            closing: false,
            raw_sent: 0,
            plain_sent: 0,
            marks: VecDeque::new(),
            write_start: 0,
            overhead: MAX_OVERHEAD,
            plain_acknowledged: 0,
            cut_short: false,
            hurries: false,
        })
    }

    /// Carries the handshake on.
    ///
    /// # Errors
    /// `WouldBlock` if the client has to send more; `InvalidData` if it breaks the protocol, or
    /// sends more than any handshake needs.
    pub fn handshake(&mut self) -> io::Result<()> {
        self.greet()?;
        while self.connection.is_handshaking() {
            if self.handshake_bytes >= MAX_HANDSHAKE_BYTES {
                let error = "the handshake is longer than any client's";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            self.handshake_bytes += self.receive()?;
        }
        // The handshake's last bytes (in TLS 1.3 the session tickets, RFC 8446 §4.6.1) are on their way,
        // and a client may take 40 ms to acknowledge them. Nagle's algorithm would hold the first answer
        // back for that.
        self.hurries = self.stream.set_nodelay(true).is_ok();
        Ok(())
    }

    /// Encrypted bytes handed to the kernel.
    pub fn raw_sent(&self) -> u64 {
        self.raw_sent
    }

    /// Whether the handshake has begun.
    pub fn saw_client_hello(&self) -> bool {
        self.greeted
    }

    /// Reads decrypted bytes; the handshake is complete.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; `InvalidData` if the client breaks the protocol.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.plain {
            return (&self.stream).read(buffer);
        }
        // A stream of records that hold nothing must not keep the acceptor here.
        self.cut_short = false;
        for _ in 0..READS {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without close_notify the end counts as an end all the same: requests have one
                // of their own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => drop(result?),
            }
        }
        self.cut_short = true;
        match self.connection.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            result => result,
        }
    }

    /// Returns true if the last read gave up while there may have been more.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Takes in what the client has sent, and answers it. How many bytes that were.
    fn receive(&mut self) -> io::Result<usize> {
        let count = self.connection.read_tls(&mut &self.stream)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let processed = self.connection.process_new_packets();
        // The handshake's answers, or an alert that says what was wrong.
        let flushed = self.flush();
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match flushed {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    /// Looks at the first byte, to tell TLS from HTTP before rustls answers with an alert that no
    /// browser shows.
    fn greet(&mut self) -> io::Result<()> {
        if self.greeted {
            return Ok(());
        }
        let mut first = [0; 1];
        if self.stream.peek(&mut first)? == 1 && first[0] != HANDSHAKE_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp));
        }
        self.greeted = true;
        Ok(())
    }

    /// Encrypts what fits and hands it to the kernel.
    ///
    /// # Errors
    /// `WouldBlock` if earlier bytes still wait for room.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.plain_sent > 0 && std::mem::take(&mut self.hurries) {
            // Large answers are to fill their packets.
            let _ = self.stream.set_nodelay(false);
        }
        self.write_start = self.raw_sent;
        let count = self.connection.writer().write(bytes)?;
        self.plain_sent += count as u64;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    /// Hands waiting encrypted bytes to the kernel.
    ///
    /// # Errors
    /// `WouldBlock` if it does not take all of them.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut &self.stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.raw_sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let before = self.marks.back().map_or(self.plain_acknowledged, |mark| mark.plain);
        if before < self.plain_sent {
            if self.marks.len() >= MAX_MARKS {
                let outstanding = sys::unacknowledged(self.stream.as_fd())?;
                self.acknowledged(outstanding);
            }
            let (start, end, plain) = (self.write_start, self.raw_sent, self.plain_sent);
            let content = plain - before;
            self.overhead =
                (end - start).saturating_sub(content).div_ceil(content.div_ceil(RECORD));
            self.marks.push_back(Mark { start, end, plain });
        }
        if std::mem::take(&mut self.closing) {
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Content bytes that are acknowledged while `outstanding` encrypted bytes are not: of a write
    /// that is only in part, the whole records, which a client can have read.
    pub fn acknowledged(&mut self, outstanding: u64) -> u64 {
        let raw = self.raw_sent.saturating_sub(outstanding);
        while let Some(mark) = self.marks.front().copied().filter(|mark| mark.end <= raw) {
            self.plain_acknowledged = mark.plain;
            self.marks.pop_front();
        }
        // If there is none, the last write waits for room in the kernel.
        let (start, plain) = self
            .marks
            .front()
            .map_or((self.write_start, self.plain_sent), |mark| (mark.start, mark.plain));
        let records = raw.saturating_sub(start) / (RECORD + self.overhead);
        plain.min(self.plain_acknowledged.saturating_add(records * RECORD))
    }

    /// Sends `close_notify` and FIN, so that the client can tell an end from a cut. If the kernel
    /// has no room for the first, the second waits for [`TlsStream::flush`] too.
    ///
    /// # Errors
    /// Whatever the connection died of.
    pub fn finish_writing(&mut self) -> io::Result<()> {
        if self.plain {
            return self.stream.shutdown(Shutdown::Write);
        }
        self.connection.send_close_notify();
        self.closing = true;
        self.flush()
    }

    /// Reads below TLS what has come.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there.
    pub fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.plain = true;
        (&self.stream).read(buffer)
    }

    /// Writes below TLS what fits.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.plain = true;
        // A client that does not take it now does without.
        let _ = self.stream.write(bytes);
    }

    /// Whether encrypted bytes wait for room in the kernel.
    pub fn wants_write(&self) -> bool {
        !self.plain && self.connection.wants_write()
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
