//! The daemon dies at any moment; no container notices, and nothing that was promised is lost (F1, F2).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;
use testkit::house::PATIENCE;

use crate::containers::house;

/// A container as it was before the daemon died.
struct Before {
    name: String,
    state: Value,
}

fn inspect(house: &House, name: &str) -> Value {
    let answer = house.api("GET", &format!("/containers/{name}/json"), None);
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    answer.json()
}

fn start(house: &House, name: &str, more: Value, script: &str) {
    let mut body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script]});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let made = house.api("POST", &format!("/containers/create?name={name}"), Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    let started = house.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
}

/// Waits until `ready` says yes.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

fn log_file(house: &House, id: &str) -> PathBuf {
    house.data_root().join("containers").join(id).join(format!("{id}-json.log"))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

#[test]
fn f1_thirty_containers_do_not_notice() {
    let mut house = house();
    let chat = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done";
    let gate = house.path("gate");
    fs::create_dir(&gate).expect("a directory");
    let bind = format!("{}:/gate", gate.display());
    for i in 0..10 {
        let policy = ["no", "always", "unless-stopped", "on-failure"][i % 4];
        let network = ["none", "bridge", "host"][i % 3];
        let host = json!({"NetworkMode": network, "RestartPolicy": {"Name": policy}});
        start(&house, &format!("sleeper{i}"), json!({"HostConfig": host}), "exec sleep 3600");
    }
    let quiet = json!({"NetworkMode": "none"});
    for i in 0..5 {
        start(&house, &format!("chatty{i}"), json!({"HostConfig": quiet}), chat);
    }
    for i in 0..4 {
        start(&house, &format!("paused{i}"), json!({"HostConfig": quiet}), chat);
        let paused = house.api("POST", &format!("/containers/paused{i}/pause"), None);
        assert_eq!(paused.status, 204);
    }
    for i in 0..4 {
        let tty = json!({"Tty": true, "OpenStdin": true, "HostConfig": quiet});
        start(&house, &format!("tty{i}"), tty, "exec sh");
    }
    for i in 0..5 {
        let host = json!({"NetworkMode": "none", "Binds": [bind], "AutoRemove": i == 4});
        let script = format!("until [ -e /gate/open ]; do usleep 10000; done; echo bye; exit {i}");
        start(&house, &format!("ending{i}"), json!({"HostConfig": host}), &script);
    }
    start(&house, "ended0", json!({"HostConfig": quiet}), "exit 9");
    house.ok(&["wait", "ended0"]);
    house.ok(&["create", "--restart", "always", "--name", "created0", "busybox", "true"]);

    let list = house.api("GET", "/containers/json?all=1", None).json();
    let names: Vec<String> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["Names"][0].as_str().expect("a name")[1..].to_owned())
        .collect();
    assert_eq!(names.len(), 30);
    let before: Vec<Before> = names
        .into_iter()
        .map(|name| Before { state: inspect(&house, &name)["State"].clone(), name })
        .collect();
    let ids: BTreeMap<&str, String> = before
        .iter()
        .map(|one| {
            let id = inspect(&house, &one.name)["Id"].as_str().expect("an id").to_owned();
            (one.name.as_str(), id)
        })
        .collect();
    let ending: Vec<_> = before
        .iter()
        .filter(|one| one.name.starts_with("ending"))
        .map(|one| {
            let pid = one.state["Pid"].as_i64().expect("a number") as i32;
            pidfd_open(Pid::from_raw(pid).expect("it runs"), PidfdFlags::empty()).expect("it runs")
        })
        .collect();

    house.kill();
    let chatty = log_file(&house, &ids["chatty0"]);
    let then = length(&chatty);
    fs::write(gate.join("open"), "").expect("a file");
    for pidfd in &ending {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("poll");
    }
    until("the log of a container grows without a daemon", || length(&chatty) > then + 500);
    house.start();

    for Before { name, state } in &before {
        if name == "ending4" {
            continue;
        }
        if name.starts_with("ending") {
            // Its shim may have been about to say so.
            let status = || inspect(&house, name)["State"]["Status"].clone();
            until("an end is written down", || status() == "exited");
        }
        let now = inspect(&house, name);
        assert_eq!(now["RestartCount"], 0, "{name}");
        if let Some(code) = name.strip_prefix("ending") {
            assert_eq!(now["State"]["ExitCode"].to_string(), code, "{name}");
            assert_eq!(house.ok(&["logs", name]), "bye\n");
            assert!(now["State"]["FinishedAt"].as_str() > state["StartedAt"].as_str());
            continue;
        }
        assert_eq!(&now["State"], state, "{name}");
    }
    until("a container with --rm that ended meanwhile is gone", || {
        house.api("GET", "/containers/ending4/json", None).status == 404
    });
    for i in 0..5 {
        let log = house.ok(&["logs", &format!("chatty{i}")]);
        for (line, expected) in log.lines().zip(0..) {
            assert_eq!(line, expected.to_string(), "a line is missing");
        }
    }
    // What was adopted can be lived with.
    assert_eq!(house.ok(&["exec", "sleeper0", "echo", "hi"]), "hi\n");
    assert_eq!(house.ok(&["unpause", "paused0"]), "paused0\n");
    assert_eq!(house.ok(&["stop", "-t", "0", "chatty0"]), "chatty0\n");
    assert_eq!(inspect(&house, "chatty0")["State"]["ExitCode"], 137);
    house.check();
}

