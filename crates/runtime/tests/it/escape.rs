//! Ways out of a container that have worked somewhere once, each with its twin that must go on working.
//!
//! The letters are those of the catalogue of tests (E1 to E9, and what of E11 to E13 needs nothing but the runtime).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use oci::runtime::{IdMapping, Mount, Namespace, NamespaceType, Process, Spec};

use crate::skip_unless_root;
use crate::stage::{DOCKERS, Outcome, Stage, process, spec};

fn mounted(mut spec: Spec, kind: &str, source: &Path, destination: &str, options: &[&str]) -> Spec {
    spec.mounts.push(Mount {
        destination: destination.into(),
        kind: kind.to_owned(),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    });
    spec
}

fn process_of(spec: &mut Spec) -> &mut Process {
    spec.process.as_mut().unwrap()
}

/// Also in all three sets.
fn grant(process: &mut Process, name: &str) {
    let capabilities = process.capabilities.as_mut().unwrap();
    for set in
        [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
    {
        set.push(name.to_owned());
    }
}

// E1, E3: the host's program and processes, met when somebody joins.

/// Goes through every process it can see, for ever, and writes down what is not the container's own.
const WATCH: &str = r#"
    while :; do
        for p in /proc/[0-9]*; do
            l=$(readlink $p/exe 2>/dev/null) && case "$l" in /bin/busybox*) ;; *) echo "exe $l" >>/tmp/seen; : >>$p/exe 2>/dev/null && echo "wrote $l" >>/tmp/seen;; esac
            [ -e $p/root$CANARY ] 2>/dev/null && echo "root $p" >>/tmp/seen
            [ -e $p/cwd/canary ] 2>/dev/null && echo "cwd $p" >>/tmp/seen
            for f in $p/fd/*; do
                l=$(readlink $f 2>/dev/null) || continue
                case "$l" in /dev/null|/tmp/*|/bin/*|/|pipe:*|/proc/*|*'(deleted)') ;; *) echo "fd $l" >>/tmp/seen;; esac
                [ -e $f/canary ] 2>/dev/null && echo "fd $f" >>/tmp/seen
            done
        done
    done
"#;

fn watched(capability: Option<&str>) -> Outcome {
    let stage = Stage::new();
    let mut spec = spec(WATCH);
    let process_of = process_of(&mut spec);
    process_of.env.push(format!("CANARY={}", stage.canary().display()));
    process_of.env.push("PATH=/bin".to_owned());
    if let Some(name) = capability {
        grant(process_of, name);
    }
    let mut execs = vec![process("true"); 150];
    execs.push(process("sort -u /tmp/seen 2>/dev/null; echo end"));
    let before = fs::metadata(std::env::current_exe().unwrap()).unwrap().modified().unwrap();
    let outcome = stage.run_with(&spec, &execs);
    assert_eq!(fs::metadata(std::env::current_exe().unwrap()).unwrap().modified().unwrap(), before);
    stage.assert_untouched();
    outcome
}

#[test]
fn e1_e3_who_joins_shows_nothing_of_the_host() {
    skip_unless_root!();
    let outcome = watched(None);
    assert!(outcome.execs[..150].iter().all(|exec| exec.code == Some(0)), "{outcome:?}");
    outcome.execs[150].wrote("end");
}

#[test]
fn e3_not_even_to_a_tracer() {
    skip_unless_root!();
    let outcome = watched(Some("CAP_SYS_PTRACE"));
    let seen = &outcome.execs[150].output;
    // The program of the runtime may be seen then, but neither written nor used to reach the host's files.
    let bad =
        seen.lines().filter(|line| !line.starts_with("exe ") && *line != "end").collect::<Vec<_>>();
    assert!(bad.is_empty(), "{seen}");
}

#[test]
fn e1_the_program_cannot_be_the_runtime_itself() {
    skip_unless_root!();
    let stage = Stage::new();
    let exe = std::env::current_exe().unwrap();
    for args in [vec!["/proc/self/exe"], vec!["/bin/link"], vec!["/bin/script"]] {
        stage.link("bin/link", "/proc/self/exe");
        fs::write(stage.rootfs().join("bin/script"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(stage.rootfs().join("bin/script"), fs::Permissions::from_mode(0o755))
            .unwrap();
        let mut spec = spec("");
        process_of(&mut spec).args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let before = fs::read(&exe).unwrap();
        let outcome = stage.run(&spec);
        // Where it does run, it is in the container with all its bounds; what matters is that the host's copy is the same.
        assert!(fs::read(&exe).unwrap() == before, "{outcome:?}");
    }
    stage.run(&spec("echo fine")).wrote("fine");
}

// E2: descriptors.

#[test]
fn e2_only_the_three_are_open() {
    skip_unless_root!();
    let stage = Stage::new();
    let list = "for f in $(seq 0 99); do [ -e /proc/$$/fd/$f ] && echo $f; done; true";
    let outcome = stage.run_with(
        &spec("exec sleep 1000"),
        &[process("for f in /proc/1/fd/*; do echo ${f##*/}; done"), process(list)],
    );
    outcome.execs[0].wrote("0\n1\n2");
    outcome.execs[1].wrote("0\n1\n2");
    stage.run(&spec(list)).wrote("0\n1\n2");
}

