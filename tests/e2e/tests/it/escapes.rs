//! What a container may swap under our hands while we look into it (E4): it gets its own files, or an error, and never the
//! host's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
        // Also when the work fails: nobody waits for a thread that goes on for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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

/// What `cp` must not read, change or add to: all of the host's directory, with modes, owners and times.
fn fingerprint(dir: &Path) -> String {
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("it is there").map(|e| e.expect("a name").path()).collect();
    names.sort();
    let meta = fs::metadata(dir).expect("it is there");
    let mut text = format!(
        "{} {:o} {} {}.{}\n",
        dir.display(),
        meta.mode(),
        meta.uid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    for path in names {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        match meta.is_dir() {
            true => text += &fingerprint(&path),
            false => {
                let content = fs::read_to_string(&path).unwrap_or_default();
                text += &format!(
                    "{} {:o} {} {}.{} {content}\n",
                    path.display(),
                    meta.mode(),
                    meta.uid(),
                    meta.mtime(),
                    meta.mtime_nsec()
                );
            }
        }
    }
    text
}

/// An archive that replaces the word, and adds another.
fn words() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["word", "new"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(8);
        header.set_mode(0o666);
        tar.append_data(&mut header, name, &b"replaced"[..]).expect("it fits");
    }
    tar.into_inner().expect("it fits")
}

/// Copies out of, into and about `place`, over and over, while `dir` is swapped; nothing of the host may be in an answer,
/// and nothing of the host may change.
fn copies_stay_inside(house: &House, container: &str, dir: &Path, place: &str, host: &Path) {
    let before = fingerprint(host);
    let archive = words();
    let size = SECRET.len().to_string();
    let (mut read, mut written) = (0, 0);
    swapping(dir, || {
        for _ in 0..ROUNDS * 4 {
            for part in ["", "/word", "/."] {
                let path = format!("/containers/{container}/archive?path={place}{part}");
                // What becomes a link while it is read ends an answer early.
                if let Ok(answer) = house.client_of_api().ask("GET", &path, None) {
                    assert!(!answer.text().contains(SECRET), "the host's file is in the answer");
                    read += usize::from(answer.text().contains("its own"));
                }
                let head = house.api("HEAD", &path, None);
                let stat = head.headers.iter().find(|(name, _)| name.ends_with("path-stat"));
                let told = stat.map(|(_, value)| decoded(value)).unwrap_or_default();
                assert!(!told.contains(&format!("\"size\":{size},")), "{told}");
            }
            let path = format!("/containers/{container}/archive?path={place}");
            let answer = house.send("PUT", &path, "application/x-tar", &archive);
            written += usize::from(answer.status == 200);
        }
    });
    assert_eq!(fingerprint(host), before, "the host was written to");
    // The twin: it is no wonder that nothing escapes where nothing works.
    assert!(read + written > 0, "{read} {written}");
}

fn decoded(header: &str) -> String {
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, header);
    String::from_utf8(bytes.expect("base64")).expect("UTF-8")
}

#[test]
fn e4_copies_never_leave_a_running_container() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ca"]);
    let inside = Path::new("/proc").join(pid.trim()).join("root/tmp");
    let host = trap(&house, &inside);
    copies_stay_inside(&house, "ca", &inside, "/tmp/d/sub", &host);
    house.ok(&["rm", "-f", "ca"]);
}

#[test]
fn e4_copies_never_leave_a_volume() {
    let house = house();
    house.ok(&["volume", "create", "shared"]);
    let data = house.data_root().join("volumes/shared/_data");
    let host = trap(&house, &data);
    let common = ["--network", "none", "-v", "shared:/data", "busybox", "sleep", "600"];
    house.ok(&[&["run", "-d", "--name", "ca"], &common[..]].concat());
    house.ok(&[&["create", "--name", "cb"], &common[..]].concat());
    copies_stay_inside(&house, "ca", &data, "/data/d/sub", &host);
    // Another container may change the volume of one that does not run.
    fs::write(data.join("d/sub/word").as_path(), "its own")
        .or_else(|_| fs::write(data.join("l/sub/word"), "its own"))
        .expect("one of them is the directory");
    copies_stay_inside(&house, "cb", &data, "/data/d/sub", &host);
    fs::remove_dir_all(&data).expect("the volume's data");
    fs::create_dir(&data).expect("the volume's data");
}

