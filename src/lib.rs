//! Winglet: hands out single files and backups from a game-panel node to whoever holds a signed
//! link, once.
//!
//! `ARCHITECTURE.md` is the map. A request's way: [`acceptor`] → [`pool`] → [`download`] →
//! ([`token`], [`replay`], [`storage`], [`range`]) → [`response`] and [`body`], and back.

pub mod acceptor;
pub mod access;
pub mod address;
pub mod body;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod cors;
pub mod download;
pub mod error;
pub mod handover;
pub mod head;
pub mod limits;
pub mod logging;
pub mod noise;
pub mod notify;
pub mod pool;
pub mod range;
pub mod refusal;
pub mod replay;
pub mod response;
pub mod sandbox;
pub mod server;
pub mod settle;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod spans;
pub mod storage;
pub mod sys;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
pub mod uuid;