#[test]
fn e2_no_descriptor_is_a_working_directory() {
    skip_unless_root!();
    let stage = Stage::new();
    let there = |number: u32, path: &str| {
        let mut spec =
            spec("cat canary ../canary ../../canary ../../../../etc/hostname 2>/dev/null; pwd");
        process_of(&mut spec).cwd = format!("/proc/self/fd/{number}{path}").into();
        spec
    };
    for number in 3..24 {
        for path in ["", "/..", "/../.."] {
            let outcome = stage.run(&there(number, path));
            assert!(
                outcome.failure.is_some() || outcome.output.trim() == "/",
                "{number}{path}: {outcome:?}"
            );
        }
    }
    let execs: Vec<_> = (3..24).map(|number| there(number, "").process.unwrap()).collect();
    let outcome = stage.run_with(&spec("exec sleep 1000"), &execs);
    assert!(outcome.execs.iter().all(|exec| exec.failure.is_some()), "{outcome:?}");

    let mut inside = spec("pwd");
    process_of(&mut inside).cwd = "/tmp".into();
    stage.run(&inside).wrote("/tmp");
}

// E5: what is mounted below a volume that somebody else is changing.

#[test]
fn e5_a_mount_below_a_volume_follows_no_exchange() {
    skip_unless_root!();
    let stage = Stage::new();
    let volume = stage.path().join("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    // Seen from the volume in the container, and from the volume on the host: both lead to the trap.
    std::os::unix::fs::symlink(stage.trap(), volume.join("b")).unwrap();
    let up = "../".repeat(20);
    std::os::unix::fs::symlink(format!("{up}{}", stage.trap().display()), volume.join("c"))
        .unwrap();

    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b, c) = (volume.join("a"), volume.join("b"), volume.join("c"));
            let swap = |one: &Path, other: &Path| {
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, one, cwd, other, rustix::fs::RenameFlags::EXCHANGE)
                    .unwrap();
            };
            while !over.load(Ordering::Relaxed) {
                swap(&a, &b);
                swap(&b, &a);
                swap(&a, &c);
                swap(&c, &a);
            }
        });
        let mut spec = mounted(spec("true"), "bind", &volume, "/vol", &["rbind", "rw"]);
        spec = mounted(spec, "tmpfs", Path::new("tmpfs"), "/vol/a/deep/er", &["rw"]);
        let done = stage.run_times(&spec, 60);
        over.store(true, Ordering::Relaxed);
        done
    });
    stage.assert_untouched();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(stage.path().to_str().unwrap()), "{mounts}");
    // Whether the last one started is chance; that it is said properly is not.
    assert!(done.failure.is_some() || done.code == Some(0), "{done:?}");

    // The twin: nobody disturbs, and the same mount is made.
    let calm = stage.path().join("calm");
    fs::create_dir(&calm).unwrap();
    let spec = mounted(
        spec("touch /vol/a/deep/er/x && grep -c ' /vol/a/deep/er ' /proc/self/mountinfo"),
        "bind",
        &calm,
        "/vol",
        &["rbind", "rw"],
    );
    let spec = mounted(spec, "tmpfs", Path::new("tmpfs"), "/vol/a/deep/er", &["rw"]);
    stage.run(&spec).wrote("1");
    assert!(calm.join("a/deep/er").is_dir() && !calm.join("a/deep/er/x").exists());
}

