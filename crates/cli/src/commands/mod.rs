//! Every command there is, and what several of them share. One file a verb, one folder a noun.

mod checkpoint;
pub(crate) mod container;
mod context;
mod egress;
mod image;
mod network;
mod plugin;
mod secret;
pub(crate) mod system;
mod volume;

use std::rc::Rc;

use futures_util::StreamExt;

use crate::cli::Cli;
use crate::command::{Call, Command, Group};
use crate::failure::{Failure, Result, joined as all_failures};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};

/// Every command. The order does not matter: help sorts.
pub(crate) static ALL: &[&Command] = &[
    &checkpoint::CREATE,
    &checkpoint::LS,
    &checkpoint::RM,
    &container::attach::COMMAND,
    &container::commit::COMMAND,
    &container::cp::COMMAND,
    &container::create::COMMAND,
    &container::diff::COMMAND,
    &container::exec::COMMAND,
    &container::export::COMMAND,
    &container::inspect::COMMAND,
    &container::kill::COMMAND,
    &container::logs::COMMAND,
    &container::ls::COMMAND,
    &container::pause::COMMAND,
    &container::port::COMMAND,
    &container::prune::COMMAND,
    &container::rename::COMMAND,
    &container::restart::COMMAND,
    &container::rm::COMMAND,
    &container::run::COMMAND,
    &container::start::COMMAND,
    &container::stats::COMMAND,
    &container::stop::COMMAND,
    &container::top::COMMAND,
    &container::unpause::COMMAND,
    &container::update::COMMAND,
    &container::wait::COMMAND,
    &secret::create::CONFIG,
    &secret::inspect::CONFIG,
    &secret::ls::CONFIG,
    &secret::rm::CONFIG,
    &secret::update::CONFIG,
    &context::create::COMMAND,
    &context::inspect::COMMAND,
    &context::ls::COMMAND,
    &context::rm::COMMAND,
    &context::show::COMMAND,
    &context::update::COMMAND,
    &context::r#use::COMMAND,
    &image::history::COMMAND,
    &image::import::COMMAND,
    &image::inspect::COMMAND,
    &image::load::COMMAND,
    &image::ls::COMMAND,
    &image::prune::COMMAND,
    &image::pull::COMMAND,
    &image::push::COMMAND,
    &image::rm::COMMAND,
    &image::save::COMMAND,
    &image::tag::COMMAND,
    &network::connect::COMMAND,
    &network::create::COMMAND,
    &network::disconnect::COMMAND,
    &network::doctor::COMMAND,
    &network::inspect::COMMAND,
    &network::ls::COMMAND,
    &network::prune::COMMAND,
    &network::rm::COMMAND,
    &plugin::enable::DISABLE,
    &plugin::enable::ENABLE,
    &plugin::inspect::COMMAND,
    &plugin::install::CREATE,
    &plugin::install::INSTALL,
    &plugin::install::PUSH,
    &plugin::install::UPGRADE,
    &plugin::ls::COMMAND,
    &plugin::rm::COMMAND,
    &plugin::set::COMMAND,
    &secret::create::SECRET,
    &secret::inspect::SECRET,
    &secret::ls::SECRET,
    &secret::rm::SECRET,
    &secret::update::SECRET,
    &system::check::COMMAND,
    &system::df::COMMAND,
    &system::dial_stdio::COMMAND,
    &system::events::COMMAND,
    &system::info::COMMAND,
    &system::inspect::COMMAND,
    &system::login::COMMAND,
    &system::logout::COMMAND,
    &system::prune::COMMAND,
    &system::search::COMMAND,
    &system::version::COMMAND,
    &volume::copy::CLONE,
    &volume::copy::SNAPSHOT,
    &volume::create::COMMAND,
    &volume::export::COMMAND,
    &volume::import::COMMAND,
    &volume::inspect::COMMAND,
    &volume::ls::COMMAND,
    &volume::prune::COMMAND,
    &volume::rename::COMMAND,
    &volume::rm::COMMAND,
];

