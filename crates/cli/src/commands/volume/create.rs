//! `volume create`.

use api::volume::CreateBody;

use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;

pub(crate) static COMMAND: Command = Command {
    names: &["volume create"],
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    args: Args::AtMost(1),
    flags: &[
        Flag::new(
            "availability",
            Kind::Text,
            "Cluster Volume availability (\"active\", \"pause\", \"drain\") (default \"active\")",
        ),
        Flag::new("driver", Kind::Text, "Specify volume driver name (default \"local\")")
            .short('d'),
        Flag::new("group", Kind::Text, "Cluster Volume group (cluster volumes)"),
        Flag::new("label", Kind::List, "Set metadata for a volume"),
        Flag::new("limit-bytes", Kind::Bytes, "Minimum size of the Cluster Volume in bytes"),
        Flag::new("name", Kind::Text, "Specify volume name").hidden(),
        Flag::new("opt", Kind::Map, "Set driver specific options (default map[])").short('o'),
        Flag::new("required-bytes", Kind::Bytes, "Maximum size of the Cluster Volume in bytes"),
        Flag::new(
            "scope",
            Kind::Text,
            "Cluster Volume access scope (\"single\", \"multi\") (default \"single\")",
        ),
        Flag::new("secret", Kind::Map, "Cluster Volume secrets (default map[])"),
        Flag::new(
            "sharing",
            Kind::Text,
            "Cluster Volume access sharing (\"none\", \"readonly\", \"onewriter\", \"all\") (default \"none\")",
        ),
        Flag::new(
            "topology-preferred",
            Kind::List,
            "A topology that the Cluster Volume would be preferred in",
        ),
        Flag::new(
            "topology-required",
            Kind::List,
            "A topology that the Cluster Volume must be accessible from",
        ),
        Flag::new(
            "type",
            Kind::Text,
            "Cluster Volume access type (\"mount\", \"block\") (default \"block\")",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

/// What only a cluster's volumes have.
const CLUSTER: [&str; 9] = [
    "group",
    "limit-bytes",
    "required-bytes",
    "scope",
    "secret",
    "sharing",
    "topology-preferred",
    "topology-required",
    "type",
];

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if let Some(flag) = CLUSTER.iter().find(|flag| flags.given(flag)) {
        return Err(Failure::words(format!("--{flag} is not supported yet")));
    }
    if flags.given("name") && !call.args().is_empty() {
        return Err(Failure::words(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let pairs = |name: &str| {
        flags.map(name).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let body = CreateBody {
        driver: flags.get("driver").unwrap_or("local").to_owned(),
        driver_opts: pairs("opt"),
        labels: pairs("label"),
        name: flags.get("name").unwrap_or(call.arg(0)).to_owned(),
    };
    let created: Value = call.cli.client()?.post("/volumes/create").json(&body)?.fetch().await?;
    call.cli.printer.line(created.str_at("Name"))
}
