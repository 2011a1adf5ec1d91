//! Checkpoints: what is kept, what it is called, and that a container comes back from it. CRIU itself is a stand-in that
//! writes down what it is asked: Debian's does not work with every kernel.

mod real;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{House, TestImage};

use crate::foreign::wait_for;

fn house(place: &Path, flags: &[&str]) -> House {
    let criu = place.join("criu");
    std::fs::write(&criu, include_str!("criu.py")).expect("a program");
    std::fs::set_permissions(&criu, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", place.display());
    let house = House::through_with(&["env", &path], flags);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

fn asked(place: &Path) -> Value {
    let bytes = std::fs::read(place.join("asked")).expect("it was asked");
    serde_json::from_slice(&bytes).expect("what it wrote")
}

fn refused(house: &House, args: &[&str]) -> String {
    let output = house.docker(args).output().expect("docker runs");
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn a_container_is_kept_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let house = house(place.path(), &["--experimental"]);
    let script = "echo kept >/kept; echo begun; exec sleep 1001";
    house.ok(&["run", "-d", "--name", "ck", "--restart", "always", "busybox", "sh", "-c", script]);
    wait_for("it writes", || house.ok(&["logs", "ck"]) == "begun\n");
    assert_eq!(house.ok(&["checkpoint", "ls", "ck"]), "CHECKPOINT NAME\n");

    assert_eq!(house.ok(&["checkpoint", "create", "--leave-running", "ck", "one"]), "one\n");
    let pid = house.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "ck"]);
    let request = asked(place.path());
    assert_eq!(pid, format!("running {}\n", request["pid"]));
    assert_eq!((&request["kind"], &request["leave_running"]), (&json!(1), &json!(true)));
    let external = request["external"].to_string();
    for wanted in
        ["mnt[/etc/hosts]:/etc/hosts", "mnt[/proc/interrupts]:/dev/null", "net[", "]:extRootNetNS"]
    {
        assert!(external.contains(wanted), "{wanted}: {external}");
    }
    assert!(request["freezer"][0].as_str().unwrap().contains(&house.cgroup_parent()));

    house.ok(&["run", "-d", "--init", "--name", "first", "busybox", "sleep", "1001"]);
    assert_eq!(
        refused(&house, &["checkpoint", "create", "first", "one"]),
        "Error response from daemon: Cannot checkpoint container first: checkpoint not supported for containers with --init: their first process cannot be dumped"
    );
    house.ok(&["rm", "-f", "first"]);
    assert_eq!(
        refused(&house, &["checkpoint", "create", "ck", "one"]),
        "Error response from daemon: cannot checkpoint container ck: checkpoint with name one already exists for container ck"
    );
    assert_eq!(
        refused(&house, &["checkpoint", "create", "ck", "../one"]),
        "Error response from daemon: Invalid checkpoint ID (../one), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    );
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "ck"]), "true\n");

    // Kept and ended: its policy does not begin it anew.
    house.ok(&["checkpoint", "create", "ck", "two"]);
    assert_eq!(
        house.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ck"]),
        "exited 137\n"
    );
    assert_eq!(house.ok(&["checkpoint", "ls", "ck"]), "CHECKPOINT NAME\none\ntwo\n");
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "ck"]).trim().to_owned();
    let images = house.data_root().join("containers").join(&id).join("checkpoints/two");
    assert_eq!(std::fs::metadata(&images).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(images.join("core").exists() && images.join("descriptors.json").exists());
    let stopped = refused(&house, &["checkpoint", "create", "ck", "three"]);
    assert!(stopped.ends_with("is not running"), "{stopped}");

    assert_eq!(
        refused(&house, &["start", "--checkpoint", "none", "ck"]),
        "Error response from daemon: checkpoint none does not exist for container ck"
    );
    house.ok(&["start", "--checkpoint", "two", "ck"]);
    let request = asked(place.path());
    assert_eq!((&request["kind"], &request["sibling"]), (&json!(2), &json!(true)), "{request}");
    assert_eq!(request["missing"], json!([]), "{request}");
    let group = std::fs::read_to_string(place.path().join("group")).unwrap();
    assert!(group.contains(&format!("{}/{id}", house.cgroup_parent())), "{group}");
    // Its layer, its log and its end are those of before.
    let wanted = "begun\non with sleep 1001\nkept\n";
    wait_for("it goes on", || house.ok(&["logs", "ck"]) == wanted);
    let state =
        house.ok(&["inspect", "-f", "{{.State.Status}} {{.NetworkSettings.IPAddress}}", "ck"]);
    assert!(state.starts_with("running 10."), "{state}");
    house.ok(&["stop", "ck"]);
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.ExitCode}}", "ck"]), "143\n");

    house.ok(&["checkpoint", "rm", "ck", "one"]);
    assert_eq!(
        refused(&house, &["checkpoint", "rm", "ck", "one"]),
        "Error response from daemon: checkpoint one does not exist for container ck"
    );
    let now = house.ok(&["info", "-f", "{{.SystemTime}}"]);
    let past = ["events", "--since", "0", "--until", now.trim(), "--filter", "event=checkpoint"];
    let seen = house.ok(&past);
    assert!(seen.contains(&format!("container checkpoint {id}")), "{seen}");
    house.ok(&["rm", "ck"]);
    assert!(!images.exists());
    house.check();
}

