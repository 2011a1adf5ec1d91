//! `volume clone` and `volume snapshot`: a new volume with what is in another. Ours alone.

use api::volume::{CloneBody, Volume};

use super::own;
use crate::command::{Args, Call, Command};
use crate::commands::secret::labels_of;
use crate::failure::Result;
use crate::flags::{Flag, Help, Kind};

const FLAGS: &[Flag] = &[
    Flag::new("label", Kind::List, "Set metadata for the new volume"),
    Flag::new("no-pause", Kind::Switch, "Do not pause containers that use the volume meanwhile"),
];

pub(crate) static CLONE: Command = Command {
    names: &["volume clone"],
    usage: "[OPTIONS] VOLUME NEW",
    about: "Create a volume with the content of another",
    args: Args::Exactly(2),
    flags: FLAGS,
    help: Help::Beyond,
    run: |call| Box::pin(run(call, false)),
    ..Command::NONE
};

pub(crate) static SNAPSHOT: Command = Command {
    names: &["volume snapshot"],
    usage: "[OPTIONS] VOLUME [NEW]",
    about: "Keep the content of a volume as it is now, as a volume named after the time",
    args: Args::Between(1, 2),
    flags: FLAGS,
    help: Help::Beyond,
    run: |call| Box::pin(run(call, true)),
    ..Command::NONE
};

async fn run(call: &Call<'_>, snapshot: bool) -> Result {
    let body = CloneBody {
        name: call.arg(1).to_owned(),
        labels: labels_of(&call.flags.list("label")),
        snapshot,
        no_pause: call.flags.on("no-pause"),
    };
    let request = call.cli.client()?.post(own(call.arg(0), "clone")).json(&body)?;
    let made: Volume = request.fetch().await?;
    call.cli.printer.line(&made.name)
}
