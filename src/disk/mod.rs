//! Reads files for downloads and leaves the page cache to the game servers.

pub mod file;
pub mod pipe;
pub mod readers;
