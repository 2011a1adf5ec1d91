//! Two things at the same moment: whoever was promised something has it in the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{park_timeout, scope};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;
use testkit::house::PATIENCE;

use crate::containers::house;
use crate::faults::Tracer;

fn create(house: &House, name: &str, host: Value, script: &str) {
    let mut host = host;
    host["NetworkMode"] = "none".into();
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host});
    expect(&house.client_of_api(), "POST", &format!("/containers/create?name={name}"), &body, 201);
}

fn expect(client: &Client, method: &str, path: &str, body: &Value, status: u16) -> Value {
    let body = (!body.is_null()).then_some(body);
    let answer = client.ask(method, path, body).expect("the daemon answers");
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

fn start(house: &House, name: &str) {
    expect(&house.client_of_api(), "POST", &format!("/containers/{name}/start"), &Value::Null, 204);
}

fn inspect(client: &Client, name: &str) -> Value {
    expect(client, "GET", &format!("/containers/{name}/json"), &Value::Null, 200)
}

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn a_stop_wins_over_a_restart() {
    let house = house();
    let policy = json!({"RestartPolicy": {"Name": "always"}});
    scope(|scope| {
        for worker in 0..6 {
            let (house, policy) = (&house, &policy);
            scope.spawn(move || {
                let client = house.client_of_api();
                let name = format!("c{worker}");
                create(house, &name, policy.clone(), "exit 1");
                for round in 0..6 {
                    start(house, &name);
                    until("a restart", || {
                        inspect(&client, &name)["RestartCount"].as_i64() > Some(0)
                    });
                    // The next start comes 200 milliseconds after the second exit: this may be before, within and behind.
                    park_timeout(Duration::from_millis(60 + 12 * (worker + round)));
                    let stop = format!("/containers/{name}/stop?t=0");
                    expect(&client, "POST", &stop, &Value::Null, 204);
                    let state = &inspect(&client, &name)["State"];
                    assert_eq!(state["Status"], "exited", "{name}, round {round}: {state}");
                }
            });
        }
    });
}

#[test]
fn a_removal_wins_over_starts() {
    let house = house();
    for round in 0..15 {
        let name = format!("c{round}");
        create(&house, &name, json!({"RestartPolicy": {"Name": "always"}}), "exit 1");
        start(&house, &name);
        let gone = AtomicBool::new(false);
        scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let client = house.client_of_api();
                    while !gone.load(Ordering::Relaxed) {
                        let path = format!("/containers/{name}/start");
                        let answer = client.ask("POST", &path, None).expect("the daemon answers");
                        assert!(answer.status < 500, "{}: {}", answer.status, answer.text());
                    }
                });
            }
            park_timeout(Duration::from_millis(20 * round));
            let path = format!("/containers/{name}?force=1");
            let answer = house.api("DELETE", &path, None);
            gone.store(true, Ordering::Relaxed);
            assert_eq!(answer.status, 204, "{}", answer.text());
        });
        assert_eq!(house.api("GET", &format!("/containers/{name}/json"), None).status, 404);
    }
}

#[test]
fn nothing_comes_back_after_its_removal() {
    let mut house = house();
    for round in 0..30 {
        let (name, other) = (format!("c{round}"), format!("d{round}"));
        create(&house, &name, json!({}), "sleep 600");
        if round % 2 == 0 {
            start(&house, &name);
        }
        let id = inspect(&house.client_of_api(), &name)["Id"].as_str().expect("an id").to_owned();
        scope(|scope| {
            for path in [format!("rename?name={other}"), "stop?t=0".to_owned(), "update".to_owned()]
            {
                let (client, id) = (house.client_of_api(), &id);
                scope.spawn(move || {
                    let path = format!("/containers/{id}/{path}");
                    let answer = client.ask("POST", &path, Some(&json!({})));
                    let answer = answer.expect("the daemon answers");
                    assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
                });
            }
            let removed = house.api("DELETE", &format!("/containers/{id}?force=1"), None);
            assert_eq!(removed.status, 204, "{}", removed.text());
        });
        // Both names are free again.
        for name in [&name, &other] {
            create(&house, name, json!({}), "true");
            assert_eq!(house.api("DELETE", &format!("/containers/{name}"), None).status, 204);
        }
    }
    house.kill();
    house.start();
    assert_eq!(house.api("GET", "/containers/json?all=1", None).json(), json!([]));
}

