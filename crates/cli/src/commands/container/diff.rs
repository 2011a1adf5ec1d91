//! `diff`: what a container has changed in its file system.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["container diff", "diff"],
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    args: Args::Exactly(1),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 2] = [("Type", "CHANGE TYPE"), ("Path", "PATH")];

async fn run(call: &Call<'_>) -> Result {
    if call.arg(0).is_empty() {
        return Err(Failure::words("Container name cannot be empty"));
    }
    let changes: Value =
        call.cli.client()?.get(format!("{}/changes", path(call.arg(0)))).fetch().await?;
    let kind = |change: &Value| match change.int_at("Kind") {
        0 => "C",
        1 => "A",
        _ => "D",
    };
    let rows = changes.items().iter().map(|change| Row {
        type_name: "*container.diffContext",
        columns: vec![
            ("Type", Value::text(kind(change))),
            ("Path", Value::text(change.str_at("Path"))),
        ],
        labels: Vec::new(),
    });
    let text = listing::render("{{.Type}} {{.Path}}", &HEADINGS, rows.collect())
        .map_err(Failure::words)?;
    call.cli.printer.text(&text)
}
