//! The program: all of it is in the library, and this is the only place that ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    winglet::sys::tame_allocator();
    winglet::cli::run(std::env::args_os())
}
