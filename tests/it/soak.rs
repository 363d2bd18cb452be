//! Everything at once, for a while.
