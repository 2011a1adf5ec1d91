//! F16: a daemon that may have little memory, and clients who want it to use much.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::scope;

use serde_json::{Value, json};
use testkit::House;
use testkit::house::remove_cgroups;

use super::{furnish, looks};

const LIMIT: u64 = 256 << 20;

/// A cgroup with little memory, until it is dropped.
struct Narrow {
    name: String,
    dir: PathBuf,
    failures: &'static str,
}

impl Narrow {
    fn new() -> Self {
        let name = format!("/gantry-test-narrow-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, file, failures) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes", "memory.oom_control"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max", "memory.events"),
        };
        let dir = root.join(&name[1..]);
        std::fs::create_dir(&dir).expect("root may make cgroups");
        std::fs::write(dir.join(file), LIMIT.to_string()).expect("memory can be limited");
        Self { name, dir, failures }
    }

    fn take(&self, pid: u32) {
        std::fs::write(self.dir.join("cgroup.procs"), pid.to_string())
            .expect("a process can be moved");
    }

    fn kills(&self) -> u64 {
        let text = std::fs::read_to_string(self.dir.join(self.failures)).expect("it counts");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        remove_cgroups(&self.name);
    }
}

/// Sends a head that promises much and a body as long as it is taken.
fn flood(house: &House, path: &str, kind: &str, byte: u8, mebibytes: usize) {
    let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        mebibytes << 20
    );
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    let block = vec![byte; 1 << 20];
    for _ in 0..mebibytes {
        if stream.write_all(&block).is_err() {
            return;
        }
    }
}

#[test]
fn f16_little_memory_is_enough() {
    let mut house = House::new();
    furnish(&house);
    let narrow = Narrow::new();
    narrow.take(house.pid());
    // One that speaks as fast as it can, and clients who do not listen.
    house.ok(&["run", "-d", "--name", "loud", "--network", "none", "busybox", "yes", "x"]);
    let stalled: Vec<UnixStream> = (0..64)
        .map(|n| {
            let path = [
                "/containers/loud/logs?follow=1&stdout=1",
                "/containers/loud/attach/ws?stream=1&stdout=1",
                "/events",
            ][n % 3];
            let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
                .expect("it listens");
            stream
        })
        .collect();
    let house_ref = &house;
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| flood(house_ref, "/containers/create", "application/json", b'[', 64));
            scope.spawn(|| flood(house_ref, "/containers/create", "application/json", b' ', 64));
            scope.spawn(|| flood(house_ref, "/images/load", "application/x-tar", 0, 64));
            scope.spawn(|| flood(house_ref, "/build", "application/x-tar", b'x', 64));
            scope.spawn(|| {
                let client = house_ref.client_of_api();
                let labels: serde_json::Map<String, Value> =
                    (0..20).map(|n| (format!("l{n}"), Value::from("x".repeat(10_000)))).collect();
                for _ in 0..8 {
                    let body = json!({"Image": "busybox", "Labels": labels});
                    let _made_or_refused = client.ask("POST", "/containers/create", Some(&body));
                    let _listed = client.ask("GET", "/containers/json?all=1", None);
                    let _archive = client.ask("GET", "/images/busybox/get", None);
                }
            });
        }
    });
    assert!(house.lives() && narrow.kills() == 0, "{} kills\n{}", narrow.kills(), house.log());
    looks(&house);
    drop(stalled);
    assert_eq!(house.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "on"]), "on\n");
    let ids = house.ok(&["ps", "-aq", "--no-trunc"]);
    for id in ids.lines() {
        house.api("DELETE", &format!("/containers/{id}?force=1"), None);
    }
    // Its cgroup can go when it has.
    house.stop();
    drop(narrow);
}
