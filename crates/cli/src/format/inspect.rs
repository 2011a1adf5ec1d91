//! `inspect`: documents of the daemon shaped like Docker's client types, and shown by template or as they came.

use std::rc::Rc;

use super::{Absent, GoType, Template, Value, json};

/// What `--format` asked for.
#[derive(Debug)]
pub(crate) enum Format {
    /// The documents as the daemon sent them, in an indented list.
    Indented,
    /// The same in one line.
    Compact,
    Template(Template),
}

impl Format {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => return Ok(Self::Indented),
            "json" => return Ok(Self::Compact),
            _ => {}
        }
        Template::parse(text)
            .map(Self::Template)
            .map_err(|err| format!("template parsing error: {err}"))
    }

    /// The documents shown. A template's failure comes with what was shown before it. Some documents Docker has only as its
    /// client's types: `types` has their names.
    pub(crate) fn show(&self, raws: &[String], types: &[GoType]) -> (String, Result<(), String>) {
        match self {
            Self::Indented => (indented(raws), Ok(())),
            Self::Compact => (format!("[{}]\n", raws.join(",")), Ok(())),
            Self::Template(template) => {
                let mut out = String::new();
                for raw in raws {
                    let value: Value = serde_json::from_str(raw).unwrap_or(Value::Nil);
                    // As Docker does: first over the client's types, then over the document as it is.
                    let shaped = shape(&value, "", "").with_types(types);
                    let typed = template.run(&shaped, Absent::Error);
                    let shown = match types {
                        [] => typed.or_else(|_| {
                            template.run(&value, Absent::Error).map_err(|err| untyped(&err))
                        }),
                        _ => typed,
                    };
                    match shown {
                        Ok(text) => out.push_str(&text),
                        Err(err) => {
                            out.push('\n');
                            return (out, Err(format!("template parsing error: {err}")));
                        }
                    }
                    out.push('\n');
                }
                // Docker flushes a line even when there was nothing to inspect.
                if raws.is_empty() {
                    out.push('\n');
                }
                (out, Ok(()))
            }
        }
    }
}

/// Whatever a document has is an `interface {}` to who reads it as it is.
fn untyped(err: &str) -> String {
    match err.rsplit_once(" in type ") {
        Some((words, _)) if words.contains("can't evaluate field") => {
            format!("{words} in type interface {{}}")
        }
        _ => err.to_owned(),
    }
}

fn indented(raws: &[String]) -> String {
    if raws.is_empty() {
        return "[]\n".to_owned();
    }
    let all: Vec<String> =
        raws.iter().map(|raw| format!("    {}", json::indent(raw, "    "))).collect();
    format!("[\n{}\n]\n", all.join(",\n"))
}

/// Members whose keys are data, not fields.
const MAPS: [&str; 24] = [
    "Annotations",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "ExposedPorts",
    "IPAMOptions",
    "IndexConfigs",
    "Labels",
    "Mirrors",
    "Networks",
    "Options",
    "Peers",
    "PortBindings",
    "Ports",
    "Runtimes",
    "Services",
    "Status",
    "StorageOpt",
    "Sysctls",
    "SystemStatus",
    "Tmpfs",
    "Volumes",
    "AuxiliaryAddresses",
];

/// Members that are pointers in Go: null is `<nil>`, not an empty list.
const POINTERS: [&str; 15] = [
    "ClusterInfo",
    "Descriptor",
    "GraphDriver",
    "Health",
    "Healthcheck",
    "IPAMConfig",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "RootFS",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
    "UsageData",
];

#[derive(Clone, Copy)]
enum Zero {
    Text,
    Int,
    Bool,
    List,
    Map,
    Nil,
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Self::Text => Value::text(""),
            Self::Int => Value::Int(0),
            Self::Bool => Value::Bool(false),
            Self::List => Value::NilList,
            Self::Map => Value::NilMap,
            Self::Nil => Value::Nil,
        }
    }
}

type Schema = &'static [(&'static str, Zero)];

