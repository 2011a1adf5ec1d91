//! The specification, field by field: each is honoured, or refused by its name. What other files test (`escape`: users,
//! capabilities, masks, sysctls, devices; `cgroup`: limits) is not here again.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use oci::runtime::{
    ConsoleSize, CpuAffinity, Device, DeviceRule, IdMapping, IntelRdt, IoPriority, Linux, Mount,
    Namespace, NamespaceType, NetDevice, Network, Personality, Process, Resources, Rlimit,
    Scheduler, Seccomp, SeccompAction, SeccompSyscall, Spec, TimeOffset,
};

use crate::skip_unless_root;
use crate::stage::{Stage, process, spec};

fn linux(script: &str, change: impl FnOnce(&mut Linux)) -> Spec {
    let mut spec = spec(script);
    change(spec.linux.as_mut().unwrap());
    spec
}

fn of_process(script: &str, change: impl FnOnce(&mut Process)) -> Spec {
    let mut spec = spec(script);
    change(spec.process.as_mut().unwrap());
    spec
}

fn mounted(script: &str, kind: &str, source: &Path, options: &[&str]) -> Spec {
    let mut spec = spec(script);
    spec.mounts.push(Mount {
        destination: "/vol".into(),
        kind: kind.to_owned(),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    });
    spec
}

fn namespace(linux: &mut Linux, kind: NamespaceType, path: Option<&str>) {
    linux.namespaces.retain(|namespace| namespace.kind != kind);
    linux.namespaces.push(Namespace { kind, path: path.map(PathBuf::from) });
}

#[test]
fn refused_by_name() {
    skip_unless_root!();
    let stage = Stage::new();
    let notify = |listener: bool, no_new_privileges: bool| {
        let mut spec = linux("true", |linux| {
            linux.seccomp = Some(Seccomp {
                default_action: SeccompAction::Allow,
                listener_path: listener.then(|| "/nowhere/listener".into()),
                syscalls: vec![SeccompSyscall {
                    names: vec!["acct".to_owned()],
                    action: SeccompAction::Notify,
                    ..SeccompSyscall::default()
                }],
                ..Seccomp::default()
            });
        });
        spec.process.as_mut().unwrap().no_new_privileges = no_new_privileges;
        spec
    };
    let clock = |name: &str, own: bool| {
        linux("true", |linux| {
            linux.time_offsets = [(name.to_owned(), TimeOffset { secs: 1, nanosecs: 0 })].into();
            if own {
                namespace(linux, NamespaceType::Time, None);
            }
        })
    };
    let cgroup = |change: fn(&mut Resources)| {
        linux("true", |linux| change(linux.resources.as_mut().unwrap()))
    };
    let v1 = Path::new("/sys/fs/cgroup/memory").exists();
    let mut cases = vec![
        (linux("true", |linux| linux.intel_rdt = Some(IntelRdt::default())), "intelRdt"),
        (
            linux("true", |linux| {
                linux.net_devices = [("eth0".to_owned(), NetDevice::default())].into();
            }),
            "netDevices",
        ),
        (linux("true", |linux| linux.mount_label = "x".into()), "mountLabel"),
        (linux("true", |linux| linux.rootfs_propagation = "loud".into()), "rootfsPropagation=loud"),
        (
            linux("true", |linux| {
                let flags = vec!["ADDR_NO_RANDOMIZE".to_owned()];
                linux.personality = Some(Personality { domain: "LINUX".into(), flags });
            }),
            "personality flag \"ADDR_NO_RANDOMIZE\"",
        ),
        (
            linux("true", |linux| {
                linux.personality = Some(Personality { domain: "BSD".into(), flags: vec![] });
            }),
            "personality domain: \"BSD\"",
        ),
        (clock("monotonic", false), "no time namespace"),
        (clock("realtime", true), "unknown clock \"realtime\""),
        (notify(true, true), "SCMP_ACT_NOTIFY with noNewPrivileges"),
        (notify(false, false), "listenerPath"),
        (notify(true, false), "/nowhere/listener"),
        (
            linux("true", |linux| {
                linux.namespaces.push(Namespace { kind: NamespaceType::Pid, path: None });
            }),
            "duplicated ns",
        ),
        (
            linux("true", |linux| namespace(linux, NamespaceType::Network, Some("/nowhere"))),
            "cannot join namespace /nowhere",
        ),
        (
            linux("true", |linux| {
                namespace(linux, NamespaceType::Network, Some("/proc/self/ns/uts"));
            }),
            "cannot join the Network namespace",
        ),
        (
            of_process("true", |process| {
                let limit = Rlimit { kind: "RLIMIT_CORE".into(), hard: 1, soft: 1 };
                process.rlimits = vec![limit.clone(), limit];
            }),
            "RLIMIT_CORE is given twice",
        ),
        (
            of_process("true", |process| {
                process.scheduler =
                    Some(Scheduler { policy: "SCHED_X".into(), ..Scheduler::default() });
            }),
            "scheduler policy: \"SCHED_X\"",
        ),
        (
            of_process("true", |process| {
                process.io_priority =
                    Some(IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 8 });
            }),
            "ioPriority.priority",
        ),
        (
            of_process("true", |process| process.apparmor_profile = "nosuch".into()),
            "apparmor profile",
        ),
        (of_process("true", |process| process.selinux_label = "x".into()), "selinux"),
        (
            linux("true", |linux| {
                linux.namespaces.retain(|one| one.kind != NamespaceType::Uts);
            }),
            "hostname without a private UTS namespace",
        ),
        (
            linux("true", |linux| {
                let path = "/dev/x".into();
                linux.devices = vec![Device { path, kind: "x".into(), ..Device::default() }];
            }),
            "device",
        ),
    ];
    if v1 {
        cases.push((
            cgroup(|resources| {
                resources.unified = [("memory.high".to_owned(), "1".to_owned())].into();
            }),
            "unified on cgroup v1",
        ));
    }
    if v1 && !Path::new("/sys/fs/cgroup/net_cls").exists() {
        cases.push((
            cgroup(|resources| {
                resources.network = Some(Network { class_id: Some(7), priorities: Vec::new() });
            }),
            "net_cls",
        ));
    }
    for (spec, name) in cases {
        let outcome = stage.run(&spec);
        assert!(outcome.refused().contains(name), "{name}: {outcome:?}");
    }
    // The twin of them all.
    stage.run(&spec("echo fine")).wrote("fine");
}

