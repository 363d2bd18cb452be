//! Ranges and preconditions on the wire.
