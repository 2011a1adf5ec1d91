//! Networks that users make, under the real docker command and ours.

mod change;
mod compose;
mod crash;
mod doors;
mod ipvlan;
#[cfg(test)]
mod lasting;
mod liars;
mod links;
mod macvlan;
mod many;
mod objects;
mod reach;
pub(crate) mod words;

use std::process::Output;

use serde_json::Value;
use testkit::House;

/// What a client said, on whichever stream, and how it ended.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), testkit::house::shown(output).trim().to_owned())
}

/// A container that sleeps, on these networks.
fn sleeper(house: &House, name: &str, more: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(more);
    args.extend(["busybox", "sleep", "3600"]);
    house.ok(&args);
}

fn inspect(house: &House, name: &str) -> Value {
    house.api("GET", &format!("/containers/{name}/json"), None).json()
}

/// A container's address on a network: `IPAddress`, `GlobalIPv6Address`.
fn address(house: &House, name: &str, network: &str, field: &str) -> String {
    let networks = &inspect(house, name)["NetworkSettings"]["Networks"];
    networks[network][field].as_str().unwrap_or_default().to_owned()
}

/// Does a packet from the one come back from the other?
fn reaches(house: &House, from: &str, to: &str) -> bool {
    let output = house.docker(&["exec", from, "ping", "-c", "1", "-W", "2", to]).output();
    output.expect("docker can be executed").status.success()
}
