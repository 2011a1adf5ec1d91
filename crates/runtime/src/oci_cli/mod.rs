//! `gantry runtime`: the command other engines call, with runc's interface. containerd (`BinaryName`), podman and CRI-O
//! (`--runtime`) drive it, and other people's suites test it.
//!
//! A file for each group of commands; [`record`] is what stays on disk between them, [`flags`] reads what they are told.

mod checkpoint;
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

use crate::cgroup::Driver;

/// What every command knows.
struct Global<'a> {
    root: PathBuf,
    driver: Driver,
    /// CRIU, if not the one that is found.
    criu: Option<PathBuf>,
    log: &'a Log,
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

type Run = fn(&Global<'_>, &Flags) -> Result<u8>;

struct Command {
    name: &'static str,
    usage: &'static str,
    arguments: Arguments,
    flags: &'static [Flag],
    run: Run,
    /// Makes processes that share a pid namespace with a container: runs from a program nobody can write.
    sealed: bool,
}

/// How many plain words a command takes.
#[derive(Clone, Copy)]
enum Arguments {
    Exactly(usize),
    AtLeast(usize),
}

use Arguments::{AtLeast, Exactly};

const COMMANDS: &[Command] = &[
    command(
        "checkpoint",
        "[flags] <container-id>",
        Exactly(1),
        checkpoint::CHECKPOINT,
        checkpoint::checkpoint,
    ),
    sealed("create", "[flags] <container-id>", Exactly(1), run::CREATE, run::create),
    command(
        "delete",
        "[--force] <container-id>",
        Exactly(1),
        containers::DELETE,
        containers::delete,
    ),
    command(
        "events",
        "[--stats] [--interval <duration>] <container-id>",
        Exactly(1),
        events::FLAGS,
        events::run,
    ),
    sealed("exec", "[flags] <container-id> <command> [args]", AtLeast(1), exec::FLAGS, exec::run),
    command("features", "", Exactly(0), &[], features::run),
    command(
        "kill",
        "[--all] <container-id> [signal]",
        AtLeast(1),
        containers::KILL,
        containers::kill,
    ),
    command(
        "list",
        "[--format table|json] [--quiet]",
        Exactly(0),
        containers::LIST,
        containers::list,
    ),
    command("pause", "<container-id>", Exactly(1), &[], containers::pause),
    command("ps", "[--format table|json] <container-id> [-ef]", AtLeast(1), ps::FLAGS, ps::run),
    sealed(
        "restore",
        "[flags] <container-id>",
        Exactly(1),
        checkpoint::RESTORE,
        checkpoint::restore,
    ),
    command("resume", "<container-id>", Exactly(1), &[], containers::resume),
    sealed("run", "[flags] <container-id>", Exactly(1), run::RUN, run::run),
    command("spec", "[--bundle <dir>] [--rootless]", Exactly(0), spec::FLAGS, spec::run),
    command("start", "<container-id>", Exactly(1), &[], containers::start),
    command("state", "<container-id>", Exactly(1), &[], containers::state),
    command("update", "[flags] <container-id>", Exactly(1), update::FLAGS, update::run),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    arguments: Arguments,
    flags: &'static [Flag],
    run: Run,
) -> Command {
    Command { name, usage, arguments, flags, run, sealed: false }
}

const fn sealed(
    name: &'static str,
    usage: &'static str,
    arguments: Arguments,
    flags: &'static [Flag],
    run: Run,
) -> Command {
    Command { name, usage, arguments, flags, run, sealed: true }
}

impl Arguments {
    fn check(self, command: &str, given: usize) -> Result<()> {
        let (fits, words) = match self {
            Exactly(number) => (given == number, format!("exactly {number}")),
            AtLeast(number) => (given >= number, format!("a minimum of {number}")),
        };
        match fits {
            true => Ok(()),
            false => Err(Error::invalid(format!("{command:?} requires {words} argument(s)"))),
        }
    }
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
    let flags = Flags::parse_help(command.flags, rest)?;
    if flags.has("help") {
        say(&format!("USAGE:\n   gantry runtime {} {}\n", command.name, command.usage))?;
        return Ok(0);
    }
    command.arguments.check(command.name, flags.rest().len())?;
    if command.sealed {
        seal::ensure()?;
    }
    let global = Global {
        root: global.get("root").map_or_else(default_root, PathBuf::from),
        driver: if global.has("systemd-cgroup") { Driver::Systemd } else { Driver::Cgroupfs },
        criu: global.get("criu").filter(|path| !path.is_empty()).map(PathBuf::from),
        log,
    };
    // What `exec` ends with is the process's, so its own failures need a code that is not likely to be one.
    let code = if command.name == "exec" { 255 } else { 1 };
    (command.run)(&global, &flags).map_err(|error| Failure { error, code })
}

/// As runc: who is not the host's root keeps his containers in his own runtime directory.
#[expect(clippy::disallowed_methods, reason = "it is told nowhere else")]
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    match own.filter(|_| is_rootless()) {
        // root of a user namespace that calls itself so is meant to have a root's places.
        Some(_)
            if rustix::process::geteuid().is_root()
                && std::env::var_os("USER").is_some_and(|user| user == "root") =>
        {
            PathBuf::from(ROOT)
        }
        Some(own) => PathBuf::from(own).join("gantry/runtime"),
        None => PathBuf::from(ROOT),
    }
}

/// Not the host's root.
fn is_rootless() -> bool {
    !crate::userns::in_initial_user_namespace() || !rustix::process::geteuid().is_root()
}

fn usage() -> String {
    let mut text =
        "NAME:\n   gantry runtime - Open Container Initiative runtime\n\nCOMMANDS:\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!("   {:<11}{}\n", command.name, command.usage));
    }
    text.push_str("\nGLOBAL OPTIONS:\n   --root <dir>  --log <file>  --log-format text|json  --systemd-cgroup  --debug  --version\n");
    text
}

/// To standard output. A reader who has gone away is not our failure.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(err.into()),
        _ => Ok(()),
    }
}

/// The argument most commands have.
fn id(flags: &Flags) -> Result<&str> {
    let id = flags.rest().first().map(|id| id.to_str());
    id.flatten().ok_or_else(|| Error::invalid("invalid container ID format"))
}
