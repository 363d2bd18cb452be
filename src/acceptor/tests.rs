//! The acceptor in this process, with parts that a test can take from it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::net::listener;
use crate::pool::Exchange;
use crate::pool::queue::Queue;
use crate::pool::returns::Returns;
use crate::replay::Replay;

const PATIENCE: Duration = Duration::from_secs(20);

/// An acceptor on a free port, whose workers never answer; its end of the private socket.
fn acceptor() -> (Acceptor, String, OwnedFd) {
    let directory = std::env::temp_dir();
    let file = directory.join(format!("winglet-acceptor-{}.yml", std::process::id()));
    let text = "token: '0123456789abcdef'\nsystem: {data: ., backup_directory: .}\n\
                winglet: {listen: ['127.0.0.1:0'], timeouts: {drain: 10s}}\n";
    std::fs::write(&file, text).unwrap();
    let loaded = config::load(std::slice::from_ref(&file), &[], &|_: &str| None, &[]);
    std::fs::remove_file(file).unwrap();
    let config = loaded.config.unwrap();
    let listeners = listener::open(&config, &|_: &str| None).unwrap();
    let address = listeners[0].to_string();
    let (server, private) = PrivateSocket::open(&directory).unwrap();
    let end = private.as_fd().try_clone_to_owned().unwrap();
    let (sender, _chores) = sync_channel(16);
    let replay = Replay::in_memory(16);
    let shared = Shared::new(Settings::new(config), replay, Clock::System, sender).unwrap();
    let shared = Arc::new(shared);
    let returns = Returns::new(Arc::clone(&shared.waker));
    let crew = Arc::new(Exchange { queue: Queue::new(1), returns });
    let pool = Pool::start(1, server, &crew, |_, job| panic!("{job:?}")).unwrap();
    let (signals, _stop) = Signals::unconnected().unwrap();
    let parts = Parts {
        shared,
        crew,
        listeners,
        private,
        pool,
        signals,
        descriptor_room: 100,
        #[cfg(feature = "tls")]
        tls: None,
    };
    (Acceptor::new(parts).unwrap(), address, end)
}

#[test]
fn the_loss_of_the_private_socket_ends_the_server_with_an_error() {
    let (acceptor, address, end) = acceptor();
    let running = thread::spawn(move || acceptor.run());
    let address = address.rsplit('/').next().unwrap().to_owned();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET /health HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    rustix::net::shutdown(&end, rustix::net::Shutdown::Both).unwrap();
    // An idle connection is closed, and nothing is waited for.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    let error = running.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("private socket"), "{error}");
}
