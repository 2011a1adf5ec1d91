//! `network inspect`.

use super::path;
use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["network inspect"],
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT).short('f'),
        Flag::new("verbose", Kind::Switch, "Verbose output for diagnostics").short('v'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut documents = Documents::new(call.flags.text("format"))?;
    let client = call.cli.client()?;
    for name in call.args() {
        let request = client.get(path(name));
        let request =
            if call.flags.on("verbose") { request.query("verbose", "true") } else { request };
        documents.add(raw(request).await);
    }
    documents.show(call)
}
