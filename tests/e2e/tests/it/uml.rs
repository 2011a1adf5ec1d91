//! A host as most people have it: one tree of control groups, and a kernel of Debian 12's age, which takes the layers of
//! an overlay as one string. User-Mode Linux is such a host in one process; its root is ours, read-only.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{House, TestImage};

#[test]
fn volumes_and_layers_stop_at_their_size() {
    let place = tempfile::Builder::new().prefix("gt-uml-").tempdir().unwrap();
    let disk = place.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    let mut mkfs = Command::new("/usr/sbin/mkfs.ext4");
    mkfs.args(["-q", "-O", "quota,project", "-E", "quotatype=prjquota"]).arg(&disk);
    testkit::house::succeed(mkfs);
    let image = TestImage::busybox().docker_archive(&["busybox:latest"]);
    std::fs::write(place.path().join("image.tar"), image).unwrap();
    let disk = format!("ubd0={}", disk.display());
    let output = boot(place.path(), include_str!("uml_quota.sh"), &[&disk]);
    let said = said(&output);
    for (word, expected) in [
        ("volume", "small"),
        ("full", "4M"),
        ("shown", "4096"),
        ("copy", "4M"),
        ("unlimited", "all"),
        ("layer", "4M"),
        ("beside", "all"),
        ("again", "all"),
        ("check", "No problems found."),
    ] {
        assert_eq!(said.get(word), Some(&expected), "{word}:\n{output}");
    }
}

/// Runs `init` as the first process of a kernel of its own, whose root is the host's, and answers what it prints.
fn boot(place: &Path, init: &str, devices: &[&str]) -> String {
    let path = place.join("init");
    std::fs::write(&path, init).expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our file");
    let output = Command::new("timeout")
        .args(["--kill-after=5", "200", "linux.uml", "mem=1G", "root=/dev/root"])
        .args(["rootfstype=hostfs", "rootflags=/", "ro", "loglevel=1", "con=null"])
        .arg("con0=null,fd:1")
        .args(devices)
        .arg(format!("init={}", path.display()))
        .arg("--")
        .arg(place)
        .arg(House::binary())
        .env("TMPDIR", "/dev/shm")
        .stdin(Stdio::null())
        .output()
        .expect("timeout can be executed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What stands behind each word.
fn said(output: &str) -> BTreeMap<&str, &str> {
    output
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("@ "))
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(word, rest)| (word, rest.trim()))
        .collect()
}

#[test]
fn containers_live_where_control_groups_are_one_tree() {
    let place = tempfile::Builder::new().prefix("gt-uml-").tempdir().unwrap();
    let image = TestImage::busybox().docker_archive(&["busybox:latest"]);
    std::fs::write(place.path().join("image.tar"), image).unwrap();
    let output = boot(place.path(), include_str!("uml.sh"), &[]);
    let said = said(&output);

    for (word, expected) in [
        ("version", "2 cgroupfs overlay2 true false"),
        ("limits", "33554432 16777216 50000 100000 77"),
        ("own", "0::/"),
        ("privileged", "0::/"),
        ("hosts", "0::/gt/"),
        ("devices", "refused 1"),
        ("discarded", "started"),
        ("oom", "true 137"),
        ("paused", "frozen 1"),
        ("adopted", "paused"),
        ("updated", "50331648"),
        ("killed", "137"),
        ("bundle", "of layer 3 kept"),
        ("left", ""),
        ("check", "No problems found."),
    ] {
        assert_eq!(said.get(word), Some(&expected), "{word}:\n{output}");
    }
    assert!(said["stats"].ends_with("/ 48MiB 1"), "{output}");
    assert!(output.contains("Cpuset discarded."), "{output}");
}