#[test]
fn e5_files_are_mounted_over_what_they_seem() {
    skip_unless_root!();
    for (name, target) in [("etc/hosts", "canary"), ("etc/resolv.conf", "trap/new")] {
        let stage = Stage::new();
        let up = "../".repeat(20);
        stage.link(name, format!("{up}{}", stage.path().join(target).display()));
        let file = stage.path().join("ours");
        fs::write(&file, "ours").unwrap();
        let script = format!("cat /{name}; echo more > /{name}");
        let outcome = stage.run(&mounted(
            spec(&script),
            "bind",
            &file,
            &format!("/{name}"),
            &["rbind", "rw"],
        ));
        stage.assert_untouched();
        assert!(outcome.failure.is_some() || outcome.output == "ours", "{outcome:?}");
    }
    let stage = Stage::new();
    let file = stage.path().join("ours");
    fs::write(&file, "ours").unwrap();
    stage
        .run(&mounted(spec("cat /etc/hosts"), "bind", &file, "/etc/hosts", &["rbind", "ro"]))
        .wrote("ours");
}

// E6: an image that has prepared the places of the kernel's file systems.

#[test]
fn e6_special_places_that_are_links_lead_nowhere() {
    skip_unless_root!();
    for place in ["dev", "proc", "sys"] {
        for up in [String::new(), "../".repeat(20)] {
            let stage = Stage::new();
            stage.link(place, format!("{up}{}", stage.trap().display()));
            let outcome = stage.run(&spec("echo there; ls /dev/null /proc/self/exe"));
            stage.assert_untouched();
            assert!(
                outcome.failure.is_some() || outcome.output.contains("there"),
                "{place}: {outcome:?}"
            );
        }
        // One thing in the image's place of another kind.
        let stage = Stage::new();
        fs::remove_dir(stage.rootfs().join(place)).unwrap();
        fs::write(stage.rootfs().join(place), "a file").unwrap();
        let outcome = stage.run(&spec("true"));
        assert!(outcome.failure.is_some(), "{place} as a file: {outcome:?}");
    }
}

#[test]
fn e6_the_images_dev_is_not_ours() {
    skip_unless_root!();
    let without_dev = |script: &str| {
        let mut spec = spec(script);
        // The image's own /dev is used, as some runtimes' callers ask.
        spec.mounts.retain(|mount| mount.destination != Path::new("/dev"));
        spec
    };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for name in
        ["null", "zero", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "tty", "random"]
    {
        for target in ["/proc/sys/kernel/core_pattern", "/proc/self/fd/7", "TRAP"] {
            let stage = Stage::new();
            let up = "../".repeat(20);
            match target {
                "TRAP" => {
                    stage.link(&format!("dev/{name}"), format!("{up}{}", stage.trap().display()))
                }
                target => stage.link(&format!("dev/{name}"), target),
            }
            for (spec, what) in [(spec("true"), "tmpfs"), (without_dev("true"), "image")] {
                let outcome = stage.run(&spec);
                assert!(
                    outcome.failure.is_some() || outcome.code == Some(0),
                    "{what} {name} {target}: {outcome:?}"
                );
                stage.assert_untouched();
            }
            assert_eq!(
                fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
                pattern,
                "{name} {target}"
            );
        }
    }
}

#[test]
fn e6_masks_hide_and_hold() {
    skip_unless_root!();
    let stage = Stage::new();
    // What /dev/null is in the image does not matter to what hides a file.
    stage.link("dev/null", "/proc/sys/kernel/core_pattern");
    let script = r#"
        for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug /proc/latency_stats; do
            [ -e $f ] && [ "$(head -c1 $f | wc -c)" != 0 ] && echo "content $f"
        done
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
            [ -d $d ] && [ -n "$(ls $d)" ] && echo "listed $d"
        done
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom /proc/sysrq-trigger \
                /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/kernel/profiling /sys/power/state \
                /sys/module/kernel/parameters/panic /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cgroup.procs \
                /sys/fs/cgroup/devices/devices.allow /sys/fs/cgroup/unified/cgroup.procs; do
            [ -e $f ] && (cat $f > /tmp/was; cat /tmp/was > $f) 2>/dev/null && echo "wrote $f"
        done
        umount /proc/kcore 2>/dev/null && echo "umount"
        mount -o remount,rw /sys 2>/dev/null && echo "remount"
        mount -t proc proc /tmp 2>/dev/null && echo "mount"
        grep -o '^Seccomp:.*[0-9]' /proc/self/status
    "#;
    stage.run(&spec(script)).wrote("Seccomp:\t2");
    stage.run_with(&spec("exec sleep 1000"), &[process(script)]).execs[0].wrote("Seccomp:\t2");
    // The twin: what is not hidden can be read.
    stage
        .run(&spec("grep -q MemTotal /proc/meminfo && cat /proc/sys/kernel/ostype"))
        .wrote("Linux");
}

