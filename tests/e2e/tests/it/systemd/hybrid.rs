//! On a host with many trees of control groups, whose first process is systemd:
//! `GUEST_KERNEL=systemd.unified_cgroup_hierarchy=0 tests/guest/run systemd::` boots one.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal};
use testkit::House;
use testkit::house::succeed;

use super::limits::{Driver, LIMITED, Parent, is_controllable, kills_are_told_apart, limits, run};
use super::{scope_of, shows, systemctl};
use crate::containers::house_with;

/// A daemon with this driver, where it can be seen.
fn house_of(parent: &Parent) -> Option<House> {
    let there = |path: &str| Path::new(path).exists();
    let hybrid = there("/run/systemd/system") && there("/sys/fs/cgroup/unified/cgroup.procs");
    let house = hybrid.then(|| house_with(&parent.flags()))?;
    let told = house.ok(&["info", "-f", "{{.CgroupDriver}} {{.CgroupVersion}}"]);
    assert_eq!(told, format!("{} 1\n", parent.driver_name()));
    Some(house)
}

#[test]
fn ours() {
    lives(Driver::Cgroupfs);
}

#[test]
fn systemds() {
    lives(Driver::Systemd);
}

fn lives(driver: Driver) {
    let parent = Parent::new(driver, "hybrid");
    let Some(mut house) = house_of(&parent) else { return };
    run(&house, "one");
    assert!(parent.has(&house, "one"));
    is_controllable(&house, "one");
    let seen = ["exec", "one", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    assert_eq!(house.ok(&seen), "33554432\n");
    if driver == Driver::Systemd {
        let scope = scope_of(&house, "one");
        let expected =
            ["CPUQuotaPerSecUSec=500ms", "Delegate=yes", "MemoryLimit=33554432", "TasksMax=50"];
        let mut told: Vec<String> =
            shows(&scope, "MemoryLimit,TasksMax,CPUQuotaPerSecUSec,Delegate")
                .lines()
                .map(str::to_owned)
                .collect();
        told.sort();
        assert_eq!(told, expected);
        systemctl(&["daemon-reload"]);
        assert_eq!(limits(&house, "one"), LIMITED);
    }
    house.kill();
    house.start();
    is_controllable(&house, "one");
    house.ok(&["restart", "-t", "0", "one"]);
    assert!(parent.has(&house, "one"));
    is_controllable(&house, "one");
    kills_are_told_apart(&house);

    // Who stands still is ended with its shim.
    house.ok(&["pause", "one"]);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]);
    let mut parent_of = Command::new("ps");
    parent_of.args(["-o", "ppid=", "-p", pid.trim()]);
    let shim =
        succeed(parent_of).trim().parse::<i32>().ok().and_then(Pid::from_raw).expect("it has one");
    rustix::process::kill_process(shim, Signal::KILL).expect("it lives");
    house.ok(&["wait", "one"]);
    house.check();
    house.ok(&["start", "one"]);
    is_controllable(&house, "one");
    house.ok(&["rm", "-f", "one"]);
    parent.assert_empty();
    drop(house);
}
