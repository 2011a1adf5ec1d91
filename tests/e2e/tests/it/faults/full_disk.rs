//! F11, F12: a full disk is an error, not an outage. Whatever fills it, all can be looked at, stopped and removed; what needs
//! room says that there is none; and once there is room again, everything works as before.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::house::shown;
use testkit::{Disk, House};

use super::{furnish, looks, until};

/// A daemon on a disk of so many MiB, with one container that lives.
fn furnished(disk: &Disk) -> House {
    let house = House::on(&disk.path().join("data"), &["--log-budget", "0"], &[]);
    furnish(&house);
    house
}

/// Fills the disk but for so many bytes.
fn leave(disk: &Disk, bytes: u64) -> PathBuf {
    let filler = disk.fill();
    let file = std::fs::File::options().write(true).open(&filler).expect("it is there");
    let length = file.metadata().expect("it is there").len();
    file.set_len(length - bytes).expect("it can be shorter");
    filler
}

/// Has a container do what fills the disk, until it cannot any more.
fn run(house: &House, more: &[&str], script: &str) {
    let args = [
        &["run", "-d", "--name", "filler", "--network", "none", "--log-opt", "max-size=-1"],
        more,
        &["busybox", "sh", "-c", script],
    ];
    house.ok(&args.concat());
}

/// Asks for what needs room: it is refused in words, or there was room for it.
fn asks(house: &House, method: &str, path: &str, body: &Value) -> u16 {
    let answer = house.api(method, path, Some(body));
    if answer.status >= 400 {
        let text = answer.text();
        assert_eq!(answer.status, 503, "{method} {path}: {text}");
        assert!(
            text.contains("no space left on device")
                || text.contains("disk that holds the records is full"),
            "{method} {path}: {text}"
        );
    }
    answer.status
}

/// The matrix: what is full, by whom, and who gives room again.
fn matrix(mut house: House, disk: &Disk, free: impl FnOnce(&House)) {
    for again in 0..2 {
        looks(&house);
        assert_eq!(house.ok(&["exec", "kept", "cat", "/v/file"]), "kept\n");
        let create =
            json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
        let made = (0..200).map(|n| format!("/containers/create?name=made{again}n{n}"));
        let full = made.clone().find(|path| asks(&house, "POST", path, &create) != 201);
        assert!(full.is_some(), "{} bytes are free", disk.free());
        let volumes = (0..200).map(|n| json!({"Name": format!("made{again}n{n}")}));
        let mut refused = volumes.map(|body| asks(&house, "POST", "/volumes/create", &body));
        assert!(refused.any(|status| status == 503));
        let image = testkit::TestImage::small("more").docker_archive(&["more:latest"]);
        let loaded = house.send("POST", "/images/load?quiet=1", "application/x-tar", &image);
        let text = loaded.text();
        assert!(
            loaded.status == 503 || text.contains("no space left on device"),
            "{} {text}",
            loaded.status
        );
        if again == 0 {
            // The next daemon finds it full.
            house.kill();
            house.start();
        }
    }
    assert_eq!(house.api("GET", "/_ping", None).text(), "OK");
    // What takes room away again works all the time.
    house.ok(&["stop", "-t", "0", "kept"]);
    // Overlayfs wants a directory for each run.
    if asks(&house, "POST", "/containers/kept/start", &json!({})) == 204 {
        house.ok(&["kill", "kept"]);
    }
    house.ok(&["update", "--restart", "no", "kept"]);
    let listed = house.api("GET", "/containers/json?all=1", None).json();
    let made = listed.as_array().expect("a list").iter().filter_map(|one| {
        Some(one["Names"][0].as_str()?[1..].to_owned()).filter(|name| name.starts_with("made"))
    });
    if let Some(name) = made.take(1).next() {
        house.ok(&["rm", &name]);
    }
    house.ok(&["container", "prune", "-f", "--filter", "label!=kept"]);
    free(&house);
    until("there is room", || disk.free() > 1 << 20);
    // All is as before, and nothing was lost.
    until("a container can be made", || {
        let run = ["run", "--rm", "-v", "kept:/v", "busybox", "cat", "/v/file"];
        let output = house.docker(&run).output().expect("docker");
        assert!(
            output.status.success() || shown(&output).contains("o space left"),
            "{}",
            shown(&output)
        );
        output.stdout == b"kept\n"
    });
    house.ok(&["rm", "kept"]);
    house.ok(&["volume", "prune", "-af"]);
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "");
    house.check();
}

#[test]
fn f11_full_by_a_log() {
    let disk = Disk::new(48);
    let house = furnished(&disk);
    let filler = leave(&disk, 4 << 20);
    run(&house, &[], "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    // The last twentieth is not for logs; others take that.
    until("the log fills the disk", || disk.free() < 3 << 20);
    house.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
    disk.fill();
    matrix(house, &disk, move |house| {
        house.ok(&["rm", "-f", "filler"]);
        std::fs::remove_file(filler).expect("the rest");
    });
}

#[test]
fn f11_full_by_a_layer() {
    let disk = Disk::new(48);
    let house = furnished(&disk);
    run(
        &house,
        &[],
        "dd if=/dev/zero of=/big bs=64k; dd if=/dev/zero of=/more bs=512; touch /end; sleep 3600",
    );
    until("the layer fills the disk", || disk.free() < 4096);
    matrix(house, &disk, |house| drop(house.ok(&["rm", "-f", "filler"])));
}

#[test]
fn f11_full_by_a_volume() {
    let disk = Disk::new(48);
    let house = furnished(&disk);
    run(
        &house,
        &["-v", "big:/big"],
        "dd if=/dev/zero of=/big/a bs=64k; dd if=/dev/zero of=/big/b bs=512; sleep 3600",
    );
    until("the volume fills the disk", || disk.free() < 4096);
    matrix(house, &disk, |house| {
        house.ok(&["rm", "-f", "filler"]);
        house.ok(&["volume", "rm", "big"]);
    });
}

#[test]
fn f11_full_by_records() {
    let disk = Disk::new(48);
    let house = furnished(&disk);
    let filler = leave(&disk, 1 << 20);
    let label = "x".repeat(20_000);
    let create = json!({"Image": "busybox", "Cmd": ["true"], "Labels": {"l": label}});
    let full = (0..)
        .find(|n| asks(&house, "POST", &format!("/containers/create?name=f{n}"), &create) != 201);
    let count: usize = full.expect("there is an end");
    disk.fill();
    matrix(house, &disk, move |house| {
        for n in 0..count {
            house.api("DELETE", &format!("/containers/f{n}"), None);
        }
        std::fs::remove_file(filler).expect("the rest");
    });
}

#[test]
fn f12_no_inodes() {
    let disk = Disk::with_inodes(48, 1024);
    let house = furnished(&disk);
    let filler = disk.fill_inodes();
    matrix(house, &disk, |_| std::fs::remove_dir_all(filler).expect("the fillers"));
}
