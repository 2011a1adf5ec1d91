//! Root inside is nobody outside, and every file keeps its owner.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use testkit::house::{shown, succeed};
use testkit::{House, TestImage};

fn house(flags: &[&str]) -> House {
    let house = House::with(flags);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

/// The host's number for root of what runs here.
fn root_of(house: &House, container: &str) -> u32 {
    let map = house.ok(&["exec", container, "cat", "/proc/self/uid_map"]);
    let mut words = map.split_ascii_whitespace();
    assert_eq!(words.next(), Some("0"), "{map}");
    words.next().and_then(|word| word.parse().ok()).expect("a map of ids")
}

#[test]
fn each_container_has_users_of_its_own() {
    let mut house = house(&["--userns", "auto"]);
    assert!(house.ok(&["info", "-f", "{{.SecurityOptions}}"]).contains("name=userns"));
    for name in ["one", "two"] {
        house.ok(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    }
    let (one, two) = (root_of(&house, "one"), root_of(&house, "two"));
    assert!(one >= 524288 && two >= one + 65536, "{one} {two}");
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]);
    let owner = std::fs::metadata(format!("/proc/{}", pid.trim())).unwrap().uid();
    assert_eq!(owner, one, "the process is that user's");

    // What such a root does to files is on disk as if root had done it, and can be seen, saved and thrown away so.
    let script = "set -e; echo a >/new; chown 33:34 /new; mkdir /etc/own; rm -r /home; echo b >/dev/stdout; echo c >>/etc/hosts; \
        stat -c %u:%g /new /etc/own /etc/hosts /dev/shm /tmp";
    let seen = house.ok(&["exec", "one", "sh", "-c", script]);
    assert_eq!(seen, "b\n33:34\n0:0\n0:0\n0:0\n0:0\n");
    let upper = house.ok(&["inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "one"]);
    let on_disk = |name: &str| {
        let found = std::fs::metadata(format!("{}/{name}", upper.trim())).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!((on_disk("new"), on_disk("etc/own")), ((33, 34), (0, 0)));
    let mut changes: Vec<_> = house.ok(&["diff", "one"]).lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /etc/own", "A /new", "C /etc", "D /home"]);

    // What is taken out of it and put into it has the same owners, running or not.
    let archive = house.path("new.tar");
    let copy = |to: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "set -e; docker cp one:/new - >{0}; tar --numeric-owner -tvf {0} | cut -d' ' -f2; docker cp -a - one:/{to} <{0}; \\
             docker export one | tar --numeric-owner -tv new etc/own | cut -d' ' -f2",
            archive.display()
        ));
        command.env("DOCKER_HOST", format!("unix://{}", house.socket().display()));
        succeed(command)
    };
    let seen = copy("etc/own");
    let mut owners: Vec<_> = seen.lines().collect();
    owners.sort_unstable();
    assert_eq!(owners, ["0/0", "33/34", "33/34", "33/34"]);
    assert_eq!(on_disk("etc/own/new"), (33, 34));
    assert_eq!(house.ok(&["exec", "one", "stat", "-c", "%u:%g", "/etc/own/new"]), "33:34\n");
    house.ok(&["stop", "-t", "0", "one"]);
    copy("var");
    assert_eq!(on_disk("var/new"), (33, 34));
    house.ok(&["start", "one"]);

    // Nothing of the host's is theirs, root or not.
    for hostile in
        ["echo 1 >/proc/sys/kernel/panic", "mknod /k b 8 0", "echo 7 >/proc/sys/vm/swappiness"]
    {
        let tried =
            house.docker(&["exec", "--privileged", "one", "sh", "-c", hostile]).output().unwrap();
        assert!(!tried.status.success(), "{hostile}: {}", shown(&tried));
    }

    // A range is its container's across restarts of both, and nobody else's.
    house.kill();
    house.start();
    house.ok(&["restart", "-t", "0", "two"]);
    house.ok(&["run", "-d", "--name", "three", "busybox", "sleep", "1000"]);
    assert_eq!((root_of(&house, "one"), root_of(&house, "two")), (one, two));
    let three = root_of(&house, "three");
    assert!(three >= two + 65536, "{three}");
    house.ok(&["rm", "-f", "one"]);
    house.ok(&["run", "-d", "--name", "four", "busybox", "sleep", "1000"]);
    assert_eq!(root_of(&house, "four"), one, "what was given back is given out again");

    // Who asks for the host gets its users, too.
    for host in
        [&["--privileged"][..], &["--network", "host"], &["--pid", "host"], &["--userns", "host"]]
    {
        let map =
            house.ok(&[&["run", "--rm"], host, &["busybox", "cat", "/proc/self/uid_map"]].concat());
        assert_eq!(
            map.split_ascii_whitespace().collect::<Vec<_>>(),
            ["0", "0", "4294967295"],
            "{host:?}"
        );
    }
}

