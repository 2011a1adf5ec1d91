//! `secret rm` and `config rm`.

use super::Noun;
use crate::command::{Args, Call, Command};
use crate::commands::for_each;
use crate::failure::Result;

pub(crate) static SECRET: Command = Command {
    names: &["secret rm", "secret remove"],
    usage: "SECRET [SECRET...]",
    about: "Remove one or more secrets",
    args: Args::AtLeast(1),
    run: |call| Box::pin(run(call, Noun::Secret)),
    ..Command::NONE
};

pub(crate) static CONFIG: Command = Command {
    names: &["config rm", "config remove"],
    usage: "CONFIG [CONFIG...]",
    about: "Remove one or more configs",
    args: Args::AtLeast(1),
    run: |call| Box::pin(run(call, Noun::Config)),
    ..Command::NONE
};

async fn run(call: &Call<'_>, noun: Noun) -> Result {
    let client = call.cli.client()?;
    for_each(call, |name| async move { Ok(client.delete(noun.path_of(&name)).done().await?) }).await
}