#[test]
fn the_process() {
    skip_unless_root!();
    let stage = Stage::new();
    let check = |change: fn(&mut Process), script: &str, expected: &str| {
        stage.run(&of_process(script, change)).wrote(expected);
        let mut exec = process(script);
        change(&mut exec);
        let outcome = stage.run_with(&spec("exec sleep 1000"), &[exec]);
        outcome.execs[0].wrote(expected);
    };
    check(|process| process.oom_score_adj = Some(321), "cat /proc/self/oom_score_adj", "321");
    check(|process| process.user.umask = Some(0o027), "umask", "0027");
    check(|_| {}, "umask", "0022");
    check(
        |process| {
            process.rlimits = vec![
                Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 77, soft: 66 },
                Rlimit { kind: "RLIMIT_CORE".into(), hard: 0, soft: 0 },
            ];
        },
        "ulimit -Sn; ulimit -Hn; ulimit -c",
        "66\n77\n0",
    );
    check(
        |process| {
            process.io_priority = Some(IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 7 });
        },
        "ionice -p $$",
        "best-effort: prio 7",
    );
    // Policy and niceness as the kernel lists them.
    let scheduled = "cut -d')' -f2 /proc/$$/stat | cut -d' ' -f18,40";
    check(|_| {}, scheduled, "0 0");
    check(
        |process| {
            process.scheduler = Some(Scheduler {
                policy: "SCHED_BATCH".into(),
                nice: Some(5),
                ..Scheduler::default()
            });
        },
        scheduled,
        "5 3",
    );
    check(|process| process.env.push("A=b".into()), "echo $A $HOME", "b /root");
}

#[test]
fn where_a_joining_process_may_run() {
    skip_unless_root!();
    let stage = Stage::new();
    let allowed = "grep Cpus_allowed_list /proc/self/status | tr -d '\\t'";
    let with = |initial: &str, last: &str| {
        let mut exec = process(allowed);
        exec.exec_cpu_affinity =
            Some(CpuAffinity { initial: initial.to_owned(), last: last.to_owned() });
        exec
    };
    let plain = stage.run(&spec(allowed)).output;
    let execs = [process(allowed), with("", "0"), with("0", ""), with("0", "0"), with("x", "")];
    let outcome = stage.run_with(&spec("exec sleep 1000"), &execs);
    outcome.execs[0].wrote(plain.trim());
    outcome.execs[1].wrote("Cpus_allowed_list:0");
    outcome.execs[2].wrote("Cpus_allowed_list:0");
    outcome.execs[3].wrote("Cpus_allowed_list:0");
    assert!(outcome.execs[4].refused().contains("CPU affinity"), "{outcome:?}");
}

