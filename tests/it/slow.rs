//! Slow and silent clients.
