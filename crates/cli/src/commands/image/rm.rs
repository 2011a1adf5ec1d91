//! `rmi`: takes names from images, and images away with their last.

use client::path_escape;

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result, joined};
use crate::flags::{Flag, Kind};
use crate::format::Value;

pub(crate) static COMMAND: Command = Command {
    names: &["image rm", "image remove", "rmi"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("force", Kind::Switch, "Force removal of the image").short('f'),
        Flag::new("no-prune", Kind::Switch, "Do not delete untagged parents"),
        Flag::new(
            "platform",
            Kind::Strings,
            "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let client = call.cli.client()?;
    let mut failures: Vec<Failure> = Vec::new();
    let mut fatal = false;
    for name in call.args() {
        let request = client
            .delete(format!("/images/{}", path_escape(name)))
            .query_flag("force", flags.on("force"))
            .query_flag("noprune", flags.on("no-prune"));
        match request.fetch::<Value>().await {
            Ok(removed) => {
                for item in removed.items() {
                    match item.str_at("Deleted") {
                        "" => call
                            .cli
                            .printer
                            .line(&format!("Untagged: {}", item.str_at("Untagged")))?,
                        deleted => call.cli.printer.line(&format!("Deleted: {deleted}"))?,
                    }
                }
            }
            Err(err) => {
                fatal |= err.kind() != stdx::Kind::NotFound;
                failures.push(err.into());
            }
        }
    }
    match joined(failures) {
        // With --force an image that is not there is as wished.
        Err(failure) if flags.on("force") && !fatal => {
            call.cli.printer.complain(failure.text());
            Ok(())
        }
        result => result,
    }
}
