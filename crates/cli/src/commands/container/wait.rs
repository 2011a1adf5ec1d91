//! `wait`: blocks until containers end, and prints their statuses.

use super::path;
use super::run::wait_for;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result, joined};

pub(crate) static COMMAND: Command = Command {
    names: &["container wait", "wait"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    args: Args::AtLeast(1),
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let client = call.cli.client()?;
    let mut failures: Vec<Failure> = Vec::new();
    for name in call.args() {
        let exit = match client.post(format!("{}/wait", path(name))).send().await {
            Ok(response) => wait_for(response).await,
            Err(err) => Err(err),
        };
        match exit {
            Ok(exit) => call.cli.printer.line(&exit.status_code.to_string())?,
            Err(err) => failures.push(err.into()),
        }
    }
    joined(failures)
}
