//! The only `unsafe` code: system calls that no crate in the tree wraps safely.
//!
//! Each function takes borrowed descriptors or plain values, so that nothing outside this file
//! has a safety condition to meet.
#![allow(unsafe_code)] // the one place; see above

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bytes written to `socket` that its peer has not acknowledged yet (`SIOCOUTQ`, tcp(7)).
///
/// Stays right after `shutdown`; after a reset it freezes at the unacknowledged amount. On a Unix
/// socket it is the kernel's memory for unread data: zero exactly when the peer has read all.
///
/// # Errors
/// Whatever ioctl(2) returns.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // The same number as SIOCOUTQ.
    count(socket, libc::TIOCOUTQ)
}

/// Bytes written to the TCP `socket` that it has not sent yet (`SIOCOUTQNSD`).
///
/// # Errors
/// Whatever ioctl(2) returns.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// From linux/sockios.h; the libc crate lacks it.
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    count(socket, SIOCOUTQNSD)
}

/// Asks one of the two questions above.
fn count(socket: BorrowedFd<'_>, question: libc::Ioctl) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call because it is borrowed, and both requests
    // write one c_int to the address they are given.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), question, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bounds what the kernel buffers of unsent data on `socket` (`TCP_NOTSENT_LOWAT`, in bytes).
/// Connections accepted from a listener inherit it.
///
/// # Errors
/// Whatever setsockopt(2) returns.
pub fn set_notsent_lowat(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value: libc::c_uint = bytes;
    // SAFETY: the descriptor is open for the whole call because it is borrowed; the option reads
    // one c_uint from a valid address of that size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_uint>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps glibc's allocator small: one arena instead of eight per core, of whose freed blocks
/// [`return_free_memory`] gives back the most. A copy buffer comes from there too: mapped anew for
/// each piece of a download it would cost more in page faults than the copying itself.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only changes allocator parameters; called at start, before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1024 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024 * 1024);
    }
}

/// Gives free memory back to the kernel: after a flood glibc keeps what lies below the last block
/// that is still in use. Takes well under a millisecond with the few MiB that there are.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) is thread-safe and touches only free blocks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes over descriptor number `raw`, passed by a service manager (sd_listen_fds(3)).
///
/// # Errors
/// `EBADF` if nothing is open under that number.
pub fn adopt_descriptor(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD reads no memory and is defined for every number.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (checked above), and by the protocol of sd_listen_fds(3) it
    // belongs to this process alone; the caller adopts each number once, at start.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Whether this process is the leader of its session. In a container it may be in a session of
/// outside, whose number reads as 0 here; rustix's `getsid` panics at that.
pub fn leads_session() -> bool {
    // SAFETY: both calls take and return plain numbers and touch no memory of ours.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// Returns true if the other end of the Unix `socket` is root's, or of this process's own user
/// (`SO_PEERCRED`, unix(7)).
pub fn is_operator(socket: BorrowedFd<'_>) -> bool {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call because it is borrowed; the option writes at
    // most `length` bytes to a valid address of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    result == 0 && (peer.uid == 0 || peer.uid == rustix::process::getuid().as_raw())
}

/// The best-effort I/O class (ioprio_set(2)), the one of most processes.
pub const IO_BEST_EFFORT: i32 = 2;
/// The idle I/O class.
pub const IO_IDLE: i32 = 3;
/// The class lies above the level.
const IO_CLASS_SHIFT: i32 = 13;
/// `IOPRIO_WHO_PROCESS`; with 0 it means the calling thread.
const IO_WHO_PROCESS: libc::c_int = 1;

/// Class and level of the calling thread's I/O priority (ioprio_get(2)). Class 0: none was set.
///
/// # Errors
/// Whatever ioprio_get(2) returns.
pub fn io_priority() -> io::Result<(i32, i32)> {
    // SAFETY: ioprio_get takes two numbers and touches no memory of ours.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IO_WHO_PROCESS, 0) };
    match i32::try_from(value) {
        Ok(value @ 0..) => Ok((value >> IO_CLASS_SHIFT, value & ((1 << IO_CLASS_SHIFT) - 1))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets class and level (0 to 7) of the calling thread, which those that it starts inherit
/// (ioprio_set(2)).
///
/// # Errors
/// Whatever ioprio_set(2) returns.
pub fn set_io_priority(class: i32, level: i32) -> io::Result<()> {
    let value = class << IO_CLASS_SHIFT | level;
    // SAFETY: ioprio_set takes three numbers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, IO_WHO_PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
