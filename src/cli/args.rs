//! The command line, as clap sees it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::archive::Format;
use crate::config::parse_base_url;
use crate::link::Uuid;

/// The download half of Pterodactyl Wings: files, folders and backups for whoever holds a signed
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
    /// Say what the running server is doing
    Status(Status),
    /// Revoke links that exist now, and end their downloads
    Revoke(Revoke),
    /// Print the version
    Version,
}

/// Where the configuration is.
#[derive(Debug, Args)]
// Its group would have the name of the one of `sign files`.
#[group(skip)]
pub struct Files {
    /// The configuration file; of several, a later one's keys win [default: $WINGLET_CONFIG, else
    /// Wings' own and /etc/winglet/config.yml, else config.yml here]
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
}

/// `winglet serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
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
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
    /// Also print every setting in force, and where it comes from
    #[arg(long)]
    pub print: bool,
    /// Print what is wrong, and nothing else
    #[arg(long, conflicts_with = "print")]
    pub quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
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
        /// Common to all kinds.
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
        /// Common to all kinds.
        #[command(flatten)]
        options: SignOptions,
    },
    /// Sign a link to a directory of a server, as an archive
    Directory {
        /// The server's UUID
        #[arg(long, value_name = "UUID")]
        server: Uuid,
        /// The directory's path below the server's root
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        /// The kind of archive
        #[arg(long, value_name = "FORMAT", default_value = "zip", value_parser = formats())]
        format: Format,
        /// Common to all kinds.
        #[command(flatten)]
        options: SignOptions,
    },
    /// Sign a link to several files and directories of a server, as one archive
    Files {
        /// The server's UUID
        #[arg(long, value_name = "UUID")]
        server: Uuid,
        /// The path, below the server's root, of the directory that they are in
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        /// A file or directory, by its path from there; give it once for each
        #[arg(long = "file", value_name = "PATH", required = true)]
        files: Vec<String>,
        /// The kind of archive
        #[arg(long, value_name = "FORMAT", default_value = "zip", value_parser = formats())]
        format: Format,
        /// Common to all kinds.
        #[command(flatten)]
        options: SignOptions,
    },
}

/// What all kinds of links have.
#[derive(Debug, Args)]
pub struct SignOptions {
    /// How long the link is valid, such as 15m or 2h; a plain number is seconds
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub expires: Duration,
    /// Leave out what makes the link one-time
    #[arg(long)]
    pub no_unique_id: bool,
    /// Link to the landing page, which chat previews may fetch without using the link up
    #[arg(long)]
    pub page: bool,
    /// What the URL begins with [default: winglet.base_url, else the address that people reach this
    /// machine at, as far as the configuration tells]
    #[arg(long, value_name = "URL", value_parser = parse_base_url)]
    pub base_url: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
}

/// `winglet explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A download URL, or a token alone
    #[arg(value_name = "URL|TOKEN")]
    pub link: String,
    /// Answer for a client at this address
    #[arg(long, value_name = "ADDR")]
    pub from: Option<IpAddr>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
}

/// `winglet status`
#[derive(Debug, Args)]
pub struct Status {
    /// Say it anew every second, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Print JSON; with --watch, an object per line
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
}

/// `winglet revoke`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub struct Revoke {
    /// One link: a download URL, a token alone, or what `winglet status` calls it
    #[arg(value_name = "URL|TOKEN|LINK", group = "what", conflicts_with_all = ["server", "user", "all"])]
    pub link: Option<String>,
    /// All links of this server
    #[arg(long, value_name = "UUID", group = "what")]
    pub server: Option<Uuid>,
    /// All links of this user; with --server, only those of that server
    #[arg(long, value_name = "UUID", group = "what")]
    pub user: Option<String>,
    /// All links
    #[arg(long, group = "what", conflicts_with_all = ["server", "user"])]
    pub all: bool,
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
}

fn formats() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.map(Format::extension);
    PossibleValuesParser::new(names).map(|name| {
        Format::ALL.into_iter().find(|format| format.extension() == name).unwrap_or_default()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    };
    match duration {
        Ok(duration) if duration.as_secs() > 0 => Ok(duration),
        Ok(_) => Err("a link must be valid for at least one second".into()),
        Err(error) => Err(format!("{error}; give a time such as 15m or 2h")),
    }
}