// E7: a /proc that is not the kernel's, and sysctls.

#[test]
fn e7_nothing_stands_in_for_proc() {
    skip_unless_root!();
    let stage = Stage::new();
    let fake = stage.path().join("fake");
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    for kind in ["tmpfs", "bind"] {
        let outcome = stage.run(&mounted(spec("echo in"), kind, &fake, "/proc", &["rbind"]));
        assert!(outcome.refused().contains("/proc"), "{outcome:?}");
        let outcome = stage.run(&mounted(spec("echo in"), kind, &fake, "/proc/self", &["rbind"]));
        assert!(outcome.refused().contains("/proc"), "{outcome:?}");
        let outcome =
            stage.run(&mounted(spec("echo in"), kind, &fake, "/tmp/../proc/sys", &["rbind"]));
        assert!(outcome.refused().contains("proc"), "{outcome:?}");
    }
    // A link in the image that says the same.
    stage.link("innocent", "/proc/self");
    let outcome = stage.run(&mounted(spec("echo in"), "bind", &fake, "/innocent", &["rbind"]));
    assert!(outcome.failure.is_some(), "{outcome:?}");

    let file = stage.path().join("meminfo");
    fs::write(&file, "like lxcfs").unwrap();
    stage
        .run(&mounted(spec("cat /proc/meminfo"), "bind", &file, "/proc/meminfo", &["rbind", "ro"]))
        .wrote("like lxcfs");
}

#[test]
fn e7_sysctls_land_in_the_containers_namespaces() {
    skip_unless_root!();
    let stage = Stage::new();
    let with = |name: &str, value: &str, script: &str| {
        let mut spec = spec(script);
        spec.linux.as_mut().unwrap().sysctl.insert(name.to_owned(), value.to_owned());
        spec
    };
    let host = |path: &str| fs::read_to_string(path).unwrap();
    let before =
        (host("/proc/sys/kernel/shm_rmid_forced"), host("/proc/sys/net/ipv4/ip_default_ttl"));
    stage
        .run(&with("kernel.shm_rmid_forced", "1", "cat /proc/sys/kernel/shm_rmid_forced"))
        .wrote("1");
    stage
        .run(&with("net.ipv4.ip_default_ttl", "77", "cat /proc/sys/net/ipv4/ip_default_ttl"))
        .wrote("77");
    assert_eq!(
        (host("/proc/sys/kernel/shm_rmid_forced"), host("/proc/sys/net/ipv4/ip_default_ttl")),
        before
    );

    let pattern = host("/proc/sys/kernel/core_pattern");
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "vm.panic_on_oom",
    ] {
        let outcome = stage.run(&with(name, "1", "true"));
        assert!(outcome.failure.is_some(), "{name}: {outcome:?}");
    }
    assert_eq!(host("/proc/sys/kernel/core_pattern"), pattern);

    // The host's network is not the container's to tune.
    let mut shared = with("net.ipv4.ip_default_ttl", "78", "true");
    shared
        .linux
        .as_mut()
        .unwrap()
        .namespaces
        .retain(|namespace| namespace.kind != NamespaceType::Network);
    assert!(stage.run(&shared).failure.is_some());
    assert_eq!(host("/proc/sys/net/ipv4/ip_default_ttl"), before.1);
}

// E8: capabilities.

const STATUS: &str =
    "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";

fn mask(names: &[&str]) -> u64 {
    names
        .iter()
        .map(|name| runtime::capabilities::parse(name).unwrap())
        .fold(0, |all, one| all | one)
}

fn status(effective: u64, bounding: u64, no_new_privileges: bool) -> String {
    let nnp = u8::from(no_new_privileges);
    format!(
        "CapInh:{0:016x} CapPrm:{effective:016x} CapEff:{effective:016x} CapBnd:{bounding:016x} CapAmb:{0:016x} NoNewPrivs:{nnp} Seccomp:2",
        0
    )
}

