//! `secret ls` and `config ls`.

use stdx::time::Timestamp;

use super::Noun;
use crate::command::{Call, Command, about};
use crate::commands::network::ls::natural;
use crate::commands::{Words, joined, labels, listing_format, printed};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::Heading;
use crate::format::{Row, Value};
use crate::times;

const FLAGS: &[Flag] = &[
    Flag::new("filter", Kind::Filter, "Filter output based on conditions provided").short('f'),
    Flag::new("format", Kind::Text, about::FORMAT_TABLE),
    Flag::new("quiet", Kind::Switch, "Only display IDs").short('q'),
];

pub(crate) static SECRET: Command = Command {
    names: &["secret ls", "secret list"],
    usage: "[OPTIONS]",
    about: "List secrets",
    flags: FLAGS,
    run: |call| Box::pin(run(call, Noun::Secret)),
    ..Command::NONE
};

pub(crate) static CONFIG: Command = Command {
    names: &["config ls", "config list"],
    usage: "[OPTIONS]",
    about: "List configs",
    flags: FLAGS,
    run: |call| Box::pin(run(call, Noun::Config)),
    ..Command::NONE
};

const HEADINGS: [Heading; 6] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("CreatedAt", "CREATED"),
    ("UpdatedAt", "UPDATED"),
    ("Labels", "LABELS"),
];

async fn run(call: &Call<'_>, noun: Noun) -> Result {
    let (setting, table) = match noun {
        Noun::Secret => (
            "secretFormat",
            "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
        ),
        Noun::Config => {
            ("configFormat", "table {{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}")
        }
    };
    let format = listing_format(call, setting, &Words { table, quiet: "{{.ID}}", raw: None })?;
    let request = call
        .cli
        .client()?
        .get(noun.path(""))
        .query_opt("filters", call.flags.filters("filter").query());
    let answer: Value = request.fetch().await?;
    let mut all: Vec<&Value> = answer.items().iter().collect();
    all.sort_by_key(|one| natural(one.str_at("Spec.Name")));
    printed(call, &format, &HEADINGS, all.into_iter().map(|one| row(noun, one)).collect())
}

fn row(noun: Noun, one: &Value) -> Row {
    let labels = labels(one.entries_at("Spec.Labels"));
    let ago = |key: &str| {
        let at = Timestamp::parse(one.str_at(key)).map_or(0, Timestamp::unix);
        Value::text(times::ago(at))
    };
    let mut columns = vec![("CreatedAt", ago("CreatedAt"))];
    if noun == Noun::Secret {
        columns.push(("Driver", Value::text(one.str_at("Spec.Driver.Name"))));
    }
    columns.extend([
        ("ID", Value::text(one.str_at("ID"))),
        ("Labels", Value::text(joined(&labels))),
        ("Name", Value::text(one.str_at("Spec.Name"))),
        ("UpdatedAt", ago("UpdatedAt")),
    ]);
    let type_name = match noun {
        Noun::Secret => "*secret.secretContext",
        Noun::Config => "*config.configContext",
    };
    Row { type_name, columns, labels }
}
