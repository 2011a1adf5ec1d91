//! What logs may take of a disk: a ceiling over all of them, and a disk that is full all the same.

use std::path::PathBuf;
use std::time::Instant;

use testkit::House;
use testkit::house::{PATIENCE, shown};

use crate::containers::house_with;

fn run(house: &House, name: &str, options: &[&str], command: &str) -> String {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
    for option in options {
        args.extend(["--log-opt", option]);
    }
    args.extend(["busybox", "sh", "-c", command]);
    house.ok(&args).trim().to_owned()
}

/// The files of all logs, and their sizes.
fn files(house: &House) -> Vec<(PathBuf, u64)> {
    let containers = std::fs::read_dir(house.data_root().join("containers")).expect("a directory");
    let inside = containers.flatten().filter_map(|entry| std::fs::read_dir(entry.path()).ok());
    let logs = inside
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("-json.log"));
    logs.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect()
}

#[test]
fn all_logs_together_have_a_ceiling() {
    let house = house_with(&["--log-budget", "2MB"]);
    // One that never stops within bounds of its own that are wider, one that has said little and ended, and one that speaks
    // now and then.
    let small = run(&house, "small", &[], "echo kept");
    house.ok(&["wait", "small"]);
    run(&house, "slow", &[], "while :; do echo still; sleep 0.2; done");
    let loud = run(
        &house,
        "loud",
        &["max-size=300k", "max-file=100"],
        "i=0; while [ $i -lt 60000 ]; do echo \"$i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done",
    );
    let total = || files(&house).iter().map(|(_, bytes)| bytes).sum::<u64>();
    house.ok(&["wait", "loud"]);
    let begin = Instant::now();
    while total() > 2_000_000 {
        assert!(begin.elapsed() < PATIENCE, "{} bytes: {:?}", total(), files(&house));
        std::thread::yield_now();
    }
    assert!(house.log().contains("the logs are over their budget"));
    // The oldest of the loud one went, and nobody else's.
    assert_eq!(house.ok(&["logs", "small"]), "kept\n");
    assert!(house.ok(&["logs", "slow"]).starts_with("still\n"));
    let rest = house.ok(&["logs", "loud"]);
    assert!(!rest.starts_with("0 "), "{}", rest.len());
    assert!(rest.lines().last().expect("a line").starts_with("59999 "));
    assert!(files(&house).iter().any(|(path, _)| path.to_string_lossy().contains(&loud)));
    assert!(files(&house).iter().any(|(path, _)| path.to_string_lossy().contains(&small)));
}

/// F11's log part: a full disk is an error, not an outage.
#[test]
fn a_full_disk_takes_nothing_but_the_lines() {
    let dir = tempfile::tempdir().expect("a place");
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let view = format!("mount -t tmpfs -o size=24m disk {0} && exec \"$@\"", disk.display());
    let house = House::through_with(
        &["unshare", "--mount", "sh", "-c", &view, "sh"],
        &["--data-root", disk.to_str().expect("a path in UTF-8"), "--log-budget", "0"],
    );
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    // It counts what it has said where no disk can be full.
    let flood = "mkdir /s; mount -t tmpfs s /s 2>/dev/null; i=0; \
                 while :; do i=$((i+1)); echo $i > /dev/shm/said; head -c 50000 /dev/zero | tr '\\0' x; echo; done";
    run(&house, "flood", &["max-size=-1"], flood);
    let said = || -> u64 {
        let output = house.docker(&["exec", "flood", "cat", "/dev/shm/said"]).output();
        let text = String::from_utf8_lossy(&output.expect("docker").stdout).trim().to_owned();
        text.parse().unwrap_or(0)
    };
    let begin = Instant::now();
    // 24 MiB are full after five hundred of these at the latest.
    while said() < 700 {
        assert!(begin.elapsed() < PATIENCE, "{} lines", said());
    }
    // It goes on, and so does everything that is asked.
    let before = said();
    while said() <= before {
        assert!(begin.elapsed() < 2 * PATIENCE, "it stands still");
    }
    assert!(house.ok(&["ps"]).contains("flood"));
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "flood"]).trim(), "true");
    assert!(house.ok(&["logs", "--tail", "1", "flood"]).starts_with("xxx"));
    house.ok(&["stop", "-t", "1", "flood"]);
    let gone = house.docker(&["rm", "flood"]).output().expect("docker");
    assert!(gone.status.success(), "{}", shown(&gone));
    assert_eq!(house.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "on"]), "on\n");
}
