//! From the words on the command line to a command: global flags, groups, help, and the exit status.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{Cli, Globals};
use crate::command::{Command, dispatch, wrong_flag};
use crate::commands::{ALL, GROUPS};
use crate::failure::{Failure, Result};
use crate::flags::{self, Flag, Help, Kind, Order, Parsed, Stop};
use crate::tty;

static FLAGS: [Flag; 11] = [
    Flag::new("config", Kind::Text, "Location of client config files"),
    Flag::new(
        "context",
        Kind::Text,
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"docker context use\")",
    )
    .short('c'),
    Flag::new("debug", Kind::Switch, "Enable debug mode").short('D'),
    Flag::new("host", Kind::List, "Daemon socket to connect to").short('H'),
    Flag::new(
        "log-level",
        Kind::Text,
        "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")",
    )
    .short('l'),
    Flag::new("tls", Kind::Switch, "Use TLS; implied by --tlsverify"),
    Flag::new("tlscacert", Kind::Text, "Trust certs signed only by this CA"),
    Flag::new("tlscert", Kind::Text, "Path to TLS certificate file"),
    Flag::new("tlskey", Kind::Text, "Path to TLS key file"),
    Flag::new("tlsverify", Kind::Switch, "Use TLS and verify the remote"),
    Flag::new("version", Kind::Switch, "Print version information and quit").short('v'),
];

/// Commands shown first in the help of all.
const COMMON: [&str; 11] =
    ["run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info"];

/// Other roles of the same program: their first words are understood before this command is asked.
const ENGINE: [(&str, &str); 3] = [
    ("daemon", "Run the engine that commands and the API talk to"),
    ("rootless", "Set up the engine of a user who is not root"),
    ("runtime", "Run containers from OCI bundles, without an engine"),
];