#[test]
fn a_wait_ends_with_an_exit_that_a_restart_follows() {
    let house = house();
    let policy = json!({"RestartPolicy": {"Name": "always"}});
    create(&house, "ca", policy, "trap 'exit 3' USR1; touch /ready; while :; do usleep 9000; done");
    start(&house, "ca");
    until("a trap", || {
        house.docker(&["exec", "ca", "ls", "/ready"]).output().is_ok_and(|o| o.status.success())
    });
    scope(|scope| {
        let client = house.client_of_api();
        let waiting = scope.spawn(move || {
            expect(&client, "POST", "/containers/ca/wait", &Value::Null, 200)["StatusCode"].clone()
        });
        // It may begin to wait only after the exit; then it hears of the next.
        while !waiting.is_finished() {
            let _between_two_runs =
                house.api("POST", "/containers/ca/kill?signal=USR1", None).status;
            park_timeout(Duration::from_millis(50));
        }
        assert_ne!(waiting.join().expect("an answer"), 0);
    });
}

#[test]
fn a_volume_outlives_the_container_it_was_made_for() {
    let house = house();
    house.ok(&["run", "--name", "ca", "-v", "/data", "busybox", "sh", "-c", "echo mine > /data/f"]);
    let volume = inspect(&house.client_of_api(), "ca")["Mounts"][0]["Name"].clone();
    let volume = volume.as_str().expect("a name");
    house.ok(&["create", "--name", "cb", "-v", &format!("{volume}:/d"), "busybox", "cat", "/d/f"]);
    house.ok(&["rm", "-v", "ca"]);
    assert_eq!(house.ok(&["start", "-a", "cb"]), "mine\n");
    house.ok(&["rm", "-v", "cb"]);
    // Docker leaves it too: it was not made for the second.
    assert_eq!(house.ok(&["volume", "ls", "-q"]).trim(), volume);
    house.ok(&["volume", "rm", volume]);
}

#[test]
fn half_a_creation_leaves_no_volume() {
    let house = house();
    let mounts = json!([
        {"Type": "volume", "Target": "/a"},
        {"Type": "bind", "Source": "/no/such/place", "Target": "/b"},
    ]);
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": mounts}});
    let refused = house.api("POST", "/containers/create?name=ca", Some(&body));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "");
    create(&house, "ca", json!({}), "true");
}

#[test]
fn a_volume_in_the_making_is_in_use() {
    let house = house();
    let done = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let answer = house.api("DELETE", "/volumes/shared", None);
                assert!([204, 404, 409].contains(&answer.status), "{}", answer.text());
                let all = "%7B%22all%22:%5B%22true%22%5D%7D";
                let pruned = house.api("POST", &format!("/volumes/prune?filters={all}"), None);
                assert_eq!(pruned.status, 200, "{}", pruned.text());
                let listed = house.api("GET", "/volumes", None);
                assert_eq!(listed.status, 200, "{}", listed.text());
            }
        });
        for round in 0..20 {
            let host = json!({"Binds": ["shared:/bin"], "NetworkMode": "none"});
            let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host});
            let made = house.api("POST", "/containers/create?name=ca", Some(&body));
            let started = house.api("POST", "/containers/ca/start", None);
            let removed = house.api("DELETE", "/containers/ca?force=1", None);
            if (made.status, started.status, removed.status) != (201, 204, 204) {
                done.store(true, Ordering::Relaxed);
                panic!("round {round}: {} {} {}", made.text(), started.text(), removed.text());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn parent_of(process: &str) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    parent.trim().parse().ok().and_then(Pid::from_raw).expect("a pid")
}

#[test]
fn a_shim_that_lets_go_is_found_again() {
    let house = house();
    create(
        &house,
        "ca",
        json!({}),
        "trap 'exit 5' TERM; touch /ready; while :; do usleep 9000; done",
    );
    start(&house, "ca");
    until("a trap", || {
        house.docker(&["exec", "ca", "ls", "/ready"]).output().is_ok_and(|o| o.status.success())
    });
    let client = house.client_of_api();
    let before = inspect(&client, "ca")["State"].clone();
    // As if the shim had closed its connection to a daemon that did not read.
    let shim = parent_of(&before["Pid"].to_string());
    let shim = pidfd_open(shim, PidfdFlags::empty()).expect("the shim runs");
    let connection = (3..1024)
        .filter_map(|number| pidfd_getfd(&shim, number, PidfdGetfdFlags::empty()).ok())
        .find(|socket| rustix::net::getpeername(socket).is_ok());
    let connection = connection.expect("the daemon listens to the shim");
    rustix::net::shutdown(&connection, rustix::net::Shutdown::Both).expect("a connection");
    until("the daemon takes the container over again", || house.log().contains("adopted"));
    assert_eq!(inspect(&client, "ca")["State"], before);
    house.ok(&["stop", "ca"]);
    assert_eq!(inspect(&client, "ca")["State"]["ExitCode"], 5);
}

