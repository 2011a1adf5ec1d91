//! `plugin rm`.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["plugin rm", "plugin remove"],
    usage: "[OPTIONS] PLUGIN [PLUGIN...]",
    about: "Remove one or more plugins",
    args: Args::AtLeast(1),
    flags: &[Flag::new("force", Kind::Switch, "Force the removal of an active plugin").short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let (client, force) = (call.cli.client()?, call.flags.on("force"));
    for_each(call, |name| async move {
        Ok(client.delete(path(&name, "")).query_flag("force", force).done().await?)
    })
    .await
}
