//! Stands back behind the game servers on the same machine: processor and disk go to them first.
//!
//! Everything here binds the calling thread and those that it starts later, so it comes before the
//! first of them. A priority that is lower already, set by a service file for one, stays.

use std::io;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};

use crate::config::Finding;
use crate::sys;

/// The nice value, from -20 (first) to 19 (last); new processes have 0. A game that works for 30 ms of
/// every 50 has to get nine tenths of a core to be in time: 5 leaves it three quarters.
const NICE: i32 = 10;
/// The last of the eight levels of the best-effort I/O class.
const IO_LEVEL: i32 = 7;
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Lowers the priority of processor and disk. What the system refuses stays as it is, and comes
/// back as a warning: there is no log yet.
pub fn lower() -> Vec<Finding> {
    let steps = [("processor", lower_nice()), ("disk", lower_io()), ("session", lower_autogroup())];
    let refused = steps.into_iter().filter_map(|(what, result)| Some((what, result.err()?)));
    let warning = |(what, error)| {
        let message = format!("{what}: {error}; set it to normal to leave priorities alone");
        Finding::warning("winglet.priority", message)
    };
    refused.map(warning).collect()
}

fn lower_nice() -> io::Result<()> {
    if getpriority_process(None)? < NICE {
        setpriority_process(None, NICE)?;
    }
    Ok(())
}

fn lower_io() -> io::Result<()> {
    match sys::io_priority()? {
        (sys::IO_IDLE, _) => Ok(()),
        (sys::IO_BEST_EFFORT, IO_LEVEL..) => Ok(()),
        _ => sys::set_io_priority(sys::IO_BEST_EFFORT, IO_LEVEL),
    }
}

/// With autogroups (sched(7)) the kernel shares processors among sessions first, and a nice value
/// counts only within one.
fn lower_autogroup() -> io::Result<()> {
    // The autogroup of a shell is that of everything else in its session, now and later.
    if !sys::leads_session() {
        return Ok(());
    }
    // `/autogroup-17 nice 0`; nothing if this kernel, or this cgroup, does without.
    let current = std::fs::read_to_string(AUTOGROUP).unwrap_or_default();
    let nice = current.rsplit(' ').next().and_then(|nice| nice.trim().parse::<i32>().ok());
    if nice.is_none_or(|nice| nice >= NICE) {
        return Ok(());
    }
    // Without privileges the kernel takes one change per tenth of a second, of all processes.
    for _ in 0..5 {
        match std::fs::write(AUTOGROUP, NICE.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
