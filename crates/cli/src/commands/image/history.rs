//! `history`: how an image came to be.

use client::path_escape;
use stdx::units::human_size_precise;

use crate::command::{Args, Call, Command, about};
use crate::commands::container::ls::ellipsis;
use crate::commands::{Words, listing_format, printed, short_id};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["image history", "history"],
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new(
            "human",
            Kind::Switch,
            "Print sizes and dates in human readable format (default true)",
        )
        .short('H'),
        Flag::new("no-trunc", Kind::Switch, "Don't truncate output"),
        Flag::new(
            "platform",
            Kind::Text,
            "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        Flag::new("quiet", Kind::Switch, "Only show image IDs").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const BARE: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let human = flags.switch("human").unwrap_or(true);
    let table = if human { TABLE } else { BARE };
    let words = Words { table, quiet: "{{.ID}}", raw: None };
    let format = listing_format(call, "historyFormat", &words)?;
    let request = call.cli.client()?.get(format!("/images/{}/history", path_escape(call.arg(0))));
    let platform = flags.get("platform").map(|text| text.parse::<oci::Platform>()).transpose()?;
    let platform = platform.and_then(|platform| serde_json::to_string(&platform).ok());
    let history: Value = request.query_opt("platform", platform).fetch().await?;
    let trunc = !flags.on("no-trunc");
    let rows = history.items().iter().map(|step| row(step, trunc, human)).collect();
    printed(call, &format, &HEADINGS, rows)
}

fn row(step: &Value, trunc: bool, human: bool) -> Row {
    let created = step.int_at("Created");
    let by = step.str_at("CreatedBy").replace('\t', " ");
    let size = step.int_at("Size");
    let at = times::rfc3339(created);
    Row {
        type_name: "*image.historyContext",
        columns: vec![
            ("Comment", Value::text(step.str_at("Comment"))),
            ("CreatedAt", Value::text(if created <= -62_135_596_800 { String::new() } else { at })),
            ("CreatedBy", Value::text(if trunc { ellipsis(&by, 45) } else { by })),
            (
                "CreatedSince",
                Value::text(if created <= -62_135_596_800 {
                    "N/A".to_owned()
                } else {
                    times::ago(created)
                }),
            ),
            ("ID", Value::text(short_id(step.str_at("Id"), trunc))),
            (
                "Size",
                Value::text(if human {
                    human_size_precise(size as f64, 3)
                } else {
                    size.to_string()
                }),
            ),
        ],
        labels: Vec::new(),
    }
}
