//! `logs`: what a container has said.

use super::fetch;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::streams::Splitter;
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["container logs", "logs"],
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("details", Kind::Switch, "Show extra details provided to logs"),
        Flag::new("follow", Kind::Switch, "Follow log output").short('f'),
        Flag::new(
            "since",
            Kind::Text,
            "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
        Flag::new(
            "tail",
            Kind::Text,
            "Number of lines to show from the end of the logs (default \"all\")",
        )
        .short('n'),
        Flag::new("timestamps", Kind::Switch, "Show timestamps").short('t'),
        Flag::new(
            "until",
            Kind::Text,
            "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let client = call.cli.client()?;
    let moment = |name: &str, letter: &str| match flags.text(name) {
        "" => Ok(None),
        text => times::moment(text).map(Some).map_err(|err| {
            Failure::words(format!("invalid value for \"{letter}\": {}", err.chain()))
        }),
    };
    let (since, until) = (moment("since", "since")?, moment("until", "until")?);
    let container = fetch(client, call.arg(0)).await?;
    let mut response = client
        .get(format!("/containers/{}/logs", container.str_at("Id")))
        .query("stdout", "1")
        .query("stderr", "1")
        .query_flag("follow", flags.on("follow"))
        .query_opt("since", since)
        .query_opt("until", until)
        .query_flag("timestamps", flags.on("timestamps"))
        .query_flag("details", flags.on("details"))
        .query("tail", flags.get("tail").unwrap_or("all"))
        .send()
        .await?;
    let mut splitter = Splitter::new(container.bool_at("Config.Tty"));
    while let Some(chunk) = response.chunk().await? {
        splitter.split(&chunk, |stream, bytes| match stream {
            api::stream::Stream::Stderr => call.cli.printer.error_bytes(bytes),
            _ => call.cli.printer.bytes(bytes),
        })?;
        call.cli.printer.flush()?;
    }
    Ok(())
}
