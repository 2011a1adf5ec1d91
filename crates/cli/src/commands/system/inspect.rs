//! `inspect`: the low-level truth about anything with a name.

use std::collections::VecDeque;

use client::{Request, path_escape};
use stdx::Kind as ErrorKind;

use crate::command::{Args, Call, Command, about};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::GoType;
use crate::format::inspect::Format;

pub(crate) static COMMAND: Command = Command {
    names: &["inspect"],
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on Docker objects",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("format", Kind::Text, about::FORMAT).short('f'),
        Flag::new("size", Kind::Switch, "Display total file sizes if the type is container")
            .short('s'),
        Flag::new("type", Kind::Text, "Only inspect objects of the given type"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

/// Where names are looked up, in this order when no type is given.
const TYPES: [(&str, &str); 10] = [
    ("config", "/configs/"),
    ("container", "/containers/"),
    ("image", "/images/"),
    ("network", "/networks/"),
    ("node", "/nodes/"),
    ("plugin", "/plugins/"),
    ("secret", "/secrets/"),
    ("service", "/services/"),
    ("task", "/tasks/"),
    ("volume", "/volumes/"),
];
const ORDER: [&str; 10] = [
    "container",
    "image",
    "network",
    "volume",
    "service",
    "task",
    "node",
    "plugin",
    "secret",
    "config",
];

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if flags.given("type") && flags.text("type").is_empty() {
        return Err(Failure::words(
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
        ));
    }
    let types: Vec<&str> = match flags.text("type") {
        "" => ORDER.into(),
        given if TYPES.iter().any(|(name, _)| *name == given) => vec![given],
        given => {
            let names: Vec<String> = TYPES.iter().map(|(name, _)| format!("{name:?}")).collect();
            return Err(Failure::words(format!(
                "unknown type: {given:?}: must be one of {}",
                names.join(", ")
            )));
        }
    };
    let mut documents = Documents::new(flags.text("format"))?;
    for name in call.args() {
        documents.add(find(call, name, &types).await);
    }
    documents.show(call)
}

async fn find(call: &Call<'_>, name: &str, types: &[&str]) -> Result<String> {
    let client = call.cli.client()?;
    let mut left: VecDeque<&str> = types.iter().copied().collect();
    while let Some(kind) = left.pop_front() {
        let (_, folder) =
            TYPES.iter().find(|(known, _)| *known == kind).expect("types were checked");
        let tail = if matches!(kind, "container" | "image" | "plugin") { "/json" } else { "" };
        let request = client
            .get(format!("{folder}{}{tail}", path_escape(name)))
            .query_flag("size", call.flags.on("size") && kind == "container");
        match request.send().await {
            Ok(response) => {
                if call.flags.on("size") && kind != "container" {
                    call.cli.printer.complain(&format!("WARNING: --size ignored for {kind}"));
                }
                return text(response).await;
            }
            Err(err) if types.len() == 1 => return Err(err.into()),
            // What the daemon does not have, or does not have at all (no swarm, no plugins), is elsewhere.
            Err(err) if not_here(&err) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Err(Failure::words(format!("Error: No such object: {name}")))
}

fn not_here(err: &stdx::Error) -> bool {
    let words = err.chain();
    matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotImplemented | ErrorKind::Forbidden)
        || words.contains("This node is not a swarm manager")
        || words.contains("page not found")
        || words.contains("invalid reference format")
}

/// Documents on their way to being shown.
pub(crate) struct Documents {
    format: Format,
    types: &'static [GoType],
    raws: Vec<String>,
    failures: Vec<Failure>,
}

impl Documents {
    pub(crate) fn new(format: &str) -> Result<Self> {
        let format = Format::parse(format).map_err(|err| Failure::new(64, err))?;
        Ok(Self { format, types: &[], raws: Vec::new(), failures: Vec::new() })
    }

    /// Documents that Docker's client has as its own types only.
    pub(crate) fn of_types(format: &str, types: &'static [GoType]) -> Result<Self> {
        Ok(Self { types, ..Self::new(format)? })
    }

    pub(crate) fn add(&mut self, document: Result<String>) {
        match document {
            Ok(raw) => self.raws.push(raw),
            Err(failure) => self.failures.push(failure),
        }
    }

    /// What was found is shown, then what was not is reported.
    pub(crate) fn show(self, call: &Call<'_>) -> Result {
        let (text, result) = self.format.show(&self.raws, self.types);
        call.cli.printer.text(&text)?;
        result.map_err(Failure::words)?;
        crate::failure::joined(self.failures)
    }
}

/// A document as the daemon sent it.
pub(crate) async fn raw(request: Request) -> Result<String> {
    text(request.send().await?).await
}

async fn text(response: client::Response) -> Result<String> {
    let bytes = response.bytes().await?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
