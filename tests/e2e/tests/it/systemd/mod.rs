//! On a host with one tree of control groups, whose first process is systemd: containers are scopes of its. Elsewhere
//! there is nothing to see; `tests/guest/run systemd::` boots such a host, which has AppArmor too.

mod drivers;
mod hybrid;
mod limits;
mod user;

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::House;
use testkit::house::{shown, succeed};

use crate::containers::house;

/// A daemon where it can be seen.
fn house_of_systemds() -> Option<House> {
    let house = Path::new("/run/systemd/system").exists().then(house)?;
    (house.ok(&["info", "-f", "{{.CgroupDriver}}"]).trim() == "systemd").then_some(house)
}

fn systemctl(words: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command.args(words);
    succeed(command).trim().to_owned()
}

fn scope_of(house: &House, name: &str) -> String {
    format!("gantry-{}.scope", house.ok(&["inspect", "-f", "{{.Id}}", name]).trim())
}

/// Properties of a unit by name, each on its line.
fn shows(unit: &str, properties: &str) -> String {
    systemctl(&["show", unit, "-p", properties])
}

fn group_of(unit: &str) -> PathBuf {
    let path = systemctl(&["show", unit, "-p", "ControlGroup", "--value"]);
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

fn file(unit: &str, name: &str) -> String {
    std::fs::read_to_string(group_of(unit).join(name)).expect("a file of a group").trim().to_owned()
}

#[test]
fn a_container_is_a_scope() {
    let Some(house) = house_of_systemds() else { return };
    let limits = ["--memory", "32m", "--memory-swap", "48m", "--cpus", "0.5", "--pids-limit", "50"];
    let run = ["run", "-d", "--name", "one", "--network", "none"];
    house.ok(&[&run[..], &limits, &["busybox", "sleep", "600"]].concat());
    let scope = scope_of(&house, "one");
    let told = "Slice,Delegate,ActiveState,MemoryMax,MemorySwapMax,CPUQuotaPerSecUSec,TasksMax";
    let slice = house.cgroup_parent();
    let mut expected = vec![
        "ActiveState=active".to_owned(),
        "CPUQuotaPerSecUSec=500ms".to_owned(),
        "Delegate=yes".to_owned(),
        format!("MemoryMax={}", 32 << 20),
        format!("MemorySwapMax={}", 16 << 20),
        format!("Slice={slice}"),
        "TasksMax=50".to_owned(),
    ];
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(shows(&scope, told)), expected);
    assert_eq!(house.ok(&["exec", "one", "cat", "/proc/self/cgroup"]).trim(), "0::/");

    // What is changed is changed for both, and stays when systemd reads its units again.
    house.ok(&["update", "--memory", "40m", "--memory-swap", "40m", "--pids-limit", "60", "one"]);
    systemctl(&["daemon-reload"]);
    expected[3] = format!("MemoryMax={}", 40 << 20);
    expected[4] = "MemorySwapMax=0".to_owned();
    expected[6] = "TasksMax=60".to_owned();
    assert_eq!(sorted(shows(&scope, told)), expected);
    let files = ["memory.max", "pids.max", "cpu.max"].map(|name| file(&scope, name));
    assert_eq!(files, [(40 << 20).to_string(), "60".to_owned(), "50000 100000".to_owned()]);

    house.ok(&["pause", "one"]);
    assert!(file(&scope, "cgroup.events").contains("frozen 1"));
    house.ok(&["unpause", "one"]);
    house.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(shows(&scope, "ActiveState"), "ActiveState=active");
    house.ok(&["rm", "-f", "one"]);
    assert_eq!(shows(&scope, "LoadState,ActiveState"), "LoadState=not-found\nActiveState=inactive");
}

/// systemd removes a scope as soon as nobody is in it, with what the kernel has counted there.
#[test]
fn who_was_out_of_memory_is_known_when_the_scope_is_gone() {
    let Some(house) = house_of_systemds() else { return };
    let run = ["run", "--network", "none", "--memory", "16m", "--memory-swap", "16m"];
    for number in 0..5 {
        let name = format!("hog{number}");
        let hog = [&run[..], &["--name", &name, "busybox", "tail", "/dev/zero"]].concat();
        assert_eq!(house.docker(&hog).status().expect("docker can be executed").code(), Some(137));
        let state = "{{.State.OOMKilled}} {{.State.ExitCode}}";
        assert_eq!(house.ok(&["inspect", "-f", state, &name]), "true 137\n");
    }
    house.ok(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "600"]);
    house.ok(&["kill", "one"]);
    house.ok(&["wait", "one"]);
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "one"]), "false\n");
}

#[test]
fn one_process_may_be_all() {
    let Some(house) = house_of_systemds() else { return };
    let alone =
        ["run", "--rm", "--network", "none", "--pids-limit", "1", "busybox", "echo", "alone"];
    assert_eq!(house.ok(&alone), "alone\n");
}

