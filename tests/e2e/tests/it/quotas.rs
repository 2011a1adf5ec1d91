//! Limits of volumes and writable layers, where the kernel counts by projects: elsewhere there is nothing to see, and
//! `tests/guest/run quotas::` boots a host that counts on both file systems that can (`uml.rs` sees ext4 everywhere).

use testkit::{Disk, House, TestImage};

/// Writes twice what fits, and tells how much did in MB.
const FILL: &str =
    "dd if=/dev/zero of=$0/f bs=64k count=128 2>/dev/null; echo $(($(stat -c %s $0/f) / 1000000))";

#[test]
fn on_ext4() {
    limits_hold("ext4");
}

#[test]
fn on_xfs() {
    limits_hold("xfs");
}

fn limits_hold(kind: &str) {
    let Some(disk) = Disk::counting(kind) else { return };
    let house = House::on(&disk.path().join("data"), &[], &[]);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let run = |options: &[&str], command: &[&str]| {
        let begin = ["run", "--rm", "--network", "none"];
        house.ok(&[&begin[..], options, &["busybox"], command].concat()).trim().to_owned()
    };
    let fill = |options: &[&str], place: &str| run(options, &["sh", "-c", FILL, place]);

    house.ok(&["volume", "create", "--opt", "size=4m", "small"]);
    house.ok(&["volume", "create", "large"]);
    assert_eq!(fill(&["-v", "small:/v"], "/v"), "4");
    assert_eq!(fill(&["-v", "large:/v"], "/v"), "8");
    let shown = run(&["-v", "small:/v"], &["sh", "-c", "df -k /v | tail -n1 | awk '{ print $2 }'"]);
    assert_eq!(shown, "4096");
    assert_eq!(fill(&["--storage-opt", "size=4m"], "/root"), "4");
    assert_eq!(fill(&[], "/root"), "8");

    // A copy has the limit of what it is a copy of, and what is in it counts.
    let copy = |words: &[&str]| {
        let output = house.gantry(words).output().expect("it can be executed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    copy(&["volume", "clone", "small", "copy"]);
    let more = "dd if=/dev/zero of=/v/more bs=64k count=16 2>/dev/null; echo $(($(stat -c %s /v/more 2>/dev/null || echo 0) / 1000000))";
    assert_eq!(run(&["-v", "copy:/v"], &["sh", "-c", more]), "0");
    assert_eq!(house.ok(&["volume", "inspect", "-f", "{{.Options.size}}", "copy"]), "4m\n");
    assert_eq!(run(&["-v", "copy:/v"], &["sh", "-c", "rm -f /v/f /v/more; echo"]), "");
    assert_eq!(fill(&["-v", "copy:/v"], "/v"), "4");
    copy(&["volume", "clone", "large", "other"]);
    assert_eq!(fill(&["-v", "other:/v"], "/v"), "8");
    house.ok(&["volume", "rm", "small", "copy", "large", "other"]);
    // What a limit was of is free for the next, and the next is not held by it.
    for size in ["4m", "3m", "9m"] {
        house.ok(&["volume", "create", "--opt", &format!("size={size}"), "again"]);
        if size == "9m" {
            assert_eq!(fill(&["-v", "again:/v"], "/v"), "8");
        }
        house.ok(&["volume", "rm", "again"]);
    }
    house.check();
    drop(house);
    drop(disk);
}
