//! Health checks: what they make of a container, what they leave in it, and what becomes of one that fails them.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::House;
use testkit::house::{shown, succeed};

use crate::containers::house;

/// `docker events`, from now on, a word a line.
struct Events {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn of(house: &House, filters: &[&str]) -> Self {
        // What happens before the client is heard is told, too.
        Self::since(house, SystemTime::now(), filters)
    }

    fn since(house: &House, moment: SystemTime, filters: &[&str]) -> Self {
        let mut args = vec!["events", "--format", "{{.Action}}"];
        filters.iter().for_each(|filter| args.extend(["--filter", filter]));
        let moment = moment.duration_since(UNIX_EPOCH).expect("a clock that is set");
        let since = format!("{}.{:09}", moment.as_secs(), moment.subsec_nanos());
        args.extend(["--since", &since]);
        let mut child =
            house.docker(&args).stdout(Stdio::piped()).spawn().expect("docker can be executed");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().expect("events do not end").expect("events are text")
    }

    fn until(&mut self, wanted: &str) {
        while self.next() != wanted {}
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn health(house: &House, name: &str) -> Value {
    let text = house.ok(&["inspect", "-f", "{{json .State.Health}}", name]);
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn well_and_ill_again() {
    let mut house = house();
    let mut events = Events::of(&house, &["event=health_status"]);
    let check = ["--health-cmd", "cat /ok", "--health-interval", "100ms", "--health-retries", "2"];
    let run = [&["run", "-d", "--name", "well"][..], &check, &["busybox", "sleep", "600"]].concat();
    house.ok(&run);
    let begun = health(&house, "well");
    assert!(begun["Status"] == "starting" || begun["Status"] == "unhealthy", "{begun}");
    assert_eq!(events.next(), "health_status: unhealthy");
    let ill = health(&house, "well");
    assert!(ill["FailingStreak"].as_i64() >= Some(2), "{ill}");
    let last = &ill["Log"][0];
    assert_eq!(last["ExitCode"], 1);
    assert_eq!(last["Output"], "cat: can't open '/ok': No such file or directory\n");
    assert!(last["Start"].as_str() < last["End"].as_str(), "{last}");
    let listed = |filter: &str| house.ok(&["ps", "--filter", filter, "--format", "{{.Status}}"]);
    assert!(listed("health=unhealthy").trim().ends_with("(unhealthy)"));
    assert_eq!(listed("health=healthy"), "");
    assert_eq!(listed("health=none"), "");
    let refused = house.docker(&["ps", "--filter", "health=fine"]).output().expect("docker");
    let words =
        "invalid value for health (fine): must be one of none, starting, healthy, unhealthy";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));

    house.ok(&["exec", "well", "touch", "/ok"]);
    assert_eq!(events.next(), "health_status: healthy");
    let summary = house.api("GET", "/containers/json", None).json()[0]["Health"].clone();
    assert_eq!(summary, json!({"Status": "healthy", "FailingStreak": 0}));
    // Without its daemon a container is neither asked nor forgotten.
    drop(events);
    house.kill();
    house.start();
    assert_eq!(health(&house, "well")["Status"], "healthy");
    assert!(health(&house, "well")["Log"].as_array().is_some_and(|log| !log.is_empty()));
    let mut events = Events::of(&house, &["event=health_status"]);
    house.ok(&["exec", "well", "rm", "/ok"]);
    assert_eq!(events.next(), "health_status: unhealthy");
    assert!(health(&house, "well")["Log"].as_array().is_some_and(|log| log.len() <= 5));

    house.ok(&["exec", "well", "touch", "/ok"]);
    assert_eq!(events.next(), "health_status: healthy");
    house.ok(&["pause", "well"]);
    assert_eq!(health(&house, "well")["Status"], "unhealthy");
    house.ok(&["unpause", "well"]);
    events.until("health_status: healthy");
    house.ok(&["stop", "-t", "0", "well"]);
    assert_eq!(health(&house, "well")["Status"], "unhealthy");
    let finished = house.api("GET", "/containers/json?all=1", None).json()[0]["Health"].clone();
    assert_eq!(finished["Status"], "none");
}

/// A daemon that finds a container believes what the one before knew, and asks soon: not when the next probe would be due.
#[test]
fn a_daemon_that_wakes_asks_soon() {
    let mut house = house();
    let mut events = Events::of(&house, &["event=health_status"]);
    let once_an_hour = [
        "--health-interval=1h",
        "--health-start-period=1h",
        "--health-start-interval=50ms",
        "--health-retries=1",
    ];
    let run = ["run", "-d", "--name", "well", "--health-cmd", "test ! -e /ill"];
    house.ok(&[&run[..], &once_an_hour, &["busybox", "sleep", "600"]].concat());
    assert_eq!(events.next(), "health_status: healthy");
    house.ok(&["exec", "well", "touch", "/ill"]);
    drop(events);
    house.kill();
    let woken = SystemTime::now();
    house.start();
    let mut events = Events::since(&house, woken, &["event=health_status"]);
    assert_eq!(events.next(), "health_status: unhealthy");
}

#[test]
fn a_probe_leaves_nothing() {
    let house = house();
    let mut events = Events::of(&house, &["event=health_status", "event=exec_die"]);
    let line = "echo begun; sleep 6000 & sleep 6000";
    house.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--health-cmd",
        line,
        "--health-interval",
        "50ms",
        "--health-timeout",
        "200ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "600",
    ]);
    events.until("exec_die");
    events.until("health_status: unhealthy");
    // One may be ended before it has said a word.
    let said = loop {
        let ill = health(&house, "slow");
        let last = ill["Log"].as_array().and_then(|log| log.last()).expect("a probe").clone();
        assert_eq!(last["ExitCode"], -1);
        let output = last["Output"].as_str().expect("text").to_owned();
        if output != "Health check exceeded timeout (200ms)" {
            break output;
        }
        events.until("exec_die");
    };
    assert_eq!(said, "Health check exceeded timeout (200ms): begun\n");
    for _ in 0..3 {
        events.until("exec_die");
    }
    // The container's own process, and of the many that were begun the one that runs now, perhaps: a shell and two sleeps.
    let top = house.ok(&["top", "slow", "-o", "pid,args"]);
    assert!(top.lines().count() <= 1 + 1 + 3, "{top}");

    let big = "yes 0123456789 | head -c 10000; exit 3";
    house.ok(&[
        "run",
        "-d",
        "--name",
        "loud",
        "--health-cmd",
        big,
        "--health-interval",
        "50ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "600",
    ]);
    events.until("health_status: unhealthy");
    let loud = health(&house, "loud");
    assert_eq!(loud["Log"][0]["ExitCode"], 3);
    let output = loud["Log"][0]["Output"].as_str().expect("text");
    assert_eq!((output.len(), output.ends_with("...")), (4099, true));
    let missing = json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "Healthcheck": {"Test": ["CMD", "/nosuch"], "Interval": 50_000_000, "Retries": 1},
    });
    house.api("POST", "/containers/create?name=missing", Some(&missing));
    house.ok(&["start", "missing"]);
    events.until("health_status: unhealthy");
    let words = health(&house, "missing")["Log"][0]["Output"].as_str().expect("text").to_owned();
    assert!(
        words.contains("exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        "{words}"
    );
}

