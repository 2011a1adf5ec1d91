//! A10: a client goes away in the middle of an answer, at every place there is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::House;
use testkit::house::PATIENCE;

use super::{bystander, unharmed};
use crate::containers::house;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon runs").count()
}

/// Asks, reads `bytes` of the answer, and is gone.
fn hear(house: &House, request: &str, bytes: usize) -> usize {
    let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    // Some answers say no more after a while; that is as good a place as any.
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a deadline");
    stream.write_all(request.as_bytes()).expect("the daemon listens");
    let mut heard = vec![0; bytes];
    let mut length = 0;
    while length < bytes {
        match stream.read(&mut heard[length..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    length
}

#[test]
fn a10_a_client_may_leave_at_every_byte() {
    let house = house();
    bystander(&house);
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while :; do echo line; sleep .01; done",
    ]);
    let exec = json!({"Cmd": ["sh", "-c", "while :; do echo line; sleep .01; done"], "AttachStdout": true});
    let pid = house.pid();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    let upgrade = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let requests = [
        get("/containers/ca/logs?stdout=1&follow=1"),
        get("/containers/ca/stats"),
        get("/events?since=1"),
        get("/containers/ca/archive?path=/bin"),
        get("/containers/ca/export"),
        get("/images/busybox/get"),
        get("/system/df"),
        upgrade("/containers/ca/attach?stream=1&stdout=1", ""),
        upgrade("/containers/ca/wait", ""),
    ];
    let before = descriptors(pid);
    for request in &requests {
        // Every byte of the head, and then every so often.
        for at in (0..300).step_by(3).chain((300..9000).step_by(700)) {
            if request.contains("/wait") && at > 100 || request.contains("/stats") && at > 900 {
                break;
            }
            let heard = hear(&house, request, at);
            if heard < at {
                // All there is was heard.
                break;
            }
        }
    }
    for at in (0..300).step_by(20) {
        let made = house.api("POST", "/containers/ca/exec", Some(&exec)).json();
        let id = made["Id"].as_str().expect("an id");
        hear(&house, &upgrade(&format!("/exec/{id}/start"), "{}"), at);
    }
    unharmed(&house, pid);
    // An exec that nobody hears goes on, as it does in Docker: its container ends it.
    house.ok(&["rm", "-f", "ca"]);
    let deadline = Instant::now() + PATIENCE;
    while descriptors(pid) > before + 4 {
        assert!(Instant::now() < deadline, "{before} descriptors before, now {}", descriptors(pid));
        park_timeout(Duration::from_millis(20));
    }
    unharmed(&house, pid);
}