#[test]
fn a_dead_daemon_and_a_dead_shim_leave_no_scope() {
    let Some(mut house) = house_of_systemds() else { return };
    house.ok(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "600"]);
    let scope = scope_of(&house, "one");
    house.kill();
    assert_eq!(shows(&scope, "ActiveState"), "ActiveState=active");
    house.start();
    assert_eq!(house.ok(&["exec", "one", "echo", "lives"]), "lives\n");
    house.cut_the_power();
    house.start();
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Status}}", "one"]).trim(), "exited");
    house.check();
    house.ok(&["start", "one"]);
    assert_eq!(shows(&scope, "ActiveState"), "ActiveState=active");
}

#[test]
fn only_slices_are_parents() {
    let Some(house) = house_of_systemds() else { return };
    let refused = house.docker(&["run", "--cgroup-parent", "/here", "busybox", "true"]).output();
    let refused = shown(&refused.expect("docker can be executed"));
    let words = "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"";
    assert!(refused.contains(words), "{refused}");
    let run = ["run", "-d", "--name", "one", "--network", "none", "--cgroup-parent"];
    house.ok(&[&run[..], &["gantry-own.slice", "busybox", "sleep", "600"]].concat());
    let group = group_of(&scope_of(&house, "one"));
    assert!(group.starts_with("/sys/fs/cgroup/gantry.slice/gantry-own.slice"), "{group:?}");
}

/// As podman and containerd call a runtime.
#[test]
fn a_bundle_in_a_scope() {
    let Some(house) = house_of_systemds() else { return };
    let bundle = house.path("bundle");
    std::fs::create_dir_all(bundle.join("rootfs/bin")).expect("a directory");
    std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/sh")).expect("a copy");
    let runtime = |words: &[&str]| {
        let mut command = Command::new(House::binary());
        command.arg("runtime").arg("--systemd-cgroup").arg("--root").arg(house.path("oci"));
        command.args(words).current_dir(&bundle).stdin(std::process::Stdio::null());
        command
    };
    succeed(runtime(&["spec"]));
    let config = bundle.join("config.json");
    let spec = |path: &str| {
        let text = std::fs::read_to_string(&config).expect("a document");
        let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] =
            serde_json::json!(["sh", "-c", "read line </proc/self/cgroup; echo $line"]);
        spec["linux"]["cgroupsPath"] = path.into();
        let spaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        spaces.retain(|space| space["type"] != "cgroup");
        std::fs::write(&config, spec.to_string()).expect("a file");
    };
    let name = format!("bundle{}", std::process::id());
    spec(&format!("gantry-own.slice:pre:{name}"));
    assert_eq!(
        succeed(runtime(&["run", &name])).trim(),
        format!("0::/gantry.slice/gantry-own.slice/pre-{name}.scope")
    );
    let left = shows(&format!("pre-{name}.scope"), "LoadState");
    assert_eq!(left, "LoadState=not-found");
    spec("/not/a/scope");
    let refused = runtime(&["run", &name]).output().expect("it can be executed");
    assert!(shown(&refused).contains("expected cgroupsPath to be of format"), "{refused:?}");
}

#[test]
fn under_a_profile_of_apparmor() {
    let Some(house) = house_of_systemds() else { return };
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        return;
    }
    let options = house.ok(&["info", "-f", "{{.SecurityOptions}}"]);
    assert!(options.contains("name=apparmor"), "{options}");
    let profile = ["cat", "/proc/self/attr/current"];
    let under = |options: &[&str]| {
        let run = ["run", "--rm", "--network", "none"];
        house.ok(&[&run[..], options, &["busybox"], &profile].concat()).trim().to_owned()
    };
    assert_eq!(under(&[]), "docker-default (enforce)");
    assert_eq!(under(&["--privileged"]), "unconfined");
    assert_eq!(under(&["--security-opt", "apparmor=unconfined"]), "unconfined");

    house.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "none",
        "--cap-add",
        "ALL",
        "busybox",
        "sleep",
        "600",
    ]);
    let shows = house.ok(&["inspect", "-f", "{{.AppArmorProfile}}", "one"]);
    assert_eq!(shows.trim(), "docker-default");
    let within = [&["exec", "one"][..], &profile].concat();
    assert_eq!(house.ok(&within).trim(), "docker-default (enforce)");
    // All capabilities, and still not this.
    let mount = house.docker(&["exec", "one", "mount", "-t", "tmpfs", "none", "/etc"]).output();
    let mount = shown(&mount.expect("docker can be executed"));
    assert!(mount.contains("Permission denied"), "{mount}");
    house.ok(&["exec", "one", "sh", "-c", "kill -0 1 && ls /proc/1/root >/dev/null"]);

    let missing = ["run", "--rm", "--security-opt", "apparmor=nobody-has-it", "busybox", "true"];
    let missing = shown(&house.docker(&missing).output().expect("docker can be executed"));
    let words = "unable to apply apparmor profile: apparmor failed to apply profile: \
                 write /proc/self/attr/apparmor/exec: no such file or directory";
    assert!(missing.contains(words), "{missing}");
}
