//! L5: clients that come and are gone in the middle, again and again. What was held for them is given back.

use std::fs;

use serde_json::json;
use testkit::House;

use super::{ask, begin, head, held, measure, settle, start, together};
use crate::containers::house;
use crate::faults::until;

const CLIENTS: usize = 8;

/// The process beside the container has as much to give back as the daemon.
fn held_by_shim(house: &House) -> usize {
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ca"]);
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    fs::read_dir(format!("/proc/{shim}/fd")).expect("it runs").count()
}

fn churn(count: usize) {
    let house = house();
    let client = house.client_of_api();
    let chat = "while :; do echo line; usleep 5000; done";
    start(&client, "ca", &["sh", "-c", chat], json!({}));
    let come_and_go = |at: usize| {
        let exec = json!({"Cmd": ["echo", "word"], "AttachStdout": true, "AttachStdin": true, "Tty": at.is_multiple_of(2)});
        let exec = || {
            let made = ask(&client, "POST", "/containers/ca/exec", &exec);
            made["Id"].as_str().expect("an id").to_owned()
        };
        let mut stream = match at % 5 {
            0 => begin(&client, "POST", "/containers/ca/attach?stream=1&stdout=1&stdin=1", ""),
            1 => begin(&client, "GET", "/containers/ca/logs?follow=1&stdout=1&tail=1", ""),
            2 => begin(&client, "POST", &format!("/exec/{}/start", exec()), "{}"),
            3 => begin(&client, "GET", "/containers/ca/stats", ""),
            _ => {
                let id = exec();
                let stream = begin(&client, "POST", &format!("/exec/{id}/start"), "{}");
                drop(begin(&client, "POST", &format!("/exec/{id}/resize?h=20&w=80"), ""));
                stream
            }
        };
        // Half of them are gone before there is an answer.
        if !at.is_multiple_of(3) {
            head(&mut stream);
        }
    };
    together(CLIENTS, 60, come_and_go);
    let execs = || house.api("GET", "/containers/ca/json", None).json()["ExecIDs"].is_null();
    until("the execs have ended", execs);
    let (before, by_shim) = (held(&house), held_by_shim(&house));
    together(CLIENTS, count, come_and_go);
    until("the execs have ended", execs);
    settle(&house, &before);
    until("the shim gives back", || held_by_shim(&house) <= by_shim + 2);
    house.ok(&["rm", "-f", "ca"]);
}

#[test]
fn l5_clients_that_come_and_go() {
    churn(400);
}

#[test]
#[ignore = "minutes; `ROUNDS` says how many come"]
fn l5_full_size() {
    churn(measure("ROUNDS", 100_000));
}