/// What a client knows of a container of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It has been told so.
    Exists,
    Runs,
    Gone,
    /// It has asked and not been answered.
    Unsure,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

/// Does as clients do until the daemon is gone, and writes down what it was promised.
fn load(client: &Client, ledger: &Ledger, worker: usize, round: usize, stop: &AtomicBool) {
    let note = |name: &str, known: Known| {
        ledger.lock().expect("a lock").insert(name.to_owned(), known);
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("w{worker}r{round}n{number}");
        let script = ["sleep 3600", "echo out; exit 3", "true"][number % 3];
        let network = ["none", "bridge"][(number + worker) % 2];
        let body = json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": network, "AutoRemove": false},
        });
        let ask = |method: &str, path: String, body: Option<&Value>| -> Option<u16> {
            let answer = client.ask(method, &path, body).ok()?;
            assert!(answer.status < 500, "{method} {path}: {} {}", answer.status, answer.text());
            Some(answer.status)
        };
        note(&name, Known::Unsure);
        let Some(201) = ask("POST", format!("/containers/create?name={name}"), Some(&body)) else {
            return;
        };
        note(&name, Known::Exists);
        let Some(204) = ask("POST", format!("/containers/{name}/start"), None) else { return };
        if number % 3 == 0 {
            note(&name, Known::Runs);
            let exec = json!({"Cmd": ["true"], "AttachStdout": true});
            let Ok(made) = client.ask("POST", &format!("/containers/{name}/exec"), Some(&exec))
            else {
                return;
            };
            assert_eq!(made.status, 201, "{}", made.text());
            let id = made.json()["Id"].as_str().expect("an id").to_owned();
            if client.ask("POST", &format!("/exec/{id}/start"), Some(&json!({}))).is_err() {
                return;
            }
        }
        if number % 4 != 3 {
            note(&name, Known::Unsure);
            match ask("DELETE", format!("/containers/{name}?force=1"), None) {
                Some(204) => note(&name, Known::Gone),
                _ => return,
            }
        }
    }
}

#[test]
fn f2_fifty_random_moments() {
    let mut house = house();
    let mut seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is late")
        .subsec_nanos();
    for round in 0..50 {
        // xorshift; the moments need not be good random numbers.
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        let moment = Duration::from_micros(u64::from(seed % 250_000));
        let ledger = Ledger::default();
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (client, ledger, stop) =
                    (house.client_of_api(), Arc::clone(&ledger), Arc::clone(&stop));
                std::thread::spawn(move || load(&client, &ledger, worker, round, &stop))
            })
            .collect();
        std::thread::park_timeout(moment);
        house.kill();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("what was promised and what came is told apart");
        }
        house.start();
        let list = house.api("GET", "/containers/json?all=1", None).json();
        let states: BTreeMap<String, String> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                (text(&one["Names"][0])[1..].to_owned(), text(&one["State"]))
            })
            .collect();
        let ledger = ledger.lock().expect("a lock");
        for (name, known) in &*ledger {
            let state = states.get(name).map(String::as_str);
            let kept = match known {
                Known::Exists => state.is_some(),
                Known::Runs => state == Some("running"),
                Known::Gone => state.is_none(),
                Known::Unsure => true,
            };
            assert!(kept, "round {round} after {moment:?}: {name} was {known:?}, is {state:?}");
        }
        house.check();
        for name in states.keys() {
            let removed = house.api("DELETE", &format!("/containers/{name}?force=1"), None);
            assert_eq!(removed.status, 204, "{name}: {}", removed.text());
        }
    }
}

