//! Streams that end when what they tell of ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use serde_json::json;
use testkit::house::PATIENCE;

use crate::containers::house;

#[test]
fn the_log_so_far_and_nothing_more() {
    let house = house();
    let script = "echo out; echo err >&2; touch /ready; exec sleep 600";
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sh", "-c", script]);
    let logged = || house.ok(&["logs", "ca"]) == "out\n";
    while !logged() {
        std::thread::yield_now();
    }
    let path = "/containers/ca/attach?logs=1&stdout=1&stream=0";
    let answer = house.api("POST", path, None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.body, b"\x01\0\0\0\0\0\0\x04out\n");
    house.ok(&["create", "--name", "cb", "busybox", "true"]);
    assert_eq!(house.api("POST", "/containers/cb/attach?stdout=1", None).body, b"");
}

/// Attaches to the output of a container that is not started yet.
fn attach(house: &testkit::House, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let request = format!(
        "POST /containers/{name}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: gantry\r\n\
         Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the daemon listens");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[test]
fn whoever_saw_the_end_of_the_output_may_ask_for_the_code() {
    let house = house();
    // One ends as programs do, the other has closed its outputs long before.
    for (name, script) in [("ca", "echo out; exit 7"), ("cb", "exec >&- 2>&-; sleep 1; exit 7")] {
        house.ok(&["create", "--name", name, "--network", "none", "busybox", "sh", "-c", script]);
        let mut output = attach(&house, name);
        house.ok(&["start", name]);
        output.read_to_end(&mut Vec::new()).expect("an end");
        let state = &house.api("GET", &format!("/containers/{name}/json"), None).json()["State"];
        assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(7)), "{name}");
    }
}

#[test]
fn a_start_that_fails_lets_its_listeners_go() {
    let house = house();
    house.ok(&["create", "--name", "ca", "--network", "none", "busybox", "/no/such"]);
    let mut output = attach(&house, "ca");
    assert_eq!(house.api("POST", "/containers/ca/start", None).status, 400);
    output.read_to_end(&mut Vec::new()).expect("an end");
    house.ok(&["create", "--name", "cb", "--network", "none", "busybox", "true"]);
    let mut output = attach(&house, "cb");
    house.ok(&["rm", "cb"]);
    output.read_to_end(&mut Vec::new()).expect("an end");
}

#[test]
fn statistics_of_what_is_no_more() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let request = b"GET /containers/ca/stats HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("the daemon listens");
    let mut bytes = [0; 4096];
    assert_ne!(stream.read(&mut bytes).expect("an answer"), 0);
    house.ok(&["rm", "-f", "ca"]);
    let deadline = Instant::now() + PATIENCE;
    while stream.read(&mut bytes).expect("more, or the end") > 0 {
        assert!(Instant::now() < deadline, "it has no end");
    }
}

#[test]
fn an_exec_is_not_left_half_begun() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let made = house.api("POST", "/containers/ca/exec", Some(&json!({"Cmd": ["/no/such"]}))).json();
    let id = made["Id"].as_str().expect("an id");
    let detached = house.api("POST", &format!("/exec/{id}/start"), Some(&json!({"Detach": true})));
    assert_eq!(detached.status, 400, "{}", detached.text());
    let state = house.api("GET", &format!("/exec/{id}/json"), None).json();
    assert_eq!((&state["Running"], &state["ExitCode"]), (&json!(false), &json!(127)));
    assert_eq!(house.api("GET", "/containers/ca/json", None).json()["ExecIDs"], json!(null));
}

#[test]
fn what_everybody_reads_is_readable_whatever_the_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let house = house();
    let files = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
    let mut args = vec!["run", "--rm", "-u", "1000:1000", "busybox", "cat"];
    args.extend(files);
    assert!(house.ok(&args).contains("localhost"));
}

#[test]
fn containers_may_open_as_many_files_as_the_daemon_was_given() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(777), maximum }).expect("a limit");
    let house = house();
    assert_eq!(house.ok(&["run", "--rm", "busybox", "sh", "-c", "ulimit -Sn"]), "777\n");
    let daemon = std::fs::read_to_string(format!("/proc/{}/limits", house.pid())).expect("limits");
    let line = daemon.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let numbers: Vec<&str> = line.split_whitespace().skip(3).collect();
    assert_eq!(numbers[0], numbers[1]);
}

#[test]
fn clients_that_are_gone_are_forgotten() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    house.ok(&["create", "--name", "cb", "--network", "none", "busybox", "sleep", "600"]);
    let descriptors = || {
        let list = std::fs::read_dir(format!("/proc/{}/fd", house.pid())).expect("the daemon runs");
        list.count()
    };
    let attach = |name: &str| {
        let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let path = format!("/containers/{name}/attach?stream=1&stdout=1");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gantry\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the daemon listens");
        assert_ne!(stream.read(&mut [0; 4096]).expect("an answer"), 0);
        stream
    };
    let before = descriptors();
    for name in ["ca", "cb"] {
        // One of them only says that it will not say any more, and goes on listening.
        let silent = attach(name);
        silent.shutdown(std::net::Shutdown::Write).expect("a connection");
        for _ in 0..150 {
            drop(attach(name));
        }
        let deadline = Instant::now() + PATIENCE;
        // The silent one's: two; those that wait for a start are looked at when the next one comes.
        while descriptors() > before + 10 {
            drop(attach(name));
            assert!(Instant::now() < deadline, "{name}: {} before, now {}", before, descriptors());
        }
        house.ok(&["rm", "-f", name]);
        let mut rest = Vec::new();
        let mut silent = silent;
        silent.read_to_end(&mut rest).expect("it hears of the end");
    }
}

/// As Docker's command, which dies of SIGPIPE: `exec ... | head` ends without a word.
#[test]
fn a_reader_who_leaves_is_no_reason_to_complain() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "yes"]);
    for line in
        [&["exec", "ca", "yes"][..], &["attach", "--sig-proxy=false", "ca"], &["logs", "-f", "ca"]]
    {
        let mut child = house
            .gantry(line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("our command");
        let mut first = [0; 2];
        child.stdout.take().expect("piped").read_exact(&mut first).expect("a line");
        assert_eq!(&first, b"y\n", "{line:?}");
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{line:?}");
        assert_eq!(ended.status.code(), Some(141), "{line:?}");
    }
}

/// Who starts an exec says how he is going to read it, whatever it was made with.
#[test]
fn an_exec_is_read_as_its_start_says() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let read = |made: bool, started: bool| {
        let body = json!({ "Cmd": ["echo", "hi"], "AttachStdout": true, "Tty": made });
        let exec = house.api("POST", "/containers/ca/exec", Some(&body)).json();
        let path = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
        house.api("POST", &path, Some(&json!({ "Tty": started }))).body
    };
    assert_eq!(read(false, false), b"\x01\0\0\0\0\0\0\x03hi\n");
    assert_eq!(read(true, false), b"\x01\0\0\0\0\0\0\x04hi\r\n");
    assert_eq!(read(true, true), b"hi\r\n");
    assert_eq!(read(false, true), b"hi\n");
}
