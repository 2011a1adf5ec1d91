//! L4, L5: clients that stand still, and what they cost: themselves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;
use testkit::House;
use testkit::house::{PATIENCE, shown};
use testkit::terminal::Terminal;

use crate::containers::house;

/// Asks, and reads nothing.
fn ask(house: &House, method: &str, path: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: gantry\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the daemon listens");
    stream
}

/// Sixty-four, of every kind that has something to hear of a container.
fn stalled(house: &House, name: &str) -> Vec<UnixStream> {
    let attach = format!("/containers/{name}/attach?stream=1&stdout=1&stderr=1");
    let logs = format!("/containers/{name}/logs?follow=1&stdout=1&stderr=1");
    let stats = format!("/containers/{name}/stats");
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(ask(house, "POST", &attach, ""));
        clients.push(ask(house, "GET", &logs, ""));
    }
    for _ in 0..8 {
        clients.push(ask(house, "GET", "/events", ""));
        clients.push(ask(house, "GET", &stats, ""));
        let body = json!({ "AttachStdout": true, "Cmd": ["cat", "/dev/zero"] });
        let exec = house.api("POST", &format!("/containers/{name}/exec"), Some(&body)).json();
        let start = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
        clients.push(ask(house, "POST", &start, "{}"));
        clients.push(ask(house, "GET", &format!("/containers/{name}/export"), ""));
    }
    assert_eq!(clients.len(), 64);
    clients
}

/// Waits to be told, then says so many MiB; waits again, and says how it went.
fn speaker(house: &House, name: &str, mebibytes: u32) {
    let command = format!(
        "mkfifo /go /end; read word < /go; yes {} | head -c {mebibytes}m; read word < /end; echo end; exit 3",
        "x".repeat(63)
    );
    house.ok(&["run", "-d", "--name", name, "--network", "none", "busybox", "sh", "-c", &command]);
}

/// Returns when it has been heard; whoever tells of the end may go with the container.
fn tell(house: &House, name: &str, fifo: &str) {
    let wait = format!("until [ -p /end ]; do usleep 1000; done; echo word > {fifo}");
    house.docker(&["exec", name, "sh", "-c", &wait]).output().expect("docker");
}

/// Memory of its own that a process has.
fn own_memory(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let of = |field: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(field)).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    (of("Private_Dirty:") + of("Private_Clean:")) << 10
}

fn shim_of(house: &House, name: &str) -> String {
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("PPid:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").to_owned()
}

#[test]
fn l4_sixty_four_that_stand_still() {
    let house = house();
    speaker(&house, "speaker", 8);
    let mut clients = stalled(&house, "speaker");
    let shim = shim_of(&house, "speaker");
    let begin = Instant::now();
    tell(&house, "speaker", "/go");
    // Whoever opens this has waited until all was said, and before he writes it is not the end.
    let wait = "exec 3>/end; echo said; read word; echo word >&3";
    let mut end = house.docker(&["exec", "-i", "speaker", "sh", "-c", wait]);
    let mut end = end.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker");
    end.stdout.take().expect("a pipe").read_exact(&mut [0; 5]).expect("all is said");
    // What its clients have not taken is held by their rings, and by nothing else.
    let held = own_memory(&shim);
    assert!(held < 48 << 20, "{held} bytes");
    end.stdin.take().expect("a pipe").write_all(b"go\n").expect("it reads");
    // By itself, or with its container.
    end.wait().expect("it ends");
    assert_eq!(house.ok(&["wait", "speaker"]).trim(), "3");
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(house.ok(&["logs", "--tail", "1", "speaker"]), "end\n");
    // Who attached gets what was queued, is told what it has missed, and then the end.
    let mut heard = Vec::new();
    clients[0].read_to_end(&mut heard).expect("an end");
    let text = String::from_utf8_lossy(&heard);
    assert!(
        text.contains("overrun: ") && text.trim_end().ends_with("bytes lost"),
        "{}",
        heard.len()
    );
    // Who follows the log misses nothing, whenever it reads.
    let mut log = Vec::new();
    clients[1].read_to_end(&mut log).expect("an end");
    assert!(log.windows(4).any(|window| window == b"end\n"), "{}", log.len());
}

