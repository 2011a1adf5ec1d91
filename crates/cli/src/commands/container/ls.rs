//! `ps`: which containers there are.

use std::fmt::Write;

use crate::command::{Call, Command, about};
use crate::commands::{printed, short_id};
use crate::failure::Result;
use crate::flags::{Flag, Kind};
use crate::format::listing::{self, Heading};
use crate::format::{Row, Value};
use crate::times;

pub(crate) static COMMAND: Command = Command {
    names: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[
        Flag::new("all", Kind::Switch, "Show all containers (default shows just running)")
            .short('a'),
        Flag::new("filter", Kind::Filter, "Filter output based on conditions provided").short('f'),
        Flag::new("format", Kind::Text, about::FORMAT_TABLE),
        Flag::new(
            "last",
            Kind::Int,
            "Show n last created containers (includes all states) (default -1)",
        )
        .short('n'),
        Flag::new(
            "latest",
            Kind::Switch,
            "Show the latest created container (includes all states)",
        )
        .short('l'),
        Flag::new("no-trunc", Kind::Switch, "Don't truncate output"),
        Flag::new("quiet", Kind::Switch, "Only display container IDs").short('q'),
        Flag::new("size", Kind::Switch, "Display total file sizes").short('s'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

pub(crate) const HEADINGS: [Heading; 15] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
pub(crate) const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";

pub(crate) const RAW_SIZE: &str = "size: {{.Size}}\n";

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    // A format that means nothing is an error, however few containers there are.
    listing::try_out(flags.text("format"), row(&Value::Missing, true))
        .map_err(crate::failure::Failure::words)?;
    let format = match flags.text("format") {
        "" => call.cli.config().text("psFormat"),
        format => format,
    };
    if flags.on("quiet") && !flags.text("format").is_empty() {
        call.cli.printer.complain(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
    }
    let format = match format {
        "raw" if flags.on("quiet") => "container_id: {{.ID}}".to_owned(),
        _ if flags.on("quiet") => "{{.ID}}".to_owned(),
        "" | "table" => format!("{TABLE}{}", if flags.on("size") { "\t{{.Size}}" } else { "" }),
        "raw" => format!("{RAW}{}", if flags.on("size") { RAW_SIZE } else { "" }),
        format => format.to_owned(),
    };
    listing::check(&format).map_err(crate::failure::Failure::words)?;
    let size = flags.on("size") || format.contains(".Size") || format.contains("{{json .}}");
    let limit = match (flags.int("last").unwrap_or(-1), flags.on("latest")) {
        (-1, true) => 1,
        (last, _) => last,
    };
    let containers: Value = call
        .cli
        .client()?
        .get("/containers/json")
        .query_flag("all", flags.on("all"))
        .query_opt("limit", (limit > 0).then(|| limit.to_string()))
        .query_flag("size", size)
        .query_opt("filters", flags.filters("filter").query())
        .fetch()
        .await?;
    let trunc = !flags.on("no-trunc");
    let rows = containers.items().iter().map(|container| row(container, trunc)).collect();
    printed(call, &format, &HEADINGS, rows)
}

/// Also a row of `system df -v`.
pub(crate) fn row(container: &Value, trunc: bool) -> Row {
    let created = container.int_at("Created");
    let labels: Vec<(String, String)> = crate::commands::labels(container.entries_at("Labels"));
    let mounts = container.items_at("Mounts");
    let mut networks: Vec<&str> =
        container.entries_at("NetworkSettings.Networks").iter().map(|(name, _)| &**name).collect();
    networks.sort_unstable();
    let volumes = mounts.iter().filter(|mount| mount.str_at("Driver") == "local").count();
    Row {
        type_name: "*formatter.ContainerContext",
        columns: vec![
            ("ID", Value::text(short_id(container.str_at("Id"), trunc))),
            ("Names", Value::text(names(container.items_at("Names"), trunc))),
            (
                "Image",
                Value::text(image(container.str_at("Image"), container.str_at("ImageID"), trunc)),
            ),
            ("Command", Value::text(command(container.str_at("Command"), trunc))),
            ("CreatedAt", Value::text(times::go(created))),
            ("RunningFor", Value::text(times::ago(created))),
            ("Ports", Value::text(ports(container.items_at("Ports")))),
            ("State", Value::text(container.str_at("State"))),
            ("Status", Value::text(container.str_at("Status"))),
            ("Size", Value::text(size(container.int_at("SizeRw"), container.int_at("SizeRootFs")))),
            ("Labels", Value::text(crate::commands::joined(&labels))),
            ("Mounts", Value::text(mount_names(mounts, trunc))),
            ("LocalVolumes", Value::text(volumes.to_string())),
            ("Networks", Value::text(networks.join(","))),
            ("Platform", Value::Nil),
        ],
        labels,
    }
}

/// Links give a container more names, with a slash within: only `--no-trunc` shows those.
fn names(names: &[Value], trunc: bool) -> String {
    let names =
        names.iter().filter_map(Value::as_str).map(|name| name.strip_prefix('/').unwrap_or(name));
    names.filter(|name| !trunc || !name.contains('/')).collect::<Vec<_>>().join(",")
}

fn image(image: &str, id: &str, trunc: bool) -> String {
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if !trunc {
        return image.to_owned();
    }
    let short = short_id(id, true);
    if short == short_id(image, true) {
        return short;
    }
    match oci::Reference::parse_normalized(image) {
        Ok(reference) if reference.digest().is_some() => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        },
        _ => image.to_owned(),
    }
}

fn command(command: &str, trunc: bool) -> String {
    let command = if trunc { ellipsis(command, 20) } else { command.to_owned() };
    quote(&command)
}

/// Go's strconv.Quote.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() && u32::from(c) < 0x80 => {
                write!(out, "\\x{:02x}", u32::from(c)).unwrap_or_default()
            }
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// At most so many characters, the last being an ellipsis where something was cut.
pub(crate) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn mount_names(mounts: &[Value], trunc: bool) -> String {
    let name = |mount: &Value| {
        let name = match mount.str_at("Name") {
            "" => mount.str_at("Source"),
            name => name,
        };
        if trunc { ellipsis(name, 15) } else { name.to_owned() }
    };
    mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

fn size(writable: i64, whole: i64) -> String {
    let human = |bytes: i64| stdx::units::human_size_precise(bytes as f64, 3);
    match whole {
        0 => human(writable),
        whole => format!("{} (virtual {})", human(writable), human(whole)),
    }
}

/// `0.0.0.0:8080->80/tcp, 81-83/tcp`: neighbours are drawn together.
fn ports(ports: &[Value]) -> String {
    let mut all: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|port| {
            (
                port.int_at("PrivatePort"),
                port.str_at("IP"),
                port.int_at("PublicPort"),
                port.str_at("Type"),
            )
        })
        .collect();
    all.sort_unstable();
    let mut groups: Vec<(&str, &str, i64, i64)> = Vec::new();
    let mut shown = Vec::new();
    let mut mapped = Vec::new();
    for (inside, ip, outside, kind) in all {
        if !ip.is_empty() && outside != inside {
            mapped.push(format!("{}->{inside}/{kind}", host_port(ip, &outside.to_string())));
            continue;
        }
        match groups
            .iter_mut()
            .find(|(known_ip, known_kind, ..)| (*known_ip, *known_kind) == (ip, kind))
        {
            Some((_, _, _, last)) if *last + 1 == inside => *last = inside,
            Some(group) => {
                shown.push(group_text(*group));
                (group.2, group.3) = (inside, inside);
            }
            None => groups.push((ip, kind, inside, inside)),
        }
    }
    shown.extend(groups.into_iter().map(group_text));
    shown.extend(mapped);
    shown.join(", ")
}

fn group_text((ip, kind, first, last): (&str, &str, i64, i64)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match ip {
        "" => format!("{range}/{kind}"),
        ip => format!("{}->{range}/{kind}", host_port(ip, &range)),
    }
}

fn host_port(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, column: &str, expected: &str) {
        let value: Value = serde_json::from_str(json).unwrap();
        let row = row(&value, true);
        let shown = row.columns.iter().find(|(name, _)| *name == column).unwrap().1.clone();
        assert_eq!(shown, Value::text(expected), "{json}");
    }

    #[test]
    fn formats() {
        let tried = |format: &str| listing::try_out(format, row(&Value::Missing, true));
        let error = |format: &str| tried(format).err().unwrap_or_default();
        for right in ["", "table", "json", "raw", "{{.ID}} {{.Label \"x\"}} {{json .}}", TABLE, RAW]
        {
            assert_eq!(error(right), "");
        }
        assert_eq!(error("{{"), "failed to parse template: template: :1: unclosed action");
        let words = "failed to execute template: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext";
        assert_eq!(error("{{.Nope}}"), words);
    }

    #[test]
    fn columns() {
        check(r#"{"Command":"sh -c 'echo a long thing'"}"#, "Command", "\"sh -c 'echo a long …\"");
        check(r#"{"Names":["/a/alias","/b"]}"#, "Names", "b");
        check(
            r#"{"Image":"busybox@sha256:0123456789012345678901234567890123456789012345678901234567890123"}"#,
            "Image",
            "busybox",
        );
        check(r#"{"SizeRw":5,"SizeRootFs":1980000}"#, "Size", "5B (virtual 1.98MB)");
        check(r#"{"Labels":{"b":"2","a":"1"}}"#, "Labels", "a=1,b=2");
        check(
            r#"{"Ports":[{"PrivatePort":80,"Type":"tcp"},{"PrivatePort":81,"Type":"tcp"},
                {"IP":"0.0.0.0","PrivatePort":443,"PublicPort":8443,"Type":"tcp"},{"IP":"::","PrivatePort":90,"PublicPort":90,"Type":"udp"}]}"#,
            "Ports",
            "80-81/tcp, [::]:90->90/udp, 0.0.0.0:8443->443/tcp",
        );
    }
}
