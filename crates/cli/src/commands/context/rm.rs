//! `context rm`.

use crate::command::{Args, Call, Command};
use crate::context::DEFAULT;
use crate::failure::{Failure, Result, joined};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["context rm", "context remove"],
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    args: Args::AtLeast(1),
    flags: &[Flag::new("force", Kind::Switch, "Force the removal of a context in use").short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let current = call.cli.context_name();
    let force = call.flags.on("force");
    let mut failures: Vec<Failure> = Vec::new();
    for name in call.args() {
        match remove(call, name, &current, force) {
            Ok(()) => call.cli.printer.line(name)?,
            Err(failure) if force && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    joined(failures)
}

fn remove(call: &Call<'_>, name: &str, current: &str, force: bool) -> Result {
    if name == DEFAULT {
        return Err(Failure::words("context \"default\" cannot be removed"));
    }
    let contexts = call.cli.contexts();
    contexts.load(name)?;
    if name == current {
        if !force {
            return Err(Failure::words(format!(
                "context {name:?} is in use, set -f flag to force remove"
            )));
        }
        let mut config = crate::config_file::ConfigFile::load(&call.cli.config_directory())?;
        config.set("currentContext", serde_json::Value::Null);
        config.save()?;
    }
    Ok(contexts.remove(name)?)
}
