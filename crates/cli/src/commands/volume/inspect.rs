//! `volume inspect`.

use super::path;
use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["volume inspect"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    args: Args::AtLeast(1),
    flags: &[Flag::new("format", Kind::Text, about::FORMAT).short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut documents = Documents::of_types(call.flags.text("format"), &[("", "volume.Volume")])?;
    let client = call.cli.client()?;
    for name in call.args() {
        documents.add(raw(client.get(path(name))).await);
    }
    documents.show(call)
}
