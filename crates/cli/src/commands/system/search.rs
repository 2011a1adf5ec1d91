//! `search`: asks a registry for images by a word.

use crate::command::{Args, Call, Command};
use crate::commands::container::ls::ellipsis;
use crate::commands::printed;
use crate::credentials::{HUB, get};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["search"],
    usage: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("filter", Kind::Filter, "Filter output based on conditions provided").short('f'),
        Flag::new("format", Kind::Text, "Pretty-print search using a Go template"),
        Flag::new("limit", Kind::Int, "Max number of search results"),
        Flag::new("no-trunc", Kind::Switch, "Don't truncate output"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let server = match call.arg(0).split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => {
            domain.to_owned()
        }
        _ => HUB.to_owned(),
    };
    let found: Value = call
        .cli
        .client()?
        .get("/images/search")
        .query("term", call.arg(0))
        .query_opt(
            "limit",
            flags.int("limit").filter(|limit| *limit > 0).map(|limit| limit.to_string()),
        )
        .query_opt("filters", flags.filters("filter").query())
        .header("x-registry-auth", &get(call.cli.config(), &server)?.header())
        .fetch()
        .await?;
    let format = match flags.text("format") {
        "" | "table" => TABLE,
        given => given,
    };
    let trunc = !flags.on("no-trunc");
    printed(call, format, &HEADINGS, found.items().iter().map(|image| row(image, trunc)).collect())
}

fn row(image: &Value, trunc: bool) -> Row {
    let description = image.str_at("description").replace(['\n', '\r'], " ");
    let mark = |key: &str| Value::text(if image.bool_at(key) { "[OK]" } else { "" });
    Row {
        type_name: "*registry.searchContext",
        columns: vec![
            (
                "Description",
                Value::text(if trunc { ellipsis(&description, 45) } else { description }),
            ),
            ("IsAutomated", mark("is_automated")),
            ("IsOfficial", mark("is_official")),
            ("Name", Value::text(image.str_at("name"))),
            ("StarCount", Value::text(image.int_at("star_count").to_string())),
        ],
        labels: Vec::new(),
    }
}
