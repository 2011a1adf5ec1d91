//! `tag`: another name for an image.

use client::path_escape;
use oci::Reference;

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};

pub(crate) static COMMAND: Command = Command {
    names: &["image tag", "tag"],
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    args: Args::Exactly(2),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let (source, target) = (call.arg(0), call.arg(1));
    let parse = |name: &str| {
        Reference::parse_normalized(name).map_err(|err| {
            Failure::words(format!(
                "Error parsing reference: {name:?} is not a valid repository/tag: {}",
                err.chain()
            ))
        })
    };
    // An identifier is no name, but a fine source.
    if source.len() != 64 {
        parse(source)?;
    }
    let target = parse(target)?;
    if target.digest().is_some() {
        return Err(Failure::words("refusing to create a tag with a digest reference"));
    }
    let target = target.with_default_tag();
    Ok(call
        .cli
        .client()?
        .post(format!("/images/{}/tag", path_escape(source)))
        .query("repo", target.familiar_name())
        .query("tag", target.tag().unwrap_or_default())
        .done()
        .await?)
}
