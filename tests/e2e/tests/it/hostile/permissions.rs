//! A9: what other users of the machine see of a daemon that has been busy.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use testkit::house::succeed;

use crate::containers::house;

/// What `user` can name, read, write or enter below the directories: by asking the kernel as that user.
fn reachable(dirs: &[&Path], user: &str) -> String {
    let mut find = Command::new("busybox");
    find.args(["setuidgid", user, "find"]).args(dirs).args(["-mindepth", "1"]);
    let output = find.output().expect("busybox");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a9_nothing_is_for_other_users() {
    let house = house();
    house.ok(&["volume", "create", "va"]);
    house.ok(&["network", "create", "na"]);
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "na",
        "-v",
        "va:/v",
        "-p",
        "127.0.0.1::80",
        "--health-cmd",
        "true",
        "busybox",
        "sh",
        "-c",
        "echo out; umask 0; echo secret > /v/a; echo secret > /b; exec sleep 600",
    ]);
    house.ok(&["exec", "ca", "true"]);
    house.ok(&["commit", "ca", "mine"]);
    house.ok(&["cp", "ca:/b", "-"]);
    house.ok(&["logs", "ca"]);
    let (data, exec) = (house.data_root(), house.exec_root());
    let seen = reachable(&[&data, &exec], "nobody");
    assert_eq!(seen, "", "nobody sees what is below {}", data.display());
    for root in [&data, &exec] {
        let mode = std::fs::metadata(root).expect("a root").mode();
        assert_eq!(mode & 0o007, 0, "{}: {mode:o}", root.display());
    }
    let socket = std::fs::metadata(house.socket()).expect("the socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o7777 & !0o660, 0, "{:o}", socket.mode());
    // Files of ours, wherever they lie, are written by us alone: a link to one would not help either.
    let mut find = Command::new("find");
    find.args([data.join("volumes"), exec]).args([
        "-xdev",
        "-perm",
        "/o=w",
        "-type",
        "f",
        "-not",
        "-path",
        "*/_data/*",
    ]);
    assert_eq!(succeed(find), "");
}