/// What is mounted below a place that is swapped meanwhile (CVE-2026-41568, 42306): nothing is made and nothing mounted on
/// the host, and a link that is absolute inside still leads where it leads inside.
#[test]
fn e4_places_of_mounts_are_inside() {
    let house = house();
    house.ok(&[
        "run",
        "--name",
        "made",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "mkdir /run /var; ln -s /run /var/run",
    ]);
    house.ok(&["commit", "made", "linked"]);
    house.ok(&["create", "--name", "cb", "--network", "none", "-v", "/var/run/deep", "linked"]);
    let put = house.send(
        "PUT",
        "/containers/cb/archive?path=/var/run/deep",
        "application/x-tar",
        &words(),
    );
    assert_eq!(put.status, 200, "{}", put.text());
    let got = house.api("GET", "/containers/cb/archive?path=/run/deep/word", None);
    assert!(got.text().contains("replaced"), "{}", got.text());

    let running = [
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "none",
        "-v",
        "mine:/tmp/d/sub/m",
        "busybox",
        "sleep",
        "600",
    ];
    house.ok(&running);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ca"]);
    let inside = Path::new("/proc").join(pid.trim()).join("root/tmp");
    let host = trap(&house, &inside);
    fs::create_dir(host.join("sub/m")).expect("a directory");
    copies_stay_inside(&house, "ca", &inside, "/tmp/d/sub", &host);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("canary") && !mounts.contains("volumes/mine"), "{mounts}");
    house.ok(&["rm", "-f", "-v", "ca", "cb"]);
    house.ok(&["volume", "rm", "mine"]);
}

