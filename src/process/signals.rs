//! TERM and INT, turned into a readable descriptor for the acceptor, HUP, turned into a flag for
//! whoever carries the reload out, and USR1, turned into one for whoever reports.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The signals as they have come so far.
#[derive(Debug)]
pub struct Signals {
    /// Readable after TERM or INT.
    pub stop: UnixStream,
    stops: AtomicUsize,
    reload: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the signals from here on.
    ///
    /// # Errors
    /// If descriptors are exhausted.
    pub fn catch() -> io::Result<Signals> {
        let (signals, stop) = Signals::unconnected()?;
        pipe::register(SIGTERM, stop.try_clone()?)?;
        pipe::register(SIGINT, stop)?;
        flag::register(SIGHUP, signals.reload_flag())?;
        flag::register(SIGUSR1, Arc::clone(&signals.report))?;
        Ok(signals)
    }

    /// Signals that come from elsewhere: the end to write a byte to for stopping.
    ///
    /// # Errors
    /// If descriptors are exhausted.
    pub fn unconnected() -> io::Result<(Signals, UnixStream)> {
        let (stop, stop_end) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        stop_end.set_nonblocking(true)?;
        let signals = Signals {
            stop,
            stops: AtomicUsize::new(0),
            reload: Arc::default(),
            report: Arc::default(),
        };
        Ok((signals, stop_end))
    }

    /// The flag that HUP raises. Whoever carries the reload out looks at it about once per second,
    /// and lowers it.
    pub fn reload_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reload)
    }

    /// The flag that USR1 raises, for whoever writes the report.
    pub fn report_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.report)
    }

    /// Counts TERM and INT that have come. Whether there was one.
    pub fn take_stop(&self) -> bool {
        let mut buffer = [0; 64];
        let mut count = 0;
        while let Ok(read @ 1..) = (&self.stop).read(&mut buffer) {
            count += read;
        }
        self.stops.fetch_add(count, Ordering::Relaxed);
        count > 0
    }

    /// Whether a second TERM or INT has come.
    pub fn stopped_twice(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 1
    }
}
