//! Byte streams and addresses. Nothing here knows HTTP.

pub mod address;
#[cfg(feature = "tls")]
pub mod certificates;
pub mod listener;
#[cfg(feature = "shared-state")]
pub mod outgoing;
pub mod socket;
#[cfg(feature = "tls")]
pub mod tls;