/// Nothing that a container brings along is loaded or executed by who looks into it (CVE-2019-14271, 2017-18367): its
/// libraries, its lists of users, its archivers.
#[test]
fn e4_nothing_of_the_container_is_used_to_copy() {
    let house = house();
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "--network",
        "none",
        "-u",
        "nobody",
        "busybox",
        "sleep",
        "600",
    ]);
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "ca"]);
    let root = Path::new("/proc").join(pid.trim()).join("root");
    let trace = house.path("executed");
    let program = format!("#!/bin/sh\necho $0 >> {}\n", trace.display());
    for name in [
        "usr/bin/tar",
        "usr/bin/xz",
        "usr/bin/unpigz",
        "lib/libnss_files.so.2",
        "lib64/libnss_files.so.2",
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(&path, &program).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    fs::write(root.join("etc/ld.so.preload"), "/lib/libnss_files.so.2\n").expect("a file");
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\n").expect("a file");
    for query in ["/tmp", "/tmp&copyUIDGID=1"] {
        let path = format!("/containers/ca/archive?path={query}");
        assert_eq!(house.send("PUT", &path, "application/x-tar", &words()).status, 200);
        assert_eq!(house.api("GET", &path, None).status, 200);
    }
    house.ok(&["top", "ca"]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", house.pid())).expect("its memory");
    assert!(!maps.contains("libnss"), "{maps}");
    assert!(!trace.exists());
    house.ok(&["rm", "-f", "ca"]);
}

/// Devices of the host: nodes of them can be made, as in Docker, and not opened.
#[test]
fn e12_nodes_of_the_hosts_devices_stay_shut() {
    let house = house();
    let script = r#"
        for node in "kmsg c 1 11" "mem c 1 1" "port c 1 4" "kvm c 10 232" "fuse c 10 229" "loop b 7 0" "sda b 8 0" "vda b 254 0" "null c 1 3"; do
            mknod /tmp/${node%% *} ${node#* } || echo "cannot make $node"
        done
        for name in kmsg mem port kvm fuse loop sda vda; do
            (: < /tmp/$name) 2>/tmp/why && echo "opened $name"
            grep -q "Operation not permitted" /tmp/why || echo "$name: $(cat /tmp/why)"
            (: > /tmp/$name) 2>/dev/null && echo "wrote $name"
        done
        echo x > /tmp/null && echo its own are open
    "#;
    let run = ["run", "--rm", "--network", "none", "busybox", "sh", "-c", script];
    assert_eq!(house.ok(&run), "its own are open\n");
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    assert_eq!(house.ok(&["exec", "ca", "sh", "-c", script]), "its own are open\n");
    // One that was asked for is open, for as much as was asked.
    let given =
        ["run", "--rm", "--network", "none", "--device", "/dev/net/tun:/dev/tun:r", "busybox"];
    let look = "(: < /dev/tun) && echo read; (: > /dev/tun) 2>/dev/null && echo wrote; :";
    assert_eq!(house.ok(&[&given[..], &["sh", "-c", look]].concat()), "read\n");
}

/// Ways out of containers that everybody can find, each of which says so if it leads out.
const WAYS_OUT: &[(&str, &str)] = &[
    ("release_agent", "mkdir /tmp/cg && mount -t cgroup -o memory cgroup /tmp/cg && echo out"),
    (
        "release_agent of a hierarchy of its own",
        "mkdir /tmp/cg && mount -t cgroup -o rdma cgroup /tmp/cg && echo out",
    ),
    (
        "release_agent in a user namespace",
        "unshare -UrmC sh -c 'mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg' && echo out",
    ),
    (
        "release_agent where it is",
        "for f in $(find /sys/fs/cgroup -name release_agent); do echo /x > $f && echo out; done",
    ),
    (
        "notify_on_release",
        "for f in $(find /sys/fs/cgroup -name notify_on_release); do echo 1 > $f && echo out; done",
    ),
    (
        "devices.allow",
        "for f in $(find /sys/fs/cgroup -name devices.allow); do echo a > $f && echo out; done",
    ),
    (
        "limits of its own",
        "for f in $(find /sys/fs/cgroup -name memory.limit_in_bytes -o -name memory.max); do echo 1g > $f && echo out; done",
    ),
    (
        "processes of others",
        "for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo $$ > $f && echo out; done",
    ),
    ("core_pattern", "echo '|/x' > /proc/sys/kernel/core_pattern && echo out"),
    ("modprobe", "echo /x > /proc/sys/kernel/modprobe && echo out"),
    ("hotplug", "echo /x > /proc/sys/kernel/hotplug && echo out"),
    ("poweroff_cmd", "echo /x > /proc/sys/kernel/poweroff_cmd && echo out"),
    ("uevent_helper", "echo /x > /sys/kernel/uevent_helper && echo out"),
    ("binfmt_misc", "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && echo out"),
    ("binfmt register", "echo ':x:M::x::/x:' > /proc/sys/fs/binfmt_misc/register && echo out"),
    ("sysrq", "echo h > /proc/sysrq-trigger && echo out"),
    ("kcore", "[ -n \"$(head -c 16 /proc/kcore)\" ] && echo out"),
    ("keys", "[ -s /proc/keys ] && [ -n \"$(cat /proc/keys)\" ] && echo out"),
    ("timer_list", "[ -n \"$(cat /proc/timer_list)\" ] && echo out"),
    ("kmsg of proc", "head -c 1 /proc/kmsg | grep -q . && echo out"),
    ("dmesg", "dmesg | grep -q . && echo out"),
    ("kernel memory", "mknod /tmp/mem c 1 1; head -c 1 /tmp/mem | grep -q . && echo out"),
    ("disk of the host", "mknod /tmp/disk b 254 0; head -c 1 /tmp/disk && echo out"),
    ("disk by debugfs", "mount -t debugfs none /tmp && echo out"),
    ("tracefs", "mount -t tracefs none /tmp && echo out"),
    ("securityfs", "mount -t securityfs none /tmp && echo out"),
    ("another proc", "mount -t proc proc /tmp && echo out"),
    ("another sysfs", "mount -t sysfs sysfs /tmp && echo out"),
    ("proc writable again", "mount -o remount,rw /proc/sys && echo out"),
    ("sys writable again", "mount -o remount,rw /sys && echo out"),
    ("masks taken away", "umount /proc/kcore && echo out"),
    ("a bind of the root", "mount --bind / /tmp && echo out"),
    ("pivot", "mkdir /tmp/a /tmp/a/b && pivot_root /tmp/a /tmp/a/b && echo out"),
    ("the first process' root", "[ -e /proc/1/root$CANARY ] && echo out"),
    (
        "descriptors left open",
        "for f in /proc/self/fd/* /proc/1/fd/*; do [ -e $f$CANARY ] && echo out; done; :",
    ),
    (
        "a working directory outside",
        "for n in 3 4 5 6 7 8 9 10; do [ -e /proc/self/fd/$n/../../..$CANARY ] && echo out; done; :",
    ),
    ("dots", "[ -e /../../../../..$CANARY ] && echo out"),
    (
        "chroot out",
        "mkdir /tmp/c; chroot /tmp/c /bin/true; [ -e ../../../../..$CANARY ] && echo out",
    ),
    ("namespaces of the host", "nsenter -t 1 -m -p -- sh -c \"[ -e $CANARY ]\" && echo out"),
    ("another user namespace", "unshare -Ur true && echo out"),
    ("another mount namespace", "unshare -m true && echo out"),
    (
        "the engine's socket",
        "for f in /var/run/docker.sock /run/docker.sock /run/gantry.sock $SOCKET; do [ -e $f ] && echo out; done; :",
    ),
    ("sockets without a name", "grep -qi gantry /proc/net/unix && echo out"),
    (
        "modules",
        "insmod /nothing.ko 2>&1 | grep -qv 'not permitted' && [ -n \"$(lsmod)\" ] && insmod /nothing.ko && echo out",
    ),
    ("clock", "date -s @0 2>&1 | grep -q \"can't set\" || echo out"),
    ("name of the host", "hostname elsewhere && echo out"),
    ("priority", "renice -n -20 -p $$ && echo out"),
    ("limits", "ulimit -Hn 99999999 && echo out"),
    (
        "swap",
        "dd if=/dev/zero of=/tmp/swap bs=1k count=64 && mkswap /tmp/swap && swapon /tmp/swap && echo out",
    ),
    ("reboot", "reboot -f && echo out"),
    ("oom of others", "echo -1000 > /proc/self/oom_score_adj && echo out"),
];

/// Those that a container without its own users' namespace shares with the host, and may not change.
const OF_THE_HOST: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/hostname",
];

#[test]
fn e14_ways_out_that_everybody_knows() {
    assert!(WAYS_OUT.len() >= 40);
    let house = house();
    let canary = house.path("canary");
    fs::write(&canary, SECRET).expect("a file");
    let state = || OF_THE_HOST.iter().map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>();
    let before = state();
    let environment =
        [format!("CANARY={}", canary.display()), format!("SOCKET={}", house.socket().display())];
    let mut run = vec!["run", "-d", "--name", "ca", "--network", "none"];
    environment.iter().for_each(|variable| run.extend(["-e", variable.as_str()]));
    house.ok(&[&run[..], &["busybox", "sleep", "600"]].concat());
    for (name, script) in WAYS_OUT {
        // Nothing may hang for want of an answer.
        let tried = house.docker(&["exec", "ca", "timeout", "20", "sh", "-c", script]).output();
        let tried = tried.expect("docker");
        let said = String::from_utf8_lossy(&tried.stdout);
        assert!(!said.lines().any(|line| line == "out"), "{name}: {}", shown(&tried));
    }
    assert_eq!(state(), before);
    assert_eq!(fs::read_to_string(&canary).expect("it is there"), SECRET);
    // The twin: who is given everything gets out, and so the questions are asked rightly.
    let everything = ["run", "--rm", "--privileged", "--pid", "host", "--network", "none"];
    let mut run = everything.to_vec();
    environment.iter().for_each(|variable| run.extend(["-e", variable.as_str()]));
    for name in ["another mount namespace", "a bind of the root", "another proc", "another sysfs"] {
        let (_, script) = WAYS_OUT.iter().find(|(other, _)| *other == name).expect("it is listed");
        let said = house.ok(&[&run[..], &["busybox", "sh", "-c", script]].concat());
        assert!(said.lines().any(|line| line == "out"), "{name} leads nowhere for anybody: {said}");
    }
}
