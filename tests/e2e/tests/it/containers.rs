//! The life of a container, verb by verb.

use std::io::{Read, Write};

use serde_json::json;
use testkit::House;
use testkit::house::{shown, succeed};

/// A daemon that has a busybox.
pub(crate) fn house() -> House {
    house_with(&[])
}

pub(crate) fn house_with(flags: &[&str]) -> House {
    let house = House::with(flags);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

fn state(house: &House, name: &str) -> String {
    house.ok(&["inspect", "-f", "{{.State.Status}}", name]).trim().to_owned()
}

#[test]
fn from_created_to_removed() {
    let house = house();
    house.ok(&[
        "create",
        "--name",
        "ca",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; touch /ready; while :; do sleep 1; done",
    ]);
    assert_eq!(state(&house, "ca"), "created");
    assert_eq!(house.ok(&["ps", "-q"]), "");
    house.ok(&["start", "ca"]);
    assert_eq!(state(&house, "ca"), "running");
    house.ok(&["pause", "ca"]);
    assert_eq!(state(&house, "ca"), "paused");
    let refused = house.docker(&["exec", "ca", "true"]).output().expect("docker");
    assert!(
        shown(&refused).contains("is paused, unpause the container before exec"),
        "{}",
        shown(&refused)
    );
    house.ok(&["unpause", "ca"]);
    house.ok(&["exec", "ca", "sh", "-c", "until [ -e /ready ]; do usleep 1000; done"]);
    let refused = house.docker(&["rm", "ca"]).output().expect("docker");
    assert!(
        shown(&refused).contains("cannot remove container \"/ca\": container is running: stop the container before removing or force remove"),
        "{}",
        shown(&refused)
    );
    house.ok(&["rename", "ca", "cb"]);
    house.ok(&["stop", "-t", "20", "cb"]);
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.ExitCode}}", "cb"]).trim(), "7");
    house.ok(&["start", "cb"]);
    house.ok(&["restart", "-t", "0", "cb"]);
    assert_eq!(state(&house, "cb"), "running");
    house.ok(&["kill", "cb"]);
    assert_eq!(house.ok(&["wait", "cb"]), "137\n");
    house.ok(&["rm", "cb"]);
    assert_eq!(house.ok(&["ps", "-aq"]), "");
    assert_eq!(house.api("GET", "/containers/cb/json", None).status, 404);
}

#[test]
fn exec_joins() {
    let house = house();
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "none",
        "-e",
        "X=1",
        "busybox",
        "sleep",
        "600",
    ]);
    assert_eq!(
        house.ok(&["exec", "-e", "Y=2", "-w", "/tmp", "ca", "sh", "-c", "echo $X $Y $PWD"]),
        "1 2 /tmp\n"
    );
    let code = house.docker(&["exec", "ca", "sh", "-c", "exit 5"]).status().expect("docker");
    assert_eq!(code.code(), Some(5));
    let missing = house.docker(&["exec", "ca", "nosuch"]).output().expect("docker");
    assert_eq!(missing.status.code(), Some(127), "{}", shown(&missing));
    assert_eq!(house.ok(&["exec", "-u", "nobody", "ca", "id", "-un"]).trim(), "nobody");
    assert_eq!(house.ok(&["exec", "-t", "ca", "tty"]), "/dev/pts/0\r\n");
    // Whoever has read the output to its end may ask for the code.
    let mut id = String::new();
    for _ in 0..20 {
        let command = json!({ "Cmd": ["sh", "-c", "exit 7"], "AttachStdout": true });
        let made = house.api("POST", "/containers/ca/exec", Some(&command)).json();
        id = made["Id"].as_str().expect("an id").to_owned();
        house.api("POST", &format!("/exec/{id}/start"), Some(&json!({})));
        let state = house.api("GET", &format!("/exec/{id}/json"), None).json();
        assert_eq!((&state["ExitCode"], &state["Running"]), (&json!(7), &json!(false)));
    }
    let top = house.ok(&["top", "ca"]);
    assert!(top.contains("sleep 600"), "{top}");
    house.ok(&["rm", "-f", "ca"]);
    assert_eq!(house.api("GET", &format!("/exec/{id}/json"), None).status, 404);
}

