//! `events`: what happens, as it happens.

use stdx::time::Timestamp;

use crate::command::{Call, Command, about};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::{Absent, GoType, Template, Value, with_go_types};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["system events", "events"],
    usage: "[OPTIONS]",
    about: "Get real time events from the server",
    flags: &[
        Flag::new("filter", Kind::Filter, "Filter output based on conditions provided").short('f'),
        Flag::new("format", Kind::Text, about::FORMAT),
        Flag::new("since", Kind::Text, "Show all events created since timestamp"),
        Flag::new("until", Kind::Text, "Stream events until this timestamp"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

/// What Docker calls the parts of an event.
const TYPES: [GoType; 4] = [
    ("Action", "events.Action"),
    ("Time", "int64"),
    ("TimeNano", "int64"),
    ("Type", "events.Type"),
];

/// How one event is shown.
enum Shown {
    Line,
    AsSent,
    Template(Template),
}

async fn run(call: &Call<'_>) -> Result {
    let shown = match call.flags.text("format") {
        "" => Shown::Line,
        "json" | "{{json .}}" => Shown::AsSent,
        given => parsed(given)
            .map(Shown::Template)
            .map_err(|err| Failure::new(64, format!("Error parsing format: {err}")))?,
    };
    let moment = |name: &str| match call.flags.text(name) {
        "" => Ok(None),
        text => times::moment(text).map(Some),
    };
    let mut response = call
        .cli
        .client()?
        .get("/events")
        .query_opt("since", moment("since")?)
        .query_opt("until", moment("until")?)
        .query_opt("filters", call.flags.filters("filter").query())
        .send()
        .await?;
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        buffer.extend_from_slice(&chunk);
        let mut documents = serde_json::Deserializer::from_slice(&buffer)
            .into_iter::<&serde_json::value::RawValue>();
        let mut used = 0;
        let mut lines = Vec::new();
        while let Some(Ok(document)) = documents.next() {
            lines.push(document.get().to_owned());
            used = documents.byte_offset();
        }
        buffer.drain(..used);
        for line in lines {
            let text = match &shown {
                Shown::AsSent => line,
                Shown::Line => plain(&serde_json::from_str(&line).unwrap_or(Value::Nil)),
                Shown::Template(template) => {
                    let event: Value = serde_json::from_str(&line).unwrap_or(Value::Nil);
                    template.run(&typed(&event), Absent::NoValue).map_err(Failure::words)?
                }
            };
            call.cli.printer.line(&text)?;
        }
        call.cli.printer.flush()?;
    }
    Ok(())
}

/// A format that means something for an event, which is known before any comes.
fn parsed(format: &str) -> Result<Template, String> {
    let template = Template::parse(format)?;
    let tried = template.run(&typed(&Value::Nil), Absent::NoValue);
    tried.map_err(|err| with_go_types(err, &TYPES))?;
    Ok(template)
}

/// `2026-11-21T14:18:56.024292431Z volume create v1 (driver=local)`
fn plain(event: &Value) -> String {
    let at = match event.int_at("timeNano") {
        0 => Timestamp::from_unix_nanos(i128::from(event.int_at("time")) * 1_000_000_000),
        nanos => Timestamp::from_unix_nanos(i128::from(nanos)),
    };
    let mut line = format!(
        "{} {} {} {}",
        at.fixed_nanos(),
        event.str_at("Type"),
        event.str_at("Action"),
        event.str_at("Actor.ID")
    );
    let attributes = crate::commands::labels(event.entries_at("Actor.Attributes"));
    if !attributes.is_empty() {
        let attributes: Vec<String> =
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

/// The event with the names its fields have in Go.
fn typed(event: &Value) -> Value {
    let text = |key: &str| Value::text(event.str_at(key));
    let attributes = event
        .entries_at("Actor.Attributes")
        .iter()
        .map(|(key, value)| (key.to_string(), value.clone()));
    Value::fields(
        "*events.Message",
        [
            ("Status", text("status")),
            ("ID", text("id")),
            ("From", text("from")),
            ("Type", text("Type")),
            ("Action", text("Action")),
            (
                "Actor",
                Value::fields(
                    "events.Actor",
                    [("ID", text("Actor.ID")), ("Attributes", Value::map(attributes))],
                ),
            ),
            ("Scope", text("scope")),
            ("Time", Value::Int(event.int_at("time"))),
            ("TimeNano", Value::Int(event.int_at("timeNano"))),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_tried_before_events_come() {
        assert!(parsed("{{.Actor.Attributes.name}} {{.Status}}").is_ok());
        let refused = parsed("{{.Nope}}").err().unwrap_or_default();
        assert!(refused.starts_with("template: :1:2: executing \"\" at <.Nope>"), "{refused}");
    }

    #[test]
    fn as_docker_prints() {
        let event: Value = serde_json::from_str(
            r#"{"Type":"volume","Action":"create","Actor":{"ID":"v1","Attributes":{"driver":"local"}},"scope":"local","time":1795270736,"timeNano":1795270736024292431}"#,
        )
        .unwrap();
        assert_eq!(plain(&event), "2026-11-21T14:18:56.024292431Z volume create v1 (driver=local)");
        let shown = Template::parse("{{.}}").unwrap().run(&typed(&event), Absent::Error).unwrap();
        assert_eq!(
            shown,
            "{   volume create {v1 map[driver:local]} local 1795270736 1795270736024292431}"
        );
    }
}
