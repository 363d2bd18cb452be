//! From the last byte sent to the last line logged: watching what a client acknowledges, and
//! recording how its download ended.

pub mod record;
pub mod watch;