#[test]
fn logs_are_kept() {
    let house = house();
    house.ok(&[
        "run",
        "--name",
        "ca",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo line $i; done; echo last >&2",
    ]);
    let all = succeed(house.docker(&["logs", "ca"]));
    assert_eq!(all, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(house.ok(&["logs", "--tail", "2", "ca"]), "line 5\n");
    let stamped = house.ok(&["logs", "-t", "--tail", "2", "ca"]);
    assert_eq!(
        stamped.split(' ').next().map(str::len),
        Some("2026-11-21T10:00:00.000000000Z".len()),
        "{stamped}"
    );
    house.ok(&[
        "run",
        "-d",
        "--name",
        "cb",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 1 2000); do echo $i; done",
    ]);
    let followed = house.ok(&["logs", "-f", "cb"]);
    assert_eq!(followed.lines().count(), 2000);
    let small = house.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=2",
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 1 5000); do echo number $i; done",
    ]);
    house.ok(&["wait", small.trim()]);
    let kept = house.ok(&["logs", small.trim()]);
    assert!(
        kept.ends_with("number 5000\n") && kept.lines().count() < 5000,
        "{} lines",
        kept.lines().count()
    );
}

#[test]
fn restart_policies_restart() {
    let house = house();
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "none",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "exit 4",
    ]);
    // A wait ends with each exit, the last of which is told again.
    while state(&house, "ca") != "exited" {
        assert_eq!(house.ok(&["wait", "ca"]), "4\n");
    }
    assert_eq!(house.ok(&["inspect", "-f", "{{.RestartCount}}", "ca"]), "2\n");
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
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "cb"]);
    let pid =
        rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("not zero");
    let mut events = house.docker(&[
        "events",
        "--since",
        "0",
        "--filter",
        "container=cb",
        "--filter",
        "event=start",
        "--format",
        "{{.Action}}",
    ]);
    let mut events = events.stdout(std::process::Stdio::piped()).spawn().expect("docker");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().expect("a pipe")));
    assert_eq!(lines.next().expect("the first start").expect("utf-8"), "start");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    assert_eq!(lines.next().expect("the second start").expect("utf-8"), "start");
    events.kill().expect("it runs");
    events.wait().expect("it ends");
    house.ok(&["stop", "-t", "0", "cb"]);
    assert_eq!(state(&house, "cb"), "exited");
}

#[test]
fn names_and_ids() {
    let house = house();
    let id = house.ok(&["create", "--name", "web", "busybox", "true"]);
    let id = id.trim();
    assert_eq!(house.ok(&["inspect", "-f", "{{.Id}}", &id[..10]]).trim(), id);
    let taken =
        house.docker(&["create", "--name", "web", "busybox", "true"]).output().expect("docker");
    assert!(
        shown(&taken).contains(&format!(
            "The container name \"/web\" is already in use by container \"{id}\""
        )),
        "{}",
        shown(&taken)
    );
    let prefix =
        house.docker(&["create", "--name", &id[..12], "busybox", "true"]).output().expect("docker");
    assert!(!prefix.status.success());
    assert_eq!(
        house.ok(&[
            "ps",
            "-a",
            "--filter",
            "name=web",
            "--format",
            "{{.Names}} {{.Status}} {{.Image}}"
        ]),
        "web Created busybox\n"
    );
}

#[test]
fn removal_on_exit_waits_for_nobody() {
    let house = house();
    for _ in 0..10 {
        assert_eq!(house.ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi\n");
    }
    assert_eq!(house.ok(&["ps", "-aq"]), "");
}

#[test]
fn events_are_told_in_order() {
    let house = house();
    house.ok(&["run", "--rm", "--name", "told", "--network", "none", "busybox", "true"]);
    let now = now();
    let told = house.ok(&[
        "events",
        "--since",
        "0",
        "--until",
        // Whole seconds, as durations are sent, would end before what has just happened.
        &now,
        "--filter",
        "container=told",
        "--format",
        "{{.Action}}",
    ]);
    let words: Vec<&str> = told.lines().collect();
    assert_eq!(words, ["create", "attach", "start", "die", "destroy"]);
}

#[test]
fn events_of_an_end_that_is_asked_for() {
    let house = house();
    let script = "trap 'exit 3' TERM; touch /ready; while :; do sleep .1; done";
    let args =
        ["run", "-d", "--name", "ca", "--network", "none", "-v", "data:/d:ro", "-v", "/tmp:/t"];
    house.ok(&[&args[..], &["busybox", "sh", "-c", script]].concat());
    let ready = ["exec", "ca", "sh", "-c", "until [ -e /ready ]; do sleep .1; done"];
    house.ok(&ready);
    house.ok(&["restart", "ca"]);
    house.ok(&ready);
    house.ok(&["stop", "ca"]);
    house.ok(&["start", "ca"]);
    house.ok(&["rm", "-f", "ca"]);
    house.ok(&["container", "prune", "-f"]);
    house.ok(&["volume", "prune", "-f"]);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is late");
    let now = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.signal}}{{.Actor.Attributes.exitCode}}";
    let told = house.ok(&["events", "--since", "0", "--until", &now, "--format", format]);
    let words: Vec<String> = told
        .lines()
        .map(|line| line.replace("<no value>", "").trim().to_owned())
        .filter(|line| !["exec_", "image", "network"].iter().any(|word| line.contains(word)))
        .collect();
    let up = ["volume mount", "container start"];
    let down = |signal: &'static str, end: &'static str| [signal, "volume unmount", end];
    let asked = down("container kill 15", "container die 3");
    let mut expected = vec!["volume create", "container create"];
    expected.extend(up);
    expected.extend(asked);
    expected.push("container stop");
    expected.extend(up);
    expected.push("container restart");
    expected.extend(asked);
    expected.push("container stop");
    expected.extend(up);
    expected.extend(down("container kill 9", "container die 137"));
    expected.extend(["container destroy", "container prune", "volume prune"]);
    assert_eq!(words, expected);
    let one = ["events", "--since", "0", "--until", &now, "--filter", "event=mount"];
    let mount = house.ok(&[&one[..], &["--format", "{{json .Actor.Attributes}}"]].concat());
    let mount: serde_json::Value =
        serde_json::from_str(mount.lines().next().expect("a line")).expect("JSON");
    let id = house.api("GET", "/volumes/data", None).json();
    assert_eq!(id["Name"], "data");
    assert_eq!(
        (&mount["destination"], &mount["read/write"], &mount["driver"]),
        (&"/d".into(), &"false".into(), &"local".into()),
    );
}

