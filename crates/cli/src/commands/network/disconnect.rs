//! `network disconnect`.

use api::network::DisconnectBody;

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["network disconnect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    args: Args::Exactly(2),
    flags: &[Flag::new("force", Kind::Switch, "Force the container to disconnect from a network")
        .short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let body = DisconnectBody { container: call.arg(1).to_owned(), force: call.flags.on("force") };
    Ok(call
        .cli
        .client()?
        .post(format!("{}/disconnect", path(call.arg(0))))
        .json(&body)?
        .done()
        .await?)
}
