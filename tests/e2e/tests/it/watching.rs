//! Looking at containers: what they use, what runs in them, how they end, and those that may go.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use testkit::House;
use testkit::house::{PATIENCE, shown, succeed};

use crate::containers::house;
use crate::faults::until;

fn stats(house: &House, query: &str) -> Value {
    let answer = house.api("GET", &format!("/containers/busy/stats?{query}"), None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn cpu(stats: &Value, when: &str) -> u64 {
    stats[when]["cpu_usage"]["total_usage"].as_u64().unwrap_or(0)
}

#[test]
fn what_it_uses() {
    let house = house();
    let work = "while :; do :; done";
    house.ok(&["run", "-d", "--name", "busy", "-m", "100m", "busybox", "sh", "-c", work]);
    let once = stats(&house, "stream=0&one-shot=1");
    assert_eq!(once["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(cpu(&once, "precpu_stats"), 0);
    let twice = stats(&house, "stream=0");
    assert!(cpu(&twice, "cpu_stats") > cpu(&twice, "precpu_stats"), "{twice}");
    assert!(twice["preread"].as_str() < twice["read"].as_str(), "{twice}");
    assert_eq!(twice["memory_stats"]["limit"], 100 << 20);
    assert_eq!((&twice["name"], &twice["pids_stats"]["current"]), (&json!("/busy"), &json!(1)));
    assert!(twice["networks"]["eth0"]["rx_bytes"].is_u64(), "{twice}");
    let both = house.api("GET", "/containers/busy/stats?stream=1&one-shot=1", None);
    assert_eq!(both.json()["message"], "cannot have stream=true and one-shot=true");

    // A stream: each sample has the one before it.
    let mut stream = UnixStream::connect(house.socket()).expect("a daemon");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.write_all(b"GET /containers/busy/stats HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    let lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    let samples: Vec<Value> = lines
        .filter(|line| line.starts_with('{'))
        .take(3)
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    assert_eq!(samples[0]["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(samples[1]["read"], samples[2]["preread"]);
    assert_eq!(samples[1]["cpu_stats"], samples[2]["precpu_stats"]);

    let format = ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}"];
    for table in [house.ok(&format), succeed(house.gantry(&format))] {
        assert!(table.starts_with("busy 1 ") && table.ends_with(" / 100MiB\n"), "{table}");
    }
    house.ok(&["kill", "busy"]);
    let ended = stats(&house, "stream=0");
    assert_eq!(
        (&ended["read"], &ended["memory_stats"]),
        (&json!("0001-01-01T00:00:00Z"), &json!({}))
    );
}

#[test]
fn what_runs_in_it() {
    let house = house();
    house.ok(&["run", "-d", "--name", "busy", "busybox", "sh", "-c", "sleep 7000 & sleep 8000"]);
    let all = || house.ok(&["top", "busy"]);
    assert!(all().starts_with("UID "), "{}", all());
    let sleeps = |time: &str, all: &str| all.lines().any(|line| line.ends_with(time));
    until("both sleep", || {
        let all = all();
        all.lines().count() == 3 && sleeps(" sleep 7000", &all) && sleeps(" sleep 8000", &all)
    });
    assert!(house.ok(&["top", "busy", "aux"]).starts_with("USER "));
    let chosen = house.ok(&["top", "busy", "-o", "pid,args"]);
    assert!(chosen.lines().any(|line| line.ends_with(" sleep 7000")), "{chosen}");
    let refused = |args: &[&str]| shown(&house.docker(args).output().expect("docker"));
    assert!(
        refused(&["top", "busy", "-o", "cmd"]).contains("Couldn't find PID field in ps output")
    );
    assert!(refused(&["top", "busy", "-bogus"]).contains("ps: error: unsupported SysV option"));
}

/// Its policy starts it again at once, and nobody who waits for its end misses one.
#[test]
fn each_end_is_told() {
    let house = house();
    house.ok(&["create", "--name", "busy", "--restart", "always", "busybox", "sh", "-c", "exit 3"]);
    let client = house.client_of_api();
    let told = std::thread::scope(|scope| {
        let waiting: Vec<_> = ["next-exit", "not-running"]
            .map(|condition| {
                let client = client.clone();
                let path = format!("/containers/busy/wait?condition={condition}");
                scope.spawn(move || client.ask("POST", &path, None).expect("an answer").json())
            })
            .into();
        house.ok(&["start", "busy"]);
        let again = house.api("POST", "/containers/busy/wait?condition=next-exit", None).json();
        let mut told: Vec<Value> =
            waiting.into_iter().map(|one| one.join().expect("an answer")).collect();
        told.push(again);
        told
    });
    // One that was created is not running when asked before its start.
    assert_eq!(told[0], json!({"StatusCode": 3}));
    assert!([json!({"StatusCode": 0}), json!({"StatusCode": 3})].contains(&told[1]), "{told:?}");
    assert_eq!(told[2], json!({"StatusCode": 3}));
    let removed = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let path = "/containers/busy/wait?condition=removed";
            house.client_of_api().ask("POST", path, None).expect("an answer").json()
        });
        house.ok(&["update", "--restart", "no", "busy"]);
        house.ok(&["rm", "-f", "busy"]);
        waiting.join().expect("an answer")
    });
    assert!(removed["StatusCode"].is_i64() || removed["message"].is_string(), "{removed}");
}

#[test]
fn those_that_may_go() {
    let house = house();
    let write = "dd if=/dev/zero of=/x bs=1k count=64 2>/dev/null";
    for (name, label) in [("keep", "keep=yes"), ("go", "go=yes")] {
        house.ok(&["run", "--name", name, "--label", label, "busybox", "sh", "-c", write]);
    }
    house.ok(&["run", "-d", "--name", "up", "busybox", "sleep", "600"]);
    let refused = |filter: &str| {
        let args = ["container", "prune", "-f", "--filter", filter];
        shown(&house.docker(&args).output().expect("docker"))
    };
    assert!(refused("bogus=x").contains("invalid filter 'bogus'"));
    assert!(refused("until=x").contains("failed to parse value as time or duration: \"x\""));
    let none = house.ok(&["container", "prune", "-f", "--filter", "until=24h"]);
    assert_eq!(none, "Total reclaimed space: 0B\n");
    let pruned = house.ok(&["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(pruned.ends_with("Total reclaimed space: 65.54kB\n"), "{pruned}");
    let left = house.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(left, "up\nkeep\n");
}
