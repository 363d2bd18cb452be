//! Why a call returned nothing although there is more.

use std::io::{Error, ErrorKind};
use std::{error, fmt};

/// Asks to be called again. It travels as an [`Error`], since that is all that a reader can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It has done its share of work: once others had their turn.
    Worked,
    /// Somebody else reads for a CRC on this server's account: in a moment.
    Busy,
}

impl Pause {
    /// The pause that `error` stands for, if it does.
    pub fn of(error: &Error) -> Option<Pause> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more has to be read before the next byte is known")
    }
}

impl error::Error for Pause {}

impl From<Pause> for Error {
    fn from(pause: Pause) -> Error {
        Error::new(ErrorKind::WouldBlock, pause)
    }
}
