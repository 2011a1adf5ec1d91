//! `export`: a container's file system as a tar stream.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::image::save::write_out;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container export", "export"],
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    args: Args::Exactly(1),
    flags: &[Flag::new("output", Kind::Text, "Write to a file, instead of STDOUT").short('o')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.get(format!("{}/export", path(call.arg(0))));
    write_out(call, request, "failed to export container").await
}
