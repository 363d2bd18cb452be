//! The integration tests: the real binary, real sockets, real clients.
//!
//! One file per behaviour, one harness. Servers listen on loopback only, on a port that the kernel
//! picks, and are killed when a test ends.
#![allow(unreachable_pub)] // one crate, nothing of which anybody else reaches
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

#[cfg(feature = "tls")]
mod certs;
mod client;
mod crowd;
#[cfg(feature = "shared-state")]
mod front_ends;
#[cfg(feature = "tls")]
mod fronts;
mod harness;
#[cfg(feature = "tls")]
mod kin;
mod mint;
mod proxy;
#[cfg(feature = "shared-state")]
mod relay;
mod stalled;

mod archives;
mod backups;
mod bodies;
mod browsers;
mod clients;
mod commands;
mod confinement;
mod control;
mod delivery;
mod disks;
mod documents;
mod exhaustion;
#[cfg(feature = "shared-state")]
mod fleet;
mod grants;
mod handover;
mod hidden;
mod journal;
mod keys;
mod layers;
mod lending;
mod limits;
mod listening;
mod lockout;
mod logs;
#[cfg(feature = "tls")]
mod matrix;
mod mistakes;
mod neighbour;
mod operating;
mod pages;
mod panels;
mod parking;
#[cfg(feature = "shared-state")]
mod partitions;
mod paths;
mod pool;
mod previews;
mod ranges;
mod reload;
mod restarts;
mod revoking;
mod screening;
mod service;
#[cfg(feature = "shared-state")]
mod shared_state;
mod slow;
mod smoke;
mod soak;
mod stall;
#[cfg(feature = "shared-state")]
mod take_overs;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_deliveries;
mod tokens;
mod trees;
mod versions;
