//! `context show`.

use crate::command::{Call, Command};
use crate::failure::Result;

pub(crate) static COMMAND: Command = Command {
    names: &["context show"],
    about: "Print the name of the current context",
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    call.cli.printer.line(&call.cli.context_name())
}
