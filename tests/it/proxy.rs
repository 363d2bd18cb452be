//! A TCP proxy that cuts connections at the bytes that a test names.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::harness::PATIENCE;

/// The longest that Linux delays an acknowledgement.
pub const ACKNOWLEDGED_BY: Duration = Duration::from_millis(200);

/// A proxy in front of a server. Its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to `to` that resets connections after `cuts[i]` bytes of answers, on both
    /// sides: those that carry answers, in the order in which they begin. Later ones are left alone.
    pub fn start(to: SocketAddr, cuts: Vec<usize>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&cut));
        let cuts = Arc::new(Mutex::new(VecDeque::from(cuts)));
        let acceptor = thread::spawn(move || {
            let mut relays = Vec::new();
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (stopped, count) = (Arc::clone(&stopped), Arc::clone(&count));
                let cuts = Arc::clone(&cuts);
                relays.push(thread::spawn(move || {
                    let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
                    if relay(&client, &server, &cuts, &stopped) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    let zero = Some(Duration::ZERO);
                    let _ = rustix::net::sockopt::set_socket_linger(&client, zero);
                    let _ = rustix::net::sockopt::set_socket_linger(&server, zero);
                }));
            }
            relays.into_iter().for_each(|relay| relay.join().unwrap());
        });
        Proxy { address, stop, cut, acceptor: Some(acceptor) }
    }

    /// `http://ADDR:PORT`
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that were cut so far.
    pub fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.acceptor.take().map(JoinHandle::join);
    }
}

/// Relays until both sides have finished, one is gone, or its cut has come: then `true`.
fn relay(
    mut client: &TcpStream,
    mut server: &TcpStream,
    cuts: &Mutex<VecDeque<usize>>,
    stop: &AtomicBool,
) -> bool {
    let mut buffer = [0; 16 * 1024];
    let (mut client_open, mut server_open) = (true, true);
    let mut limit = None;
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    while (client_open || server_open) && !stop.load(Ordering::Relaxed) {
        if ready(client, client_open) {
            match client.read(&mut buffer) {
                Ok(0) => {
                    client_open = false;
                    let _ = server.shutdown(Shutdown::Write);
                }
                Ok(count) if server.write_all(&buffer[..count]).is_ok() => {}
                _ => return false,
            }
        }
        if ready(server, server_open) {
            match server.read(&mut buffer) {
                Ok(0) => {
                    server_open = false;
                    let _ = client.shutdown(Shutdown::Write);
                }
                Ok(count) => {
                    let next = || cuts.lock().unwrap().pop_front().unwrap_or(usize::MAX);
                    let left: &mut usize = limit.get_or_insert_with(next);
                    let passed = count.min(*left);
                    *left -= passed;
                    if client.write_all(&buffer[..passed]).is_err() {
                        return false;
                    }
                    if *left == 0 {
                        // What was passed on is acknowledged by then: no client loses that.
                        thread::sleep(ACKNOWLEDGED_BY);
                        return true;
                    }
                }
                Err(_) => return false,
            }
        }
    }
    false
}

/// Whether `socket` can be read, after a short wait.
fn ready(socket: &TcpStream, open: bool) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: if open { 200_000 } else { 0 } };
    open && rustix::event::poll(&mut poll, Some(&wait)).is_ok_and(|count| count > 0)
}
