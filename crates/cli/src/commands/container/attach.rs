//! `attach`: our terminal becomes a running container's.

use super::run::{attach as connect, detach_setting, exit_status, forward, wait_for};
use super::{fetch, path};
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;
use crate::signals::Signals;
use crate::streams::{self, Ended, Wanted};
use crate::tty;

pub(crate) static COMMAND: Command = Command {
    names: &["container attach", "attach"],
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("detach-keys", Kind::Text, "Override the key sequence for detaching a container"),
        Flag::new("no-stdin", Kind::Switch, "Do not attach STDIN"),
        Flag::new(
            "sig-proxy",
            Kind::Switch,
            "Proxy all received signals to the process (default true)",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let client = call.cli.client()?;
    let container = fetch(client, call.arg(0)).await?;
    refuse_unless_running(&container)?;
    let id = container.str_at("Id");
    let wanted = Wanted {
        stdin: !flags.on("no-stdin") && container.bool_at("Config.OpenStdin"),
        stdout: true,
        stderr: true,
        tty: container.bool_at("Config.Tty"),
        detach_keys: streams::detach_keys(detach_setting(call))?,
    };
    if wanted.stdin && wanted.tty && !tty::stdin_is_terminal() {
        return Err(Failure::words("the input device is not a TTY"));
    }
    let mut signals =
        (flags.switch("sig-proxy").unwrap_or(true) && !wanted.tty).then(Signals::listen);
    let wait = client.post(format!("{}/wait", path(id))).send();
    let (exit, connection) = tokio::join!(wait, connect(client, id, &wanted, detach_setting(call)));
    let (exit, connection) = (exit?, connection?);
    let size_path = path(id);
    let held = async {
        match streams::hold(connection, &wanted).await? {
            Ended::Detached => Err(Failure::words("read escape sequence")),
            Ended::Unheard => Err(Failure::unheard()),
            Ended::Closed => Ok(wait_for(exit).await?),
        }
    };
    let sized = async {
        streams::redraw(client, &size_path).await;
        streams::follow_size(client, &size_path).await;
    };
    tokio::select! {
        exit = held => exit_status(call, &exit?),
        () = forward(client, id, &mut signals) => Ok(()),
        () = sized, if wanted.tty => Ok(()),
    }
}

fn refuse_unless_running(container: &Value) -> Result {
    if container.bool_at("State.Paused") {
        return Err(Failure::words("You cannot attach to a paused container, unpause it first"));
    }
    if container.bool_at("State.Restarting") {
        return Err(Failure::words(
            "You cannot attach to a restarting container, wait until it is running",
        ));
    }
    if !container.bool_at("State.Running") {
        return Err(Failure::words("You cannot attach to a stopped container, start it first"));
    }
    Ok(())
}
