//! `stats`: what containers use, once or again and again.

use std::time::Duration;

use client::{Client, path_escape};
use stdx::units::{bytes_size, human_size_precise};

use crate::command::{Args, Call, Command, about};
use crate::commands::short_id;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    args: Args::Any,
    flags: &[
        Flag::new("all", Kind::Switch, "Show all containers (default shows just running)")
            .short('a'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new(
            "no-stream",
            Kind::Switch,
            "Disable streaming stats and only pull the first result",
        ),
        Flag::new("no-trunc", Kind::Switch, "Do not truncate output"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 9] = [
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let format = match flags.text("format") {
        "" => call.cli.config().text("statsFormat"),
        given => given,
    };
    let format = if matches!(format, "" | "table") { TABLE } else { format };
    listing::check(format).map_err(Failure::words)?;
    let client = call.cli.client()?;
    let trunc = !flags.on("no-trunc");
    loop {
        let names = names(call, client).await?;
        let asked =
            names.iter().map(|name| async move { (name.clone(), measure(client, name).await) });
        let mut rows = Vec::new();
        for (name, stats) in futures_util::future::join_all(asked).await {
            match stats {
                Ok(stats) => rows.push(row(&name, &stats, trunc)),
                Err(failure) if !call.args().is_empty() => return Err(failure),
                // One that ended between being listed and being asked is simply not there.
                Err(_) => {}
            }
        }
        let text = listing::render(format, &HEADINGS, rows).map_err(Failure::words)?;
        if flags.on("no-stream") {
            return call.cli.printer.text(&text);
        }
        // Home, the lines each cleared to their end, and whatever was below cleared too.
        let shown = text.replace('\n', "\x1b[K\n");
        call.cli.printer.text(&format!("\x1b[H{shown}\x1b[J"))?;
        call.cli.printer.flush()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn names(call: &Call<'_>, client: &Client) -> Result<Vec<String>> {
    if !call.args().is_empty() {
        return Ok(call.args().to_vec());
    }
    let list: Value =
        client.get("/containers/json").query_flag("all", call.flags.on("all")).fetch().await?;
    Ok(list.items().iter().map(|container| short_id(container.str_at("Id"), true)).collect())
}

async fn measure(client: &Client, name: &str) -> Result<Value> {
    Ok(client
        .get(format!("/containers/{}/stats", path_escape(name)))
        .query("stream", "0")
        .fetch()
        .await?)
}

fn row(name: &str, stats: &Value, trunc: bool) -> Row {
    let id = short_id(stats.str_at("id"), trunc);
    let (used, limit) = (memory(stats), stats.int_at("memory_stats.limit") as f64);
    let percent = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (received, sent) = network(stats);
    let (read, written) = block(stats);
    let human = |bytes: f64| human_size_precise(bytes, 3);
    Row {
        type_name: "*container.statsContext",
        columns: vec![
            ("BlockIO", Value::text(format!("{} / {}", human(read), human(written)))),
            ("CPUPerc", Value::text(format!("{:.2}%", cpu(stats)))),
            ("Container", Value::text(name)),
            ("ID", Value::text(id)),
            ("MemPerc", Value::text(format!("{percent:.2}%"))),
            ("MemUsage", Value::text(format!("{} / {}", bytes_size(used), bytes_size(limit)))),
            ("Name", Value::text(stats.str_at("name").trim_start_matches('/'))),
            ("NetIO", Value::text(format!("{} / {}", human(received), human(sent)))),
            ("PIDs", Value::text(stats.int_at("pids_stats.current").to_string())),
        ],
        labels: Vec::new(),
    }
}

/// Without the page cache that nobody would miss.
fn memory(stats: &Value) -> f64 {
    let usage = stats.int_at("memory_stats.usage");
    let counters = stats.at("memory_stats.stats");
    let cache = ["total_inactive_file", "inactive_file"].iter().find_map(|name| {
        counters
            .and_then(|counters| counters.get(name))
            .map(|_| counters.map_or(0, |c| c.int_at(name)))
    });
    match cache {
        Some(cache) if cache < usage => (usage - cache) as f64,
        _ => usage as f64,
    }
}

fn cpu(stats: &Value) -> f64 {
    let delta = |path: &str| {
        (stats.int_at(&format!("cpu_stats.{path}")) - stats.int_at(&format!("precpu_stats.{path}")))
            as f64
    };
    let (used, all) = (delta("cpu_usage.total_usage"), delta("system_cpu_usage"));
    let cpus = match stats.int_at("cpu_stats.online_cpus") {
        0 => stats.items_at("cpu_stats.cpu_usage.percpu_usage").len() as f64,
        cpus => cpus as f64,
    };
    if used > 0.0 && all > 0.0 { used / all * cpus * 100.0 } else { 0.0 }
}

fn network(stats: &Value) -> (f64, f64) {
    stats.entries_at("networks").iter().fold((0.0, 0.0), |(received, sent), (_, interface)| {
        (received + interface.int_at("rx_bytes") as f64, sent + interface.int_at("tx_bytes") as f64)
    })
}

fn block(stats: &Value) -> (f64, f64) {
    let mut totals = (0.0, 0.0);
    for entry in stats.items_at("blkio_stats.io_service_bytes_recursive") {
        let value = entry.int_at("value") as f64;
        match entry.str_at("op").chars().next() {
            Some('r' | 'R') => totals.0 += value,
            Some('w' | 'W') => totals.1 += value,
            _ => {}
        }
    }
    totals
}
