//! What the control listener answers (`/status`, `/metrics`) and the orders that it takes (`/revoke`,
//! `/api/deauthorize-user`). The acceptor serves it as it serves any other listener.

pub mod counters;
pub mod metrics;
pub mod orders;
pub mod status;
