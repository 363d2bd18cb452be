//! What a link says, and which file it opens. Its errors know nothing of HTTP.

pub mod storage;
pub mod token;
pub mod uuid;
