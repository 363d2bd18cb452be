//! The protocol only: request heads, ranges, answers, and the one place that turns every error into
//! a status. Nothing here reads a file or a socket.

pub mod cors;
pub mod head;
pub mod page;
pub mod range;
pub mod refusal;
pub mod response;
