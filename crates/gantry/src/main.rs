//! The binary: which hat am I wearing.
//!
//! One program is the command, the daemon, the OCI runtime, the launcher of shims, netd and what stays outside of a user's
//! namespaces; the name it is called by, or its first word, decides. Nothing is set up before that is known: the launcher must stay tiny, and the command quick.

mod config;
mod daemon;
mod reload;
mod setup;
mod user;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called = args
        .first()
        .map(|name| Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned());
    let called = called.unwrap_or_default();
    match called.as_str() {
        shim::launcher::NAME => return shim::launcher::main(),
        network::netd::NAME => return network::netd::main(),
        rootless::NAME => return rootless::main(&args),
        "dockerd" | "gantryd" => return daemon::main(&called, args.split_off(1)),
        // Other engines call a runtime by its path alone, without a first word.
        "gantry-runtime" | "runc" => return runtime::oci_cli::main(args.split_off(1)),
        _ => {}
    }
    match args.get(1).and_then(|word| word.to_str()) {
        Some("daemon") => daemon::main("gantry daemon", args.split_off(2)),
        Some("rootless") => setup::main(&args.split_off(2)),
        Some("runtime") => runtime::oci_cli::main(args.split_off(2)),
        _ => cli::main(args.split_off(1.min(args.len())), &called),
    }
}
