//! A1: requests made from the API's own description, with what its types allow and with what they do not.

use serde_json::{Map, Value, json};
use testkit::House;

use super::{Dice, bystander, unharmed};
use crate::containers::house;

/// Method, path, query and the shape of the body of every operation of the Engine API 1.55.
const OPERATIONS: &str = include_str!("operations.json");

const WORDS: &[&str] = &[
    "",
    "a",
    "ca",
    "busybox",
    "busybox:latest",
    "..",
    "../x",
    "/",
    "\0",
    "-x",
    "é",
    "\u{202e}",
    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "none",
    "host",
    "bridge",
    "container:ca",
    "always",
    "json-file",
    "true",
    "1",
    "-1",
    "9223372036854775808",
    "1e400",
    "{}",
    "[]",
    "null",
    "127.0.0.1",
    "fd00::/64",
    "10.255.0.0/16",
    "80/tcp",
    "65536/udp",
    "A=b",
    "=",
    "unless-stopped",
    "local",
    "tmpfs",
    "volume",
    "0-99999999999",
    "SIGKILL",
    "15",
    "2020-01-01T00:00:00Z",
    "{{.ID}}",
];
const NUMBERS: &[f64] =
    &[0.0, 1.0, -1.0, 1.5, 65535.0, 65536.0, 2147483648.0, 1.8e19, -9.3e18, 1e308];
const HANDLES: &[&str] = &["ca", "cb", "busybox", "va", "na", "bridge", "none", "bystande"];

/// What this is not about: bodies that are streams, and connections that stay.
const ELSEWHERE: &[&str] = &["/session", "/build", "/images/create", "/images/load"];

fn junk(dice: &mut Dice) -> Value {
    match dice.below(8) {
        0 => Value::Null,
        1 => json!(dice.one_in(2)),
        2 => json!([]),
        3 => json!({}),
        4 => json!([[null]]),
        5 => json!({"a": {"a": {"a": {}}}}),
        6 => json!(dice.of(NUMBERS)),
        _ => json!(dice.of(WORDS)),
    }
}

/// A value of the shape, mostly.
fn value(shape: &Value, depth: usize, dice: &mut Dice) -> Value {
    if dice.one_in(25) || depth > 8 {
        return junk(dice);
    }
    match shape {
        Value::Object(fields) => {
            let mut object = Map::new();
            for (name, shape) in fields {
                if name == "*" {
                    for _ in 0..dice.below(3) {
                        let name = (*dice.of(WORDS)).to_owned();
                        object.insert(name, value(shape, depth + 1, dice));
                    }
                } else if dice.one_in(if depth == 0 { 2 } else { 6 }) {
                    object.insert(name.clone(), value(shape, depth + 1, dice));
                }
            }
            object.into()
        }
        Value::Array(items) if items.first().is_some_and(Value::is_string) && items.len() > 1 => {
            dice.of(items).clone()
        }
        Value::Array(items) => {
            let item = items.first().unwrap_or(&Value::Null);
            (0..dice.below(3)).map(|_| value(item, depth + 1, dice)).collect()
        }
        Value::String(kind) if kind == "integer" || kind == "number" => json!(dice.of(NUMBERS)),
        Value::String(kind) if kind == "boolean" => json!(dice.one_in(2)),
        _ => json!(dice.of(WORDS)),
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn query(names: &[Value], dice: &mut Dice) -> String {
    let mut text = String::new();
    for name in names.iter().filter_map(Value::as_str) {
        // These make an answer that does not end.
        if matches!(name, "stream" | "follow" | "until" | "condition") || dice.one_in(2) {
            continue;
        }
        let value = match (name, dice.below(3)) {
            ("filters", 0) => json!({*dice.of(WORDS): [dice.of(WORDS)]}).to_string(),
            ("filters", 1) => json!({*dice.of(WORDS): {*dice.of(WORDS): true}}).to_string(),
            (_, 2) => dice.of(NUMBERS).to_string(),
            _ => (*dice.of(WORDS)).to_owned(),
        };
        text.push_str(&format!("&{name}={}", escaped(&value)));
    }
    text
}

/// One request: method, path with query, body.
fn request(operation: &Value, dice: &mut Dice) -> (String, String, String) {
    let method = operation["method"].as_str().expect("a method").to_owned();
    let template = operation["path"].as_str().expect("a path");
    let path: String = template
        .split('/')
        .map(|part| match (part.starts_with('{'), dice.one_in(4)) {
            (false, _) => part.to_owned(),
            (true, false) => (*dice.of(HANDLES)).to_owned(),
            (true, true) => escaped(dice.of::<&str>(WORDS)),
        })
        .collect::<Vec<_>>()
        .join("/");
    let mut query = query(operation["query"].as_array().map_or(&[], Vec::as_slice), dice);
    if template.ends_with("/stats") {
        query = "&stream=0&one-shot=1".to_owned();
    } else if template == "/events" {
        query.push_str("&since=1&until=2");
    } else if template.ends_with("/wait") {
        query = "&condition=sometimes".to_owned();
    } else if template == "/containers/create" && dice.one_in(2) {
        query = format!("&name={}", dice.of(&HANDLES[..2]));
    }
    let mut body = match &operation["body"] {
        Value::Null => Value::Null,
        shape => value(shape, 0, dice),
    };
    if template == "/containers/create"
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert("Image".to_owned(), "busybox".into());
        fields.insert("Cmd".to_owned(), json!(["sleep", "1"]));
        if let Some(Value::Object(host)) = fields.get_mut("HostConfig") {
            // What the host would keep, or be harmed by, when it is obeyed.
            for field in ["Privileged", "CgroupParent", "Devices", "PidMode"] {
                host.remove(field);
            }
        }
    }
    let mut body = if body.is_null() { String::new() } else { body.to_string() };
    if dice.one_in(50) {
        body.truncate(
            (0..=body.len() / 2).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0),
        );
    }
    (method, format!("{path}?{}", query.trim_start_matches('&')), body)
}

fn storm(house: &House, requests: usize) {
    let operations: Vec<Value> = serde_json::from_str(OPERATIONS).expect("the table is JSON");
    let operations: Vec<&Value> = operations
        .iter()
        .filter(|one| one["path"].as_str().is_some_and(|path| !ELSEWHERE.contains(&path)))
        .collect();
    let (client, pid) = (house.client_of_api(), house.pid());
    let mut dice = Dice::new();
    for _ in 0..requests {
        let (method, path, body) = {
            let operation: &Value = dice.of::<&Value>(&operations);
            request(operation, &mut dice)
        };
        let answer = client.send(&method, &path, "application/json", body.as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"));
        let words = answer.text();
        let fair = match answer.status {
            ..=499 | 501 => true,
            // Docker's code for a node that is in no swarm.
            503 => words.to_lowercase().contains("this node is not"),
            // Not even `ps` said why; and Docker's code for what its managers have no code for.
            500 => {
                words.contains("\"ps: exit status")
                    || words.contains("rpc error: code = Unknown desc = ")
            }
            _ => false,
        };
        assert!(fair, "{method} {path} {body}: {} {words}", answer.status);
    }
    unharmed(house, pid);
}

#[test]
fn a1_whatever_the_types_allow_and_what_they_do_not() {
    let house = house();
    bystander(&house);
    storm(&house, 6000);
}

/// `cargo nextest run -p e2e --run-ignored only a1_` (a minute).
#[test]
#[ignore = "a hundred thousand requests: by hand"]
fn a1_a_hundred_thousand_of_them() {
    let house = house();
    bystander(&house);
    storm(&house, 100_000);
}
