//! Our own process and what surrounds it: signals, descriptors, the sandbox, the service manager.

pub mod descriptors;
pub mod notify;
pub mod sandbox;
pub mod signals;
