//! File systems that stall: one that answers nobody, and one whose file can be read up to a point.
//!
//! Both are FUSE (linux/fuse.h), spoken to by the test itself. Whoever waits for an answer gets an
//! error once the file system is dropped. A client that does not read keeps no worker busy: these do.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::client::{Client, connect_from};
use crate::control::status;
use crate::harness::{Node, Server, must_be_root, skip};
use crate::mint::Token;

/// Opcodes of requests.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The numbers of the root and of the file in it.
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// A request's header in bytes, and room for any request.
const HEADER: usize = 40;
const REQUEST: usize = 64 << 10;
/// Opened so, reads do not go through the page cache.
const DIRECT: u32 = 1;

/// A file system over a directory of the test, for as long as it is not dropped.
pub struct Stalled {
    path: PathBuf,
    /// `None` once it was taken away, or if a thread has it.
    device: Option<File>,
    thread: Option<JoinHandle<()>>,
}

impl Stalled {
    /// A file system over `path` that answers nobody; `None`, and a skip, if there can be none.
    pub fn over(path: &Path) -> Option<Stalled> {
        Stalled::mount(path, |device| Stalled {
            path: path.to_owned(),
            device: Some(device),
            thread: None,
        })
    }

    /// A file system over `path` with a `file` of `length` bytes, those of [`byte_at`], of which about
    /// the first `readable` can be read (the kernel reads ahead); who reads on is not answered. `None`,
    /// and a skip, if there can be none.
    pub fn after(path: &Path, length: u64, readable: u64) -> Option<Stalled> {
        Stalled::file(path, length, readable, DIRECT)
    }

    /// The same with all of the file, through the page cache (`cached`) or not.
    pub fn never(path: &Path, length: u64, cached: bool) -> Option<Stalled> {
        Stalled::file(path, length, length, if cached { 0 } else { DIRECT })
    }

    fn file(path: &Path, length: u64, readable: u64, flags: u32) -> Option<Stalled> {
        Stalled::mount(path, |device| {
            let host = Host { device, length, readable, flags, waiting: Vec::new() };
            Stalled {
                path: path.to_owned(),
                device: None,
                thread: Some(thread::spawn(move || host.run())),
            }
        })
    }

    fn mount(path: &Path, start: impl FnOnce(File) -> Stalled) -> Option<Stalled> {
        if !must_be_root() {
            return None;
        }
        let mounted =
            OpenOptions::new().read(true).write(true).open("/dev/fuse").and_then(|mut device| {
                let descriptor = device.as_raw_fd();
                let options =
                    format!("fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other");
                let options = CString::new(options)?;
                mount("stalled", path, "fuse", MountFlags::empty(), Some(options.as_c_str()))?;
                answer_init(&mut device)?;
                Ok(start(device))
            });
        mounted.inspect_err(|error| skip(format!("FUSE cannot be mounted: {error}"))).ok()
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Forced: whoever waits gets an error now, and the thread, too.
        let _ = unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH);
        self.device = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// What a node needs whose workers are to be [`Occupied`]: the sandbox knows the directories as they
/// were at the start, without what is mounted later.
pub const TWO_WORKERS: &str = "threads: 2\nsandbox: false\ncontrol: unix:control.sock";

/// The two workers of a node, each kept by a disk that stalls.
pub struct Occupied {
    disks: [Stalled; 2],
    clients: [Client; 2],
}

impl Occupied {
    /// Both workers of `server`, which serves `node`; `None`, and a skip, if no disk can stall.
    pub fn start(node: &Node, server: &Server) -> Option<Occupied> {
        let disks =
            [Stalled::over(node.volume().parent().unwrap())?, Stalled::over(&node.backups())?];
        let clients = [Token::file("file"), Token::backup()].map(|token| {
            let mut client = Client::over(connect_from("127.0.9.1", server.address(), None));
            client.request("GET", &token.target(), "");
            client
        });
        server.wait_until("both workers are busy", |_| busy_workers(node) == 2);
        Some(Occupied { disks, clients })
    }

