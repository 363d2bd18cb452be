//! From the first content byte sent to the last line logged: what a download reads
//! from, how fast its client takes it, how it ended, and the record of that.

pub mod content;
pub mod pace;
pub mod record;
pub mod running;
pub mod transfer;
pub mod watch;