#[test]
fn e8_the_table_of_capabilities() {
    skip_unless_root!();
    let stage = Stage::new();
    let docker = mask(&DOCKERS);
    for (uid, more, no_new_privileges, effective) in [
        (0, &[][..], false, docker),
        (0, &[][..], true, docker),
        (1000, &[][..], false, 0),
        (1000, &[][..], true, 0),
        (0, &["CAP_SYS_PTRACE"][..], false, docker | mask(&["CAP_SYS_PTRACE"])),
        // Nobody has this one here; elsewhere it is given.
        (
            0,
            &["CAP_SYS_RESOURCE"][..],
            false,
            docker | mask(&["CAP_SYS_RESOURCE"]) & runtime::capabilities::available().unwrap(),
        ),
    ] {
        let mut spec = spec(STATUS);
        let adapt = |process: &mut Process| {
            process.user.uid = uid;
            process.user.gid = uid;
            process.no_new_privileges = no_new_privileges;
            more.iter().for_each(|name| grant(process, name));
        };
        adapt(process_of(&mut spec));
        let bounding = if uid == 0 { effective } else { docker };
        let expected = status(effective, bounding, no_new_privileges);
        stage.run(&spec).wrote(&expected);
        let mut exec = process(STATUS);
        adapt(&mut exec);
        let mut sleeper = spec;
        process_of(&mut sleeper).args = ["sleep", "1000"].map(str::to_owned).to_vec();
        stage.run_with(&sleeper, &[exec]).execs[0].wrote(&expected);
    }

    // None at all.
    let mut spec = spec(STATUS);
    process_of(&mut spec).capabilities = None;
    process_of(&mut spec).no_new_privileges = true;
    stage.run(&spec).wrote(&status(0, 0, true));
}

#[test]
fn e8_a_file_gives_capabilities_unless_told_not_to() {
    skip_unless_root!();
    let stage = Stage::new();
    // Busybox goes by its name, and is itself under any that begins like its own.
    let grep = stage.rootfs().join("bin/busybox-cap");
    fs::copy("/bin/busybox", &grep).unwrap();
    // VFS_CAP_REVISION_2 | effective, permitted CAP_CHOWN, inheritable none.
    let mut value = Vec::new();
    for word in [0x0200_0001u32, 1, 0, 0, 0] {
        value.extend(word.to_le_bytes());
    }
    rustix::fs::setxattr(&grep, "security.capability", &value, rustix::fs::XattrFlags::empty())
        .unwrap();
    for (no_new_privileges, expected) in
        [(false, "CapEff:\t0000000000000001"), (true, "CapEff:\t0000000000000000")]
    {
        let mut spec = spec("");
        let process = process_of(&mut spec);
        process.args =
            ["/bin/busybox-cap", "grep", "CapEff", "/proc/self/status"].map(str::to_owned).to_vec();
        process.user.uid = 1000;
        process.user.gid = 1000;
        process.no_new_privileges = no_new_privileges;
        // A file gives nothing new to who has it already: what counts as a gain is measured at `execve`.
        let capabilities = process.capabilities.as_mut().unwrap();
        (capabilities.effective, capabilities.permitted) = (Vec::new(), Vec::new());
        stage.run(&spec).wrote(expected);
    }
}

// E9: users.

#[test]
fn e9_ids_are_exactly_those() {
    skip_unless_root!();
    let stage = Stage::new();
    let mut spec = spec("id -u; id -g; id -G");
    let user = &mut process_of(&mut spec).user;
    (user.uid, user.gid, user.additional_gids) = (1234, 2345, vec![10, 20]);
    let wanted = user.clone();
    stage.run(&spec).wrote("1234\n2345\n2345 10 20");
    let mut exec = process("id -u; id -g; id -G");
    exec.user = wanted;
    let mut sleeper = spec;
    process_of(&mut sleeper).args = ["sleep", "1000"].map(str::to_owned).to_vec();
    stage.run_with(&sleeper, &[exec.clone()]).execs[0].wrote("1234\n2345\n2345 10 20");

    // No group of the caller's comes along.
    exec.user.additional_gids.clear();
    stage.run_with(&sleeper, &[exec]).execs[0].wrote("1234\n2345\n2345");
}

#[test]
fn e9_a_group_can_be_kept_out() {
    skip_unless_root!();
    let stage = Stage::new();
    let secret = stage.rootfs().join("secret");
    fs::write(&secret, "read").unwrap();
    chown(&secret, Some(0), Some(50)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o604)).unwrap();
    let mut spec = spec("cat /secret 2>/dev/null || echo denied");
    let user = &mut process_of(&mut spec).user;
    (user.uid, user.gid, user.additional_gids) = (1000, 1000, vec![50]);
    stage.run(&spec).wrote("denied");
    process_of(&mut spec).user.additional_gids.clear();
    stage.run(&spec).wrote("read");
}

