//! `volume rm`.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["volume rm", "volume remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes",
    details: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("force", Kind::Switch, "Force the removal of one or more volumes").short('f')
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let force = call.flags.on("force");
    for_each(call, |name| async move {
        Ok(client.delete(path(&name)).query_flag("force", force).done().await?)
    })
    .await
}