/// Structs with members that a document leaves out when they are empty, in Go's order.
fn schema(parent: &str, key: &str) -> Schema {
    use Zero::{Bool, Int, List, Map, Nil, Text};
    match (parent, key) {
        (_, "State") => &[
            ("Status", Text),
            ("Running", Bool),
            ("Paused", Bool),
            ("Restarting", Bool),
            ("OOMKilled", Bool),
            ("Dead", Bool),
            ("Pid", Int),
            ("ExitCode", Int),
            ("Error", Text),
            ("StartedAt", Text),
            ("FinishedAt", Text),
            ("Health", Nil),
        ],
        ("", "Config") => &[
            ("Hostname", Text),
            ("Domainname", Text),
            ("User", Text),
            ("AttachStdin", Bool),
            ("AttachStdout", Bool),
            ("AttachStderr", Bool),
            ("ExposedPorts", Map),
            ("Tty", Bool),
            ("OpenStdin", Bool),
            ("StdinOnce", Bool),
            ("Env", List),
            ("Cmd", List),
            ("Healthcheck", Nil),
            ("ArgsEscaped", Bool),
            ("Image", Text),
            ("Volumes", Map),
            ("WorkingDir", Text),
            ("Entrypoint", List),
            ("NetworkDisabled", Bool),
            ("MacAddress", Text),
            ("OnBuild", List),
            ("Labels", Map),
            ("StopSignal", Text),
            ("StopTimeout", Nil),
            ("Shell", List),
        ],
        (_, "Mounts") => &[
            ("Type", Text),
            ("Name", Text),
            ("Source", Text),
            ("Destination", Text),
            ("Driver", Text),
            ("Mode", Text),
            ("RW", Bool),
            ("Propagation", Text),
        ],
        ("Networks", _) => &[
            ("IPAMConfig", Nil),
            ("Links", List),
            ("Aliases", List),
            ("MacAddress", Text),
            ("DriverOpts", Map),
            ("GwPriority", Int),
            ("NetworkID", Text),
            ("EndpointID", Text),
            ("Gateway", Text),
            ("IPAddress", Text),
            ("IPPrefixLen", Int),
            ("IPv6Gateway", Text),
            ("GlobalIPv6Address", Text),
            ("GlobalIPv6PrefixLen", Int),
            ("DNSNames", List),
        ],
        _ => &[],
    }
}

/// What an image's document may leave out, and no other document has.
const OF_AN_IMAGE: Schema = &[
    ("Author", Zero::Text),
    ("Comment", Zero::Text),
    ("DockerVersion", Zero::Text),
    ("OsVersion", Zero::Text),
    ("Parent", Zero::Text),
    ("Variant", Zero::Text),
    ("VirtualSize", Zero::Int),
];

/// Members that a document may leave out, where their place does not matter.
fn optional(parent: &str, key: &str) -> Schema {
    use Zero::{Int, List, Map, Nil, Text};
    match (parent, key) {
        (_, "HostConfig") => &[
            ("Annotations", Map),
            ("Init", Nil),
            ("Isolation", Text),
            ("KernelMemory", Int),
            ("KernelMemoryTCP", Int),
            ("Mounts", List),
            ("Runtime", Text),
            ("StorageOpt", Map),
            ("Sysctls", Map),
            ("Tmpfs", Map),
        ],
        ("", "") => &[("SizeRw", Nil), ("SizeRootFs", Nil)],
        _ => &[],
    }
}

/// Tells fields from data, and nil lists from nil maps and pointers. `parent` and `key` say where the value stands.
pub(crate) fn shape(value: &Value, parent: &str, key: &str) -> Value {
    match value {
        Value::Nil if MAPS.contains(&key) => Value::NilMap,
        Value::Nil if POINTERS.contains(&key) => Value::Nil,
        Value::Nil if parent == "Ports" || !key.is_empty() => Value::NilList,
        Value::List(items) => {
            Value::List(items.iter().map(|item| shape(item, parent, key)).collect())
        }
        Value::Map(entries) => {
            let shaped: Vec<(Rc<str>, Value)> = entries
                .iter()
                .map(|(name, value)| (name.clone(), shape(value, key, name)))
                .collect();
            let is_map = MAPS.contains(&key) || (parent == "LogConfig" && key == "Config");
            if is_map {
                return Value::Map(shaped.into());
            }
            let is_image = key.is_empty() && shaped.iter().any(|(name, _)| &**name == "RootFS");
            let optional = if is_image { OF_AN_IMAGE } else { optional(parent, key) };
            Value::Struct("", ordered(shaped, schema(parent, key), optional).into())
        }
        other => other.clone(),
    }
}

