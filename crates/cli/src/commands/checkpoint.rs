//! `checkpoint create`, `ls`, `rm`: containers kept on disk, to be started from there (`start --checkpoint`).

use crate::command::{Args, Call, Command};
use crate::commands::container::path;
use crate::commands::printed;
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};
use client::path_escape;

const DIRECTORY: Flag =
    Flag::new("checkpoint-dir", Kind::Text, "Use a custom checkpoint storage directory");

pub(crate) static CREATE: Command = Command {
    names: &["checkpoint create"],
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Create a checkpoint from a running container",
    args: Args::Exactly(2),
    flags: &[
        DIRECTORY,
        Flag::new("leave-running", Kind::Switch, "Leave the container running after checkpoint"),
    ],
    run: |call| Box::pin(create(call)),
    ..Command::NONE
};

pub(crate) static LS: Command = Command {
    names: &["checkpoint ls", "checkpoint list"],
    usage: "[OPTIONS] CONTAINER",
    about: "List checkpoints for a container",
    args: Args::Exactly(1),
    flags: &[DIRECTORY],
    run: |call| Box::pin(ls(call)),
    ..Command::NONE
};

pub(crate) static RM: Command = Command {
    names: &["checkpoint rm", "checkpoint remove"],
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Remove a checkpoint",
    args: Args::Exactly(2),
    flags: &[DIRECTORY],
    run: |call| Box::pin(rm(call)),
    ..Command::NONE
};

async fn create(call: &Call<'_>) -> Result {
    let body = serde_json::json!({
        "CheckpointID": call.arg(1),
        "CheckpointDir": call.flags.text("checkpoint-dir"),
        "Exit": !call.flags.on("leave-running"),
    });
    let client = call.cli.client()?;
    client.post(format!("{}/checkpoints", path(call.arg(0)))).json(&body)?.done().await?;
    call.cli.printer.line(call.arg(1))
}

const HEADINGS: [Heading; 1] = [("Name", "CHECKPOINT NAME")];

async fn ls(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let request = client.get(format!("{}/checkpoints", path(call.arg(0))));
    let answer: Value = request.query_opt("dir", directory(call)).fetch().await?;
    let row = |checkpoint: &Value| Row {
        type_name: "*checkpoint.checkpointContext",
        columns: vec![("Name", Value::text(checkpoint.str_at("Name")))],
        labels: Default::default(),
    };
    printed(call, "table {{.Name}}", &HEADINGS, answer.items().iter().map(row).collect())
}

async fn rm(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let one = format!("{}/checkpoints/{}", path(call.arg(0)), path_escape(call.arg(1)));
    Ok(client.delete(one).query_opt("dir", directory(call)).done().await?)
}

fn directory<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.flags.get("checkpoint-dir").filter(|directory| !directory.is_empty())
}
