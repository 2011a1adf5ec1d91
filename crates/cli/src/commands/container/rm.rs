//! `rm`: removes containers.

use super::path;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container rm", "container remove", "rm"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("force", Kind::Switch, "Force the removal of a running container (uses SIGKILL)")
            .short('f'),
        Flag::new("link", Kind::Switch, "Remove the specified link").short('l'),
        Flag::new(
            "volumes",
            Kind::Switch,
            "Remove anonymous volumes associated with the container",
        )
        .short('v'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let flags = &call.flags;
    let (force, link, volumes) = (flags.on("force"), flags.on("link"), flags.on("volumes"));
    for_each(call, |name| async move {
        let name = name.trim_matches('/').to_owned();
        if name.is_empty() {
            return Err(Failure::words("container name cannot be empty"));
        }
        let request = client.delete(path(&name));
        let removed = request
            .query_flag("v", volumes)
            .query_flag("link", link)
            .query_flag("force", force)
            .done()
            .await;
        match removed {
            // With --force the point is that it is gone.
            Err(err) if force && err.kind() == stdx::Kind::NotFound => {
                call.cli.printer.complain(&err.chain());
                Err(Failure { status: 0, message: None, kind: None })
            }
            other => Ok(other?),
        }
    })
    .await
}
