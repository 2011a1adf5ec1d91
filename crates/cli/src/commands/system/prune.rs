//! `system prune`, and the steps that every `prune` has in common.

use stdx::units::human_size;

use crate::command::{Call, Command};
use crate::commands::confirmed;
use crate::failure::{Failure, Result};
use crate::flags::{Filters, Flag, Kind};
use crate::format::Value;

pub(crate) static COMMAND: Command = Command {
    names: &["system prune"],
    usage: "[OPTIONS]",
    about: "Remove unused data",
    flags: &[
        Flag::new("all", Kind::Switch, "Remove all unused images not just dangling ones")
            .short('a'),
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"label=<key>=<value>\")"),
        Flag::new("force", Kind::Switch, "Do not prompt for confirmation").short('f'),
        Flag::new("volumes", Kind::Switch, "Prune anonymous volumes"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const BUILD_CACHE: &str = "/build/prune";

/// How one kind of thing is pruned and reported.
pub(crate) struct Report {
    pub(crate) path: &'static str,
    pub(crate) warning: &'static str,
    pub(crate) heading: &'static str,
    /// The member of the answer that lists what is gone.
    pub(crate) list: &'static str,
}

/// Asks, prunes, and says what is gone.
pub(crate) async fn prune(call: &Call<'_>, report: &Report, filters: Filters) -> Result {
    if !call.flags.on("force") && !confirmed(call.cli, report.warning)? {
        return Err(cancelled());
    }
    let mut filters = filters;
    user_filters(call, &mut filters);
    let (gone, reclaimed) = pruned(call, report, &filters).await?;
    call.cli.printer.text(&gone)?;
    // Networks take no space.
    if report.list == "NetworksDeleted" {
        return Ok(());
    }
    call.cli.printer.line(&format!("Total reclaimed space: {}", human_size(reclaimed as f64)))
}

/// No answer, or no, ends the command without a word, as Docker's does.
fn cancelled() -> Failure {
    Failure::quiet(0)
}

/// The user's own `pruneFilters` hold everywhere.
fn user_filters(call: &Call<'_>, filters: &mut Filters) {
    let settings = call.cli.config().get("pruneFilters").and_then(serde_json::Value::as_array);
    for text in settings.into_iter().flatten().filter_map(serde_json::Value::as_str) {
        if let Some((key, value)) = text.split_once('=') {
            filters.add(key, value);
        }
    }
}

async fn pruned(call: &Call<'_>, report: &Report, filters: &Filters) -> Result<(String, i64)> {
    let all = (report.path == BUILD_CACHE && call.flags.on("all")).then(|| "1".to_owned());
    let request = call.cli.client()?.post(report.path);
    let request = request.query_opt("all", all).query_opt("filters", filters.query());
    let answer: Value = request.fetch().await?;
    let gone = answer.items_at(report.list);
    let mut text = String::new();
    if !gone.is_empty() {
        text.push_str(report.heading);
        text.push('\n');
        for item in gone {
            match item {
                Value::Text(name) => text.push_str(&format!("{name}\n")),
                image => match image.str_at("Untagged") {
                    "" => text.push_str(&format!("deleted: {}\n", image.str_at("Deleted"))),
                    untagged => text.push_str(&format!("untagged: {untagged}\n")),
                },
            }
        }
        text.push('\n');
    }
    Ok((text, answer.int_at("SpaceReclaimed")))
}

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let (all, volumes) = (flags.on("all"), flags.on("volumes"));
    let filters = flags.filters("filter");
    if volumes && filters.has("until") {
        return Err(Failure::words(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !flags.on("force") && !confirmed(call.cli, &warning(all, volumes, &filters))? {
        return Err(cancelled());
    }
    let step = |path, heading, list| Report { path, warning: "", heading, list };
    let mut steps = vec![
        (step("/containers/prune", "Deleted Containers:", "ContainersDeleted"), filters.clone()),
        (step("/networks/prune", "Deleted Networks:", "NetworksDeleted"), filters.clone()),
    ];
    if volumes {
        steps.push((step("/volumes/prune", "Deleted Volumes:", "VolumesDeleted"), filters.clone()));
    }
    let mut images = filters.clone();
    images.add("dangling", if all { "false" } else { "true" });
    steps.push((step("/images/prune", "Deleted Images:", "ImagesDeleted"), images));
    // What we answer to ourselves is that there is none; other engines have some.
    let heading = "Deleted build cache objects:";
    steps.push((step(BUILD_CACHE, heading, "CachesDeleted"), filters.clone()));
    let mut reclaimed = 0;
    for (report, mut filters) in steps {
        user_filters(call, &mut filters);
        let (text, bytes) = pruned(call, &report, &filters).await?;
        call.cli.printer.text(&text)?;
        reclaimed += bytes;
    }
    call.cli.printer.line(&format!("Total reclaimed space: {}", human_size(reclaimed as f64)))
}

fn warning(all: bool, volumes: bool, filters: &Filters) -> String {
    let mut lines =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    });
    lines.push(if all { "all build cache" } else { "unused build cache" });
    let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
    let mut text = format!("WARNING! This will remove:\n{lines}");
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for key in ["label", "label!", "until"] {
            for value in filters.values(key) {
                text.push_str(&format!("  - {key}={value}\n"));
            }
        }
    }
    format!("{text}\nAre you sure you want to continue?")
}
