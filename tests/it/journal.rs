//! The journal on disk: torn, garbled, full, locked, killed.
