//! Our own process and what surrounds it: signals, descriptors, priority, the sandbox, the service
//! manager.

pub mod descriptors;
pub mod memory;
pub mod notify;
pub mod priority;
pub mod sandbox;
pub mod signals;

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};

/// Keeps the memory of this process, keys included, out of core dumps and away from other
/// processes of the same user.
///
/// From here on `/proc/self` belongs to root: what writes there comes first.
pub fn forbid_core_dumps() {
    // Both only take something away, which the kernel does not refuse. The limit alone would not
    // do: a core dump that goes to a program (core_pattern) ignores it.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
