//! The launcher as a program of its own, for the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim::launcher::main_if_called(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
