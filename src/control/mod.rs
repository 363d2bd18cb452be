//! What the control listener answers (`/status`, `/metrics`) and the orders that it takes (`/revoke`,
//! `/api/deauthorize-user`).

pub mod counters;
pub mod downloads;
pub mod gauges;
pub mod listener;
pub mod metrics;
pub mod orders;
pub mod status;
