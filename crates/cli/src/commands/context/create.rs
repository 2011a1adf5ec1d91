//! `context create`.

use super::DockerEndpoint;
use crate::command::{Args, Call, Command};
use crate::context::{DEFAULT, EndpointMeta, Stored, check_name};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["context create"],
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context",
    details: "Create a context\n\nDocker endpoint config:\n\nNAME                DESCRIPTION\nfrom                Copy named context's Docker endpoint configuration\nhost                Docker endpoint on which to connect\nca                  Trust certs signed only by this CA\ncert                Path to TLS certificate file\nkey                 Path to TLS key file\nskip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n$ docker context create my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("description", Kind::Text, "Description of the context"),
        Flag::new("docker", Kind::StringToString, "set the docker endpoint (default [])"),
        Flag::new("from", Kind::Text, "create context from a named context"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let cli = call.cli;
    let flags = &call.flags;
    let name = call.arg(0);
    check_name(name)?;
    let contexts = cli.contexts();
    if contexts.load(name).is_ok() {
        return Err(Failure::words(format!("context {name:?} already exists")));
    }
    let pairs: Vec<&str> =
        flags.list("docker").into_iter().flat_map(|text| text.split(',')).collect();
    let pairs: Vec<(&str, &str)> =
        pairs.into_iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let endpoint = DockerEndpoint::of(&pairs)?;
    let from = endpoint.from.clone().or_else(|| flags.get("from").map(str::to_owned));
    let mut stored = match from.as_deref() {
        Some(DEFAULT) | None if pairs.is_empty() || from.is_some() => of_default(call),
        Some(other) => contexts.load(other)?,
        None => Stored::default(),
    };
    stored.name = name.to_owned();
    if let Some(description) = flags.get("description") {
        stored.metadata.insert("Description".to_owned(), description.into());
    }
    if !endpoint.host.is_empty() || endpoint.skip_tls_verify {
        stored.endpoints.insert("docker".to_owned(), endpoint.meta());
    }
    endpoint.keep_files(&contexts, name)?;
    contexts.save(&stored)?;
    cli.printer.line(name)?;
    cli.printer.complain(&format!("Successfully created context {name:?}"));
    Ok(())
}

fn of_default(call: &Call<'_>) -> Stored {
    let mut stored = Stored::default();
    let meta = EndpointMeta { host: call.cli.default_host(), skip_tls_verify: false };
    stored.endpoints.insert("docker".to_owned(), meta);
    stored
}