fn shim_of(house: &House, name: &str) -> Pid {
    let pid = inspect(house, name)["State"]["Pid"].to_string();
    let status = fs::read_to_string(Path::new("/proc").join(&pid).join("status")).expect("it runs");
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(shim.trim().parse().expect("a number")).expect("not zero")
}

/// F3: a shim that is killed takes its container with it, and nobody else; nothing of it stays behind.
#[test]
fn f3_a_killed_shim_is_an_exit() {
    let house = house();
    let bystander = |house: &House| inspect(house, "other")["State"].clone();
    start(&house, "other", json!({"HostConfig": {"NetworkMode": "none"}}), "exec sleep 3600");
    let before = bystander(&house);
    start(&house, "ca", json!({"Tty": true, "OpenStdin": true}), "exec sleep 3600");
    kill_process(shim_of(&house, "ca"), Signal::KILL).expect("it runs");
    until("the exit", || inspect(&house, "ca")["State"]["Status"] == "exited");
    let state = inspect(&house, "ca")["State"].clone();
    assert_eq!((&state["ExitCode"], &state["Error"]), (&json!(137), &json!("shim lost")));
    house.check();
    // It can be started again, and removed.
    house.ok(&["start", "ca"]);
    assert_eq!(house.ok(&["exec", "ca", "echo", "hi"]), "hi\n");
    house.ok(&["rm", "-f", "ca"]);
    assert_eq!(bystander(&house), before);
}

/// F3: the next daemon finds neither the shim nor what it would have written.
#[test]
fn f3_a_shim_that_dies_with_its_daemon_is_an_exit() {
    let mut house = house();
    for name in ["other", "ca"] {
        start(&house, name, json!({"HostConfig": {"NetworkMode": "none"}}), "exec sleep 3600");
    }
    let before = inspect(&house, "other")["State"].clone();
    let shim = shim_of(&house, "ca");
    house.kill();
    kill_process(shim, Signal::KILL).expect("it runs");
    house.start();
    until("the exit", || inspect(&house, "ca")["State"]["Status"] == "exited");
    let state = inspect(&house, "ca")["State"].clone();
    assert_eq!((&state["ExitCode"], &state["Error"]), (&json!(137), &json!("shim lost")));
    assert_eq!(inspect(&house, "other")["State"], before);
    house.check();
    for name in ["other", "ca"] {
        house.ok(&["rm", "-f", name]);
    }
}

/// F3: a shim that stands still has nobody wait but those who ask it; the next daemon takes its container over when it goes on.
#[test]
fn f3_a_shim_that_stands_still_holds_up_nobody_else() {
    let mut house = house();
    let none = json!({"HostConfig": {"NetworkMode": "none"}});
    for name in ["other", "ca"] {
        start(&house, name, none.clone(), "exec sleep 3600");
    }
    let pid = inspect(&house, "ca")["State"]["Pid"].clone();
    let shim = shim_of(&house, "ca");
    kill_process(shim, Signal::STOP).expect("it runs");
    let others = |house: &House| {
        assert_eq!(house.ok(&["ps", "-q"]).lines().count(), 2);
        let seen = inspect(house, "ca");
        assert_eq!((&seen["State"]["Status"], &seen["State"]["Pid"]), (&json!("running"), &pid));
        assert_eq!(house.ok(&["exec", "other", "echo", "hi"]), "hi\n");
        assert_eq!(
            house.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]),
            "hi\n"
        );
    };
    others(&house);
    house.kill();
    house.start();
    until("it is said", || house.log().contains("shim unresponsive"));
    others(&house);
    kill_process(shim, Signal::CONT).expect("it runs");
    until("it is taken over", || {
        let output = house.docker(&["exec", "ca", "echo", "hi"]).output().expect("docker");
        output.stdout == b"hi\n"
    });
    assert_eq!(inspect(&house, "ca")["State"]["Pid"], pid);
    for name in ["other", "ca"] {
        house.ok(&["rm", "-f", name]);
    }
    house.check();
}
