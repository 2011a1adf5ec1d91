//! Many of everything (L1 to L10): small here, and in full by hand. A full size is `#[ignore]`d and takes its measure from the
//! environment: `cargo nextest run -p e2e --run-ignored only --no-capture l2_`, with a release binary in `GANTRY`.

mod churn;
mod crash_loops;
mod crowd;
mod order;
mod rotation;
mod short_runs;
mod soak;
mod start_up;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;
use testkit::house::PATIENCE;

/// What a full size is told, or else its usual measure.
fn measure(name: &str, usual: usize) -> usize {
    #[allow(clippy::disallowed_methods, reason = "tests are told by their environment what to do")]
    let told = std::env::var(name).ok();
    told.map_or(usual, |text| text.parse().expect("a number"))
}

/// `count` things to be done by so many at once, each taking the next.
fn together(clients: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let client = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            work(at);
        }
    };
    std::thread::scope(|scope| {
        (0..clients).for_each(|_| drop(scope.spawn(client)));
    });
}

pub(crate) fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let body = (!body.is_null()).then_some(body);
    let answer = client.ask(method, path, body).expect("the daemon answers");
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text());
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// A container of the image that every house here has.
fn start(client: &Client, name: &str, command: &[&str], host: Value) {
    let mut body =
        json!({"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none"}});
    let fields = body["HostConfig"].as_object_mut().expect("an object");
    fields.extend(host.as_object().expect("an object").clone());
    ask(client, "POST", &format!("/containers/create?name={name}"), &body);
    ask(client, "POST", &format!("/containers/{name}/start"), &Value::Null);
}

fn run_exec(client: &Client, container: &str, command: &[&str]) -> Value {
    let body = json!({"Cmd": command, "AttachStdout": true});
    let made = ask(client, "POST", &format!("/containers/{container}/exec"), &body);
    let id = made["Id"].as_str().expect("an id").to_owned();
    ask(client, "POST", &format!("/exec/{id}/start"), &json!({}));
    ask(client, "GET", &format!("/exec/{id}/json"), &Value::Null)
}

/// Asks, and leaves the answer to be read.
fn begin(client: &Client, method: &str, path: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&client.0).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the daemon listens");
    stream
}

/// The head of an answer: whoever asked is heard.
fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "it ends within its head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

/// What could be left behind.
fn held(house: &House) -> BTreeMap<&'static str, usize> {
    let entries = |path: &std::path::Path| fs::read_dir(path).map_or(0, Iterator::count);
    let of_daemon = |what: &str| entries(format!("/proc/{}/{what}", house.pid()).as_ref());
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", house.pid())).unwrap_or_default();
    let ours = [house.exec_root(), house.data_root()].map(|root| root.display().to_string());
    let is_ours = |line: &&str| ours.iter().any(|root| line.contains(root.as_str()));
    BTreeMap::from([
        ("descriptors", of_daemon("fd")),
        ("threads", of_daemon("task")),
        ("mounts", mounts.lines().filter(is_ours).count()),
        ("shims", entries(&house.exec_root().join("containers"))),
        ("logs", entries(&house.data_root().join("containers"))),
        ("cgroups", testkit::house::cgroups(&house.cgroup_parent())),
    ])
}

/// Waits until no more is held than before; threads that have nothing to do end after a while.
fn settle(house: &House, before: &BTreeMap<&'static str, usize>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = held(house);
        // What is made in advance: a handful of network namespaces, and threads for them.
        let slack = |what: &str| if matches!(what, "descriptors" | "threads") { 6 } else { 0 };
        let more: Vec<_> =
            now.iter().filter(|(what, count)| before[*what] + slack(what) < **count).collect();
        if more.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {more:?}, before: {before:?}");
        std::thread::yield_now();
    }
}

/// What the daemon has in memory, in KiB.
fn resident(house: &House) -> u64 {
    status(house, "VmRSS")
}

/// A field of `/proc/PID/status`, in KiB.
fn status(house: &House, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", house.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
