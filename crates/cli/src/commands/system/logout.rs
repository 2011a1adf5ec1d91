//! `logout`: forgets a registry's credentials.

use super::login::server;
use crate::command::{Args, Call, Command};
use crate::config_file::ConfigFile;
use crate::credentials::erase;
use crate::failure::Result;

pub(crate) static COMMAND: Command = Command {
    names: &["logout"],
    usage: "[SERVER]",
    about: "Log out from a registry",
    details: "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    args: Args::AtMost(1),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let server = server(call.arg(0));
    call.cli.printer.line(&format!("Removing login credentials for {server}"))?;
    let mut config = ConfigFile::load(&call.cli.config_directory())?;
    if let Err(err) = erase(&mut config, &server) {
        call.cli
            .printer
            .complain(&format!("WARNING: could not erase credentials:\n{server}: {}", err.chain()));
    }
    Ok(())
}
