//! `plugin enable` and `plugin disable`.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static ENABLE: Command = Command {
    names: &["plugin enable"],
    usage: "[OPTIONS] PLUGIN",
    about: "Enable a plugin",
    args: Args::Exactly(1),
    flags: &[Flag::new("timeout", Kind::Int, "HTTP client timeout (in seconds) (default 30)")],
    run: |call| Box::pin(enable(call)),
    ..Command::NONE
};

pub(crate) static DISABLE: Command = Command {
    names: &["plugin disable"],
    usage: "[OPTIONS] PLUGIN",
    about: "Disable a plugin",
    args: Args::Exactly(1),
    flags: &[Flag::new("force", Kind::Switch, "Force the disable of an active plugin").short('f')],
    run: |call| Box::pin(disable(call)),
    ..Command::NONE
};

async fn enable(call: &Call<'_>) -> Result {
    let timeout = call.flags.int("timeout").unwrap_or(30);
    if timeout < 0 {
        return Err(Failure::words(format!("negative timeout {timeout} is invalid")));
    }
    let request = call.cli.client()?.post(path(call.arg(0), "/enable"));
    request.query("timeout", timeout.to_string()).done().await?;
    call.cli.printer.line(call.arg(0))
}

async fn disable(call: &Call<'_>) -> Result {
    let request = call.cli.client()?.post(path(call.arg(0), "/disable"));
    request.query_flag("force", call.flags.on("force")).done().await?;
    call.cli.printer.line(call.arg(0))
}
