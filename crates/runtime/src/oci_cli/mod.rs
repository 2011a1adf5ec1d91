//! `gantry runtime`: the command other engines call, with runc's interface. containerd (`BinaryName`), podman and CRI-O
//! (`--runtime`) drive it, and other people's suites test it.
//!
//! A file for each group of commands; [`record`] is what stays on disk between them, [`flags`] reads what they are told.

mod containers;
mod events;
mod exec;
mod features;
mod flags;
mod foreground;
mod log;
mod ps;
mod record;
mod run;
mod seal;
mod spec;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stdx::{Error, Result};

use flags::{Flag, Flags};
use log::Log;

/// What every command knows.
struct Global {
    root: PathBuf,
}

const ROOT: &str = "/run/gantry/runtime";

const GLOBAL: &[Flag] = &[
    Flag::value("root"),
    Flag::value("log"),
    Flag::value("log-format"),
    Flag::value("rootless"),
    Flag::value("criu"),
    Flag::switch("debug"),
    Flag::switch("systemd-cgroup"),
    Flag::switch("help").or("h"),
    Flag::switch("version").or("v"),
];

type Run = fn(&Global, &Flags) -> Result<u8>;

struct Command {
    name: &'static str,
    usage: &'static str,
    flags: &'static [Flag],
    run: Run,
    /// Makes processes that share a pid namespace with a container: runs from a program nobody can write.
    sealed: bool,
}

const COMMANDS: &[Command] = &[
    command("checkpoint", "<container-id>", &[], containers::checkpoint),
    sealed("create", "[flags] <container-id>", run::CREATE, run::create),
    command("delete", "[--force] <container-id>", containers::DELETE, containers::delete),
    command(
        "events",
        "[--stats] [--interval <duration>] <container-id>",
        events::FLAGS,
        events::run,
    ),
    sealed("exec", "[flags] <container-id> <command> [args]", exec::FLAGS, exec::run),
    command("features", "", &[], features::run),
    command("kill", "[--all] <container-id> [signal]", containers::KILL, containers::kill),
    command("list", "[--format table|json] [--quiet]", containers::LIST, containers::list),
    command("pause", "<container-id>", &[], containers::pause),
    command("ps", "[--format table|json] <container-id>", ps::FLAGS, ps::run),
    command("restore", "<container-id>", &[], containers::restore),
    command("resume", "<container-id>", &[], containers::resume),
    sealed("run", "[flags] <container-id>", run::RUN, run::run),
    command("spec", "[--bundle <dir>] [--rootless]", spec::FLAGS, spec::run),
    command("start", "<container-id>", &[], containers::start),
    command("state", "<container-id>", &[], containers::state),
    command("update", "[flags] <container-id>", update::FLAGS, update::run),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    flags: &'static [Flag],
    run: Run,
) -> Command {
    Command { name, usage, flags, run, sealed: false }
}

const fn sealed(
    name: &'static str,
    usage: &'static str,
    flags: &'static [Flag],
    run: Run,
) -> Command {
    Command { name, usage, flags, run, sealed: true }
}

/// Runs one command. `args` begins with its name or a global flag.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut log = Log::default();
    match dispatch(&args, &mut log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&failure.error.chain());
            ExitCode::from(failure.code)
        }
    }
}

/// What went wrong and what to end with.
struct Failure {
    error: Error,
    code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, code: 1 }
    }
}

fn dispatch(args: &[OsString], log: &mut Log) -> Result<u8, Failure> {
    let global = Flags::parse(GLOBAL, args)?;
    *log = Log::open(global.get("log").map(Path::new), global.get("log-format").unwrap_or("text"))?;
    if global.has("version") {
        say(&format!(
            "gantry runtime version {}\nspec: {}\n",
            env!("CARGO_PKG_VERSION"),
            oci::runtime::VERSION
        ))?;
        return Ok(0);
    }
    let Some((name, rest)) = global.rest().split_first().filter(|_| !global.has("help")) else {
        say(&usage())?;
        return Ok(0);
    };
    if name == "help" {
        say(&usage())?;
        return Ok(0);
    }
    let Some(command) = COMMANDS.iter().find(|command| name == command.name) else {
        return Err(Failure::from(Error::invalid(format!(
            "No help topic for '{}'",
            name.to_string_lossy()
        ))));
    };
    if global.has("systemd-cgroup") && matches!(command.name, "create" | "run") {
        return Err(Error::not_implemented("the systemd cgroup driver is not supported yet").into());
    }
    let flags = Flags::parse_help(command.flags, rest)?;
    if flags.has("help") {
        say(&format!("USAGE:\n   gantry runtime {} {}\n", command.name, command.usage))?;
        return Ok(0);
    }
    if command.sealed {
        seal::ensure()?;
    }
    let global = Global { root: PathBuf::from(global.get("root").unwrap_or(ROOT)) };
    // What `exec` ends with is the process's, so its own failures need a code that is not likely to be one.
    let code = if command.name == "exec" { 255 } else { 1 };
    (command.run)(&global, &flags).map_err(|error| Failure { error, code })
}

fn usage() -> String {
    let mut text =
        "NAME:\n   gantry runtime - Open Container Initiative runtime\n\nCOMMANDS:\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!("   {:<11}{}\n", command.name, command.usage));
    }
    text.push_str("\nGLOBAL OPTIONS:\n   --root <dir>  --log <file>  --log-format text|json  --debug  --version\n");
    text
}

/// To standard output. A reader who has gone away is not our failure.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(err.into()),
        _ => Ok(()),
    }
}

/// The one argument most commands have.
fn id(flags: &Flags) -> Result<&str> {
    match flags.rest() {
        [id] => id.to_str().ok_or_else(|| Error::invalid("invalid container ID format")),
        [] => Err(Error::invalid("container id cannot be empty")),
        rest => Err(Error::invalid(format!(
            "this command takes exactly 1 argument(s), not {}",
            rest.len()
        ))),
    }
}
