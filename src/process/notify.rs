//! Tells a service manager how things stand: sd_notify(3), and a pid file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Where news go, if anybody wants them.
///
/// Connected before the sandbox, which forbids abstract names afterwards. The crates for this
/// connect anew for each message, and know no abstract names.
#[derive(Debug, Default)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to `NOTIFY_SOCKET`, if `environment` has one.
    pub fn connect(environment: &dyn Fn(&str) -> Option<String>) -> Notifier {
        let connect = |name: String| -> io::Result<UnixDatagram> {
            let socket = UnixDatagram::unbound()?;
            match name.strip_prefix('@') {
                Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
                None => socket.connect(name)?,
            }
            Ok(socket)
        };
        Notifier(environment("NOTIFY_SOCKET").and_then(|name| connect(name).ok()))
    }

    /// Downloads are served.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The server drains.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, news: &str) {
        // A service manager that does not listen is none of our worries.
        self.0.as_ref().map(|socket| socket.send(news.as_bytes()));
    }
}

/// A pid file: made empty at start, filled once downloads are served, removed at the end.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes the file, empty. It is opened early because later the sandbox forbids it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path) -> Result<PidFile, StartError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| {
                let path = path.display();
                StartError::new("--pid-file", format!(
                    "cannot write {path}: {error}; name a file in a directory that the server may write"
                ))
            })?;
        Ok(PidFile { path: path.to_owned(), file })
    }

    /// Writes the process number.
    ///
    /// # Errors
    /// Whatever write(2) returns.
    pub fn fill(&mut self) -> io::Result<()> {
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Emptied first: in a directory that we may not write, an empty file names nobody.
        let _ = self.file.set_len(0);
        let _ = std::fs::remove_file(&self.path);
    }
}