#[test]
fn names_clocks_and_domains() {
    skip_unless_root!();
    let stage = Stage::new();
    let mut named = spec("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname");
    (named.hostname, named.domainname) = ("box".into(), "example.org".into());
    stage.run(&named).wrote("box\nexample.org");

    let uptime = "cut -d. -f1 /proc/uptime";
    let later = linux(uptime, |linux| {
        namespace(linux, NamespaceType::Time, None);
        let offset = TimeOffset { secs: 1_000_000_000, nanosecs: 0 };
        linux.time_offsets = [("boottime".to_owned(), offset)].into();
    });
    let number = |spec: &Spec| stage.run(spec).output.trim().parse::<u64>().unwrap();
    assert!(number(&later) > 1_000_000_000);
    assert!(number(&spec(uptime)) < 1_000_000_000);

    if cfg!(target_arch = "x86_64") {
        let old = linux("uname -m", |linux| {
            linux.personality = Some(Personality { domain: "LINUX32".into(), flags: vec![] });
        });
        stage.run(&old).wrote("i686");
        let mut sleeper = old;
        sleeper.process.as_mut().unwrap().args = ["sleep", "1000"].map(str::to_owned).to_vec();
        stage.run_with(&sleeper, &[process("uname -m")]).execs[0].wrote("i686");
        stage.run(&spec("uname -m")).wrote("x86_64");
    }
}

#[test]
fn namespaces_of_others() {
    skip_unless_root!();
    let stage = Stage::new();
    for (kind, name) in [
        (NamespaceType::Network, "net"),
        (NamespaceType::Ipc, "ipc"),
        (NamespaceType::Cgroup, "cgroup"),
    ] {
        let script = format!("readlink /proc/self/ns/{name}");
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let path = format!("/proc/{}/ns/{name}", std::process::id());
        let joined = linux(&script, |linux| namespace(linux, kind, Some(&path)));
        stage.run(&joined).wrote(host.to_str().unwrap());
        let own = linux(&script, |linux| namespace(linux, kind, None));
        assert_ne!(stage.run(&own).output.trim(), host.to_str().unwrap(), "{name}");
        // Who joins the container joins the same.
        let mut sleeper = joined;
        sleeper.process.as_mut().unwrap().args = ["sleep", "1000"].map(str::to_owned).to_vec();
        stage.run_with(&sleeper, &[process(&script)]).execs[0].wrote(host.to_str().unwrap());
    }
}

#[test]
fn kinds_and_words_of_mounts() {
    skip_unless_root!();
    let stage = Stage::new();
    let theirs = stage.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("file"), "content").unwrap();
    symlink("file", theirs.join("link")).unwrap();

    let link = "cat /vol/link 2>/dev/null || echo refused";
    stage.run(&mounted(link, "bind", &theirs, &["bind"])).wrote("content");
    stage.run(&mounted(link, "bind", &theirs, &["bind", "nosymfollow"])).wrote("refused");

    // The host's /dev has file systems of its own below it.
    let below = format!("gantry-fields-{}", std::process::id());
    let script = format!(
        "(: >/vol/{below}) 2>/dev/null && echo wrote; (: >/vol/shm/{below}) 2>/dev/null && echo wrote below; echo end"
    );
    let dev = Path::new("/dev");
    for (options, expected) in
        [(&["rbind", "ro"][..], "wrote below\nend"), (&["rbind", "rro"], "end")]
    {
        let outcome = stage.run(&mounted(&script, "bind", dev, options));
        for place in [dev.join(&below), dev.join("shm").join(&below)] {
            let _absent = fs::remove_file(place);
        }
        outcome.wrote(expected);
    }

    fs::write(stage.rootfs().join("vol/of-the-image"), "kept").unwrap();
    let script = "cat /vol/of-the-image; touch /vol/new; ls /vol";
    let tmpfs = Path::new("tmpfs");
    stage.run(&mounted(script, "tmpfs", tmpfs, &["tmpcopyup"])).wrote("keptnew\nof-the-image");
    assert!(!stage.rootfs().join("vol/new").exists());
    stage.run(&mounted("ls /vol", "tmpfs", tmpfs, &[])).wrote("");
    stage
        .run(&mounted(
            "stat -c %a /vol; df -k /vol | tail -1 | tr -s ' ' | cut -d' ' -f2",
            "tmpfs",
            tmpfs,
            &["mode=1770", "size=64k"],
        ))
        .wrote("1770\n64");
    let outcome = stage.run(&mounted("true", "tmpfs", tmpfs, &["nonsense=1"]));
    assert!(outcome.refused().contains("nonsense"), "{outcome:?}");
    let outcome = stage.run(&mounted("true", "nosuchfs", tmpfs, &[]));
    assert!(outcome.refused().contains("nosuchfs"), "{outcome:?}");
}

