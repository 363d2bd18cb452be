//! What the acceptor says of its connections, as plain numbers that any thread may read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For the client's next request, or its end.
    Idle,
    /// For a handshake, or the rest of a request.
    Head,
    /// For a worker, or a worker has it.
    Worker,
    /// For room in the socket, or for bandwidth.
    Download,
    /// For the client to acknowledge the last bytes.
    Finish,
}

/// The state of the acceptor.
#[derive(Debug, Default)]
pub struct Gauges {
    connections: [AtomicUsize; 5],
    /// True once the server has been told to stop.
    pub draining: AtomicBool,
    /// True while every worker stands at a disk.
    pub stuck: AtomicBool,
}

impl Gauges {
    /// One more connection waits for this.
    pub fn enter(&self, waits: Waits) {
        self.connections[waits as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One less does.
    pub fn leave(&self, waits: Waits) {
        let before = self.connections[waits as usize].fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{waits:?}");
    }

    /// How many connections wait for this.
    pub fn waiting(&self, waits: Waits) -> usize {
        self.connections[waits as usize].load(Ordering::Relaxed)
    }
}
