//! `volume ls`.

use stdx::units::human_size;

use crate::command::{Call, Command, about};
use crate::commands::network::ls::natural;
use crate::commands::{Words, joined, labels, listing_format, printed};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["volume ls", "volume list"],
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[
        Flag::new(
            "cluster",
            Kind::Switch,
            "Display only cluster volumes, and use cluster volume list formatting",
        ),
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"dangling=true\")")
            .short('f'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("quiet", Kind::Switch, "Only display volume names").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 10] = [
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];
const TABLE: &str = "table {{.Driver}}\t{{.Name}}";
/// `--format raw`.
pub(crate) const RAW: &str = "name: {{.Name}}\ndriver: {{.Driver}}\n";

async fn run(call: &Call<'_>) -> Result {
    if call.flags.on("cluster") {
        return Err(Failure::words("--cluster is not supported yet"));
    }
    let words = Words { table: TABLE, quiet: "{{.Name}}", raw: Some((RAW, "name: {{.Name}}")) };
    let format = listing_format(call, "volumesFormat", &words)?;
    let request = call
        .cli
        .client()?
        .get("/volumes")
        .query_opt("filters", call.flags.filters("filter").query());
    let answer: Value = request.fetch().await?;
    let mut volumes: Vec<&Value> = answer.items_at("Volumes").iter().collect();
    volumes.sort_by_key(|volume| natural(volume.str_at("Name")));
    printed(call, &format, &HEADINGS, volumes.into_iter().map(row).collect())
}

/// Also a row of `system df -v`, where the daemon counted uses and bytes.
pub(crate) fn row(volume: &Value) -> Row {
    let labels = labels(volume.entries_at("Labels"));
    let text = |key: &str| Value::text(volume.str_at(key));
    let counted = volume.at("UsageData").is_some_and(|usage| !usage.entries().is_empty());
    let of_usage = |show: &dyn Fn(i64) -> String, key: &str| match counted {
        true => Value::text(show(volume.int_at(&format!("UsageData.{key}")))),
        false => Value::text("N/A"),
    };
    Row {
        type_name: "*formatter.volumeContext",
        columns: vec![
            ("Availability", Value::text("N/A")),
            ("Driver", text("Driver")),
            ("Group", Value::text("N/A")),
            ("Labels", Value::text(joined(&labels))),
            ("Links", of_usage(&|count| count.to_string(), "RefCount")),
            ("Mountpoint", text("Mountpoint")),
            ("Name", text("Name")),
            ("Scope", text("Scope")),
            ("Size", of_usage(&|bytes| human_size(bytes as f64), "Size")),
            ("Status", Value::text("N/A")),
        ],
        labels,
    }
}
