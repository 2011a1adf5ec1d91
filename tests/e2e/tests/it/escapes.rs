//! What a container may swap under our hands while we look into it (E4): it gets its own files, or an error, and never the
//! host's.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use testkit::House;
use testkit::house::shown;

use crate::containers::house;

const SECRET: &str = "the host's own words";
const ROUNDS: usize = 40;

/// Exchanges a directory and a link beside it, `d` and `l`, as fast as the kernel can, while `work` goes on.
fn swapping<T>(dir: &Path, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (dir.join("d"), dir.join("l"));
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE)
                    .expect("both are there");
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// A directory of the host's with a word in it, and in `dir` a directory and a link to the host's.
fn trap(house: &House, dir: &Path) -> std::path::PathBuf {
    let host = house.path("canary");
    fs::create_dir_all(host.join("sub")).expect("a directory");
    fs::write(host.join("sub/word"), SECRET).expect("a file");
    fs::create_dir_all(dir.join("d/sub")).expect("a directory");
    fs::write(dir.join("d/sub/word"), "its own").expect("a file");
    std::os::unix::fs::symlink(&host, dir.join("l")).expect("a link");
    host
}

#[test]
fn e4_an_export_never_leaves_the_container() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ca"]);
    let inside = Path::new("/proc").join(pid.trim()).join("root/tmp");
    let host = trap(&house, &inside);
    swapping(&inside, || {
        for _ in 0..ROUNDS {
            let exported = house.api("GET", "/containers/ca/export", None);
            let text = String::from_utf8_lossy(&exported.body);
            assert!(!text.contains(SECRET), "the host's file is in the export");
            let changes = house.api("GET", "/containers/ca/changes", None).text();
            assert!(!changes.contains("canary"), "{changes}");
        }
    });
    // Its own files are there: the twin that must keep working.
    let exported = house.api("GET", "/containers/ca/export", None);
    assert!(String::from_utf8_lossy(&exported.body).contains("its own"));
    assert_eq!(fs::read_to_string(host.join("sub/word")).expect("the canary lives"), SECRET);
    house.ok(&["rm", "-f", "ca"]);
}

#[test]
fn e4_a_part_of_a_volume_never_leads_out_of_it() {
    let house = house();
    house.ok(&["volume", "create", "shared"]);
    let data = house.data_root().join("volumes/shared/_data");
    let host = trap(&house, &data);
    let part = "type=volume,src=shared,dst=/x,volume-subpath=d/sub";
    let look = ["run", "--rm", "--network", "none", "--mount", part, "busybox", "cat", "/x/word"];
    swapping(&data, || {
        for _ in 0..ROUNDS {
            let output = house.docker(&look).output().expect("docker");
            assert!(!shown(&output).contains(SECRET), "{}", shown(&output));
        }
    });
    if fs::symlink_metadata(data.join("d")).expect("it is there").is_symlink() {
        renameat_with(CWD, data.join("d"), CWD, data.join("l"), RenameFlags::EXCHANGE)
            .expect("both are there");
    }
    assert_eq!(house.ok(&look), "its own");
    assert_eq!(fs::read_to_string(host.join("sub/word")).expect("the canary lives"), SECRET);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("canary") && !mounts.contains("volumes/shared"), "{mounts}");
    fs::remove_file(data.join("l")).expect("a link");
    house.ok(&["volume", "rm", "shared"]);
}