/// Runs the command. `args` are the words behind the program's name; `called_as` is that name without its folder.
pub fn main(args: Vec<OsString>, called_as: &str) -> ExitCode {
    let program = if called_as == "docker" { "docker" } else { "gantry" };
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            Cli::new(program, Globals::default()).printer.complain(&format!("cannot start: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(run(program, &words));
    // A thread may sit in a read of standard input for ever; nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(status)
}

async fn run(program: &'static str, words: &[String]) -> u8 {
    let parsed = match Parsed::parse(&FLAGS, Order::FlagsFirst, words) {
        Ok(parsed) => parsed,
        Err(stop) => {
            let cli = Cli::new(program, Globals::default());
            let result = match stop {
                Stop::Help => cli.printer.text(&help(&cli)),
                Stop::ShortHelp => {
                    cli.printer.complain("Flag shorthand -h has been deprecated, use --help");
                    cli.printer.text(&help(&cli))
                }
                Stop::Wrong(err) => Err(wrong_flag(
                    &err.to_string(),
                    &format!("{program} [OPTIONS] COMMAND [ARG...]"),
                    program,
                )),
            };
            return finish(&cli, result);
        }
    };
    let cli = Cli::new(program, Globals::of(&parsed));
    let result = Box::pin(choose(&cli, &parsed)).await;
    finish(&cli, result)
}

/// Prints what is left to say; the exit status.
fn finish(cli: &Cli, result: Result) -> u8 {
    let result = result.and_then(|()| cli.printer.flush());
    match result {
        Ok(()) => 0,
        Err(failure) => {
            if let Some(message) = &failure.message {
                cli.printer.complain(message);
            } else {
                cli.printer.flush().unwrap_or_default();
            }
            failure.status
        }
    }
}

async fn choose(cli: &Cli, globals: &Parsed) -> Result {
    let program = cli.program;
    if let Some(level) = globals.get("log-level")
        && !["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"]
            .contains(&level)
    {
        return Err(Failure::words(format!("Unable to parse logging level: {level}")));
    }
    if globals.on("version") {
        return crate::commands::system::version::print_short(cli);
    }
    let words = &globals.args;
    let Some(first) = words.first() else { return cli.printer.text(&help(cli)) };
    if first == "help" {
        return help_on(cli, &words[1..]).await;
    }
    if let Some(command) = find(first) {
        return dispatch(cli, command, format!("{program} {first}"), &words[1..]).await;
    }
    if let Some(group) = GROUPS.iter().find(|group| group.name == first) {
        return group_command(cli, group.name, group.about, &words[1..]).await;
    }
    if let Some(status) = crate::commands::plugin(cli, first, words)? {
        return Err(Failure::quiet(status));
    }
    Err(Failure::words(format!(
        "{program}: unknown command: {program} {first}\n\nRun '{program} --help' for more information"
    )))
}

async fn group_command(cli: &Cli, name: &'static str, about: &str, words: &[String]) -> Result {
    let path = format!("{} {name}", cli.program);
    let own = match Parsed::parse(&[], Order::FlagsFirst, words) {
        Ok(parsed) => parsed,
        Err(Stop::Wrong(err)) => return Err(wrong_flag(&err.to_string(), &path, &path)),
        Err(Stop::Help) => return cli.printer.text(&group_help(cli, name, about)),
        Err(Stop::ShortHelp) => {
            cli.printer.complain("Flag shorthand -h has been deprecated, use --help");
            return cli.printer.text(&group_help(cli, name, about));
        }
    };
    let Some(verb) = own.args.first() else {
        return cli.printer.text(&group_help(cli, name, about));
    };
    match find(&format!("{name} {verb}")) {
        Some(command) => {
            // An alias within the group is shown by its proper name.
            let proper = command
                .names
                .iter()
                .find(|known| known.starts_with(&format!("{name} ")))
                .unwrap_or(&name);
            dispatch(cli, command, format!("{} {proper}", cli.program), &own.args[1..]).await
        }
        None => Err(Failure::words(format!(
            "{}: unknown command: {path} {verb}\n\nUsage:  {path}\n\nRun '{path} --help' for more information",
            cli.program
        ))),
    }
}

/// `docker help run` is `docker run --help`.
async fn help_on(cli: &Cli, words: &[String]) -> Result {
    let Some(first) = words.first() else { return cli.printer.text(&help(cli)) };
    let ask = ["--help".to_owned()];
    if let Some(command) = find(first) {
        return dispatch(cli, command, format!("{} {first}", cli.program), &ask).await;
    }
    if let Some(group) = GROUPS.iter().find(|group| group.name == first) {
        if let Some(verb) = words.get(1)
            && let Some(command) = find(&format!("{} {verb}", group.name))
        {
            return dispatch(cli, command, format!("{} {} {verb}", cli.program, group.name), &ask)
                .await;
        }
        return cli.printer.text(&group_help(cli, group.name, group.about));
    }
    Err(Failure::words(format!("unknown help topic: {}", words.join(" "))))
}

fn find(name: &str) -> Option<&'static Command> {
    ALL.iter().copied().find(|command| command.names.contains(&name))
}

/// Those verbs of a group that belong into this part of its help, with their lines, by name.
fn verbs(group: &str, part: Help) -> Vec<(&'static str, &'static str)> {
    let mut verbs: Vec<_> = ALL
        .iter()
        .filter(|command| command.help == part)
        .filter_map(|command| {
            let verb = command
                .names
                .iter()
                .find_map(|name| name.strip_prefix(group)?.strip_prefix(' '))?;
            Some((verb, command.about))
        })
        .collect();
    verbs.sort_unstable();
    verbs
}

fn listed(entries: &[(&str, &str)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(11);
    entries.iter().map(|(name, about)| format!("  {name:<width$} {about}\n")).collect()
}

fn group_help(cli: &Cli, name: &str, about: &str) -> String {
    let path = format!("{} {name}", cli.program);
    let more = verbs(name, Help::Beyond);
    let more = match cli.shows_more() && !more.is_empty() {
        true => format!("\nCommands beyond Docker:\n{}", listed(&more)),
        false => String::new(),
    };
    format!(
        "Usage:  {path} COMMAND\n\n{about}\n\nCommands:\n{}{more}\nRun '{path} COMMAND --help' for more information on a command.\n",
        listed(&verbs(name, Help::Docker))
    )
}

fn help(cli: &Cli) -> String {
    let program = cli.program;
    let mut common = Vec::new();
    let mut others = Vec::new();
    for command in ALL.iter().filter(|command| command.help == Help::Docker) {
        for name in command.names.iter().filter(|name| !name.contains(' ')) {
            match COMMON.contains(name) {
                true => common.push((*name, command.about)),
                false => others.push((*name, command.about)),
            }
        }
    }
    common.sort_by_key(|(name, _)| COMMON.iter().position(|known| known == name));
    others.sort_unstable();
    let groups: Vec<(&str, &str)> = GROUPS.iter().map(|group| (group.name, group.about)).collect();
    let directory = cli.config_directory();
    // Where the files are depends on the user: the one piece of help that is made, not written.
    let defaults =
        [("config", ""), ("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")];
    let abouts: Vec<String> = FLAGS
        .iter()
        .map(|flag| match defaults.iter().find(|(name, _)| *name == flag.long) {
            Some((_, "")) => format!("{} (default \"{}\")", flag.about, directory.display()),
            Some((_, file)) => {
                format!("{} (default \"{}\")", flag.about, directory.join(file).display())
            }
            None => flag.about.replace("docker context", &format!("{program} context")),
        })
        .collect();
    let engine = match cli.shows_more() {
        true => format!("Engine:\n{}\n", listed(&ENGINE)),
        false => String::new(),
    };
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\n{engine}Global Options:\n{}\n\
         Run '{program} COMMAND --help' for more information on a command.\n\n\
         For more help on how to use Docker, head to https://docs.docker.com/go/guides/\n",
        listed(&common),
        listed(&groups),
        listed(&others),
        flags::usage_with(
            FLAGS.iter().zip(abouts.iter().map(String::as_str)),
            tty::columns(80) - 1
        ),
    )
}
