//! `docker run`, as scripts use it: output, exit codes, input, environment, limits.

use std::io::Write;
use std::process::{Output, Stdio};

use testkit::House;
use testkit::house::{shown, succeed};

use crate::containers::house;

fn run(house: &House, args: &[&str]) -> Output {
    let args: Vec<&str> =
        ["run", "--rm", "--network", "none"].into_iter().chain(args.iter().copied()).collect();
    house.docker(&args).output().expect("docker can be executed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn output_and_exit_codes() {
    let house = house();
    let both = run(&house, &["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(
        (both.status.code(), stdout(&both).as_str()),
        (Some(3), "out\n"),
        "{}",
        shown(&both)
    );
    assert_eq!(String::from_utf8_lossy(&both.stderr), "err\n");
    let missing = run(&house, &["busybox", "nosuch"]);
    assert_eq!(missing.status.code(), Some(127), "{}", shown(&missing));
    assert!(
        shown(&missing).contains("exec: \"nosuch\": executable file not found in $PATH"),
        "{}",
        shown(&missing)
    );
    assert_eq!(run(&house, &["busybox", "/etc"]).status.code(), Some(126));
    assert_eq!(
        run(&house, &["busybox", "sh", "-c", "sleep 60 & kill -9 $!; wait $!"]).status.code(),
        Some(137)
    );
    assert_eq!(run(&house, &["--bogus", "busybox"]).status.code(), Some(125));
    let refused = run(&house, &["--memory", "1m", "busybox", "true"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(shown(&refused).contains("Minimum memory limit allowed is 6MB"), "{}", shown(&refused));
    assert_eq!(house.ok(&["ps", "-aq"]), "");
}

#[test]
fn input_ends_where_it_ends() {
    let house = house();
    let mut child = house
        .docker(&["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker can be executed");
    let mut input = child.stdin.take().expect("a pipe");
    let big = "x".repeat(300_000);
    input.write_all(big.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(stdout(&output), format!("{big}done\n"));
}

#[test]
fn what_it_sees() {
    let house = house();
    let seen = run(
        &house,
        &[
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "-h",
            "box",
            "-u",
            "1000:7",
            "busybox",
            "sh",
            "-c",
            "echo $A $PWD $(hostname) $(id -u):$(id -g) $HOME",
        ],
    );
    assert_eq!(stdout(&seen), "b /tmp box 1000:7 /\n", "{}", shown(&seen));
    let root = run(
        &house,
        &[
            "busybox",
            "sh",
            "-c",
            "id -u; echo $HOME; echo $$; grep -c . /proc/net/dev; grep -E '^(CapEff|CapInh|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'",
        ],
    );
    assert_eq!(
        stdout(&root),
        "0\n/root\n1\n3\nCapInh:0000000000000000\nCapEff:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n",
        "{}",
        shown(&root)
    );
    let read_only = run(
        &house,
        &[
            "--read-only",
            "--tmpfs",
            "/t:size=1m",
            "busybox",
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo no; touch /t/x && echo yes",
        ],
    );
    assert_eq!(stdout(&read_only), "no\nyes\n", "{}", shown(&read_only));
    let masked = run(
        &house,
        &[
            "busybox",
            "sh",
            "-c",
            "cat /proc/kcore | wc -c; echo x 2>/dev/null >/proc/sysrq-trigger || echo no",
        ],
    );
    assert_eq!(stdout(&masked), "0\nno\n", "{}", shown(&masked));
    let privileged = run(
        &house,
        &[
            "--privileged",
            "busybox",
            "sh",
            "-c",
            "grep Seccomp: /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp && echo mounted",
        ],
    );
    assert_eq!(stdout(&privileged), "Seccomp:0\nmounted\n", "{}", shown(&privileged));
}

#[test]
fn binds_and_volumes() {
    let house = house();
    let dir = house.path("bind");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("a"), "from the host\n").expect("a file");
    let bind = format!("{}:/d", dir.display());
    let out = run(&house, &["-v", &bind, "busybox", "sh", "-c", "cat /d/a; echo inside >/d/b"]);
    assert_eq!(stdout(&out), "from the host\n", "{}", shown(&out));
    assert_eq!(std::fs::read_to_string(dir.join("b")).expect("written inside"), "inside\n");
    let out = run(
        &house,
        &["-v", &format!("{bind}:ro"), "busybox", "sh", "-c", "echo x >/d/c || echo no"],
    );
    assert!(stdout(&out).ends_with("no\n"), "{}", shown(&out));
    let missing =
        run(&house, &["--mount", "type=bind,source=/nope/nope,target=/d", "busybox", "true"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(
        shown(&missing).contains("bind source path does not exist: /nope/nope"),
        "{}",
        shown(&missing)
    );
    run(&house, &["-v", "kept:/v", "busybox", "sh", "-c", "echo 1 >/v/x"]);
    let again = run(&house, &["-v", "kept:/v", "busybox", "cat", "/v/x"]);
    assert_eq!(stdout(&again), "1\n", "{}", shown(&again));
}

#[test]
fn limits_hold() {
    let house = house();
    let out = run(
        &house,
        &[
            "--memory",
            "32m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "50",
            "busybox",
            "sh",
            "-c",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max",
        ],
    );
    assert_eq!(stdout(&out), "33554432\n50000\n50\n", "{}", shown(&out));
    house.ok(&[
        "run",
        "-d",
        "--name",
        "hog",
        "--memory",
        "16m",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "x=a; while true; do x=$x$x; done",
    ]);
    assert_eq!(house.ok(&["wait", "hog"]), "137\n");
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "hog"]), "true\n");
}

#[test]
fn the_default_bridge() {
    let house = house();
    let gateway = house.gateway();
    let out = house.ok(&["run", "--rm", "busybox", "sh", "-c", "ip -4 addr show eth0 | grep -c inet; ip route | head -1; ping -c1 -W5 $(ip route | awk '/default/{print $3}') >/dev/null && echo pong"]);
    assert_eq!(out, format!("1\ndefault via {gateway} dev eth0 \npong\n"));
    let host =
        house.ok(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", "ls /sys/class/net"]);
    assert!(host.lines().any(|name| name == house.bridge()), "{host}");
    house.ok(&["run", "-d", "--name", "ca", "busybox", "sleep", "600"]);
    let joined = house.ok(&["run", "--rm", "--network", "container:ca", "busybox", "hostname"]);
    assert_eq!(joined.trim(), house.ok(&["inspect", "-f", "{{slice .Id 0 12}}", "ca"]).trim());
    house.ok(&["rm", "-f", "ca"]);
}

#[test]
fn shared_memory_is_shared_when_asked_for() {
    let house = house();
    let sleep = ["busybox", "sleep", "600"];
    let start = |name: &str, more: &[&str]| {
        house.ok(&[&["run", "-d", "--network", "none", "--name", name], more, &sleep].concat())
    };
    start("giver", &["--ipc", "shareable"]);
    start("private", &[]);
    house.ok(&["exec", "giver", "sh", "-c", "echo shared >/dev/shm/word"]);
    let take = |from: &str| run(&house, &["--ipc", from, "busybox", "cat", "/dev/shm/word"]);
    assert_eq!(stdout(&take("container:giver")), "shared\n");
    let refused = take("container:private");
    assert!(shown(&refused).contains("non-shareable IPC"), "{}", shown(&refused));
    // A container that puts a link in its place leads nobody to the host's files.
    house.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "liar",
        "--ipc",
        "shareable",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        "umount /dev/shm; rmdir /dev/shm; ln -s /etc /dev/shm; sleep 600",
    ]);
    house.ok(&["exec", "liar", "sh", "-c", "until [ -h /dev/shm ]; do usleep 10000; done"]);
    let led = run(&house, &["--ipc", "container:liar", "busybox", "ls", "/dev/shm"]);
    assert!(!stdout(&led).contains("debian_version"), "{}", shown(&led));
    house.ok(&["rm", "-f", "giver", "private", "liar"]);
}

#[test]
fn a_terminal_and_an_init() {
    let house = house();
    let out = run(&house, &["-t", "busybox", "tty"]);
    assert_eq!(stdout(&out), "/dev/pts/0\r\n", "{}", shown(&out));
    let out = run(&house, &["--init", "busybox", "sh", "-c", "echo $$"]);
    assert_ne!(stdout(&out).trim(), "1", "{}", shown(&out));
}

#[test]
fn what_is_not_built_says_so() {
    let house = house();
    let answer = house.api(
        "POST",
        "/containers/create",
        Some(&serde_json::json!({
            "Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [{"Type": "cluster", "Source": "x", "Target": "/x"}]}
        })),
    );
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (501, Some("HostConfig.Mounts of type cluster is not supported yet"))
    );
}

#[test]
fn what_ends_with_the_container_need_not_reach_the_disk() {
    let house = house();
    let volatile = |name: &str| {
        let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", pid.trim()));
        mounts
            .expect("it runs")
            .lines()
            .any(|line| line.contains(" / / ") && line.contains("volatile"))
    };
    house.ok(&["run", "-d", "--name", "kept", "busybox", "sleep", "1000"]);
    house.ok(&["run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000"]);
    assert_eq!((volatile("kept"), volatile("brief")), (false, true));
    // It may all the same be started again, with what it had.
    house.ok(&["exec", "brief", "touch", "/made"]);
    house.ok(&["restart", "-t", "0", "brief"]);
    house.ok(&["exec", "brief", "ls", "/made"]);
    assert!(volatile("brief"));
    house.ok(&["rm", "-f", "kept", "brief"]);
    house.check();
}

/// What `/dev` has mounted below it is what is looked at.
#[test]
fn what_is_below_a_read_only_bind_stays_writable_for_older_clients() {
    let house = house();
    let shm = |version: &str| {
        let script = "sed -n 's|.* /b/shm \\(r[ow]\\).*|\\1|p' /proc/self/mountinfo | sort -u";
        let run = ["run", "--name", "ca", "--network", "none", "-v", "/dev:/b:ro", "busybox"];
        let mut first = house.docker(&[&run[..], &["sh", "-c", script]].concat());
        first.env("DOCKER_API_VERSION", version);
        let first = succeed(first);
        // Whoever starts it next, it is as it was made.
        assert_eq!(house.ok(&["start", "-a", "ca"]), first, "{version}");
        house.ok(&["rm", "ca"]);
        first
    };
    assert_eq!((shm("1.43").trim(), shm("1.44").trim()), ("rw", "ro"));
}