/// The whole of it, which takes minutes: `cargo nextest run -p e2e --run-ignored all --no-capture l4_full_size`, with a release
/// binary in `GANTRY`, on a machine that does nothing else. `GIB` says how much, 10 where it says nothing.
#[test]
#[ignore = "minutes, and only worth something on a quiet machine"]
fn l4_full_size() {
    #[allow(clippy::disallowed_methods, reason = "tests are told by their environment what to do")]
    let gib: u32 = std::env::var("GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let house = house();
    let timed = |name: &str, clients: bool| {
        speaker(&house, name, gib << 10);
        let clients = if clients { stalled(&house, name) } else { Vec::new() };
        // What execs of theirs do is not what is measured.
        let shim = shim_of(&house, name);
        let begin = Instant::now();
        tell(&house, name, "/go");
        tell(&house, name, "/end");
        assert_eq!(house.ok(&["wait", name]).trim(), "3");
        let taken = begin.elapsed();
        drop(clients);
        println!("{name}: {taken:?}, shim {shim}");
        house.ok(&["rm", "-f", name]);
        taken.as_secs_f64()
    };
    let free = timed("free", false);
    let held = timed("held", true);
    assert!(held <= free / 0.95, "{free} s alone, {held} s with 64 clients that stand still");
}

/// As in any pipe: `docker exec db dump | gzip`.
#[test]
fn who_has_it_run_gets_all_of_it() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let runs: [&[&str]; 2] = [&["run", "--rm", "--network", "none", "busybox"], &["exec", "ca"]];
    for run in runs {
        let mut child = house
            .docker(&[run, &["head", "-c", "64m", "/dev/zero"]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker");
        let mut output = child.stdout.take().expect("a pipe");
        // Slower than whoever speaks.
        let (mut all, mut piece) = (0, [0; 512]);
        loop {
            match output.read(&mut piece).expect("a pipe") {
                0 => break,
                count => all += count,
            }
        }
        assert_eq!((all, child.wait().expect("it ends").code()), (64 << 20, Some(0)), "{run:?}");
    }
    house.ok(&["rm", "-f", "ca"]);
}

/// A container goes on without one who takes nothing for half a minute: he has lost his stream, and hears of it. Who comes late
/// to what has ended finds all of it.
#[test]
fn who_stands_still_for_too_long_is_told() {
    let house = house();
    let docker: fn(&House, &[&str]) -> Command = |house, args| house.docker(args);
    let ours: fn(&House, &[&str]) -> Command = |house, args| house.gantry(args);
    let run = |client: fn(&House, &[&str]) -> Command, bytes: &str| {
        let words = ["run", "--network", "none", "busybox", "head", "-c"];
        let mut command = client(&house, &[&words[..], &[bytes, "/dev/zero"]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is installed")
    };
    let late = [docker, ours].map(|client| run(client, "1500k"));
    let still = [docker, ours].map(|client| run(client, "8m"));
    let told = ["events", "--since", "0", "--filter", "event=die", "--format", "{{.Action}}"];
    let mut events = house.docker(&told).stdout(Stdio::piped()).spawn().expect("docker");
    events.stdout.take().expect("a pipe").read_exact(&mut [0; 4 * 4]).expect("four ends");
    events.kill().expect("it runs");
    events.wait().expect("it ends");
    for child in late {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.stdout.len(), output.status.code()), (1500 << 10, Some(0)));
    }
    for (child, code) in still.into_iter().zip([0, 125]) {
        let output = child.wait_with_output().expect("it ends");
        let words = String::from_utf8_lossy(&output.stderr);
        let lost = words.split_once("overrun: ").and_then(|(_, rest)| rest.split(' ').next());
        let lost: usize = lost.and_then(|count| count.parse().ok()).expect("a count");
        assert_eq!(output.stdout.len() + lost, 8 << 20);
        // The container's own code is what docker's command has heard first.
        assert_eq!(output.status.code(), Some(code), "{words}");
    }
}

#[test]
fn the_end_of_input_is_not_the_end_of_output() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    // What comes after the end of input arrives, all of it.
    let command = "cat > /dev/null; seq 1 20000; exit 4";
    let mut child = house
        .docker(&["exec", "-i", "ca", "sh", "-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker");
    child.stdin.take().expect("a pipe").write_all(&vec![b'x'; 1 << 20]).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("19999\n20000\n"));
    house.ok(&["rm", "-f", "ca"]);
}

#[test]
fn several_at_one_terminal() {
    let house = house();
    house.ok(&["run", "-dit", "--name", "ca", "--network", "none", "busybox", "sh"]);
    let mut one = Terminal::spawn(&house.docker(&["attach", "ca"]), 30, 100);
    let mut other =
        Terminal::spawn(&house.docker(&["attach", "--detach-keys", "ctrl-x,x", "ca"]), 40, 120);
    // Whoever has come is shown the prompt again; nobody is told what was said before.
    one.wait_for("# ");
    other.wait_for("# ");
    // Both see what either types.
    one.type_in("echo from-$((40+2))-one\r");
    one.wait_for("from-42-one");
    other.wait_for("from-42-one");
    other.type_in("echo from-$((40+3))-other\r");
    one.wait_for("from-43-other");
    // One parts, by keys of its own; the other stays, and so does the shell.
    other.type_in("\u{18}x");
    other.wait_for("read escape sequence");
    one.type_in("echo still-$((40+4))\r");
    one.wait_for("still-44");
    one.resize(50, 132);
    one.type_in("stty size\r");
    let begin = Instant::now();
    // The size arrives by another connection.
    while !one.wait_for("\n").contains("50 132") {
        assert!(begin.elapsed() < PATIENCE);
        one.type_in("stty size\r");
    }
    one.type_in("\u{10}\u{11}");
    one.wait_for("read escape sequence");
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "ca"]).trim(), "true");
    // An exec has keys, too, and goes on without its client.
    let exec = house.docker(&["exec", "-it", "--detach-keys", "ctrl-a", "ca", "sh"]);
    let mut exec = Terminal::spawn(&exec, 24, 80);
    exec.type_in("stty size; echo ready-$((1+1))\r");
    assert!(exec.wait_for("ready-2").contains("24 80"));
    exec.type_in("\u{1}");
    exec.wait_for("read escape sequence");
    house.ok(&["rm", "-f", "ca"]);
}
