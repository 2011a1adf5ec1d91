//! `load`: images from an archive.

use std::fs::File;

use super::show;
use crate::command::{Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::pipes;
use crate::tty;

pub(crate) static COMMAND: Command = Command {
    names: &["image load", "load"],
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    flags: &[
        Flag::new("input", Kind::Text, "Read from tar archive file, instead of STDIN").short('i'),
        Flag::new(
            "platform",
            Kind::Text,
            "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        Flag::new("quiet", Kind::Switch, "Suppress the load output").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let body =
        match flags.text("input") {
            "" if tty::stdin_is_terminal() => {
                return Err(Failure::words("requested load from stdin, but stdin is empty"));
            }
            "" => pipes::body(std::io::stdin()),
            path => pipes::body(File::open(path).map_err(|err| {
                Failure::words(format!("open {path}: {}", stdx::Error::from(err)))
            })?),
        };
    // Bars would only be noise where nobody watches.
    let quiet = flags.on("quiet") || !call.cli.printer.out_is_terminal();
    let mut request =
        call.cli.client()?.post("/images/load").query("quiet", if quiet { "1" } else { "0" });
    for platform in flags.list("platform") {
        let platform: oci::Platform = platform.parse()?;
        let text =
            serde_json::to_string(&platform).map_err(|err| Failure::words(err.to_string()))?;
        request = request.query("platform", text);
    }
    let response = request.stream("application/x-tar", body).send().await?;
    show(call, response).await
}
