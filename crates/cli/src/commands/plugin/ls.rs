//! `plugin ls`.

use crate::command::{Call, Command, about};
use crate::commands::container::ls::ellipsis;
use crate::commands::network::ls::natural;
use crate::commands::{Words, listing_format, printed, short_id};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};

pub(crate) static COMMAND: Command = Command {
    names: &["plugin ls", "plugin list"],
    usage: "[OPTIONS]",
    about: "List plugins",
    flags: &[
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"enabled=true\")")
            .short('f'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new("no-trunc", Kind::Switch, "Don't truncate output"),
        Flag::new("quiet", Kind::Switch, "Only display plugin IDs").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const HEADINGS: [Heading; 5] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("Enabled", "ENABLED"),
    ("PluginReference", "IMAGE"),
];
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}";

async fn run(call: &Call<'_>) -> Result {
    let format = listing_format(
        call,
        "pluginsFormat",
        &Words { table: TABLE, quiet: "{{.ID}}", raw: None },
    )?;
    let request = call
        .cli
        .client()?
        .get("/plugins")
        .query_opt("filters", call.flags.filters("filter").query());
    let answer: Value = request.fetch().await?;
    let mut plugins: Vec<&Value> = answer.items().iter().collect();
    plugins.sort_by_key(|plugin| natural(plugin.str_at("Name")));
    let trunc = !call.flags.on("no-trunc");
    printed(call, &format, &HEADINGS, plugins.into_iter().map(|one| row(one, trunc)).collect())
}

fn row(plugin: &Value, trunc: bool) -> Row {
    let description = plugin.str_at("Config.Description").replace(['\n', '\r'], "");
    let description = if trunc { ellipsis(&description, 45) } else { description };
    Row {
        type_name: "*plugin.pluginContext",
        columns: vec![
            ("Description", Value::text(description)),
            ("Enabled", Value::Bool(plugin.bool_at("Enabled"))),
            ("ID", Value::text(short_id(plugin.str_at("Id"), trunc))),
            ("Name", Value::text(plugin.str_at("Name"))),
            ("PluginReference", Value::text(plugin.str_at("PluginReference"))),
        ],
        labels: Vec::new(),
    }
}
