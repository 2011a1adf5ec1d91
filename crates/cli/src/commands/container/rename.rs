//! `rename`: gives a container another name.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};

pub(crate) static COMMAND: Command = Command {
    names: &["container rename", "rename"],
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    args: Args::Exactly(2),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let (old, new) = (call.arg(0).trim(), call.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::words("Error: Neither old nor new names may be empty"));
    }
    let renamed =
        call.cli.client()?.post(format!("{}/rename", path(old))).query("name", new).done().await;
    renamed.map_err(|err| {
        call.cli.printer.complain(&err.chain());
        Failure::words(format!("Error: failed to rename container named {old}"))
    })
}
