//! L1: many containers that come up at once, are listed, outlive the daemon and end: no end is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::House;

use super::{ask, measure, resident, start, together};
use crate::containers::house;

fn running(house: &House) -> BTreeSet<(String, String)> {
    let list = ask(&house.client_of_api(), "GET", "/containers/json", &Value::Null);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = list.as_array().expect("a list").iter();
    list.map(|one| (text(&one["Id"]), text(&one["State"]))).collect()
}

/// Returns how long the slowest but one in a hundred of the lists took.
fn crowd(size: usize, clients: usize, lists: usize) -> Duration {
    let mut house = house();
    let client = house.client_of_api();
    let begin = Instant::now();
    together(clients, size, |at| start(&client, &format!("c{at}"), &["sleep", "86400"], json!({})));
    let up = begin.elapsed();
    let before = running(&house);
    assert_eq!(before.len(), size);
    let mut times: Vec<Duration> = (0..lists)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(running(&house).len(), size);
            begin.elapsed()
        })
        .collect();
    times.sort();
    let slow = times[lists * 99 / 100];
    let memory = resident(&house);
    let begin = Instant::now();
    house.kill();
    house.start();
    assert_eq!(running(&house), before);
    println!(
        "{size} up in {up:?}; a list: median {:?}, p99 {slow:?}; the daemon has {memory} KiB; killed, it is back in {:?}",
        times[lists / 2],
        begin.elapsed()
    );
    together(clients, size, |at| {
        let name = format!("c{at}");
        ask(&client, "POST", &format!("/containers/{name}/kill"), &Value::Null);
        let told = ask(&client, "POST", &format!("/containers/{name}/wait"), &Value::Null);
        assert_eq!(told["StatusCode"], 137, "{name}");
        ask(&client, "DELETE", &format!("/containers/{name}"), &Value::Null);
    });
    house.check();
    slow
}

#[test]
fn l1_a_crowd() {
    crowd(32, 16, 50);
}

#[test]
#[ignore = "a minute, and only worth something on a quiet machine; `CONTAINERS` says how many"]
fn l1_full_size() {
    let slow = crowd(measure("CONTAINERS", 500), 32, 1000);
    assert!(slow < Duration::from_millis(50), "{slow:?}");
}
