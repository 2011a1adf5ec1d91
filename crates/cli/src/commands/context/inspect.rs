//! `context inspect`.

use serde_json::json;

use crate::command::{Args, Call, Command, about};
use crate::commands::system::inspect::Documents;
use crate::context::DEFAULT;
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["context inspect"],
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Display detailed information on one or more contexts",
    args: Args::Any,
    flags: &[Flag::new("format", Kind::Text, about::FORMAT).short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let mut documents =
        Documents::of_types(call.flags.text("format"), &[("", "context.contextWithTLSListing")])?;
    let current = [call.cli.context_name()];
    let names = if call.args().is_empty() { &current[..] } else { call.args() };
    for name in names {
        documents.add(document(call, name));
    }
    documents.show(call)
}

/// In Docker's order of members, which its users' eyes know.
fn document(call: &Call<'_>, name: &str) -> Result<String> {
    let quote = |text: &str| json!(text).to_string();
    if name == DEFAULT {
        let host = quote(&call.cli.default_host());
        return Ok(format!(
            r#"{{"Name":"default","Metadata":{{}},"Endpoints":{{"docker":{{"Host":{host},"SkipTLSVerify":false}}}},"TLSMaterial":{{}},"Storage":{{"MetadataPath":"\u003cIN MEMORY\u003e","TLSPath":"\u003cIN MEMORY\u003e"}}}}"#
        ));
    }
    let contexts = call.cli.contexts();
    let stored = contexts.load(name)?;
    let files: Vec<&str> = ["ca.pem", "cert.pem", "key.pem"]
        .into_iter()
        .filter(|file| contexts.tls_file(name, file).is_some())
        .collect();
    let material = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
    let endpoints: Vec<String> = stored
        .endpoints
        .iter()
        .map(|(kind, meta)| match meta.host.is_empty() {
            true => format!("{}:{{\"SkipTLSVerify\":{}}}", quote(kind), meta.skip_tls_verify),
            false => format!(
                "{}:{{\"Host\":{},\"SkipTLSVerify\":{}}}",
                quote(kind),
                quote(&meta.host),
                meta.skip_tls_verify
            ),
        })
        .collect();
    Ok(format!(
        r#"{{"Name":{},"Metadata":{},"Endpoints":{{{}}},"TLSMaterial":{material},"Storage":{{"MetadataPath":{},"TLSPath":{}}}}}"#,
        quote(name),
        json!(stored.metadata),
        endpoints.join(","),
        quote(&contexts.meta_directory(name).display().to_string()),
        quote(&contexts.tls_directory(name).display().to_string()),
    ))
}
