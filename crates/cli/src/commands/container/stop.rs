//! `stop`: asks a container to end, and ends it when it does not.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container stop", "stop"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("signal", Kind::Text, "Signal to send to the container").short('s'),
        Flag::new("timeout", Kind::Int, "Seconds to wait before killing the container").short('t'),
        Flag::alias("time", "timeout"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let timeout = call.flags.int("timeout").map(|seconds| seconds.to_string());
    let (timeout, signal) = (timeout.as_deref(), call.flags.get("signal"));
    for_each(call, |name| async move {
        let request = client.post(format!("{}/stop", path(&name)));
        Ok(request.query_opt("signal", signal).query_opt("t", timeout).done().await?)
    })
    .await
}
