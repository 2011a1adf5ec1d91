//! L2: containers and execs that end as soon as they have begun. Each code is the right one, and nothing is left.

use std::io::Read;

use serde_json::{Value, json};
use testkit::client::Client;

use super::{ask, begin, head, held, measure, run_exec, settle, together};
use crate::containers::house;

const CLIENTS: usize = 8;

/// As `docker run --rm` does: whoever waits is there before it starts, and hears when it is gone.
fn run(client: &Client, name: &str, code: usize) -> Value {
    let body = json!({
        "Image": "busybox",
        "Cmd": ["sh", "-c", format!("exit {code}")],
        "HostConfig": {"AutoRemove": true, "NetworkMode": "none"},
    });
    ask(client, "POST", &format!("/containers/create?name={name}"), &body);
    let wait = format!("/containers/{name}/wait?condition=removed");
    let mut waiting = begin(client, "POST", &wait, "");
    head(&mut waiting);
    ask(client, "POST", &format!("/containers/{name}/start"), &Value::Null);
    let mut told = String::new();
    waiting.read_to_string(&mut told).expect("an end");
    let json = told.find('{').expect("an answer");
    let end = told.rfind('}').expect("an answer");
    serde_json::from_str(&told[json..=end]).expect("JSON")
}

fn short_runs(count: usize) {
    let house = house();
    let client = house.client_of_api();
    super::start(&client, "stays", &["sleep", "86400"], json!({}));
    let pair = |at: usize| {
        let code = at % 120;
        let told = run(&client, &format!("short{at}"), code);
        assert_eq!(told["StatusCode"], code, "the run of number {at}: {told}");
        let exec = run_exec(&client, "stays", &["sh", "-c", &format!("exit {code}")]);
        assert_eq!(
            (&exec["ExitCode"], &exec["Running"]),
            (&json!(code), &json!(false)),
            "the exec of number {at}"
        );
    };
    together(CLIENTS, 4 * CLIENTS, |at| pair(at + 1_000_000));
    let before = held(&house);
    together(CLIENTS, count, pair);
    settle(&house, &before);
    assert_eq!(
        ask(&client, "GET", "/containers/json?all=1", &Value::Null).as_array().map(Vec::len),
        Some(1)
    );
    house.check();
}

/// Whoever has ended last is known still when its container has had more than are kept.
#[test]
fn l2_the_last_execs_are_remembered() {
    let house = house();
    let client = house.client_of_api();
    super::start(&client, "stays", &["sleep", "86400"], json!({}));
    let ids: Vec<String> = (0..300)
        .map(|at| {
            let exec = run_exec(&client, "stays", &["sh", "-c", &format!("exit {}", at % 100)]);
            exec["ID"].as_str().expect("an id").to_owned()
        })
        .collect();
    for (at, id) in ids.iter().enumerate().skip(200) {
        let exec = ask(&client, "GET", &format!("/exec/{id}/json"), &Value::Null);
        assert_eq!(exec["ExitCode"], at % 100, "{exec}");
    }
    assert_eq!(
        client.ask("GET", &format!("/exec/{}/json", ids[0]), None).expect("an answer").status,
        404
    );
}

#[test]
fn l2_short_runs() {
    short_runs(120);
}

#[test]
#[ignore = "minutes; `RUNS` says how many"]
fn l2_full_size() {
    short_runs(measure("RUNS", 10_000));
}
