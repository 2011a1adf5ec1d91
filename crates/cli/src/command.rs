//! Commands as data: what they are called, what they take, and who runs them.

use std::future::Future;
use std::pin::Pin;

use crate::cli::Cli;
use crate::failure::{Failure, Result};
use crate::flags::{self, Flag, Help, Order, Parsed, Stop};

/// One thing a user can ask for.
pub(crate) struct Command {
    /// Every way to say it; the first is the proper one. `["container run", "run"]`
    pub(crate) names: &'static [&'static str],
    /// What follows the name in the usage line. A second line is another form, with a name of its own.
    pub(crate) usage: &'static str,
    /// One line for lists.
    pub(crate) about: &'static str,
    /// Said in the command's own help instead of `about`, when it is longer.
    pub(crate) details: &'static str,
    pub(crate) args: Args,
    pub(crate) order: Order,
    pub(crate) flags: &'static [Flag],
    pub(crate) help: Help,
    pub(crate) run: for<'a> fn(&'a Call<'a>) -> Run<'a>,
}

pub(crate) type Run<'a> = Pin<Box<dyn Future<Output = Result> + 'a>>;

impl Command {
    /// What is left out in a table entry: `..Command::NONE`.
    pub(crate) const NONE: Self = Self {
        names: &[],
        usage: "",
        about: "",
        details: "",
        args: Args::None,
        order: Order::Mixed,
        flags: &[],
        help: Help::Docker,
        run: |_| Box::pin(async { Ok(()) }),
    };
}

/// A noun with verbs under it.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Args {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
    Any,
}

impl Args {
    /// What is wrong with so many, in Docker's words with its own slips.
    fn refusal(self, given: usize) -> Option<(String, &'static str)> {
        let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
        match self {
            Self::None if given > 0 => Some(("accepts no arguments".to_owned(), "Run")),
            Self::Exactly(n) if given != n => Some((format!("requires {n} {}", plural(n)), "Run")),
            Self::AtLeast(n) if given < n => {
                Some((format!("requires at least {n} {}", plural(n)), "See"))
            }
            Self::AtMost(n) if given > n => {
                Some((format!("requires at most {n} {}", plural(n)), "SRun"))
            }
            Self::Between(least, most) if given < least || given > most => Some((
                format!("requires at least {least} and at most {most} {}", plural(most)),
                "Run",
            )),
            _ => None,
        }
    }
}

/// A command being run: what it was given, and where it runs.
pub(crate) struct Call<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) flags: Parsed,
}

impl Call<'_> {
    pub(crate) fn args(&self) -> &[String] {
        &self.flags.args
    }

    pub(crate) fn arg(&self, index: usize) -> &str {
        self.flags.args.get(index).map(String::as_str).unwrap_or_default()
    }
}

/// Parses the words behind a command's name and runs it.
pub(crate) async fn dispatch(
    cli: &Cli,
    command: &'static Command,
    path: String,
    words: &[String],
) -> Result {
    let columns = crate::tty::columns(80);
    let parsed = match Parsed::parse(command.flags, command.order, words) {
        Ok(parsed) => parsed,
        Err(Stop::Help) => return cli.printer.text(&help(cli, command, &path, columns)),
        Err(Stop::ShortHelp) => {
            cli.printer.complain("Flag shorthand -h has been deprecated, use --help");
            return cli.printer.text(&help(cli, command, &path, columns));
        }
        Err(Stop::Wrong(err)) => {
            return Err(wrong_flag(&err.to_string(), &usage_line(command, &path), &path));
        }
    };
    if let Some((refusal, lead)) = command.args.refusal(parsed.args.len()) {
        return Err(Failure::words(format!(
            "{program}: '{path}' {refusal}\n\nUsage:  {}\n\n{lead} '{path} --help' for more information",
            usage_line(command, &path),
            program = cli.program
        )));
    }
    let call = Call { cli, flags: parsed };
    (command.run)(&call).await
}

/// A flag error: exit status 125 and the usage line.
pub(crate) fn wrong_flag(words: &str, usage: &str, path: &str) -> Failure {
    Failure::new(
        125,
        format!("{words}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"),
    )
}

fn usage_line(command: &Command, path: &str) -> String {
    let program = path.split(' ').next().unwrap_or_default();
    let mut forms = command.usage.lines();
    let mut line = match forms.next() {
        Some(form) => format!("{path} {form}"),
        None => path.to_owned(),
    };
    for form in forms {
        line.push_str(&format!("\n\t{program} {form}"));
    }
    line
}

/// The help of one command.
fn help(cli: &Cli, command: &Command, path: &str, columns: usize) -> String {
    let about = if command.details.is_empty() { command.about } else { command.details };
    let mut out = format!("Usage:  {}\n\n{about}\n", usage_line(command, path));
    if command.names.len() > 1 {
        let names: Vec<String> =
            command.names.iter().map(|name| format!("{} {name}", cli.program)).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let mut part = |title: &str, part| {
        let options = flags::usage(command.flags, part, columns - 1);
        if !options.is_empty() {
            out.push_str(&format!("\n{title}:\n{options}"));
        }
    };
    part("Options", Help::Docker);
    if cli.shows_more() {
        part("Options beyond Docker", Help::Beyond);
    }
    out
}

/// Words that many commands say of the same flag.
pub(crate) mod about {
    pub(crate) const FORMAT_TABLE: &str = "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

    pub(crate) const FORMAT: &str = "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";
}
