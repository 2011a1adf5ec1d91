//! `plugin set`.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::Result;

pub(crate) static COMMAND: Command = Command {
    names: &["plugin set"],
    usage: "PLUGIN KEY=VALUE [KEY=VALUE...]",
    about: "Change settings for a plugin",
    args: Args::AtLeast(2),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.post(path(call.arg(0), "/set"));
    Ok(request.json(&call.args()[1..].to_vec())?.done().await?)
}
