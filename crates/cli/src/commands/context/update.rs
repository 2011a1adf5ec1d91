//! `context update`.

use super::DockerEndpoint;
use crate::command::{Args, Call, Command};
use crate::context::check_name;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["context update"],
    usage: "[OPTIONS] CONTEXT",
    about: "Update a context",
    details: "Update a context\n\nDocker endpoint config:\n\nNAME                DESCRIPTION\nfrom                Copy named context's Docker endpoint configuration\nhost                Docker endpoint on which to connect\nca                  Trust certs signed only by this CA\ncert                Path to TLS certificate file\nkey                 Path to TLS key file\nskip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n$ docker context update my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("description", Kind::Text, "Description of the context"),
        Flag::new("docker", Kind::StringToString, "set the docker endpoint (default [])"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let name = call.arg(0);
    check_name(name)?;
    let contexts = call.cli.contexts();
    let mut stored = contexts.load(name)?;
    if let Some(description) = call.flags.get("description") {
        stored.metadata.insert("Description".to_owned(), description.into());
    }
    let pairs: Vec<&str> =
        call.flags.list("docker").into_iter().flat_map(|text| text.split(',')).collect();
    let pairs: Vec<(&str, &str)> =
        pairs.into_iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    if !pairs.is_empty() {
        let endpoint = DockerEndpoint::of(&pairs)?;
        stored.endpoints.insert("docker".to_owned(), endpoint.meta());
        endpoint.keep_files(&contexts, name)?;
    }
    contexts.save(&stored)?;
    call.cli.printer.line(name)?;
    call.cli.printer.complain(&format!("Successfully updated context {name:?}"));
    Ok(())
}
