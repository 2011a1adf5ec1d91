//! `network rm`.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["network rm", "network remove"],
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("force", Kind::Switch, "Do not error if the network does not exist").short('f')
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let force = call.flags.on("force");
    let mut failed = false;
    for name in call.args() {
        match client.delete(path(name)).done().await {
            Ok(()) => call.cli.printer.line(name)?,
            Err(err) if force && err.kind() == stdx::Kind::NotFound => {}
            Err(err) => {
                call.cli.printer.complain(&err.chain());
                failed = true;
            }
        }
    }
    if failed { Err(Failure::words("exit status 1")) } else { Ok(()) }
}
