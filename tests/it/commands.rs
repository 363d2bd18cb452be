//! The commands check, sign and explain.
