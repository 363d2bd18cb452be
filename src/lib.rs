//! Winglet: hands out files, folders and backups from a game-panel node to whoever holds a signed
//! link, once.
//!
//! `ARCHITECTURE.md` is the map. A request's way: [`acceptor`] → [`pool`] → [`download`] ([`link`],
//! [`replay`], [`http`]) and back.

pub mod acceptor;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod desk;
pub mod disk;
pub mod download;
pub mod error;
pub mod http;
pub mod link;
pub mod logging;
pub mod net;
pub mod pool;
pub mod process;
pub mod replay;
pub mod server;
pub mod shared;
pub mod sys;
