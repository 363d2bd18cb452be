//! One-time links: binding, budget, streams, expiry.
