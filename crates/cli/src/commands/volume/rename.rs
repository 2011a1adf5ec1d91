//! `volume rename`. Ours alone.

use super::own;
use crate::command::{Args, Call, Command};
use crate::failure::Result;
use crate::flags::Help;

pub(crate) static COMMAND: Command = Command {
    names: &["volume rename", "volume mv"],
    usage: "VOLUME NEW",
    about: "Rename a volume that no container uses",
    args: Args::Exactly(2),
    help: Help::Beyond,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.post(own(call.arg(0), "rename")).query("name", call.arg(1));
    Ok(request.done().await?)
}
