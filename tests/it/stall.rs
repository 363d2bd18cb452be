//! A disk that stands still holds its own requests, and nobody else's.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::client::{Client, get};
use crate::harness::{Node, must_be_root, skip};
use crate::mint::Token;

/// A file system over `path` that answers nobody (FUSE, whose other side never speaks) until it is
/// dropped; then whoever waits for it gets an error.
struct Stalled {
    path: PathBuf,
    device: Option<File>,
}

impl Stalled {
    /// `None`, and a skip, if this machine has no FUSE.
    fn over(path: &Path) -> Option<Stalled> {
        let open = || OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let mounted = open().and_then(|mut device| {
            let options = format!(
                "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
                device.as_raw_fd()
            );
            let options = std::ffi::CString::new(options)?;
            mount("stalled", path, "fuse", MountFlags::empty(), Some(options.as_c_str()))?;
            let stalled = Stalled { path: path.to_owned(), device: Some(device.try_clone()?) };
            answer_init(&mut device)?;
            Ok(stalled)
        });
        mounted.inspect_err(|error| skip(format!("FUSE cannot be mounted: {error}"))).ok()
    }
}

/// Answers the kernel's first request (`FUSE_INIT`, linux/fuse.h), without which it lets nobody in.
fn answer_init(device: &mut File) -> std::io::Result<()> {
    let mut request = vec![0; 16 * 1024];
    let length = device.read(&mut request)?;
    assert!(length >= 16, "the kernel asks first");
    let unique: [u8; 8] = request[8..16].try_into().unwrap();
    let mut answer = Vec::new();
    answer.extend(80u32.to_ne_bytes());
    answer.extend(0i32.to_ne_bytes());
    answer.extend(unique);
    // Protocol 7.31, no features, writes of a page.
    for word in [7u32, 31, 0, 0, 0, 4096, 1] {
        answer.extend(word.to_ne_bytes());
    }
    answer.resize(80, 0);
    device.write_all(&answer)
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Nobody answers any more: the kernel gives an error to all who wait.
        self.device = None;
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

#[test]
fn a_stalled_disk_holds_its_own_requests_only() {
    if !must_be_root() {
        return;
    }
    // The sandbox knows the directories as they were at the start, without what is mounted later.
    let node = Node::new()
        .winglet("threads: 4\nsandbox: false\ntimeouts: { queue: 1s }\ncontrol: unix:control.sock");
    node.file("file", b"file");
    node.backup(b"backup");
    let mut server = node.start();
    server.may_log_errors();
    let address = server.address();
    let Some(volumes) = Stalled::over(node.volume().parent().unwrap()) else { return };
    thread::scope(|scope| {
        let stuck: Vec<_> = (1..=8)
            .map(|host| {
                let mut client = Client::connect_from(&format!("127.0.0.{host}"), address);
                client.request("GET", &Token::file("file").target(), "");
                scope.spawn(move || client.answer().status)
            })
            .collect();
        // What found no worker is told so; two are left for the other directory.
        server.wait_for_logs(6, "refused: queue: no worker became free in time");
        for _ in 0..20 {
            assert_eq!(get(address, &Token::backup().target()).body, b"backup");
            assert_eq!(get(address, "/health").status, 200);
        }
        let backups = Stalled::over(&node.backups()).unwrap();
        let stuck_too: Vec<_> = (11..=14)
            .map(|host| {
                let mut client = Client::connect_from(&format!("127.0.0.{host}"), address);
                client.request("GET", &Token::backup().target(), "");
                scope.spawn(move || client.answer().status)
            })
            .collect();
        server.wait_until("health says so", |_| {
            let answer = get(address, "/health");
            answer.status == 503 && answer.text() == r#"{"status":"disk stalled"}"#
        });
        assert_eq!(get(address, &Token::backup().target()).status, 503);
        // Who wants to know why is told, and can act.
        let workers = &crate::control::status(&node)["workers"];
        assert_eq!((workers["busy"].as_u64(), workers["stuck"].as_bool()), (Some(4), Some(true)));
        drop((volumes, backups));
        let statuses: Vec<u16> =
            stuck.into_iter().chain(stuck_too).map(|one| one.join().unwrap()).collect();
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 404 | 500 | 503)),
            "{statuses:?}"
        );
    });
    // The disk is back, and so is everything else.
    assert_eq!(get(address, &Token::file("file").target()).body, b"file");
    assert_eq!(get(address, "/health").status, 200);
}
