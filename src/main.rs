//! Parses the command line, runs the command, and maps its result to an exit status.

use std::process::ExitCode;

use clap::Parser;
use winglet::cli::{Cli, Command};
use winglet::command;

fn main() -> ExitCode {
    winglet::sys::tame_allocator();
    let result = match Cli::parse().command {
        Command::Serve(options) => command::serve(&options),
        Command::Check(options) => command::check(&options),
        Command::Sign(what) => command::sign(&what),
        Command::Explain(options) => command::explain(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("winglet: {error}");
            ExitCode::FAILURE
        }
    }
}
