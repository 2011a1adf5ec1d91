//! The runtime's command on its own: what tests and other people's suites drive before there is a whole `gantry`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::oci_cli::main(std::env::args_os().skip(1).collect())
}
