//! `volume import`: a tar archive becomes a volume. Ours, with podman's words.

use std::fs::File;

use api::volume::Volume;

use super::own;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::Help;
use crate::pipes;

pub(crate) static COMMAND: Command = Command {
    names: &["volume import"],
    usage: "VOLUME file|-",
    about: "Create a volume with the content of a tar archive",
    args: Args::Exactly(2),
    help: Help::Beyond,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let body =
        match call.arg(1) {
            "-" => pipes::body(std::io::stdin()),
            path => pipes::body(File::open(path).map_err(|err| {
                Failure::words(format!("open {path}: {}", stdx::Error::from(err)))
            })?),
        };
    let request = call.cli.client()?.post(own(call.arg(0), "import"));
    let made: Volume = request.stream("application/x-tar", body).fetch().await?;
    call.cli.printer.line(&made.name)
}
