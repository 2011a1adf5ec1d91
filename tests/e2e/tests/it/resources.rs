//! Limits: given at the start, changed while it runs, and the same in the record and in the kernel whatever happens.

use serde_json::json;
use testkit::House;
use testkit::house::shown;

use crate::containers::house;

/// Whether the files of cgroup version 1 are where this test looks for them.
fn version_one() -> bool {
    std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

fn host(house: &House, name: &str, field: &str) -> String {
    house
        .ok(&["inspect", "-f", &format!("{{{{json .HostConfig.{field}}}}}"), name])
        .trim()
        .to_owned()
}

fn kernel(house: &House, name: &str, file: &str) -> String {
    let id = house.ok(&["inspect", "-f", "{{.Id}}", name]);
    let controller = file.split('.').next().expect("a file of a controller");
    let dir = format!("/sys/fs/cgroup/{controller}{}/{}", house.cgroup_parent(), id.trim());
    std::fs::read_to_string(format!("{dir}/{file}")).expect("a file of cgroups").trim().to_owned()
}

fn refusal(house: &House, args: &[&str]) -> String {
    let output = house.docker(args).output().expect("docker can be executed");
    assert!(!output.status.success(), "{args:?}");
    shown(&output)
}

#[test]
fn changed_while_it_runs() {
    if !version_one() {
        return;
    }
    let house = house();
    house.ok(&["run", "-d", "--name", "free", "--network", "none", "busybox", "sleep", "600"]);
    let words = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
    let refused = refusal(&house, &["update", "-m", "100m", "free"]);
    assert!(refused.contains(words) && refused.contains("Cannot update container "), "{refused}");
    house.ok(&["update", "-m", "100m", "--memory-swap", "200m", "free"]);
    house.ok(&["update", "-m", "300m", "--memory-swap", "600m", "free"]);
    assert_eq!(kernel(&house, "free", "memory.limit_in_bytes"), (300 << 20).to_string());
    house.ok(&["update", "--cpus", "0.5", "--pids-limit", "50", "free"]);
    assert_eq!(kernel(&house, "free", "cpu.cfs_quota_us"), "50000");
    assert_eq!(kernel(&house, "free", "pids.max"), "50");
    let words = "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set";
    assert!(refusal(&house, &["update", "--cpu-quota", "5000", "free"]).contains(words));
    house.ok(&["update", "--pids-limit", "-1", "free"]);
    assert_eq!(kernel(&house, "free", "pids.max"), "max");
    let words = "Requested CPUs are not available - requested 4077, available: 0-";
    assert!(refusal(&house, &["update", "--cpuset-cpus", "4077", "free"]).contains(words));
}

/// The kernel refuses one of two: neither is changed, in the record and in the kernel.
#[test]
fn what_the_kernel_refuses_is_taken_back() {
    if !version_one() {
        return;
    }
    let house = house();
    let run = ["run", "-d", "--name", "tight", "--network", "none", "-m", "200m"];
    house.ok(&[&run[..], &["busybox", "sleep", "600"]].concat());
    // More processes, and less memory and swap than the group's parent: the second is what the kernel does not take.
    let usage: u64 = 6 << 20;
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30";
    house.ok(&["exec", "tight", "sh", "-c", fill]);
    let body = json!({"PidsLimit": 44, "Memory": usage, "MemorySwap": usage});
    let answer = house.api("POST", "/containers/tight/update", Some(&body));
    assert!(answer.status >= 400, "{}", answer.text());
    assert!(answer.text().contains("Cannot update container "), "{}", answer.text());
    assert_eq!(host(&house, "tight", "PidsLimit"), "null");
    assert_eq!(host(&house, "tight", "Memory"), (200 << 20).to_string());
    assert_eq!(kernel(&house, "tight", "pids.max"), "max");
    assert_eq!(kernel(&house, "tight", "memory.limit_in_bytes"), (200 << 20).to_string());
}

#[test]
fn block_devices_have_limits_of_their_own() {
    let disk = std::path::Path::new("/dev/vda");
    if !version_one() || !disk.exists() {
        return;
    }
    let house = house();
    house.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--network",
        "none",
        "--device-read-bps",
        "/dev/vda:1mb",
        "--device-write-iops",
        "/dev/vda:100",
        "busybox",
        "sleep",
        "600",
    ]);
    assert!(kernel(&house, "slow", "blkio.throttle.read_bps_device").ends_with(" 1048576"));
    assert!(kernel(&house, "slow", "blkio.throttle.write_iops_device").ends_with(" 100"));
    assert_eq!(
        host(&house, "slow", "BlkioDeviceReadBps"),
        "[{\"Path\":\"/dev/vda\",\"Rate\":1048576}]"
    );
    let missing = ["run", "--rm", "--network", "none", "--device-read-bps", "/dev/nope:1mb"];
    let refused = refusal(&house, &[&missing[..], &["busybox", "true"]].concat());
    assert!(refused.contains("stat /dev/nope: no such file or directory"), "{refused}");
    let body = json!({"Image": "busybox", "HostConfig": {"KernelMemory": 50 << 20}});
    let answer = house.api("POST", "/v1.41/containers/create", Some(&body)).json();
    assert_eq!(
        answer["Warnings"],
        json!([
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded."
        ])
    );
}

