//! L10: everybody who listens hears the same, in the same order, also who was away for a while.

use std::io::{BufRead, BufReader};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::client::Client;

use super::{ask, begin, measure, together};
use crate::containers::house;

/// The container whose removal tells readers that it is over.
const LAST: &str = "last";

/// What tells one event from another.
fn name_of(event: &Value) -> String {
    format!("{} {} {}", event["timeNano"], event["Action"], event["Actor"]["ID"])
}

/// Listens from a moment on, goes away now and then, and comes back asking for what came since. Returns all that was heard
/// until the end, each event once.
fn listen(client: &Client, mut since: String, patience: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let stream = begin(client, "GET", &format!("/events?since={since}"), "");
        // What came at the very moment that was asked for comes again.
        let known = all.len().saturating_sub(8);
        for line in BufReader::new(stream)
            .lines()
            .map(|line| line.expect("text"))
            .filter(|line| line.starts_with('{'))
            .take(patience)
        {
            let event: Value = serde_json::from_str(&line).expect("an event");
            assert_ne!(event["Action"], "overrun", "nobody here is slow");
            let name = name_of(&event);
            let nanos = event["timeNano"].as_i64().expect("a number");
            since = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
            if all[known..].contains(&name) {
                continue;
            }
            all.push(name);
            let attributes = &event["Actor"]["Attributes"];
            if event["Action"] == "destroy" && attributes["name"] == LAST {
                return all;
            }
        }
    }
}

fn order(writers: usize, readers: usize, rounds: usize) {
    let house = house();
    let client = house.client_of_api();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let create = |name: &str| {
        let body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "none"}});
        ask(&client, "POST", &format!("/containers/create?name={name}"), &body);
    };
    let heard: Vec<Vec<String>> = std::thread::scope(|scope| {
        // One stays; the others go after every few, each after another number of them.
        let listeners: Vec<_> = (0..readers)
            .map(|reader| {
                let (client, since) = (&client, since.clone());
                let patience = if reader == 0 { usize::MAX } else { 3 + 4 * reader };
                scope.spawn(move || listen(client, since, patience))
            })
            .collect();
        together(writers, writers * rounds, |at| {
            let (name, other) = (format!("one{at}"), format!("other{at}"));
            create(&name);
            ask(&client, "POST", &format!("/containers/{name}/rename?name={other}"), &Value::Null);
            ask(&client, "DELETE", &format!("/containers/{other}"), &Value::Null);
        });
        create(LAST);
        ask(&client, "DELETE", &format!("/containers/{LAST}"), &Value::Null);
        listeners.into_iter().map(|one| one.join().expect("it hears the end")).collect()
    });
    assert_eq!(heard[0].len(), 3 * writers * rounds + 2);
    for (reader, events) in heard.iter().enumerate() {
        assert_eq!(events.len(), heard[0].len(), "reader {reader}");
        let other = events.iter().zip(&heard[0]).find(|(one, other)| one != other);
        assert_eq!(other, None, "reader {reader}");
    }
    let times = heard[0]
        .iter()
        .map(|name| name.split(' ').next().and_then(|time| time.parse::<i64>().ok()));
    assert!(times.clone().zip(times.skip(1)).all(|(one, next)| one <= next), "time goes back");
}

#[test]
fn l10_everybody_hears_the_same() {
    order(6, 5, 15);
}

#[test]
#[ignore = "a minute; `ROUNDS` says how much each of sixteen does"]
fn l10_full_size() {
    order(16, 8, measure("ROUNDS", 400));
}
