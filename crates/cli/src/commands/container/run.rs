//! `run`: create, attach, start, and stay until the container ends.

use api::container::WaitResponse;
use client::{Client, Response};
use stdx::Error;

use super::body::{Attachment, body};
use super::create::create;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::Order;
use crate::signals::Signals;
use crate::streams::{self, Ended, Wanted};
use crate::tty;

pub(crate) static COMMAND: Command = Command {
    names: &["container run", "run"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    args: Args::AtLeast(1),
    order: Order::FlagsFirst,
    flags: &super::create_flags::RUN,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let detached = flags.on("detach");
    if detached && flags.given("attach") {
        return Err(with_help(
            call,
            "conflicting options: cannot specify both --attach and --detach",
            125,
        ));
    }
    let attachment = if detached { Attachment::Detached } else { Attachment::Foreground };
    let body = body(flags, attachment).map_err(|err| with_help(call, &err.chain(), 125))?;
    if !detached && body.config.attach_stdin && body.config.tty && !tty::stdin_is_terminal() {
        return Err(Failure::words("the input device is not a TTY"));
    }
    let id = create(call, &body).await.map_err(|failure| with_help(call, failure.text(), 125))?.id;
    let client = call.cli.client()?;
    if detached {
        start(client, &id).await.map_err(|err| start_failure(call, &err))?;
        return call.cli.printer.line(&id);
    }
    let keys = crate::streams::detach_keys(detach_setting(call))
        .map_err(|err| with_help(call, &err.chain(), 125))?;
    let wanted = Wanted {
        stdin: body.config.attach_stdin,
        stdout: body.config.attach_stdout,
        stderr: body.config.attach_stderr,
        tty: body.config.tty,
        detach_keys: keys,
    };
    let forwards = !wanted.tty && flags.switch("sig-proxy").unwrap_or(true);
    let removed = flags.on("rm");
    let outcome = foreground(client, &id, &wanted, forwards, removed, detach_setting(call)).await;
    finish(call, outcome)
}

/// Where a run in the foreground got to.
pub(super) enum Outcome {
    /// The user left; the container runs on.
    Detached,
    Exited(WaitResponse),
    /// Not even attached.
    NotAttached(Error),
    NotStarted(Error),
    /// The streams or the wait broke off.
    Lost(Error),
    /// Nobody reads what it says.
    Unheard,
}

fn finish(call: &Call<'_>, outcome: Outcome) -> Result {
    match outcome {
        Outcome::Detached => Ok(()),
        Outcome::Unheard => Err(Failure::unheard()),
        Outcome::Exited(exit) => exit_status(call, &exit),
        Outcome::NotAttached(err) | Outcome::Lost(err) => Err(with_help(call, &err.chain(), 125)),
        Outcome::NotStarted(err) => Err(start_failure(call, &err)),
    }
}

/// The container's status is ours.
pub(super) fn exit_status(call: &Call<'_>, exit: &WaitResponse) -> Result {
    if let Some(error) = exit.error.as_ref().filter(|error| !error.message.is_empty()) {
        call.cli.printer.complain(&format!("Error waiting for container: {}", error.message));
        return Err(Failure::quiet(125));
    }
    match exit.status_code {
        0 => Ok(()),
        code => Err(Failure::quiet((code & 0xff) as u8)),
    }
}

/// Attaches, waits and starts, in an order in which nothing can be missed; then holds the streams until the end.
pub(super) async fn foreground(
    client: &Client,
    id: &str,
    wanted: &Wanted,
    forwards: bool,
    removed: bool,
    keys: &str,
) -> Outcome {
    let mut signals = forwards.then(Signals::listen);
    let condition = if removed { "removed" } else { "next-exit" };
    let attach = attach(client, id, wanted, keys);
    let wait = client.post(format!("/containers/{id}/wait")).query("condition", condition).send();
    let (connection, exit) = match tokio::join!(attach, wait) {
        (Ok(connection), Ok(exit)) => (connection, exit),
        (Err(err), _) | (_, Err(err)) => return Outcome::NotAttached(err),
    };
    if let Err(err) = start(client, id).await {
        drop(connection);
        if removed {
            // The daemon removes it by itself; a name is free again only then.
            wait_for(exit).await.map(drop).unwrap_or_default();
        }
        return Outcome::NotStarted(err);
    }
    let path = format!("/containers/{id}");
    let held = async {
        match streams::hold(connection, wanted).await {
            Ok(Ended::Detached) => Outcome::Detached,
            Ok(Ended::Unheard) => Outcome::Unheard,
            Ok(Ended::Closed) => wait_for(exit).await.map_or_else(Outcome::Lost, Outcome::Exited),
            Err(err) => Outcome::Lost(err),
        }
    };
    tokio::select! {
        outcome = held => outcome,
        () = forward(client, id, &mut signals) => Outcome::Detached,
        () = streams::follow_size(client, &path), if wanted.tty => Outcome::Detached,
    }
}

pub(super) async fn attach(
    client: &Client,
    id: &str,
    wanted: &Wanted,
    keys: &str,
) -> stdx::Result<client::Hijacked> {
    client
        .post(format!("/containers/{id}/attach"))
        .query("stream", "1")
        .query_flag("stdin", wanted.stdin)
        .query_flag("stdout", wanted.stdout)
        .query_flag("stderr", wanted.stderr)
        .query_opt("detachKeys", Some(keys).filter(|keys| !keys.is_empty()))
        .hijack()
        .await
}

/// Passes signals on for as long as it is polled. Never ends.
pub(super) async fn forward(client: &Client, id: &str, signals: &mut Option<Signals>) {
    let Some(signals) = signals else { return std::future::pending().await };
    loop {
        let name = signals.next().await;
        // A container that has just ended does not take it: nothing to report.
        client
            .post(format!("/containers/{id}/kill"))
            .query("signal", name)
            .done()
            .await
            .unwrap_or_default();
    }
}

pub(super) async fn wait_for(response: Response) -> stdx::Result<WaitResponse> {
    let bytes = response.bytes().await?;
    api::json::from_slice(&bytes).map_err(|_| Error::unavailable("unexpected EOF"))
}

pub(super) async fn start(client: &Client, id: &str) -> stdx::Result<()> {
    client.post(format!("/containers/{id}/start")).done().await
}

pub(super) fn detach_setting<'a>(call: &'a Call<'_>) -> &'a str {
    match call.flags.text("detach-keys") {
        "" => call.cli.config().text("detachKeys"),
        keys => keys,
    }
}

/// What the program could not do decides the status, as a shell would have it.
fn start_failure(call: &Call<'_>, err: &Error) -> Failure {
    with_help(call, &err.chain(), status_of(&err.chain()))
}

pub(super) fn status_of(words: &str) -> u8 {
    const MISSING: [&str; 3] = [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ];
    const FORBIDDEN: [&str; 2] = ["permission denied", "is a directory"];
    match words {
        words if MISSING.iter().any(|sign| words.contains(sign)) => 127,
        words if FORBIDDEN.iter().any(|sign| words.contains(sign)) => 126,
        _ => 125,
    }
}

fn with_help(call: &Call<'_>, words: &str, status: u8) -> Failure {
    with_help_of(call, "run", words, status)
}

pub(super) fn with_help_of(call: &Call<'_>, command: &str, words: &str, status: u8) -> Failure {
    let program = call.cli.program;
    Failure::new(
        status,
        format!("{program}: {words}\n\nRun '{program} {command} --help' for more information"),
    )
}
