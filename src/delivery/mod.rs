//! From the first content byte sent to the last line logged: how fast a client takes its bytes, how
//! its download ended, and the record of that.

pub mod pace;
pub mod record;
pub mod transfer;
pub mod watch;
