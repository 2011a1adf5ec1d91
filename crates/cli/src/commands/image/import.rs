//! `import`: a tree of files becomes an image of one layer.

use std::fs::File;

use super::show;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::pipes;

pub(crate) static COMMAND: Command = Command {
    names: &["image import", "import"],
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("change", Kind::List, "Apply Dockerfile instruction to the created image")
            .short('c'),
        Flag::new("message", Kind::Text, "Set commit message for imported image").short('m'),
        Flag::new("platform", Kind::Text, "Set platform if server is multi-platform capable"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let source = call.arg(0);
    let mut from = "-";
    let body =
        match source {
            "-" => Some(pipes::body(std::io::stdin())),
            url if url.starts_with("http://") || url.starts_with("https://") => {
                from = url;
                None
            }
            path => Some(pipes::body(File::open(path).map_err(|err| {
                Failure::words(format!("open {path}: {}", stdx::Error::from(err)))
            })?)),
        };
    let mut request = call.cli.client()?.post("/images/create").query("fromSrc", from);
    if let Some(name) = call.args().get(1).filter(|name| !name.is_empty()) {
        let reference = oci::Reference::parse_normalized(name)?;
        request = request.query("repo", reference.familiar());
    }
    let text = |name: &str| flags.get(name).filter(|text| !text.is_empty());
    request = request.query_opt("message", text("message")).query_opt("platform", text("platform"));
    for change in flags.list("change") {
        request = request.query("changes", change);
    }
    if let Some(body) = body {
        request = request.stream("application/x-tar", body);
    }
    show(call, request.send().await?).await
}
