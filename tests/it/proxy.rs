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

use crate::client::try_connect_from;
use crate::harness::PATIENCE;

/// The longest that Linux delays an acknowledgement.
pub const ACKNOWLEDGED_BY: Duration = Duration::from_millis(200);

/// How a connection ends before its answer is whole. Its client is reset.
#[derive(Clone, Copy)]
pub enum Cut {
    /// After so many bytes of answers, the server is reset, too.
    Reset(usize),
    /// After so many bytes, the server hears nothing more.
    Silence(usize),
}

/// What happens to the connections through a proxy, in the order in which they begin.
pub struct Plan {
    /// The loopback addresses that they come from, in turns.
    pub sources: Vec<String>,
    /// How those end that carry answers. Later ones are left alone.
    pub cuts: Vec<Cut>,
    /// Called with the number of each before it is made.
    pub before: Box<dyn Fn(usize) + Send + Sync>,
}

impl Default for Plan {
    fn default() -> Plan {
        let sources = vec!["127.0.0.1".into()];
        Plan { sources, cuts: Vec::new(), before: Box::new(|_| ()) }
    }
}

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
        Proxy::with(
            to,
            Plan { cuts: cuts.into_iter().map(Cut::Reset).collect(), ..Plan::default() },
        )
    }

    /// Starts a proxy to `to` that follows `plan`.
    pub fn with(to: SocketAddr, plan: Plan) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&cut));
        // Small, or a kernel that nobody reads from goes on acknowledging for a while.
        let silent = plan.cuts.iter().any(|cut| matches!(cut, Cut::Silence(_)));
        let buffer = silent.then_some(64 << 10);
        let cuts = Arc::new(Mutex::new(VecDeque::from(plan.cuts)));
        let silent = Arc::new(Mutex::new(Vec::new()));
        let acceptor = thread::spawn(move || {
            let mut relays = Vec::new();
            for (number, client) in listener.incoming().enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                (plan.before)(number);
                let source = plan.sources[number % plan.sources.len()].clone();
                let (stopped, count) = (Arc::clone(&stopped), Arc::clone(&count));
                let (cuts, silent) = (Arc::clone(&cuts), Arc::clone(&silent));
                relays.push(thread::spawn(move || {
                    let server = try_connect_from(&source, to, buffer);
                    let (Ok(client), Ok(server)) = (client, server) else { return };
                    let end = relay(&client, &server, &cuts, &stopped);
                    count.fetch_add(usize::from(end.is_some()), Ordering::Relaxed);
                    let zero = Some(Duration::ZERO);
                    let _ = rustix::net::sockopt::set_socket_linger(&client, zero);
                    let _ = rustix::net::sockopt::set_socket_linger(&server, zero);
                    if let Some(Cut::Silence(_)) = end {
                        silent.lock().unwrap().push(server);
                    }
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

/// Relays until both sides have finished, one is gone, or its cut has come, which is returned.
fn relay(
    mut client: &TcpStream,
    mut server: &TcpStream,
    cuts: &Mutex<VecDeque<Cut>>,
    stop: &AtomicBool,
) -> Option<Cut> {
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
                _ => return None,
            }
        }
        if ready(server, server_open) {
            match server.read(&mut buffer) {
                Ok(0) => {
                    server_open = false;
                    let _ = client.shutdown(Shutdown::Write);
                }
                Ok(count) => {
                    let (cut, left) = limit.get_or_insert_with(|| {
                        let cut = cuts.lock().unwrap().pop_front();
                        match cut {
                            Some(Cut::Reset(bytes) | Cut::Silence(bytes)) => (cut, bytes),
                            None => (cut, usize::MAX),
                        }
                    });
                    let passed = count.min(*left);
                    *left -= passed;
                    if client.write_all(&buffer[..passed]).is_err() {
                        return None;
                    }
                    if *left == 0 {
                        // What was passed on is acknowledged by then: no client loses that.
                        thread::sleep(ACKNOWLEDGED_BY);
                        return *cut;
                    }
                }
                Err(_) => return None,
            }
        }
    }
    None
}

/// Whether `socket` can be read, after a short wait.
fn ready(socket: &TcpStream, open: bool) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: if open { 200_000 } else { 0 } };
    open && rustix::event::poll(&mut poll, Some(&wait)).is_ok_and(|count| count > 0)
}
