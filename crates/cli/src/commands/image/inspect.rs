//! `image inspect`.

use client::path_escape;

use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["image inspect"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT).short('f'),
        Flag::new(
            "platform",
            Kind::Text,
            "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut documents = Documents::new(call.flags.text("format"))?;
    let client = call.cli.client()?;
    let platform =
        call.flags.get("platform").map(|text| text.parse::<oci::Platform>()).transpose()?;
    let platform = platform.and_then(|platform| serde_json::to_string(&platform).ok());
    for name in call.args() {
        let request = client.get(format!("/images/{}/json", path_escape(name)));
        documents.add(raw(request.query_opt("platform", platform.as_deref())).await);
    }
    documents.show(call)
}
