//! `context use`: from now on this daemon is meant.

use crate::command::{Args, Call, Command};
use crate::context::{DEFAULT, check_name};
use crate::env;
use crate::failure::Result;

pub(crate) static COMMAND: Command = Command {
    names: &["context use"],
    usage: "CONTEXT",
    about: "Set the current docker context",
    args: Args::Exactly(1),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let cli = call.cli;
    let name = call.arg(0);
    if name != DEFAULT {
        check_name(name)?;
        cli.contexts().load(name)?;
    }
    let mut config = crate::config_file::ConfigFile::load(&cli.config_directory())?;
    let value = if name == DEFAULT { serde_json::Value::Null } else { name.into() };
    config.set("currentContext", value);
    config.save()?;
    cli.printer.line(name)?;
    cli.printer.complain(&format!("Current context is now {name:?}"));
    if let Some(variable) =
        ["GANTRY_HOST", "DOCKER_HOST"].into_iter().find(|name| env::non_empty(name).is_some())
        && name != DEFAULT
    {
        cli.printer.complain(&format!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(())
}
