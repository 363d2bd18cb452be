//! Descriptors: as many as the system gives, and how many of them connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::archive::shelf::{MAX_KEPT, WALKS};
use crate::archive::walk::MAX_OPEN;
use crate::config::Config;

/// What the process needs besides connections and workers: standard streams, the log, listeners,
/// the journal, epoll and its kin.
const OWN: u64 = 32;
/// A worker's own: the server's directory, the file, a pipe's two ends, and one to spare.
const PER_WORKER: u64 = 5;
/// Directories of archives that are downloaded, and of trees that are walked.
const ARCHIVES: u64 = (MAX_KEPT + WALKS * MAX_OPEN) as u64;
/// A parked transfer's: its socket and its file.
const PER_TRANSFER: u64 = 2;

/// Raises the soft limit on descriptors to the hard one, and returns it.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Never lowers anything; if it is refused, what there is has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors that `config` can make use of: every connection a parked transfer.
pub fn needed(config: &Config) -> u64 {
    let own = PER_WORKER * config.threads as u64 + OWN + ARCHIVES;
    PER_TRANSFER * config.max_connections as u64 + own
}

/// Descriptors that connections may take of `available` ones: one each, and two if a transfer is
/// parked there.
pub fn room(config: &Config, available: u64) -> usize {
    let reserved = PER_WORKER * config.threads as u64 + OWN;
    // So few that not all workers can be at work: connections and workers share what there is.
    let room = available.saturating_sub(reserved).max(available.saturating_sub(OWN) / 3);
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}
