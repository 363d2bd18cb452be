//! An HTTP client that says exactly what a test wants, well-formed or not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::harness::PATIENCE;

/// An answer, head and body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields, in order.
    pub fields: Vec<(String, String)>,
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// The head as it came.
    pub raw: String,
}

impl Answer {
    /// The field's value; fails the test if the field is there twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice:\n{}", self.raw);
        value
    }

    /// `Content-Length`
    pub fn length(&self) -> Option<u64> {
        self.field("Content-Length").map(|value| value.parse().unwrap())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects from 127.0.0.1.
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from another loopback address, such as 127.0.0.2.
    pub fn connect_from(source: &str, address: SocketAddr) -> Client {
        Client::over(connect_from(source, address, None))
    }

    /// Uses a connection that is there.
    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends raw bytes to a server that may have hung up.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_ref().write_all(bytes.as_ref())
    }

    /// Sends a well-formed request with more header lines (each with its CR LF).
    pub fn request(&mut self, method: &str, target: &str, fields: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: node\r\n{fields}\r\n"));
    }

    /// Requests and reads the answer.
    pub fn get(&mut self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    /// Requests with more header lines and reads the answer.
    pub fn get_with(&mut self, target: &str, fields: &str) -> Answer {
        self.request("GET", target, fields);
        self.answer()
    }

    /// Reads an answer whole; fails the test if it is not whole.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap()
    }

    /// Reads the answer to a `HEAD`.
    pub fn bodiless_answer(&mut self) -> Answer {
        self.head().unwrap()
    }

    /// Reads an answer whole, or says why it is not: `UnexpectedEof` if it was cut.
    pub fn try_answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let bodiless = matches!(answer.status, 204 | 304);
        assert!(answer.field("Transfer-Encoding").is_none(), "chunked:\n{}", answer.raw);
        if !bodiless {
            let length = answer.length().expect("an answer without Content-Length");
            let mut body = vec![0; usize::try_from(length).unwrap()];
            self.reader.read_exact(&mut body)?;
            answer.body = body;
        }
        Ok(answer)
    }

    /// Reads the head of an answer only.
    pub fn head(&mut self) -> io::Result<Answer> {
        let mut raw = String::new();
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("after {raw:?}")));
            }
            raw.push_str(&String::from_utf8(line).expect("a head that is not text"));
            if raw.ends_with("\r\n\r\n") || raw == "\r\n" {
                break;
            }
        }
        let mut lines = raw.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(": ").expect("a malformed field"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Answer { status, fields, body: Vec::new(), raw })
    }

    /// Requests with more header lines and reads `length` bytes of the body.
    pub fn get_part(&mut self, target: &str, fields: &str, length: usize) -> Answer {
        self.request("GET", target, fields);
        let mut answer = self.head().unwrap();
        answer.body = self.read_some(length);
        answer
    }

    /// Reads up to `length` bytes of a body.
    pub fn read_some(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads until the server hangs up; a reset is an end, too.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.reader.read_to_end(&mut bytes);
        bytes
    }

    /// Whether the server has hung up, waiting for that if need be.
    pub fn is_closed(&mut self) -> bool {
        self.read_to_end().is_empty()
    }

    /// Closes with a reset, as a client that dies with unread data.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO)).unwrap();
    }

    /// Reads `length` bytes of a body without keeping them: `see` gets each piece and its offset.
    pub fn each_chunk(&mut self, length: u64, mut see: impl FnMut(u64, &[u8])) {
        let mut piece = vec![0; 256 << 10];
        let mut offset = 0;
        while offset < length {
            let room = piece.len().min(usize::try_from(length - offset).unwrap());
            let count = match self.reader.read(&mut piece[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            };
            assert!(count > 0, "the body ended after {offset} of {length} bytes");
            see(offset, &piece[..count]);
            offset += count as u64;
        }
    }
}

/// A connection from `source`, with a small receive buffer if `receive_buffer` is given.
pub fn connect_from(source: &str, to: SocketAddr, receive_buffer: Option<usize>) -> TcpStream {
    try_connect_from(source, to, receive_buffer).unwrap()
}

/// The same, of a server that may be gone.
pub fn try_connect_from(
    source: &str,
    to: SocketAddr,
    receive_buffer: Option<usize>,
) -> io::Result<TcpStream> {
    let source: IpAddr = source.parse().unwrap();
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Not for servers that other tests start meanwhile.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(bytes) = receive_buffer {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// One request on a fresh connection.
pub fn get(address: SocketAddr, target: &str) -> Answer {
    Client::connect(address).get(target)
}

/// The statuses of `count` requests of one target that are sent at the same moment.
pub fn at_once(address: SocketAddr, target: &str, count: usize) -> Vec<u16> {
    let barrier = Barrier::new(count);
    let ask = || {
        let mut client = Client::connect(address);
        barrier.wait();
        client.get(target).status
    };
    thread::scope(|scope| {
        let runs: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}
