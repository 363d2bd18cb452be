//! Hostile heads on the wire.
