//! `plugin inspect`.

use super::path;
use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["plugin inspect"],
    usage: "[OPTIONS] PLUGIN [PLUGIN...]",
    about: "Display detailed information on one or more plugins",
    args: Args::AtLeast(1),
    flags: &[Flag::new("format", Kind::Text, about::FORMAT).short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let mut documents = Documents::new(call.flags.text("format"))?;
    for name in call.args() {
        documents.add(raw(client.get(path(name, "/json"))).await);
    }
    documents.show(call)
}
