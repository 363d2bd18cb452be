//! What the control listener says and is told: `/status`, `/metrics`, `/revoke`. The acceptor serves
//! it like any other listener, and only there.

pub mod counters;
pub mod metrics;
pub mod orders;
pub mod status;