#[test]
fn what_this_host_lacks_is_said() {
    let house = house();
    let info = house.api("GET", "/info", None).json();
    let warnings = info["Warnings"].as_array().cloned().unwrap_or_default();
    let said = |words: &str| warnings.iter().any(|warning| warning == words);
    assert_eq!(said("WARNING: No swap limit support"), info["SwapLimit"] == false);
    assert_eq!(said("WARNING: No memory limit support"), info["MemoryLimit"] == false);
    let printed = shown(&house.docker(&["info"]).output().expect("docker"));
    let ours = shown(&house.gantry(&["info"]).output().expect("ours"));
    for warning in &warnings {
        let words = warning.as_str().expect("text");
        assert!(printed.contains(words) && ours.contains(words), "{printed}\n{ours}");
    }
}

/// Devices by name, and `--gpus` by what they can do.
#[test]
fn devices_of_the_container_device_interface() {
    let specs = tempfile::tempdir().expect("a place for specs");
    let spec = json!({
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/gpu",
        "devices": [
            {"name": "0", "containerEdits": {
                "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/zero"}],
                "env": ["CARD=0"],
            }},
            {"name": "all", "containerEdits": {"env": ["CARD=all"]}},
        ],
        "containerEdits": {"mounts": [{
            "hostPath": specs.path(), "containerPath": "/driver", "options": ["ro", "nosuid"],
        }]},
    });
    std::fs::write(specs.path().join("vendor.json"), spec.to_string()).expect("a spec");
    let dir = specs.path().to_str().expect("UTF-8");
    let house = crate::containers::house_with(&["--cdi-spec-dir", dir]);
    let look = "echo $CARD; ls /driver; head -c 3 /dev/vendor0 | od -An -tx1; touch /driver/x";
    let run = |options: &[&str]| {
        let args = [&["run", "--rm"][..], options, &["busybox", "sh", "-c", look]].concat();
        shown(&house.docker(&args).output().expect("docker"))
    };
    let named = run(&["--device", "vendor.com/gpu=0"]);
    assert!(named.starts_with("0\nvendor.json\n 00 00 00\n"), "{named}");
    assert!(named.contains("Read-only file system"), "{named}");
    assert!(run(&["--gpus", "all"]).starts_with("all\nvendor.json\n"));
    let missing = run(&["--device", "vendor.com/gpu=9"]);
    let words = "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=9";
    assert!(missing.contains(words), "{missing}");
    let info = house.api("GET", "/info", None).json();
    assert_eq!(info["CDISpecDirs"], json!([dir]));
    assert_eq!(info["DiscoveredDevices"][0], json!({"Source": "cdi", "ID": "vendor.com/gpu=0"}));
    let bare = crate::containers::house();
    let refused = bare.docker(&["run", "--rm", "--gpus", "all", "busybox", "true"]).output();
    let words = "could not select device driver \"\" with capabilities: [[gpu]]";
    assert!(shown(refused.as_ref().expect("docker")).contains(words), "{refused:?}");
}
