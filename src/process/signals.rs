//! TERM, INT and HUP, turned into readable descriptors for the acceptor.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals as they have come so far.
#[derive(Debug)]
pub struct Signals {
    /// Readable after TERM or INT.
    pub stop: UnixStream,
    /// Readable after HUP.
    pub reload: UnixStream,
    stops: AtomicUsize,
    reload_wanted: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the signals from here on.
    ///
    /// # Errors
    /// Where descriptors are exhausted.
    pub fn catch() -> io::Result<Signals> {
        let (signals, stop, reload) = Signals::unconnected()?;
        pipe::register(SIGTERM, stop.try_clone()?)?;
        pipe::register(SIGINT, stop)?;
        pipe::register(SIGHUP, reload)?;
        Ok(signals)
    }

    /// Signals that come from elsewhere: the ends to write a byte to for stopping and reloading.
    ///
    /// # Errors
    /// Where descriptors are exhausted.
    pub fn unconnected() -> io::Result<(Signals, UnixStream, UnixStream)> {
        let (stop, stop_end) = UnixStream::pair()?;
        let (reload, reload_end) = UnixStream::pair()?;
        for end in [&stop, &stop_end, &reload, &reload_end] {
            end.set_nonblocking(true)?;
        }
        let signals = Signals {
            stop,
            reload,
            stops: AtomicUsize::new(0),
            reload_wanted: Arc::new(AtomicBool::new(false)),
        };
        Ok((signals, stop_end, reload_end))
    }

    /// The flag that [`Signals::take_reload`] raises, for whoever carries the reload out.
    pub fn reload_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reload_wanted)
    }

    /// Counts TERM and INT that have come. Whether there was one.
    pub fn take_stop(&self) -> bool {
        let count = drain(&self.stop);
        self.stops.fetch_add(count, Ordering::Relaxed);
        count > 0
    }

    /// Whether a second TERM or INT has come.
    pub fn stopped_twice(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 1
    }

    /// Takes note of HUP.
    pub fn take_reload(&self) {
        if drain(&self.reload) > 0 {
            self.reload_wanted.store(true, Ordering::Release);
        }
    }
}

fn drain(mut stream: &UnixStream) -> usize {
    let mut buffer = [0; 64];
    let mut count = 0;
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        count += read;
    }
    count
}