#[test]
fn checkpoints_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let house = house(place.path(), &["--experimental"]);
    let elsewhere = place.path().join("kept");
    let dir = elsewhere.to_str().unwrap();
    house.ok(&["run", "-d", "--name", "ck", "busybox", "sleep", "1000"]);
    let create = ["checkpoint", "create", "--checkpoint-dir", dir, "ck", "one"];
    assert_eq!(house.gantry(&create).output().unwrap().stdout, b"one\n");
    assert_eq!(house.ok(&["checkpoint", "ls", "ck"]), "CHECKPOINT NAME\n");
    let list = ["checkpoint", "ls", "--checkpoint-dir", dir, "ck"];
    assert_eq!(house.ok(&list), "CHECKPOINT NAME\none\n");
    assert_eq!(house.gantry(&list).output().unwrap().stdout, b"CHECKPOINT NAME\none\n");
    house.ok(&["start", "--checkpoint", "one", "--checkpoint-dir", dir, "ck"]);
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "ck"]), "true\n");
    let remove = ["checkpoint", "rm", "--checkpoint-dir", dir, "ck", "one"];
    assert!(house.gantry(&remove).status().unwrap().success());
    assert_eq!(house.ok(&list), "CHECKPOINT NAME\n");
    house.ok(&["rm", "-f", "ck"]);
    house.check();
}

#[test]
fn where_it_cannot_be_done() {
    let place = tempfile::tempdir().unwrap();
    let house = house(place.path(), &["--experimental"]);
    std::fs::write(place.path().join("refuses"), "").unwrap();
    house.ok(&["run", "-d", "--name", "ck", "--restart", "always", "busybox", "sleep", "1000"]);
    let body = json!({"CheckpointID": "one", "Exit": true});
    let answer = house.api("POST", "/containers/ck/checkpoints", Some(&body));
    assert_eq!(answer.status, 501);
    assert_eq!(
        answer.json()["message"],
        "Cannot checkpoint container ck: criu 4.1.2 does not work with this kernel: criu failed: type CHECK errno 0: Error (x.c:2): this kernel is too new"
    );
    assert_eq!(house.ok(&["checkpoint", "ls", "ck"]), "CHECKPOINT NAME\n");
    // It lives, and lives on under its policy.
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ck"]);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_for("it is begun anew", || {
        house.ok(&["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", "ck"]) == "true 1\n"
    });
    std::fs::remove_file(place.path().join("criu")).unwrap();
    std::fs::remove_file(place.path().join("refuses")).unwrap();
    house.ok(&["rm", "-f", "ck"]);
    house.check();
}

#[test]
fn only_in_experimental_mode() {
    let house = House::new();
    let answer = house.api("GET", "/containers/ck/checkpoints", None);
    assert_eq!(answer.status, 501);
    assert_eq!(
        answer.json()["message"],
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it."
    );
    let words = refused(&house, &["checkpoint", "ls", "ck"]);
    assert!(words.contains("experimental"), "{words}");
    house.check();
}
