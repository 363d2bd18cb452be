//! The integration tests: the real binary, real sockets, real clients.
//!
//! One file per behaviour, one harness. Servers listen on loopback only, on a port that the kernel
//! picks, and are killed when a test ends.

mod client;
mod harness;
mod mint;

mod smoke;
