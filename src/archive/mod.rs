//! Many files as one stream whose length is known before its first byte.
//!
//! A [`Walk`] lists a directory; [`Archive`] lays the listing out as a zip or a tar by
//! arithmetic alone; [`ArchiveReader`] yields the bytes from any position and opens a member only
//! when it gets there. Nothing is compressed and nothing is written to disk.

mod branch;
mod chosen;
mod due;
mod examine;
mod follow;
mod format;
mod found;
pub mod hidden;
pub mod layout;
pub mod listing;
mod names;
mod naming;
mod open;
mod paths;
mod patterns;
mod pause;
pub mod reader;
pub mod shelf;
mod siblings;
mod stored;
mod sums;
mod tar;
mod targets;
pub mod walk;
mod zip;

#[cfg(test)]
mod tests;

pub use format::Format;
pub use hidden::{Hidden, Place};
pub use layout::{Archive, Layout};
pub use listing::{Kind, Listing, WalkError};
pub use paths::real_path;
pub use patterns::Patterns;
pub use pause::Pause;
pub use reader::ArchiveReader;
pub use shelf::{Packed, Shelf};
pub use walk::Walk;