pub(crate) static GROUPS: &[Group] = &[
    Group { name: "checkpoint", about: "Manage checkpoints" },
    Group { name: "config", about: "Manage Swarm configs" },
    Group { name: "container", about: "Manage containers" },
    Group { name: "context", about: "Manage contexts" },
    Group { name: "image", about: "Manage images" },
    Group { name: "network", about: "Manage networks" },
    Group { name: "plugin", about: "Manage plugins" },
    Group { name: "secret", about: "Manage Swarm secrets" },
    Group { name: "system", about: "Manage Docker" },
    Group { name: "volume", about: "Manage volumes" },
];

/// Prints rows by a format.
fn printed(call: &Call<'_>, format: &str, headings: &[Heading], rows: Vec<Row>) -> Result {
    let text = listing::render(format, headings, rows).map_err(Failure::words)?;
    call.cli.printer.text(&text)
}

/// The formats that a listing has names for.
struct Words<'a> {
    table: &'a str,
    /// With `--quiet`.
    quiet: &'a str,
    /// `raw`, and with `--quiet`; `None` where Docker has none.
    raw: Option<(&'a str, &'a str)>,
}

/// The format of a listing: the flag, else the user's setting, else the table; `quiet` shows one column.
fn listing_format(call: &Call<'_>, setting: &str, words: &Words<'_>) -> Result<String> {
    let flags = &call.flags;
    let quiet = flags.on("quiet");
    let given = match flags.text("format") {
        "" | "table" if quiet => return Ok(words.quiet.to_owned()),
        "" => call.cli.config().text(setting),
        given => given,
    };
    let format = match (given, words.raw) {
        ("" | "table", _) => words.table,
        ("raw", Some((_, raw))) if quiet => raw,
        ("raw", Some((raw, _))) => raw,
        (given, _) => given,
    };
    listing::check(format).map_err(Failure::words)?;
    Ok(format.to_owned())
}

/// An identifier as tables show it: twelve digits, without the algorithm.
fn short_id(id: &str, trunc: bool) -> String {
    if !trunc {
        return id.to_owned();
    }
    let id = id.split_once(':').map_or(id, |(_, hex)| hex);
    id.chars().take(12).collect()
}

fn labels(entries: &[(Rc<str>, Value)]) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = entries
        .iter()
        .map(|(key, value)| (key.to_string(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    labels.sort();
    labels
}

/// `a=1,b=2`.
fn joined(labels: &[(String, String)]) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Does the same to each named thing, many at a time, prints the names in order, and reports all failures at the end.
async fn for_each<F>(call: &Call<'_>, act: impl Fn(String) -> F) -> Result
where
    F: Future<Output = Result>,
{
    let names = call.args().to_vec();
    let mut results = futures_util::stream::iter(names.into_iter().map(|name| {
        let acted = act(name.clone());
        async move { (name, acted.await) }
    }))
    .buffered(50);
    let mut failures = Vec::new();
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(()) => call.cli.printer.line(&name)?,
            Err(failure) => failures.push(failure),
        }
    }
    all_failures(failures)
}

/// Asks before something is destroyed; no answer is no.
fn confirmed(cli: &Cli, question: &str) -> Result<bool> {
    cli.printer.text(&format!("{question} [y/N] "))?;
    cli.printer.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

/// Runs `docker-<name>` of the plugin folders, if there is one: compose and buildx live there. Its exit status.
pub(crate) fn plugin(cli: &Cli, name: &str, words: &[String]) -> Result<Option<u8>> {
    let plain = !name.is_empty()
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if !plain {
        return Ok(None);
    }
    let folders = [
        cli.config_directory().join("cli-plugins"),
        "/usr/local/lib/docker/cli-plugins".into(),
        "/usr/local/libexec/docker/cli-plugins".into(),
        "/usr/lib/docker/cli-plugins".into(),
        "/usr/libexec/docker/cli-plugins".into(),
    ];
    let Some(path) = folders
        .iter()
        .map(|folder| folder.join(format!("docker-{name}")))
        .find(|path| path.is_file())
    else {
        return Ok(None);
    };
    cli.printer.flush()?;
    let status = std::process::Command::new(&path)
        .args(words)
        .env("DOCKER_HOST", cli.target()?.host)
        .env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", cli.program)
        .status()
        .map_err(|err| {
            Failure::words(format!("cannot run {}: {}", path.display(), stdx::Error::from(err)))
        })?;
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
