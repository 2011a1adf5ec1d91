//! The command as a program of its own: `gantry-cli docker ps` is `docker ps`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let called_as = words.next().unwrap_or_default();
    cli::main(words.collect(), &called_as.to_string_lossy())
}