#[test]
fn who_lives_with_another_is_of_his_users() {
    let house = house(&["--userns", "auto"]);
    house.ok(&["run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "1000"]);
    let root = root_of(&house, "first");
    let run = |modes: &[&str], script: &str| {
        house.ok(&[&["run", "--rm"], modes, &["busybox", "sh", "-c", script]].concat())
    };
    let script =
        "cat /proc/self/uid_map; ls /sys/class/net; ping -c1 127.0.0.1 >/dev/null && echo up";
    for modes in [
        &["--network", "container:first"][..],
        &["--pid", "container:first"],
        &["--ipc", "container:first"],
    ] {
        let seen = run(modes, script);
        let words: Vec<_> = seen.split_ascii_whitespace().collect();
        assert_eq!(words, ["0", &root.to_string(), "65536", "eth0", "lo", "up"], "{modes:?}");
    }
    assert!(run(&["--pid", "container:first"], "ps").contains("sleep 1000"));
}

#[test]
fn files_of_binds_and_volumes_keep_their_owners() {
    let house = house(&["--userns", "auto"]);
    let dir = house.path("project");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "").unwrap();
    for path in [dir.clone(), dir.join("file")] {
        chown(path, Some(1234), Some(1235)).unwrap();
    }
    let bind = |mode: &str| format!("{}:/p{mode}", dir.display());
    let owner = |name: &str| {
        let found = std::fs::metadata(dir.join(name)).unwrap();
        (found.uid(), found.gid())
    };
    let run = |volume: &str, script: &str| {
        house.ok(&["run", "--rm", "-v", volume, "busybox", "sh", "-c", script])
    };
    // The person's directory is root's inside, and what root makes there is the person's.
    assert_eq!(run(&bind(""), "stat -c %u:%g /p /p/file; echo >/p/made"), "0:0\n0:0\n");
    assert_eq!(owner("made"), (1234, 1235));
    // Or some other user's, with and without a namespace of its own.
    for userns in ["", "host"] {
        let name = format!("by-{userns}");
        let script = format!("stat -c %u:%g /p/file; echo >/p/{name}");
        let volume = bind(":uid=33,gid=34");
        let seen = house.ok(&[
            "run", "--rm", "--userns", userns, "--user", "33:34", "-v", &volume, "busybox", "sh",
            "-c", &script,
        ]);
        assert_eq!((seen.as_str(), owner(&name)), ("33:34\n", (1234, 1235)), "{userns:?}");
    }
    // Or each who is named is somebody else, and all others are nobody.
    let map = "idmap=uids=1234-33-1;gids=1235-34-1";
    let mount = format!("type=bind,src={},dst=/p,{map}", dir.display());
    for (userns, by, flag) in [("", "v", "-v"), ("host", "m", "--mount")] {
        let volume = bind(&format!(":{map}"));
        let volume = if by == "v" { &volume } else { &mount };
        let script = format!("stat -c %u:%g /p/file; stat -c %u /p/own; echo >/p/to-{by}");
        let args = ["run", "--rm", "--userns", userns, "--user", "33:34", flag, volume, "busybox"];
        std::fs::write(dir.join("own"), "").unwrap();
        let args = [&args[..], &["sh", "-c", &script]].concat();
        let seen = succeed(if by == "v" { house.docker(&args) } else { house.gantry(&args) });
        assert_eq!(seen, "33:34\n65534\n", "{userns:?}");
        assert_eq!(owner(&format!("to-{by}")), (1234, 1235), "{userns:?}");
    }
    for (mount, words) in [
        ("type=bind,src=/tmp,dst=/p,idmap=uids=1-2", "invalid Ids: \"idmap=uids=1-2\""),
        ("type=bind,src=/tmp,dst=/p,uid=1,idmap=uids=1-2-3", "invalid Ids"),
        ("type=tmpfs,dst=/p,uid=1", "field Ids must not be specified"),
        (
            "type=bind,src=/tmp,dst=/p,idmap=uids=0-200000-1",
            "is about nobody whom the container has",
        ),
    ] {
        let output = house.gantry(&["run", "--mount", mount, "busybox"]).output().unwrap();
        assert!(shown(&output).contains(words), "{mount}: {output:?}");
    }
    // A volume has the numbers of those who use it, whoever they are on the host.
    run("data:/v", "echo >/v/a; chown 33:34 /v/a");
    assert_eq!(run("data:/v", "stat -c %u:%g /v /v/a"), "0:0\n33:34\n");
    // What cannot be mapped can be read by everybody, as before.
    assert!(!run("/proc:/host/proc:ro", "cat /host/proc/loadavg").is_empty());
    house.ok(&["volume", "rm", "data"]);
}

#[test]
fn a_person_can_stay_who_he_is() {
    let house = house(&[]);
    let dir = house.path("home");
    std::fs::create_dir(&dir).unwrap();
    chown(&dir, Some(1234), Some(1235)).unwrap();
    let volume = format!("{}:/p", dir.display());
    let run = |userns: &str, rest: &[&str]| {
        house.gantry(
            &[&["run", "--rm", "--userns", userns, "-v", &volume, "busybox"], rest].concat(),
        )
    };
    let seen =
        succeed(run("keep-id:uid=1234,gid=1235", &["sh", "-c", "id -u; id -g; echo >/p/mine"]));
    assert_eq!(seen, "1234\n1235\n");
    let made = std::fs::metadata(dir.join("mine")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1234, 1235));
    // The command says who asks.
    let seen = succeed(run("keep-id", &["cat", "/proc/self/uid_map"]));
    let first: Vec<_> = seen.split_ascii_whitespace().take(3).collect();
    assert_eq!(first, ["0", "0", "1"], "{seen}");

    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        shown(&output)
    };
    for (flags, words) in [
        (
            &["--privileged"][..],
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (
            &["--network", "host"],
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            &["--pid", "host"],
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        let mut command =
            house.gantry(&[&["run", "--rm", "--userns", "auto"], flags, &["busybox"]].concat());
        let said = refused(&mut command);
        assert!(said.contains(words), "{said}");
    }
    let said = refused(&mut house.gantry(&["run", "--userns", "auto:size=2000000000", "busybox"]));
    assert!(said.contains("no 2000000000 user ids are left for a user namespace"), "{said}");
}
