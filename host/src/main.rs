//! The `larder` program: see [`larder::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    larder::cli::run(std::env::args_os())
}
