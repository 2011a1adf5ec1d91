//! `push`: an image to its registry.

use client::path_escape;
use oci::Reference;

use super::show;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["image push", "push"],
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("all-tags", Kind::Switch, "Push all tags of an image to the repository")
            .short('a'),
        Flag::new("disable-content-trust", Kind::Switch, "Skip image signing (default true)"),
        Flag::new(
            "platform",
            Kind::Text,
            "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
        Flag::new("quiet", Kind::Switch, "Suppress verbose output").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let given = Reference::parse_normalized(call.arg(0))?;
    let all = flags.on("all-tags");
    if all && !given.is_name_only() {
        return Err(Failure::words("tag can't be used with --all-tags/-a"));
    }
    let reference = match all {
        true => given,
        false => {
            if given.is_name_only() && !flags.on("quiet") {
                call.cli.printer.line("Using default tag: latest")?;
            }
            given.with_default_tag()
        }
    };
    let platform = flags.get("platform").map(oci_platform).transpose()?;
    let response = call
        .cli
        .client()?
        .post(format!("/images/{}/push", path_escape(&reference.familiar_name())))
        .query_opt("tag", reference.tag())
        .query_opt("platform", platform)
        .header("x-registry-auth", &crate::credentials::header_for(call.cli, &reference)?)
        .send()
        .await?;
    if flags.on("quiet") {
        crate::progress::show(response, false, |_| Ok(()), |_| Ok(())).await?;
        return call.cli.printer.line(&reference.familiar());
    }
    show(call, response).await
}

/// A platform as this endpoint takes it: a JSON object.
fn oci_platform(text: &str) -> Result<String> {
    let platform: oci::Platform = text.parse()?;
    serde_json::to_string(&platform).map_err(|err| Failure::words(err.to_string()))
}
