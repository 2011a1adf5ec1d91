//! `network ls`.

use crate::command::{Call, Command, about};
use crate::commands::{Words, joined, labels, listing_format, printed, short_id};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["network ls", "network list"],
    usage: "[OPTIONS]",
    about: "List networks",
    flags: &[
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"driver=bridge\")")
            .short('f'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("no-trunc", Kind::Switch, "Do not truncate the output"),
        Flag::new("quiet", Kind::Switch, "Only display network IDs").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";

/// `--format raw`.
const RAW: &str = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n";

async fn run(call: &Call<'_>) -> Result {
    let words = Words { table: TABLE, quiet: "{{.ID}}", raw: Some((RAW, "network_id: {{.ID}}")) };
    let format = listing_format(call, "networksFormat", &words)?;
    let request = call
        .cli
        .client()?
        .get("/networks")
        .query_opt("filters", call.flags.filters("filter").query());
    let networks: Value = request.fetch().await?;
    let mut networks: Vec<&Value> = networks.items().iter().collect();
    networks.sort_by_key(|network| natural(network.str_at("Name")));
    let trunc = !call.flags.on("no-trunc");
    let rows = networks.into_iter().map(|network| row(network, trunc)).collect();
    printed(call, &format, &HEADINGS, rows)
}

/// A key under which `net2` stands before `net10`.
pub(crate) fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let number_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(number_end);
        if !text.is_empty() {
            parts.push((u64::MAX, text.to_owned()));
        }
        if !number.is_empty() {
            parts.push((number.parse().unwrap_or(u64::MAX), number.to_owned()));
        }
        rest = after;
    }
    parts
}

fn row(network: &Value, trunc: bool) -> Row {
    let labels = labels(network.entries_at("Labels"));
    let truth = |key: &str| Value::text(network.bool_at(key).to_string());
    Row {
        type_name: "*network.networkContext",
        columns: vec![
            ("CreatedAt", Value::text(times::go_with_fraction(network.str_at("Created")))),
            ("Driver", Value::text(network.str_at("Driver"))),
            ("ID", Value::text(short_id(network.str_at("Id"), trunc))),
            ("IPv4", truth("EnableIPv4")),
            ("IPv6", truth("EnableIPv6")),
            ("Internal", truth("Internal")),
            ("Labels", Value::text(joined(&labels))),
            ("Name", Value::text(network.str_at("Name"))),
            ("Scope", Value::text(network.str_at("Scope"))),
        ],
        labels,
    }
}
