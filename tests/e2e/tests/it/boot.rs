//! A host that goes down and comes up again: who is up afterwards, and in which order.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stdx::time::Timestamp;
use testkit::House;
use testkit::house::remove_cgroups;

use crate::containers::house;
use crate::foreign::wait_for;
use crate::inside::pid;

fn inspect(house: &House, name: &str) -> Value {
    house.api("GET", &format!("/containers/{name}/json"), None).json()
}

/// As the power would take it: the daemon, every shim and every container, and what lies in memory of them.
fn power_off(house: &mut House, running: &[&str]) {
    let parent = |pid: u32| -> i32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let behind_the_name = stat.rsplit(')').next().expect("a name in parentheses");
        behind_the_name.split_whitespace().nth(1).expect("a parent").parse().expect("a number")
    };
    let shims: Vec<i32> = running.iter().map(|name| parent(pid(house, name))).collect();
    house.kill();
    for shim in shims {
        let shim = Pid::from_raw(shim).expect("not the first process");
        kill_process(shim, Signal::KILL).expect("the shim lives");
    }
    remove_cgroups(&house.cgroup_parent());
    let run = house.exec_root().join("containers");
    for entry in fs::read_dir(run).expect("run directories").flatten() {
        fs::remove_dir_all(entry.path()).expect("a run directory");
    }
}

fn is_up(house: &House, name: &str) -> bool {
    inspect(house, name)["State"]["Status"] == "running"
}

/// F19.
#[test]
fn f19_who_needs_others_comes_up_after_them() {
    let mut house = house();
    let here = tempfile::tempdir().expect("a place");
    let ready = here.path().join("ready");
    let touch = |path: &Path| fs::write(path, "").expect("a file");
    touch(&ready);
    let bind = format!("{}:/here", here.path().display());
    let run = |flags: &[&str]| {
        let network: &[&str] =
            if flags.contains(&"--network") { &[] } else { &["--network", "none"] };
        house.ok(&[&["run", "-d"], network, flags, &["busybox", "sleep", "1000"]].concat());
    };
    // As Compose labels them, whoever was made first.
    run(&[
        "--name",
        "web",
        "--restart",
        "always",
        "-l",
        "com.docker.compose.project=p",
        "-l",
        "com.docker.compose.service=web",
        "-l",
        "com.docker.compose.depends_on=db:service_healthy:false",
    ]);
    run(&[
        "--name",
        "db",
        "--restart",
        "unless-stopped",
        "-l",
        "com.docker.compose.project=p",
        "-l",
        "com.docker.compose.service=db",
        "-v",
        &bind,
        "--health-cmd",
        "ls /here/ready",
        "--health-interval",
        "100ms",
        "--health-start-period",
        "10m",
    ]);
    run(&["--name", "side", "--restart", "always", "--network", "container:web"]);
    run(&["--name", "below", "--restart", "on-failure", "--pid", "container:side"]);
    run(&["--name", "stopped", "--restart", "unless-stopped"]);
    run(&["--name", "once"]);
    run(&["--name", "passing", "--rm"]);
    house.ok(&["stop", "-t", "0", "stopped"]);

    fs::remove_file(&ready).expect("the file");
    power_off(&mut house, &["web", "db", "side", "below", "once", "passing"]);
    house.start();
    wait_for("a failed check", || {
        inspect(&house, "db")["State"]["Health"]["Log"]
            .as_array()
            .is_some_and(|log| !log.is_empty())
    });
    let healthy = Timestamp::now();
    touch(&ready);
    wait_for("the last to come up", || is_up(&house, "below"));
    let started = |name: &str| {
        let at = inspect(&house, name)["State"]["StartedAt"].clone();
        Timestamp::parse(at.as_str().expect("a time")).expect("a time")
    };
    let order = ["db", "web", "side", "below"].map(started);
    assert!(order.is_sorted() && order[0] < healthy && healthy < order[1], "{order:?} {healthy}");
    for name in ["stopped", "once"] {
        assert!(!is_up(&house, name), "{name}");
    }
    assert_eq!(inspect(&house, "once")["State"]["ExitCode"], 255);
    let gone = house.api("GET", "/containers/passing/json", None);
    assert_eq!(gone.status, 404, "{}", String::from_utf8_lossy(&gone.body));
}
