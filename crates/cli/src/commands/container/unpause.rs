//! `unpause`: lets a paused container go on.

use super::post;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;

pub(crate) static COMMAND: Command = Command {
    names: &["container unpause", "unpause"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    args: Args::AtLeast(1),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    for_each(call, |name| async move { post(client, &name, "unpause").await }).await
}
