//! F17: a daemon that stands still for a while finds everything as it left it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::park_timeout;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::house::PATIENCE;

use crate::containers::house;

use super::until;

/// Longer than a health check may take, and than its interval; a minute would show no more.
const STANDSTILL: Duration = Duration::from_secs(6);

#[test]
fn f17_a_daemon_that_stood_still() {
    let house = house();
    let health = [
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "--health-timeout",
        "5s",
        "--health-retries",
        "1",
    ];
    let run = ["run", "-d", "--name", "ca", "--network", "none", "--health-on-failure", "kill"];
    let chat = ["busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done"];
    let made = house.gantry(&[&run[..], &health, &chat].concat()).output().expect("gantry");
    assert!(made.status.success(), "{}", testkit::house::shown(&made));
    house.ok(&[
        "run",
        "-d",
        "--name",
        "cb",
        "--network",
        "none",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "600",
    ]);
    let state = |name: &str| {
        house.ok(&["inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}", name])
    };
    let healthy = || house.ok(&["inspect", "-f", "{{.State.Health.Status}}", "ca"]) == "healthy\n";
    until("it is healthy", healthy);
    let last_look = || {
        let log =
            house.api("GET", "/containers/ca/json", None).json()["State"]["Health"]["Log"].clone();
        let last = log.as_array().and_then(|log| log.last()?["Start"].as_str().map(str::to_owned));
        stdx::time::Timestamp::parse(&last.expect("a look")).expect("a time")
    };
    let before = [state("ca"), state("cb")];
    let mut events = UnixStream::connect(house.socket()).expect("the daemon listens");
    events.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    events.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").expect("the daemon listens");
    let daemon = Pid::from_raw(house.pid() as i32).expect("it runs");
    kill_process(daemon, Signal::STOP).expect("it runs");
    let lines = || {
        std::fs::read_dir(house.data_root().join("containers"))
            .expect("a directory")
            .flatten()
            .flat_map(|dir| std::fs::read_dir(dir.path()).into_iter().flatten().flatten())
            .filter_map(|file| file.metadata().ok())
            .map(|meta| meta.len())
            .sum::<u64>()
    };
    let then = lines();
    let client = house.client_of_api();
    let waiting = std::thread::spawn(move || {
        client.ask("GET", "/_ping", None).expect("an answer in the end").status
    });
    park_timeout(STANDSTILL);
    let woken = stdx::time::Timestamp::now();
    assert!(lines() > then, "its containers go on without it");
    kill_process(daemon, Signal::CONT).expect("it runs");
    assert_eq!(waiting.join().expect("a client"), 200);
    until("it is looked at again", || last_look() > woken);
    assert!(healthy(), "{}", house.ok(&["inspect", "-f", "{{json .State.Health}}", "ca"]));
    assert_eq!([state("ca"), state("cb")], before);
    // Who listened all the time still does.
    house.ok(&["pause", "cb"]);
    let mut heard = String::new();
    let mut bytes = [0; 4096];
    while !heard.contains("\"pause\"") {
        let count = events.read(&mut bytes).expect("events");
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    house.ok(&["unpause", "cb"]);
}
