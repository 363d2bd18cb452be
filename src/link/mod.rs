//! What a link says, and which file it opens.

pub mod storage;
pub mod token;
pub mod uuid;
