//! `pull`: an image from its registry.

use oci::Reference;

use super::show;
use crate::command::{Args, Call, Command};
use crate::commands::container::create::tag_or_digest;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["image pull", "pull"],
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("all-tags", Kind::Switch, "Download all tagged images in the repository")
            .short('a'),
        Flag::new("disable-content-trust", Kind::Switch, "Skip image verification (default true)"),
        Flag::new("platform", Kind::Text, "Set platform if server is multi-platform capable"),
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
    let platform = flags
        .get("platform")
        .map(str::to_owned)
        .or_else(|| crate::env::non_empty("DOCKER_DEFAULT_PLATFORM"));
    let response = call
        .cli
        .client()?
        .post("/images/create")
        .query("fromImage", reference.familiar_name())
        .query_opt("tag", (!all).then(|| tag_or_digest(&reference)))
        .query_opt("platform", platform.map(|text| text.to_lowercase()))
        .header("x-registry-auth", &crate::credentials::header_for(call.cli, &reference)?)
        .send()
        .await?;
    match flags.on("quiet") {
        true => crate::progress::show(response, false, |_| Ok(()), |_| Ok(())).await?,
        false => show(call, response).await?,
    }
    let shown = match reference.domain() {
        "docker.io" => format!("docker.io/{}", reference.path()),
        _ => reference.name(),
    };
    let ending = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("@{}", digest.as_str()),
        (None, Some(tag)) => format!(":{tag}"),
        (None, None) => String::new(),
    };
    call.cli.printer.line(&format!("{shown}{ending}"))
}
