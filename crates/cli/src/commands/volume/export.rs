//! `volume export`: what is in a volume, as a tar stream. Ours, with podman's words.

use super::own;
use crate::command::{Args, Call, Command};
use crate::commands::image::save::write_out;
use crate::failure::Result;
use crate::flags::{Flag, Help, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["volume export"],
    usage: "[OPTIONS] VOLUME",
    about: "Export a volume's content as a tar archive",
    args: Args::Exactly(1),
    flags: &[Flag::new("output", Kind::Text, "Write to a file, instead of STDOUT").short('o')],
    help: Help::Beyond,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.get(own(call.arg(0), "export"));
    write_out(call, request, "failed to export volume").await
}
