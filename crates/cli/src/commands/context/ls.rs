//! `context ls`.

use crate::cli::Cli;
use crate::command::{Call, Command, about};
use crate::commands::network::ls::natural;
use crate::context::DEFAULT;
use crate::env;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["context ls", "context list"],
    usage: "[OPTIONS]",
    about: "List contexts",
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("quiet", Kind::Switch, "Only show context names").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Current", "CURRENT"),
    ("Error", "ERROR"),
];
const TABLE: &str =
    "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";

async fn run(call: &Call<'_>) -> Result {
    let cli = call.cli;
    let current = cli.context_name();
    let mut contexts: Vec<(String, String, String)> = vec![(
        DEFAULT.to_owned(),
        "Current DOCKER_HOST based configuration".to_owned(),
        cli.default_host(),
    )];
    for stored in cli.contexts().list()? {
        let (description, host) = (stored.description().to_owned(), stored.docker().host);
        contexts.push((stored.name, description, host));
    }
    let mut error_of_current = String::new();
    if !contexts.iter().any(|(name, ..)| *name == current) {
        let err = cli.contexts().load(&current).err();
        error_of_current = err.map(|err| err.chain()).unwrap_or_default();
        contexts.push((current.clone(), String::new(), String::new()));
    }
    contexts.sort_by_key(|(name, ..)| natural(name));
    if call.flags.on("quiet") {
        for (name, ..) in contexts {
            cli.printer.line(&name)?;
        }
        warn_of_host(cli);
        return Ok(());
    }
    let format = match call.flags.text("format") {
        "" | "table" => TABLE,
        given => given,
    };
    let in_table = format == TABLE;
    let rows = contexts.iter().map(|(name, description, host)| Row {
        type_name: "*formatter.clientContextContext",
        columns: vec![
            ("Current", Value::Bool(*name == current)),
            (
                "Description",
                Value::text(if in_table {
                    super::super::container::ls::ellipsis(description, 60)
                } else {
                    description.clone()
                }),
            ),
            ("DockerEndpoint", Value::text(host)),
            ("Error", Value::text(if *name == current { error_of_current.as_str() } else { "" })),
            ("Name", Value::text(name)),
        ],
        labels: Vec::new(),
    });
    let headings: Vec<Heading> =
        HEADINGS.iter().filter(|(name, _)| *name != "Current").copied().collect();
    let text = listing::render(format, &headings, rows.collect()).map_err(Failure::words)?;
    cli.printer.text(&text)?;
    warn_of_host(cli);
    Ok(())
}

/// A host that the environment names is used whatever context is chosen.
fn warn_of_host(cli: &Cli) {
    if let Some(variable) =
        ["GANTRY_HOST", "DOCKER_HOST"].into_iter().find(|name| env::non_empty(name).is_some())
        && cli.globals.context.is_none()
    {
        cli.printer.complain(&format!(
            "Warning: {variable} environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset {variable} environment variable."
        ));
    }
}
