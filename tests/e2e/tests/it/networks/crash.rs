//! The daemon dies while networks change, again and again, and nothing is left of what was not finished (F8).

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;

use super::{address, inspect, reaches, sleeper};
use crate::containers::house;

/// How often it dies: more with `GANTRY_CRASHES`.
fn rounds() -> u32 {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests are told by their environment how long to try"
    )]
    let wanted = std::env::var("GANTRY_CRASHES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// Changes networks until the daemon is gone or it is told to stop.
fn churn(api: &Client, number: u32, stop: &AtomicBool) {
    let ask = |method: &str, path: &str, body: Option<&Value>| api.ask(method, path, body).is_ok();
    for turn in 0.. {
        let name = format!("churn-{number}-{turn}");
        let container = json!({"Container": "web"});
        let steps: [(&str, String, Option<Value>); 4] = [
            (
                "POST",
                "/networks/create".to_owned(),
                Some(json!({"Name": name, "EnableIPv6": turn % 2 == 0})),
            ),
            ("POST", format!("/networks/{name}/connect"), Some(container.clone())),
            ("POST", format!("/networks/{name}/disconnect"), Some(container)),
            ("DELETE", format!("/networks/{name}"), None),
        ];
        for (method, path, body) in &steps {
            if stop.load(Ordering::Relaxed) || !ask(method, path, body.as_ref()) {
                return;
            }
        }
    }
}

/// The same with containers, whose ports are published: made, started, removed.
fn come_and_go(api: &Client, number: u32, stop: &AtomicBool) {
    let ask = |method: &str, path: &str, body: Option<&Value>| api.ask(method, path, body).is_ok();
    for turn in 0.. {
        let name = format!("guest-{number}-{turn}");
        let body = json!({
            "Image": "busybox",
            "Cmd": ["sleep", "3600"],
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "HostConfig": { "NetworkMode": "stay", "PortBindings": { "80/tcp": [{}], "53/udp": [{}] } },
        });
        let steps = [
            ("POST", format!("/containers/create?name={name}"), Some(&body)),
            ("POST", format!("/containers/{name}/start"), None),
            ("DELETE", format!("/containers/{name}?force=1"), None),
        ];
        for (method, path, body) in steps {
            if stop.load(Ordering::Relaxed) || !ask(method, &path, body) {
                return;
            }
        }
    }
}

/// Removes what was left half-way, which works whatever state it is in.
fn show_out(house: &House) {
    let list = house.api("GET", "/containers/json?all=1", None).json();
    for container in list.as_array().expect("a list") {
        let name = container["Names"][0].as_str().expect("a name");
        if name.starts_with("/guest-") {
            let gone = house.api("DELETE", &format!("/containers{name}?force=1"), None);
            assert_eq!(gone.status, 204, "{name}: {}", gone.text());
        }
    }
}

fn bridges(house: &House) -> Vec<String> {
    let networks = house.api("GET", "/networks", None).json();
    let ids =
        networks.as_array().expect("a list").iter().filter(|network| network["Name"] != "bridge");
    let mut names: Vec<String> = ids
        .filter(|network| network["Driver"] == "bridge")
        .map(|network| format!("br-{}", &network["Id"].as_str().expect("an id")[..12]))
        .collect();
    names.sort();
    names
}

#[test]
fn killed_while_networks_change() {
    let mut house = house();
    house.ok(&["network", "create", "stay"]);
    sleeper(&house, "web", &["--network", "stay"]);
    sleeper(&house, "peer", &["--network", "stay"]);
    let peer = address(&house, "peer", "stay", "IPAddress");
    for round in 0..rounds() {
        let stop = AtomicBool::new(false);
        let api = house.client_of_api();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| churn(&api, round, &stop));
            let other = scope.spawn(|| come_and_go(&api, round, &stop));
            // Anywhere in the first few changes.
            let moment = Duration::from_micros(u64::from(round) * 2311 % 60_000);
            std::thread::park_timeout(moment);
            house.kill();
            stop.store(true, Ordering::Relaxed);
            worker.join().expect("the worker ends");
            other.join().expect("the worker ends");
        });
        house.start();
        house.check();
        assert!(reaches(&house, "web", &peer), "round {round}: it runs on");
        let links = house.ok(&["exec", "web", "ip", "-o", "link"]).lines().count();
        let networks = inspect(&house, "web")["NetworkSettings"]["Networks"].clone();
        assert_eq!(links, 1 + networks.as_object().expect("an object").len(), "round {round}");
        for bridge in bridges(&house) {
            let there = Command::new("ip").args(["link", "show", &bridge]).output().expect("ip");
            assert!(there.status.success(), "round {round}: {bridge}");
        }
        // What was made and not taken back can be taken back now.
        for name in networks.as_object().expect("an object").keys().filter(|name| *name != "stay") {
            house.ok(&["network", "disconnect", name, "web"]);
        }
        show_out(&house);
        house.api("POST", "/networks/prune", None);
        assert_eq!(bridges(&house).len(), 1, "round {round}");
    }
}
