//! Asks the running server, at its control listener: a blocking HTTP client for one request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::claims::Claims;
use serde::Serialize;

use crate::config::{Config, Listen};
use crate::control::orders;
use crate::error::CommandError;

/// How long the server may take. An answer may wait for the journal.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an order's token is good for.
const VOUCHER_LIFE: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes: a table of thousands of downloads is far below.
const MAX_ANSWER: u64 = 64 << 20;

/// What the server said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Either kind of connection.
trait Stream: Read + Write {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// The answer to a `GET` of `path`.
///
/// # Errors
/// If there is no control listener, nobody answers there, or something else does.
pub(super) fn get(config: &Config, path: &str) -> Result<Answer, CommandError> {
    ask(config, &format!("GET {path} HTTP/1.1\r\n"), "")
}

/// The answer to a `POST` of `body` to `path`.
///
/// # Errors
/// As [`get`].
pub(super) fn post(config: &Config, path: &str, body: &str) -> Result<Answer, CommandError> {
    let mut head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    if !matches!(config.control, Some(Listen::Unix { .. })) {
        head += &format!("Authorization: Bearer {}\r\n", voucher(config, body)?);
    }
    ask(config, &head, body)
}

/// A token for this order. The node's own stays here: nobody knows who listens on a port.
fn voucher(config: &Config, body: &str) -> Result<String, CommandError> {
    #[derive(Serialize)]
    struct Voucher {
        order: String,
    }
    let order = orders::seal(body.as_bytes());
    let claims = Claims::with_custom_claims(Voucher { order }, VOUCHER_LIFE.into());
    HS256Key::from_bytes(config.token.as_bytes())
        .authenticate(claims)
        .map_err(|error| CommandError(format!("token: cannot sign: {error}")))
}

fn ask(config: &Config, head: &str, body: &str) -> Result<Answer, CommandError> {
    let Some(control) = &config.control else {
        return Err(CommandError(
            "winglet.control is not set, so that the server cannot be asked; write control: unix:/run/winglet/control.sock under winglet: and restart the server".into(),
        ));
    };
    let stream = match control {
        Listen::Unix { path } => unix(path),
        Listen::Tcp { address, .. } => tcp(*address),
    };
    let text = stream.and_then(|stream| exchange(stream, head, body)).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run this as root (sudo), or as the user that the service runs as"
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer",
            _ => "is the server running, and was it started with this configuration?",
        };
        CommandError(format!("winglet.control: {control}: {error}; {remedy}"))
    })?;
    parse(&text).ok_or_else(|| {
        CommandError(format!("winglet.control: {control}: what answers there is no Winglet"))
    })
}

fn unix(path: &Path) -> io::Result<Box<dyn Stream>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

fn tcp(address: SocketAddr) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

fn exchange(mut stream: Box<dyn Stream>, head: &str, body: &str) -> io::Result<String> {
    let request = format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Splits an answer, if it is one of ours and complete.
fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let complete = length.is_none_or(|length| length.parse() == Ok(body.len()));
    let ours = head.contains("\r\nX-Request-Id: ");
    (complete && ours).then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_of_ours_is_one() {
        let ours = "HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(
            parse(ours).map(|answer| (answer.status, answer.body)),
            Some((200, "ab".into()))
        );
        for other in ["", "SSH-2.0", &ours[..ours.len() - 1], &ours.replace("X-Request-Id", "X")] {
            assert!(parse(other).is_none(), "{other}");
        }
    }
}
