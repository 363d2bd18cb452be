//! A connection to the shared Redis, and where that is. Names are resolved and certificate
//! authorities read once, before the sandbox.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use redis::{Cmd, ConnectionLike, ErrorKind, FromRedisValue, Parser, Pipeline, RedisResult, Value};

use crate::config::SharedState;
use crate::error::StartError;
use crate::net::outgoing::Outgoing;
#[cfg(feature = "shared-state-tls")]
use crate::net::outgoing::PeerTls;

const KEY: &str = "winglet.shared_state";
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Where the shared Redis is, and how to log in.
#[derive(Debug)]
pub(super) struct Target {
    addresses: Vec<SocketAddr>,
    #[cfg(feature = "shared-state-tls")]
    tls: Option<PeerTls>,
    config: SharedState,
}

impl Target {
    /// Resolves the host's name and loads what TLS needs.
    ///
    /// # Errors
    /// If the name has no address, or there is no certificate authority.
    pub(super) fn resolve(config: &SharedState) -> Result<Target, StartError> {
        let host = config.host.as_str();
        let addresses = (host, config.port).to_socket_addrs().map_err(|error| {
            let message =
                format!("{host} has no address ({error}); write its IP address, or mend the name");
            StartError::new(KEY, message)
        })?;
        #[cfg(feature = "shared-state-tls")]
        let tls = match config.tls {
            true => {
                Some(PeerTls::new(host, config.authorities.as_deref()).map_err(|error| {
                    StartError::new("winglet.shared_state_ca", error.to_string())
                })?)
            }
            false => None,
        };
        Ok(Target {
            addresses: addresses.take(MAX_ADDRESSES).collect(),
            #[cfg(feature = "shared-state-tls")]
            tls,
            config: config.clone(),
        })
    }

    fn connect(&self, deadline: Instant) -> io::Result<Outgoing> {
        #[cfg(feature = "shared-state-tls")]
        if let Some(tls) = &self.tls {
            return Outgoing::tls(&self.addresses, tls, deadline);
        }
        Outgoing::plain(&self.addresses, deadline)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// A connection that is logged in. After an error that is not the server's own answer it is of no
/// use: see [`is_broken`].
pub(super) struct Connection {
    stream: Outgoing,
    parser: Parser,
}

impl Connection {
    /// Connects and logs in until `deadline`.
    pub(super) fn open(target: &Target, deadline: Instant) -> RedisResult<Connection> {
        let stream = target.connect(deadline)?;
        let mut connection = Connection { stream, parser: Parser::new() };
        let SharedState { user, password, database, .. } = &target.config;
        if let Some(password) = password {
            let mut login = redis::cmd("AUTH");
            login.arg(user).arg(password.as_bytes());
            login.exec(&mut connection)?;
        }
        if *database != 0 {
            redis::cmd("SELECT").arg(database).exec(&mut connection)?;
        }
        Ok(connection)
    }

    /// Sends `command` and waits for its answer until `deadline`.
    pub(super) fn ask<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        deadline: Instant,
    ) -> RedisResult<T> {
        self.stream.set_deadline(deadline);
        command.query(self)
    }

    /// As [`Connection::ask`], for many commands at once.
    pub(super) fn ask_all<T: FromRedisValue>(
        &mut self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> RedisResult<T> {
        self.stream.set_deadline(deadline);
        commands.query(self)
    }

    fn send(&mut self, bytes: &[u8]) -> RedisResult<()> {
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    fn receive(&mut self) -> RedisResult<Value> {
        self.parser.parse_value(&mut self.stream)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.send(command)?;
        self.receive()
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.send(commands)?;
        for _ in 0..offset {
            self.receive()?;
        }
        (0..count).map(|_| self.receive()).collect()
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        true
    }

    fn is_open(&self) -> bool {
        true
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

/// Whether a connection with this error is of no more use: it is anything but the server's answer.
pub(super) fn is_broken(error: &redis::RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse)
}
