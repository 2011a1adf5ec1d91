//! `start`: starts containers that are there; with `-a` or `-i` one, and stays with it.

use super::run::{Outcome, detach_setting, exit_status, foreground};
use super::{fetch, path, post};
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::streams::{self, Wanted};
use crate::tty;

pub(crate) static COMMAND: Command = Command {
    names: &["container start", "start"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("attach", Kind::Switch, "Attach STDOUT/STDERR and forward signals").short('a'),
        Flag::new("checkpoint", Kind::Text, "Restore from this checkpoint"),
        Flag::new("checkpoint-dir", Kind::Text, "Use a custom checkpoint storage directory"),
        Flag::new("detach-keys", Kind::Text, "Override the key sequence for detaching a container"),
        Flag::new("interactive", Kind::Switch, "Attach container's STDIN").short('i'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if flags.on("attach") || flags.on("interactive") {
        return attached(call).await;
    }
    let client = call.cli.client()?;
    if flags.given("checkpoint") {
        if call.args().len() > 1 {
            return Err(Failure::words("you cannot restore multiple containers at once"));
        }
        let request = client
            .post(format!("{}/start", path(call.arg(0))))
            .query("checkpoint", flags.text("checkpoint"));
        let directory = flags.get("checkpoint-dir").filter(|directory| !directory.is_empty());
        return Ok(request.query_opt("checkpoint-dir", directory).done().await?);
    }
    let mut failed = Vec::new();
    for name in call.args() {
        match post(client, name, "start").await {
            Ok(()) => call.cli.printer.line(name)?,
            Err(failure) => {
                call.cli.printer.complain(failure.text());
                failed.push(name.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::words(format!("Error: failed to start containers: {}", failed.join(", "))))
        }
    }
}

async fn attached(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if call.args().len() > 1 {
        return Err(Failure::words("you cannot start and attach multiple containers at once"));
    }
    let client = call.cli.client()?;
    let container = fetch(client, call.arg(0)).await?;
    let wanted = Wanted {
        stdin: flags.on("interactive") && container.bool_at("Config.OpenStdin"),
        stdout: true,
        stderr: true,
        tty: container.bool_at("Config.Tty"),
        detach_keys: streams::detach_keys(detach_setting(call))?,
    };
    if wanted.stdin && wanted.tty && !tty::stdin_is_terminal() {
        return Err(Failure::words("the input device is not a TTY"));
    }
    let forwards = flags.switch("sig-proxy").unwrap_or(true) && !wanted.tty;
    let removed = container.bool_at("HostConfig.AutoRemove");
    let id = container.str_at("Id");
    match foreground(client, id, &wanted, forwards, removed, detach_setting(call)).await {
        Outcome::Detached => Ok(()),
        Outcome::Unheard => Err(Failure::unheard()),
        Outcome::Exited(exit) => exit_status(call, &exit),
        Outcome::NotAttached(err) | Outcome::NotStarted(err) | Outcome::Lost(err) => {
            Err(err.into())
        }
    }
}
