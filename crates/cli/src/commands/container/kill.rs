//! `kill`: sends a signal to the first process of a container.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container kill", "kill"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    args: Args::AtLeast(1),
    flags: &[Flag::new("signal", Kind::Text, "Signal to send to the container").short('s')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let signal = call.flags.get("signal");
    for_each(call, |name| async move {
        Ok(client.post(format!("{}/kill", path(&name))).query_opt("signal", signal).done().await?)
    })
    .await
}