    /// Lets the disks go on. Those whom the workers serve are answered: with an error, or with what
    /// lies beneath.
    pub fn end(self) {
        drop(self.disks);
        for mut client in self.clients {
            let status = client.answer().status;
            assert!(matches!(status, 200 | 404 | 500), "{status}");
        }
    }
}

/// Workers of `node` that are at something.
pub fn busy_workers(node: &Node) -> u64 {
    status(node)["workers"]["busy"].as_u64().unwrap()
}

/// Waits until so many requests wait for a worker of `server`, which serves `node`.
pub fn wait_for_queue(node: &Node, server: &Server, count: u64) {
    let waiting = || status(node)["workers"]["waiting"].as_u64();
    server.wait_until("they wait", |_| waiting() == Some(count));
}

/// Answers the kernel's first request, `FUSE_INIT`, without which it lets nobody in.
fn answer_init(device: &mut File) -> io::Result<()> {
    let mut request = vec![0; REQUEST];
    let length = device.read(&mut request)?;
    assert!(length >= HEADER, "the kernel asks first");
    // Protocol 7.31, no features, writes of a page.
    let mut body: Vec<u8> = [7u32, 31, 0, 0, 0, 4096, 1].map(u32::to_ne_bytes).concat();
    body.resize(64, 0);
    answer(device, u64_at(&request, 8), Ok(&body))
}

fn answer(device: &mut File, unique: u64, result: Result<&[u8], Errno>) -> io::Result<()> {
    let (error, body) = match result {
        Ok(body) => (0, body),
        Err(error) => (-error.raw_os_error(), &[][..]),
    };
    let length = (16 + body.len()) as u32;
    let header = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
    device.write_all(&[&header, body].concat())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The byte of a file at `offset`.
pub fn byte_at(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

/// Who answers for a file that can be read up to a point.
struct Host {
    device: File,
    length: u64,
    readable: u64,
    /// How it is opened.
    flags: u32,
    /// Reads beyond that point.
    waiting: Vec<u64>,
}

impl Host {
    /// Answers until the file system is gone.
    fn run(mut self) {
        let mut request = vec![0; REQUEST];
        while let Ok(length) = self.device.read(&mut request) {
            // An error means that nobody waits any more.
            let _ = self.serve(&request[..length]);
        }
    }

    fn serve(&mut self, request: &[u8]) -> io::Result<()> {
        let (opcode, unique) = (u32_at(request, 4), u64_at(request, 8));
        let (node, body) = (u64_at(request, 16), &request[HEADER..]);
        let found: Result<Vec<u8>, Errno> = match opcode {
            FORGET | BATCH_FORGET => return Ok(()),
            INTERRUPT => return self.interrupt(u64_at(body, 0)),
            READ => return self.read(unique, u64_at(body, 8), u32_at(body, 16)),
            LOOKUP if body == b"file\0" => {
                Ok([&FILE.to_ne_bytes()[..], &[0; 32], &self.attributes(FILE)].concat())
            }
            LOOKUP => Err(Errno::NOENT),
            GETATTR => Ok([&[0; 16][..], &self.attributes(node)].concat()),
            OPEN => Ok([&[0; 8][..], &self.flags.to_ne_bytes(), &[0; 4]].concat()),
            RELEASE => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        };
        answer(&mut self.device, unique, found.as_deref().map_err(|error| *error))
    }

    fn read(&mut self, unique: u64, offset: u64, size: u32) -> io::Result<()> {
        if (self.readable..self.length).contains(&offset) {
            self.waiting.push(unique);
            return Ok(());
        }
        let end = self.readable.min(offset + u64::from(size));
        let bytes: Vec<u8> = (offset..end).map(byte_at).collect();
        answer(&mut self.device, unique, Ok(&bytes))
    }

    /// Who waits for read `unique` got a signal, which may be the last one.
    fn interrupt(&mut self, unique: u64) -> io::Result<()> {
        match self.waiting.iter().position(|waiting| *waiting == unique) {
            Some(index) => {
                self.waiting.swap_remove(index);
                answer(&mut self.device, unique, Err(Errno::INTR))
            }
            None => Ok(()),
        }
    }

    /// `struct fuse_attr` of a file, or of the directory that it is in.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) =
            if node == ROOT { (0o040_755u32, 0) } else { (0o100_644u32, self.length) };
        let mut attributes = [node, size, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        // Nanoseconds of three times; mode, links; owner, device, size of a block, flags.
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            attributes.extend(u32::to_ne_bytes(word));
        }
        attributes
    }
}
