//! `exec`: another program in a running container.

use api::exec::{CreateBody, CreateResponse, Inspect, StartBody};
use client::{Client, path_escape};

use super::files;
use super::run::detach_setting;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind, Order};
use crate::streams::{self, Ended, Wanted};
use crate::tty;

pub(crate) static COMMAND: Command = Command {
    names: &["container exec", "exec"],
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    args: Args::AtLeast(2),
    order: Order::FlagsFirst,
    flags: &[
        Flag::new("detach", Kind::Switch, "Detached mode: run command in the background")
            .short('d'),
        Flag::new("detach-keys", Kind::Text, "Override the key sequence for detaching a container"),
        Flag::new("env", Kind::List, "Set environment variables")
            .short('e')
            .check(super::checks::env),
        Flag::new("env-file", Kind::List, "Read in a file of environment variables"),
        Flag::new("interactive", Kind::Switch, "Keep STDIN open even if not attached").short('i'),
        Flag::new("privileged", Kind::Switch, "Give extended privileges to the command"),
        Flag::new("tty", Kind::Switch, "Allocate a pseudo-TTY").short('t'),
        Flag::new("user", Kind::Text, "Username or UID (format: \"<name|uid>[:<group|gid>]\")")
            .short('u'),
        Flag::new("workdir", Kind::Text, "Working directory inside the container").short('w'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let (name, command) = call.args().split_first().expect("at least two arguments were checked");
    let (detached, tty, interactive) =
        (flags.on("detach"), flags.on("tty"), flags.on("interactive"));
    let size = crate::tty::size()
        .filter(|_| tty)
        .map(|(rows, columns)| [u32::from(rows), u32::from(columns)]);
    if !detached && interactive && tty && !tty::stdin_is_terminal() {
        return Err(Failure::words("the input device is not a TTY"));
    }
    let body = CreateBody {
        user: flags.text("user").to_owned(),
        privileged: flags.on("privileged"),
        tty,
        console_size: size,
        attach_stdin: interactive && !detached,
        attach_stdout: !detached,
        attach_stderr: !detached,
        detach: detached,
        detach_keys: detach_setting(call).to_owned(),
        env: Some(files::environment(&flags.list("env-file"), &flags.list("env"))?)
            .filter(|env| !env.is_empty()),
        working_dir: flags.text("workdir").to_owned(),
        cmd: Some(command.to_vec()),
    };
    let client = call.cli.client()?;
    let created: CreateResponse =
        client.post(format!("/containers/{}/exec", path_escape(name))).json(&body)?.fetch().await?;
    let start = StartBody { detach: detached, tty, console_size: size };
    let path = format!("/exec/{}", created.id);
    let request = client.post(format!("{path}/start")).json(&start)?;
    if detached {
        return Ok(request.done().await?);
    }
    let connection = request.hijack().await?;
    let wanted = Wanted {
        stdin: body.attach_stdin,
        stdout: true,
        stderr: true,
        tty,
        detach_keys: streams::detach_keys(detach_setting(call))?,
    };
    let ended = tokio::select! {
        ended = streams::hold(connection, &wanted) => ended?,
        () = streams::follow_size(client, &path), if tty => Ended::Closed,
    };
    match ended {
        Ended::Detached => Ok(()),
        Ended::Unheard => Err(Failure::unheard()),
        Ended::Closed => status(client, &path).await,
    }
}

/// The program's status is ours.
async fn status(client: &Client, path: &str) -> Result {
    let bytes = client.get(format!("{path}/json")).send().await?.bytes().await?;
    let exec: Inspect = api::json::from_slice(&bytes)
        .map_err(|err| Failure::words(format!("cannot read the daemon's answer: {err:?}")))?;
    match exec.exit_code.unwrap_or(0) {
        0 => Ok(()),
        code => Err(Failure::quiet((code & 0xff) as u8)),
    }
}
