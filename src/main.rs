//! Parses the command line, runs the command, and maps its result to an exit status.

use std::process::ExitCode;

use clap::Parser;
use winglet::cli;
use winglet::cli::args::{Cli, Command};

fn main() -> ExitCode {
    winglet::sys::tame_allocator();
    let result = match Cli::parse().command {
        Command::Serve(options) => cli::serve(&options),
        Command::Check(options) => cli::check(&options),
        Command::Sign(what) => cli::sign(&what),
        Command::Explain(options) => cli::explain(&options),
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