#[test]
fn e9_root_of_a_user_namespace_is_nobody_outside() {
    skip_unless_root!();
    let stage = Stage::new();
    let shifted = |script: &str| {
        let mut spec = spec(script);
        let linux = spec.linux.as_mut().unwrap();
        linux.namespaces.push(Namespace { kind: NamespaceType::User, path: None });
        let mapping = vec![IdMapping { container_id: 0, host_id: 200_000, size: 65_536 }];
        linux.uid_mappings = mapping.clone();
        linux.gid_mappings = mapping;
        spec
    };
    let rootfs = stage.rootfs();
    for path in [rootfs.clone(), rootfs.join("tmp"), rootfs.join("root")] {
        chown(path, Some(200_000), Some(200_000)).unwrap();
    }
    let theirs = stage.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; touch /vol/made; cat /vol/secret 2>/dev/null || echo denied";
    fs::write(theirs.join("secret"), "of the host").unwrap();
    fs::set_permissions(theirs.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let spec = mounted(shifted(script), "bind", &theirs, "/vol", &["rbind", "rw"]);
    stage.run(&spec).wrote("0\n 0 200000 65536\ndenied");
    let made = std::os::unix::fs::MetadataExt::uid(&fs::metadata(theirs.join("made")).unwrap());
    assert_eq!(made, 200_000);
}

// E11 to E13: control groups, devices, mounts.

#[test]
fn e11_control_groups_are_only_looked_at() {
    skip_unless_root!();
    let stage = Stage::new();
    let script = r#"
        for d in $(find /sys/fs/cgroup -maxdepth 2 -type d); do
            mkdir $d/x 2>/dev/null && echo "made $d/x"
        done
        for f in $(find /sys/fs/cgroup -maxdepth 2 -name release_agent -o -name cgroup.procs -o -name tasks); do
            (echo 0 > $f) 2>/dev/null && echo "wrote $f"
        done
        mkdir /tmp/cg && mount -t cgroup -o memory cgroup /tmp/cg 2>/dev/null && echo mounted
        mount -t cgroup2 cgroup /tmp/cg 2>/dev/null && echo mounted2
        unshare -UrmC true 2>/dev/null && echo unshared
        echo end
    "#;
    stage.run(&spec(script)).wrote("end");
    // Something is there to be looked at, and it is not the host's.
    let seen = stage.run(&spec("ls -d /sys/fs/cgroup/*/gantry* /sys/fs/cgroup/gantry* 2>/dev/null; ls /sys/fs/cgroup | head -1 | wc -l"));
    seen.wrote("1");
}

#[test]
fn e12_nodes_can_be_made_and_not_opened() {
    skip_unless_root!();
    let stage = Stage::new();
    let script = r#"
        rm -f /tmp/*
        mknod /tmp/kmsg c 1 11 && mknod /tmp/mem c 1 1 && mknod /tmp/disk b 254 0 && mknod /tmp/null c 1 3 || echo "cannot make"
        for f in kmsg mem disk; do
            head -c1 /tmp/$f >/dev/null 2>&1 && echo "read $f"
            (: > /tmp/$f) 2>/dev/null && echo "wrote $f"
        done
        echo x > /tmp/null && echo x > /dev/null && head -c1 /dev/urandom | wc -c
    "#;
    stage.run(&spec(script)).wrote("1");
    stage.run_with(&spec("exec sleep 1000"), &[process(script)]).execs[0].wrote("1");
}

#[test]
fn e13_what_is_read_only_stays_so() {
    skip_unless_root!();
    let stage = Stage::new();
    let theirs = stage.path().join("theirs");
    fs::create_dir_all(theirs.join("sub")).unwrap();
    let script = r#"
        touch /x 2>/dev/null && echo "wrote /"
        touch /vol/x 2>/dev/null && echo "wrote /vol"
        mount -o remount,rw / 2>/dev/null && echo "remounted /"
        mount -o remount,bind,rw /vol 2>/dev/null && echo "remounted /vol"
        umount -l /vol 2>/dev/null && echo "unmounted"
        touch /dev/x && touch /dev/shm/x && echo end
    "#;
    let mut spec = mounted(spec(script), "bind", &theirs, "/vol", &["rbind", "ro"]);
    spec.root.as_mut().unwrap().readonly = true;
    stage.run(&spec).wrote("end");
    assert!(!theirs.join("x").exists());
    // What happens to mounts inside stays inside.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(stage.path().to_str().unwrap()));
}
