//! `container inspect`.

use super::path;
use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container inspect"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT).short('f'),
        Flag::new("size", Kind::Switch, "Display total file sizes").short('s'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut documents = Documents::new(call.flags.text("format"))?;
    let client = call.cli.client()?;
    for name in call.args() {
        let request =
            client.get(format!("{}/json", path(name))).query_flag("size", call.flags.on("size"));
        documents.add(raw(request).await);
    }
    documents.show(call)
}
