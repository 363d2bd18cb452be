//! The command line, as clap sees it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::link::uuid::Uuid;

/// The download half of Pterodactyl Wings: single files and backups for whoever holds a signed
/// link, once.
#[derive(Debug, Parser)]
#[command(name = "winglet", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve downloads until told to stop
    Serve(Serve),
    /// Check the configuration and say everything that is wrong with it
    Check(Check),
    /// Sign a link and print its URL
    #[command(subcommand)]
    Sign(Sign),
    /// Say what a link or token means, and whether it would be served
    Explain(Explain),
}

/// `winglet serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,
    /// Listen here instead of where the configuration says: ADDR:PORT, tls:ADDR:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Write the process number to this file once downloads are served
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
}

/// `winglet check`
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,
}

/// `winglet sign`
#[derive(Debug, Subcommand)]
pub enum Sign {
    /// Sign a link to one file of a server
    File {
        /// The server's UUID
        #[arg(long, value_name = "UUID")]
        server: Uuid,
        /// The file's path below the server's root
        #[arg(long, value_name = "PATH")]
        path: String,
        /// Common to both kinds.
        #[command(flatten)]
        options: SignOptions,
    },
    /// Sign a link to one backup of a server
    Backup {
        /// The server's UUID
        #[arg(long, value_name = "UUID")]
        server: Uuid,
        /// The backup's UUID
        #[arg(long, value_name = "UUID")]
        backup: Uuid,
        /// Common to both kinds.
        #[command(flatten)]
        options: SignOptions,
    },
}

/// What both kinds of links have.
#[derive(Debug, Args)]
pub struct SignOptions {
    /// How long the link is valid, such as 15m or 2h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub expires: Duration,
    /// Leave out what makes the link one-time
    #[arg(long)]
    pub no_unique_id: bool,
    /// Link to the landing page, which chat previews may fetch without using the link up
    #[arg(long)]
    pub page: bool,
    /// What the URL begins with [default: the first address that the configuration listens on]
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,
}

/// `winglet explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A download URL, or a token alone
    #[arg(value_name = "URL|TOKEN")]
    pub link: String,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_secs() > 0 => Ok(duration),
        Ok(_) => Err("a link must be valid for a second at least".into()),
        Err(error) => Err(format!("{error}; give a time such as 15m or 2h")),
    }
}
