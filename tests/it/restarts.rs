//! Restarts in the middle of downloads.