#[test]
fn owners_in_another_numbering() {
    skip_unless_root!();
    let stage = Stage::new();
    let theirs = stage.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("file"), "").unwrap();
    let script = "stat -c %u:%g /vol/file";
    stage.run(&mounted(script, "bind", &theirs, &["bind"])).wrote("0:0");
    for word in ["idmap", "ridmap"] {
        let mut spec = mounted(script, "bind", &theirs, &["rbind", word]);
        let mapping = vec![IdMapping { container_id: 0, host_id: 3000, size: 10 }];
        let mount = spec.mounts.last_mut().unwrap();
        (mount.uid_mappings, mount.gid_mappings) = (mapping.clone(), mapping);
        stage.run(&spec).wrote("3000:3000");
    }
    // The word alone means the container's mapping, and there is none.
    let outcome = stage.run(&mounted(script, "bind", &theirs, &["rbind", "idmap"]));
    assert!(outcome.refused().contains("wants a mapping"), "{outcome:?}");
    assert_eq!(fs::metadata(theirs.join("file")).unwrap().uid(), 0);
}

#[test]
fn how_mounts_spread() {
    skip_unless_root!();
    let stage = Stage::new();
    // The root's own line: its optional fields stand between the options and the dash.
    let script = "grep -E '^[0-9]+ [0-9]+ [^ ]+ [^ ]+ / ' /proc/self/mountinfo | sed 's/ - .*//' | cut -d' ' -f7- | cut -d: -f1";
    for (word, expected) in [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("private", ""),
        ("unbindable", "unbindable"),
        ("", ""),
    ] {
        let outcome = stage.run(&linux(script, |linux| linux.rootfs_propagation = word.into()));
        outcome.wrote(expected);
    }
}

#[test]
fn devices_as_described() {
    skip_unless_root!();
    let stage = Stage::new();
    let device = |path: &str, kind: &str, major: i64, minor: i64| Device {
        path: path.into(),
        kind: kind.into(),
        major,
        minor,
        file_mode: Some(0o640),
        uid: Some(5),
        gid: Some(6),
    };
    let spec = linux(
        "stat -c '%A %u %g %t %T' /dev/mine /dev/fifo; head -c3 /dev/mine | wc -c; head -c1 /dev/shut 2>/dev/null || echo shut",
        |linux| {
            linux.devices = vec![
                device("/dev/mine", "c", 1, 5),
                device("/dev/fifo", "p", 0, 0),
                device("/dev/shut", "c", 1, 11),
            ];
            let rules = &mut linux.resources.as_mut().unwrap().devices;
            rules.push(DeviceRule {
                allow: true,
                kind: "c".into(),
                major: Some(1),
                minor: Some(5),
                access: "rwm".into(),
            });
        },
    );
    stage.run(&spec).wrote("crw-r----- 5 6 1 5\nprw-r----- 5 6 0 0\n3\nshut");
}

#[test]
fn forms_of_the_cgroup_path() {
    skip_unless_root!();
    let stage = Stage::new();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let unified = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let script = "grep '^0::' /proc/self/cgroup";
    let below = |name: &str| format!("0::{}/{name}", unified.trim_end_matches('/'));
    let name = format!("gantry-fields-{}", std::process::id());
    for (path, expected) in [
        (format!("/{name}/a"), format!("0::/{name}/a")),
        (format!("/{name}/../{name}/b"), format!("0::/{name}/b")),
        (format!("{name}-c"), below(&format!("{name}-c"))),
        // systemd's form is a name like any other as long as its driver is not asked for.
        (format!("system.slice:gantry:{name}"), below(&format!("system.slice:gantry:{name}"))),
    ] {
        let spec = linux(script, |linux| linux.cgroups_path.clone_from(&path));
        stage.run(&spec).wrote(&expected);
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _absent = fs::remove_dir(hierarchy.path().join(&name));
    }
}

#[test]
fn a_supervisor_is_told_of_its_filter() {
    skip_unless_root!();
    let stage = Stage::new();
    let path = stage.path().join("listener");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let spec = linux("echo fine", |linux| {
        linux.seccomp = Some(Seccomp {
            default_action: SeccompAction::Allow,
            listener_path: Some(path.clone()),
            listener_metadata: "ours".to_owned(),
            syscalls: vec![SeccompSyscall {
                names: vec!["acct".to_owned()],
                action: SeccompAction::Notify,
                ..SeccompSyscall::default()
            }],
            ..Seccomp::default()
        });
    });
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut socket, &mut text).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        });
        stage.run(&spec).wrote("fine");
        told.join().unwrap()
    });
    assert_eq!((&told["fds"][0], &told["metadata"]), (&"seccompFd".into(), &"ours".into()));
    assert_eq!(
        (&told["state"]["status"], &told["pid"]),
        (&"creating".into(), &told["state"]["pid"])
    );
}

#[test]
fn a_size_without_a_terminal_is_no_matter() {
    skip_unless_root!();
    let spec = of_process("echo fine", |process| {
        process.console_size = Some(ConsoleSize { height: 10, width: 20 });
    });
    Stage::new().run(&spec).wrote("fine");
}