#[test]
fn an_images_own_check() {
    let house = house();
    let change = "HEALTHCHECK --interval=50ms --retries=1 CMD test -e /ok";
    house.ok(&["run", "--name", "base", "busybox", "true"]);
    let export = house.path("tree.tar");
    house.ok(&["export", "-o", export.to_str().expect("UTF-8"), "base"]);
    house.ok(&["import", "-c", change, export.to_str().expect("UTF-8"), "checked"]);
    let mut events = Events::of(&house, &["event=health_status"]);
    house.ok(&["run", "-d", "--name", "own", "checked", "sh", "-c", "touch /ok; exec sleep 600"]);
    events.until("health_status: healthy");
    house.ok(&["run", "-d", "--name", "less", "--health-cmd", "false", "checked", "sleep", "600"]);
    assert_eq!(
        house.ok(&["inspect", "-f", "{{json .Config.Healthcheck}}", "less"]),
        "{\"Test\":[\"CMD-SHELL\",\"false\"],\"Interval\":50000000,\"Retries\":1}\n"
    );
    events.until("health_status: unhealthy");
    house.ok(&["run", "-d", "--name", "none", "--no-healthcheck", "checked", "sleep", "600"]);
    assert_eq!(health(&house, "none"), Value::Null);
    assert_eq!(house.ok(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]), "none\n");
}

#[test]
fn what_becomes_of_the_ill() {
    let house = house();
    let ill = |name: &str, action: &str, policy: &str| {
        let on_failure = format!("--health-on-failure={action}");
        let restart = format!("--restart={policy}");
        let args = [
            "run",
            "-d",
            "--name",
            name,
            &on_failure,
            &restart,
            "--health-cmd",
            "test ! -e /ill",
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
            "busybox",
            "sh",
            "-c",
            "rm -f /ill; while sleep 0.1; do :; done",
        ];
        succeed(house.gantry(&args));
        let filter = format!("container={name}");
        let mut events = Events::of(&house, &[&filter]);
        events.until("health_status: healthy");
        house.ok(&["exec", name, "touch", "/ill"]);
        events.until("health_status: unhealthy");
        events
    };
    let mut events = ill("restarted", "restart", "no");
    events.until("die");
    events.until("restart");
    events.until("health_status: healthy");
    let mut events = ill("stopped", "stop", "always");
    events.until("stop");
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Status}}", "stopped"]), "exited\n");
    let mut events = ill("killed", "kill", "always");
    events.until("kill");
    events.until("die");
    events.until("start");
    events.until("health_status: healthy");
    assert_eq!(house.ok(&["inspect", "-f", "{{.RestartCount}}", "killed"]), "1\n");
    let refused = house
        .gantry(&["create", "--health-on-failure", "pray", "--health-cmd", "x", "busybox"])
        .output()
        .expect("it can be executed");
    let words = "invalid OnFailure in Healthcheck (pray): must be one of none, restart, stop, kill";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
}
