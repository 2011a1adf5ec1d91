//! `version`: who we are, and who answers.

use crate::cli::Cli;
use crate::command::{Call, Command, about};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::listing::align_with;
use crate::format::{Absent, Docker, GoType, Template, Value, with_go_types};

pub(crate) static COMMAND: Command = Command {
    names: &["version"],
    usage: "[OPTIONS]",
    about: "Show the Docker version information",
    flags: &[Flag::new("format", Kind::Text, about::FORMAT).short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What Docker calls the parts of a server's version.
const TYPES: [GoType; 3] = [
    ("", "*types.Version"),
    ("Components", "types.ComponentVersion"),
    ("Platform", "struct { Name string }"),
];

/// `docker --version`.
pub(crate) fn print_short(cli: &Cli) -> Result {
    match cli.program {
        "docker" => cli.printer.line(&format!("Docker version {VERSION}, build gantry")),
        _ => cli.printer.line(&format!("gantry version {VERSION}")),
    }
}

/// Go's name of the processor we run on.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

async fn run(call: &Call<'_>) -> Result {
    let template = match call.flags.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        given => Some(given),
    };
    let template = template
        .map(|text| Template::with("version", text, Docker))
        .transpose()
        .map_err(|err| Failure::new(64, format!("template parsing error: {err}")))?;
    let server: Result<Value> = match call.cli.client() {
        Ok(client) => client.get("/version").fetch().await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    let (server, failure) = match server {
        Ok(server) => (server, None),
        Err(failure) => (Value::Nil, Some(failure)),
    };
    let (used, newest) = match call.cli.client() {
        Ok(client) => (client.version(), client::ApiVersion::NEWEST),
        Err(_) => (client::ApiVersion::NEWEST, client::ApiVersion::NEWEST),
    };
    let context = call.cli.context_name();
    let text = match template {
        Some(template) => {
            let ours = Value::fields(
                "system.clientVersion",
                [
                    ("Version", Value::text(VERSION)),
                    ("ApiVersion", Value::text(used.to_string())),
                    ("DefaultAPIVersion", Value::text(newest.to_string())),
                    ("GitCommit", Value::text("")),
                    ("GoVersion", Value::text("")),
                    ("Os", Value::text("linux")),
                    ("Arch", Value::text(architecture())),
                    ("BuildTime", Value::text("")),
                    ("Context", Value::text(&context)),
                ],
            );
            let server = crate::format::inspect::shape(&server, "", "");
            let server = if failure.is_some() { Value::Nil } else { server };
            let server = server.with_types(&TYPES);
            let all = Value::fields("system.versionInfo", [("Client", ours), ("Server", server)]);
            let text = template.run(&all, Absent::NoValue).map_err(|err| {
                Failure::words(with_go_types(
                    err,
                    &[("Server.Components", "[]types.ComponentVersion")],
                ))
            });
            match (text, &failure) {
                (Ok(text), _) => format!("{text}\n"),
                (Err(_), Some(_)) => String::new(),
                (Err(err), None) => {
                    // As Docker's client ends the line that it has begun.
                    call.cli.printer.line("")?;
                    return Err(err);
                }
            }
        }
        None => {
            let downgraded =
                if used < newest { format!(" (downgraded from {newest})") } else { String::new() };
            let mut text = format!(
                "Client:\n Version:\t{VERSION}\n API version:\t{used}{downgraded}\n OS/Arch:\tlinux/{}\n Context:\t{context}\n",
                architecture()
            );
            if failure.is_none() {
                text.push_str(&server_text(&server));
            }
            align_with(&text, 20, 1)
        }
    };
    call.cli.printer.text(&text)?;
    failure.map_or(Ok(()), Err)
}

fn server_text(server: &Value) -> String {
    let mut text = match server.str_at("Platform.Name") {
        "" => "\nServer:\n".to_owned(),
        name => format!("\nServer: {name}\n"),
    };
    for component in server.items_at("Components") {
        let name = component.str_at("Name");
        let detail = |key: &str| component.str_at(&format!("Details.{key}")).to_owned();
        text.push_str(&format!(" {name}:\n  Version:\t{}\n", component.str_at("Version")));
        if name == "Engine" {
            text.push_str(&format!(
                "  API version:\t{} (minimum version {})\n  Go version:\t{}\n  Git commit:\t{}\n  Built:\t{}\n  OS/Arch:\t{}/{}\n  Experimental:\t{}\n",
                detail("ApiVersion"),
                detail("MinAPIVersion"),
                detail("GoVersion"),
                detail("GitCommit"),
                built(&detail("BuildTime")),
                detail("Os"),
                detail("Arch"),
                detail("Experimental"),
            ));
            continue;
        }
        let mut details: Vec<_> = component.entries_at("Details").iter().collect();
        details.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in details {
            text.push_str(&format!("  {key}:\t{}\n", value.as_str().unwrap_or_default()));
        }
    }
    text
}

/// `Thu May  7 21:09:36 2026`: C's way, from RFC 3339.
fn built(text: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Ok(at) = stdx::time::Timestamp::parse(text) else { return text.to_owned() };
    let at = at.date_time();
    let day = at.weekday().to_string();
    format!(
        "{} {} {:>2} {:02}:{:02}:{:02} {}",
        &day[..3],
        MONTHS[usize::from(u8::from(at.month())) - 1],
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    )
}
