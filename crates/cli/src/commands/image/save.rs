//! `save`: images as one archive.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use client::Request;

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["image save", "save"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("output", Kind::Text, "Write to a file, instead of STDOUT").short('o'),
        Flag::new(
            "platform",
            Kind::Text,
            "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut request = call.cli.client()?.get("/images/get");
    for name in call.args() {
        request = request.query("names", name);
    }
    for platform in call.flags.list("platform") {
        let platform: oci::Platform = platform.parse()?;
        let text =
            serde_json::to_string(&platform).map_err(|err| Failure::words(err.to_string()))?;
        request = request.query("platform", text);
    }
    write_out(call, request, "failed to save image").await
}

/// Writes an answer to `--output`, or to standard output when that is no terminal. A file appears whole or not at all.
pub(crate) async fn write_out(call: &Call<'_>, request: Request, words: &str) -> Result {
    let output = call.flags.text("output");
    if output.is_empty() {
        if call.cli.printer.out_is_terminal() {
            return Err(Failure::words(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let mut response = request.send().await?;
        while let Some(chunk) = response.chunk().await? {
            call.cli.printer.bytes(&chunk)?;
        }
        return Ok(());
    }
    let parent = Path::new(output).parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        return Err(Failure::words(format!(
            "{words}: invalid output path: stat {}: no such file or directory",
            parent.display()
        )));
    }
    if Path::new(output).is_dir() {
        return Err(Failure::words(format!("{words}: cannot write to a directory")));
    }
    let failed = |err: std::io::Error| {
        Failure::words(format!("{words}: {output}: {}", stdx::Error::from(err)))
    };
    let mut response = request.send().await?;
    let staged = format!("{output}.{}.tmp", std::process::id());
    let written = async {
        // For nobody else: it is all that somebody has put into a container.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&staged).map_err(failed)?;
        while let Some(chunk) = response.chunk().await? {
            file.write_all(&chunk).map_err(failed)?;
        }
        std::fs::rename(&staged, output).map_err(failed)
    };
    let result: Result = written.await;
    if result.is_err() {
        std::fs::remove_file(&staged).unwrap_or_default();
    }
    result
}
