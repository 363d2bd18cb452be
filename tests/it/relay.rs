//! A wire between a front end and Redis that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Default)]
struct State {
    cut: AtomicBool,
    /// Answers to requests that contain this are lost, with their connection, so many times.
    lost: Mutex<(Vec<u8>, usize)>,
    /// Both ends of each connection.
    wires: Mutex<Vec<TcpStream>>,
}

impl State {
    /// Returns true if the answer to `request` is to be lost.
    fn loses(&self, request: &[u8]) -> bool {
        let (text, times) = &mut *self.lost.lock().unwrap();
        let meant = *times > 0 && request.windows(text.len()).any(|window| window == text);
        *times -= usize::from(meant);
        meant
    }
}

/// Passes everything on, as long as it is not cut.
pub struct Relay {
    state: Arc<State>,
    port: u16,
}

impl Relay {
    /// A relay to `redis`. Its thread ends with the process.
    pub fn to(redis: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay { state: Arc::default(), port: listener.local_addr().unwrap().port() };
        let state = Arc::clone(&relay.state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !state.cut.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(redis)
                {
                    pass(&state, client, server);
                }
            }
        });
        relay
    }

    /// For `shared_state`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Closes every connection, and each that comes from here on.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for wire in self.state.wires.lock().unwrap().drain(..) {
            let _ = wire.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Loses the answers to the next `times` requests that contain `text`.
    pub fn lose_answers(&self, text: &str, times: usize) {
        *self.state.lost.lock().unwrap() = (text.as_bytes().to_vec(), times);
    }
}

/// Connects `client` and `server`, until one of them ends.
fn pass(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let both = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (to_client, to_server) = both();
    state.wires.lock().unwrap().extend([to_client, to_server]);
    let silent = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = both();
    let (state, deaf) = (Arc::clone(state), Arc::clone(&silent));
    thread::spawn(move || {
        pump(&mut from, &mut to, |request| {
            if state.loses(request) {
                deaf.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    let (mut to, mut from) = (client, server);
    thread::spawn(move || pump(&mut from, &mut to, |_| !silent.load(Ordering::SeqCst)));
}

/// Copies as long as `may` lets it, and ends both.
fn pump(from: &mut TcpStream, to: &mut TcpStream, may: impl Fn(&[u8]) -> bool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !may(&bytes[..count]) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