#[test]
fn an_exit_waits_for_the_disk() {
    let house = house();
    create(
        &house,
        "ca",
        json!({}),
        "trap 'exit 5' TERM; touch /ready; while :; do usleep 9000; done",
    );
    start(&house, "ca");
    until("a trap", || {
        house.docker(&["exec", "ca", "ls", "/ready"]).output().is_ok_and(|o| o.status.success())
    });
    let full = Tracer::attach(&house, "pwrite64:error=ENOSPC");
    let pid = inspect(&house.client_of_api(), "ca")["State"]["Pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    until("the daemon cannot write", || house.log().contains("cannot finish an exit"));
    drop(full);
    assert_eq!(house.ok(&["wait", "ca"]), "5\n");
    house.ok(&["rm", "ca"]);
}

/// The next command of a script follows at once.
#[test]
fn who_hears_of_an_end_finds_the_network_free() {
    let house = house();
    let client = house.client_of_api();
    let host = json!({"NetworkMode": "net"});
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host});
    for _ in 0..25 {
        expect(&client, "POST", "/networks/create", &json!({"Name": "net"}), 201);
        expect(&client, "POST", "/containers/create?name=ca", &body, 201);
        start(&house, "ca");
        expect(&client, "POST", "/containers/ca/wait", &Value::Null, 200);
        expect(&client, "DELETE", "/networks/net", &Value::Null, 204);
        expect(&client, "DELETE", "/containers/ca", &Value::Null, 204);
    }
}

/// Its policy and limits are changed while it lives and when it does not, and in between.
#[test]
fn one_that_is_about_to_end_is_updated() {
    let house = house();
    let client = house.client_of_api();
    create(&house, "ca", json!({}), "exit 3");
    for shares in 2..42 {
        start(&house, "ca");
        park_timeout(Duration::from_millis(shares % 8));
        let body = json!({"CpuShares": shares, "RestartPolicy": {"Name": "no"}});
        expect(&client, "POST", "/containers/ca/update", &body, 200);
        assert_eq!(inspect(&client, "ca")["HostConfig"]["CpuShares"], shares);
        expect(&client, "POST", "/containers/ca/wait", &Value::Null, 200);
    }
}

/// And whoever asks what has happened hears of it, in the order in which it did.
#[test]
fn who_hears_of_an_end_is_not_ahead_of_its_event() {
    let house = house();
    let client = house.client_of_api();
    create(&house, "ca", json!({}), "sleep 600");
    create(&house, "cb", json!({}), "true");
    let last = |name: &str, count: usize| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("it is after 1970");
        let filters = format!("%7B%22container%22:%5B%22{name}%22%5D%7D");
        let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let path = format!("/events?since=1&until={until}&filters={filters}");
        let told = house.api("GET", &path, None).text();
        let words: Vec<String> = told
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("an event")["Action"].to_string()
            })
            .collect();
        words[words.len() - count..].join(" ")
    };
    for _ in 0..25 {
        start(&house, "ca");
        expect(&client, "POST", "/containers/ca/stop?t=0", &Value::Null, 204);
        assert_eq!(last("ca", 2), "\"die\" \"stop\"");
        start(&house, "cb");
        expect(&client, "POST", "/containers/cb/wait", &Value::Null, 200);
        assert_eq!(last("cb", 2), "\"start\" \"die\"");
    }
}

#[test]
fn half_a_filled_volume_is_filled_by_the_next() {
    let house = house();
    let host = json!({"Binds": ["shared:/bin"], "NetworkMode": "none"});
    let body =
        json!({"Image": "busybox", "Cmd": ["sh", "-c", "ls /bin | wc -l"], "HostConfig": host});
    scope(|scope| {
        for name in ["ca", "cb", "cc", "cd"] {
            let (client, body) = (house.client_of_api(), &body);
            let path = format!("/containers/create?name={name}");
            scope.spawn(move || expect(&client, "POST", &path, body, 201));
        }
    });
    let all = house.ok(&["start", "-a", "ca"]);
    // As a daemon leaves it that dies while it copies.
    let volume = house.data_root().join("volumes/shared");
    std::fs::remove_file(volume.join("_data/ls")).expect("a file of the image's");
    std::fs::write(volume.join("filling"), "").expect("a mark");
    expect(&house.client_of_api(), "POST", "/containers/create?name=ce", &body, 201);
    assert_eq!(house.ok(&["start", "-a", "ce"]), all);
    // What a container takes out of it stays out.
    std::fs::remove_file(volume.join("_data/cat")).expect("a file of the image's");
    expect(&house.client_of_api(), "POST", "/containers/create?name=cf", &body, 201);
    assert_ne!(house.ok(&["start", "-a", "cf"]), all);
}