/// For `events --until`.
pub(crate) fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("it is late");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[test]
fn a_signal_is_told_before_the_end_it_brings() {
    let house = house();
    house.ok(&["create", "--name", "ca", "--network", "none", "busybox", "sleep", "1000"]);
    let rounds = 25;
    for _ in 0..rounds {
        assert_eq!(house.api("POST", "/containers/ca/start", None).status, 204);
        assert_eq!(house.api("POST", "/containers/ca/kill", None).status, 204);
    }
    let filters = ["--filter", "event=kill", "--filter", "event=die", "--format", "{{.Action}}"];
    let told = house.ok(&[&["events", "--since", "0", "--until", &now()][..], &filters].concat());
    assert_eq!(told, "kill\ndie\n".repeat(rounds));
}

#[test]
fn changes_and_export() {
    let house = house();
    house.ok(&[
        "run",
        "--name",
        "ca",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo x >/etc/new; rm /bin/yes",
    ]);
    let changes = house.ok(&["diff", "ca"]);
    let mut lines: Vec<&str> = changes.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /etc/new", "C /bin", "C /etc", "D /bin/yes"]);
    let tar = house.docker(&["export", "ca"]).output().expect("docker").stdout;
    let names: Vec<String> = tar::names(&tar);
    assert!(
        names.contains(&"etc/new".to_owned()) && !names.contains(&"bin/yes".to_owned()),
        "{names:?}"
    );
}

mod tar {
    /// The names in an archive, by a program that is not ours.
    pub(super) fn names(archive: &[u8]) -> Vec<String> {
        use std::io::Write;
        let mut child = std::process::Command::new("tar")
            .arg("-t")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("tar");
        let mut input = child.stdin.take().expect("a pipe");
        let archive = archive.to_vec();
        let feeding = std::thread::spawn(move || input.write_all(&archive));
        let output = child.wait_with_output().expect("it ends");
        feeding.join().expect("no panic").expect("tar reads all of it");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|name| name.trim_start_matches("./").to_owned())
            .collect()
    }
}

/// docker-py reads the head through a buffer and what follows around it: nothing may come together with the head.
#[test]
fn the_head_of_a_taken_connection_comes_alone() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let body = json!({"Cmd": ["echo", "x"], "AttachStdout": true});
    let made = house.api("POST", "/containers/ca/exec", Some(&body)).json();
    let mut stream =
        std::os::unix::net::UnixStream::connect(house.socket()).expect("the socket is there");
    let body = json!({"Tty": false, "Detach": false}).to_string();
    let head = format!(
        "POST /exec/{}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        made["Id"].as_str().expect("an id"),
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it listens");
    // A client that is not quick; the program has long run.
    std::thread::park_timeout(std::time::Duration::from_millis(50));
    let mut first = vec![0; 65536];
    let count = stream.read(&mut first).expect("an answer");
    let first = String::from_utf8_lossy(&first[..count]).into_owned();
    assert!(first.starts_with("HTTP/1.1 101 ") && first.ends_with("\r\n\r\n"), "{first:?}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the output");
    assert_eq!(rest, b"\x01\0\0\0\0\0\0\x02x\n");
    house.ok(&["rm", "-f", "ca"]);
}
