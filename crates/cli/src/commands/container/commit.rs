//! `commit`: a container's changes become an image.

use serde_json::Value;

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container commit", "commit"],
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    args: Args::Between(1, 2),
    flags: &[
        Flag::new(
            "author",
            Kind::Text,
            "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")",
        )
        .short('a'),
        Flag::new("change", Kind::List, "Apply Dockerfile instruction to the created image")
            .short('c'),
        Flag::new("message", Kind::Text, "Commit message").short('m'),
        Flag::new("pause", Kind::Switch, "Pause container during commit (default true)").short('p'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if call.arg(0).is_empty() {
        return Err(Failure::words("invalid container name or ID: value is empty"));
    }
    let mut request = call.cli.client()?.post("/commit").query("container", call.arg(0));
    if let Some(name) = call.args().get(1).filter(|name| !name.is_empty()) {
        let reference = oci::Reference::parse_normalized(name)?;
        if reference.digest().is_some() {
            return Err(Failure::words("refusing to create a tag with a digest reference"));
        }
        request = request
            .query("repo", reference.familiar_name())
            .query("tag", reference.with_default_tag().tag().unwrap_or_default());
    }
    for change in flags.list("change") {
        request = request.query("changes", change);
    }
    if flags.switch("pause") == Some(false) {
        request = request.query("pause", "0");
    }
    let text = |name: &str| flags.get(name).filter(|text| !text.is_empty());
    let request = request.query_opt("comment", text("message")).query_opt("author", text("author"));
    let answer: Value = request.json(&serde_json::json!({}))?.fetch().await?;
    call.cli.printer.line(answer.get("Id").and_then(Value::as_str).unwrap_or_default())
}