fn ordered(
    mut given: Vec<(Rc<str>, Value)>,
    schema: Schema,
    optional: Schema,
) -> Vec<(Rc<str>, Value)> {
    let zero = |name: &str, zero: Zero| (Rc::from(name), Value::Omitted(Rc::new(zero.value())));
    let mut all: Vec<(Rc<str>, Value)> = schema
        .iter()
        .map(|(name, value)| match given.iter().position(|(known, _)| &**known == *name) {
            Some(at) => given.remove(at),
            None => zero(name, *value),
        })
        .collect();
    all.append(&mut given);
    let missing: Vec<_> = optional
        .iter()
        .filter(|(name, _)| !all.iter().any(|(known, _)| &**known == *name))
        .collect();
    all.extend(missing.into_iter().map(|(name, value)| zero(name, *value)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = r#"{"Id":"abc","State":{"Status":"running","Pid":1},"Name":"/c","ExecIDs":null,
        "Mounts":[{"Type":"bind","Source":"/tmp","Destination":"/x","Mode":"","RW":true,"Propagation":"rprivate"}],
        "Config":{"Env":null,"Cmd":["sh"],"Labels":{"a":"b"},"Volumes":null,"ExposedPorts":{"80/tcp":{}}},
        "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]},"Networks":{"bridge":{"IPAddress":"1.2.3.4"}}}}"#;

    fn check(template: &str, expected: &str) {
        let (out, result) = match Format::parse(template) {
            Ok(format) => format.show(&[CONTAINER.to_owned()], &[]),
            Err(err) => (String::new(), Err(err)),
        };
        let shown = result.map_or_else(|err| err, |()| out.trim_end_matches('\n').to_owned());
        assert_eq!(shown, expected, "{template}");
    }

    #[test]
    fn as_dockers_types_print() {
        check("{{.Mounts}}", "[{bind  /tmp /x   true rprivate}]");
        check("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080}]]");
        check(
            "{{.Config.Env}} {{.Config.Cmd}} {{.Config.Volumes}} {{.Config.ExposedPorts}}",
            "[] [sh] map[] map[80/tcp:{}]",
        );
        check("{{.State.Health}} {{.Config.Healthcheck}} {{.ExecIDs}}", "<nil> <nil> []");
        check("{{.Config.Labels.zz}} {{index .Config.Labels \"zz\"}}|", "<no value> |");
        check("{{.NetworkSettings.Networks.bridge.IPAddress}}", "1.2.3.4");
        check("{{json .Config.Labels}}", r#"{"a":"b"}"#);
    }

    #[test]
    fn what_an_image_leaves_out() {
        let image =
            r#"{"Id":"abc","Os":"linux","Config":{"Cmd":["sh"]},"RootFS":{"Type":"layers"}}"#;
        let shown = |template: &str| {
            let (out, result) = Format::parse(template).unwrap().show(&[image.to_owned()], &[]);
            result.map(|()| out.trim_end_matches('\n').to_owned()).unwrap_or_else(|err| err)
        };
        assert_eq!(
            shown("{{.Os}}{{.Parent}}{{.Comment}}{{.Author}}{{.Variant}} {{.VirtualSize}}"),
            "linux 0"
        );
        assert_eq!(
            shown("{{.Config.Entrypoint}} {{.Config.Volumes}}{{.Config.User}} {{json .Config}}"),
            "[] map[] {\"Cmd\":[\"sh\"]}"
        );
        check(
            "{{.Parent}}",
            "template parsing error: template: :1:2: executing \"\" at <.Parent>: map has no entry for key \"Parent\"",
        );
    }

    #[test]
    fn by_names_of_go_and_of_json() {
        check("{{.ID}}", "abc");
        check("{{range .NetworkSettings.Ports}}{{(index . 0).HostIP}}{{end}}", "0.0.0.0");
        // A name of JSON's makes everything look like JSON.
        check("{{.Id}} {{.ExecIDs}} {{.Config.Cmd}}", "abc <no value> [sh]");
        check(
            "{{json .Config}}",
            r#"{"ExposedPorts":{"80/tcp":{}},"Env":null,"Cmd":["sh"],"Volumes":null,"Labels":{"a":"b"}}"#,
        );
    }

    #[test]
    fn refusals() {
        check(
            "{{.Foo}}",
            r#"template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo""#,
        );
        check(
            "{{.State.Foo}}",
            r#"template parsing error: template: :1:8: executing "" at <.State.Foo>: map has no entry for key "Foo""#,
        );
        check("{{.A", "template parsing error: template: :1: unclosed action");
    }
}
