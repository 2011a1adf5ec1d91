//! Control groups on the host that runs the tests, whichever version it has. Everything happens below a group of our own.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use oci::runtime::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources, ThrottleDevice,
};
use runtime::cgroup::{Handle, Location, Mode, Support};
use rustix::process::Pid;
use stdx::Kind;

use crate::skip_unless_root;

/// A group that is killed and removed with the test.
struct Group {
    handle: Handle,
    location: Location,
}

impl Group {
    fn new(name: &str, resources: &Resources) -> Self {
        let location = location(name);
        Self { handle: Handle::create(&location, resources).unwrap(), location }
    }

    /// The text of a file, of the v1 controller it belongs to or of the unified group.
    fn file(&self, file: &str) -> String {
        let controller = file.split('.').next().unwrap();
        let v1 = self
            .location
            .v1()
            .iter()
            .find(|place| place.controllers.iter().any(|name| name == controller));
        let place = v1.or(self.location.unified()).unwrap();
        std::fs::read_to_string(place.full_path().join(file)).unwrap().trim().to_owned()
    }

    /// Starts a shell that runs the script once it is in the group.
    fn start(&self, script: &str) -> Child {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("read go; {script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.handle.add(Pid::from_child(&child)).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        child
    }

    fn run(&self, script: &str) -> Output {
        self.start(script).wait_with_output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.handle.kill_all().unwrap();
        self.handle.destroy().unwrap();
        for path in paths(&self.location) {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
        }
    }
}

fn location(name: &str) -> Location {
    let id = std::process::id();
    Location::of(&format!("/gantry-test-{id}-{name}/group"), name).unwrap()
}

fn paths(location: &Location) -> Vec<PathBuf> {
    location.v1().iter().chain(location.unified()).map(runtime::cgroup::Place::full_path).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn values_land_in_their_files() {
    skip_unless_root!();
    let cpuset = Support::detect().unwrap().cpuset;
    let cpus = if cpuset { "0" } else { "" };
    let group = Group::new(
        "values",
        &Resources {
            cpu: Some(Cpu {
                shares: Some(512),
                quota: Some(20_000),
                period: Some(50_000),
                cpus: cpus.to_owned(),
                mems: cpus.to_owned(),
                ..Cpu::default()
            }),
            memory: Some(Memory {
                limit: Some(64 << 20),
                swap: Some(96 << 20),
                ..Memory::default()
            }),
            pids: Some(Pids { limit: Some(33) }),
            ..Resources::default()
        },
    );
    assert_eq!(group.file("pids.max"), "33");
    if cpuset {
        assert_eq!(group.file("cpuset.cpus"), "0");
    }
    match Mode::detect().unwrap() {
        Mode::V2 => {
            assert_eq!(group.file("cpu.weight"), "59");
            assert_eq!(group.file("cpu.max"), "20000 50000");
            assert_eq!(group.file("memory.max"), (64 << 20).to_string());
        }
        Mode::V1 | Mode::Hybrid => {
            assert_eq!(group.file("cpu.shares"), "512");
            assert_eq!(group.file("cpu.cfs_quota_us"), "20000");
            assert_eq!(group.file("cpu.cfs_period_us"), "50000");
            assert_eq!(group.file("memory.limit_in_bytes"), (64 << 20).to_string());
            assert_eq!(group.file("memory.memsw.limit_in_bytes"), (96 << 20).to_string());
        }
    }

    // Both directions, where each value is refused beside the old one of its sibling.
    for (memory, swap, quota, period) in
        [(128 << 20, 256 << 20, 900_000, 1_000_000), (32 << 20, 48 << 20, 1000, 5000)]
    {
        let update = Resources {
            memory: Some(Memory { limit: Some(memory), swap: Some(swap), ..Memory::default() }),
            cpu: Some(Cpu { quota: Some(quota), period: Some(period), ..Cpu::default() }),
            ..Resources::default()
        };
        group.handle.update(&update).unwrap();
        let limit = if Mode::detect().unwrap() == Mode::V2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        assert_eq!(group.file(limit), memory.to_string());
    }
    assert_eq!(group.file("pids.max"), "33");

    if Support::detect().unwrap().block_io_weight {
        let block_io = Some(BlockIo { weight: Some(300), ..BlockIo::default() });
        group.handle.update(&Resources { block_io, ..Resources::default() }).unwrap();
    }
}

#[test]
fn a_process_is_in_every_group() {
    skip_unless_root!();
    let group = Group::new("member", &Resources::default());
    let groups = text(&group.run("cat /proc/self/cgroup").stdout);
    let expected = group.location.v1().len() + usize::from(group.location.unified().is_some());
    assert_eq!(groups.matches("/gantry-test-").count(), expected, "{groups}");

    // The quick way, with a thread standing for the init.
    let joiner = group.handle.joiner().unwrap();
    let groups = std::thread::spawn(move || {
        joiner.join_v1().unwrap();
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let groups = groups.join().unwrap();
    assert_eq!(groups.matches("/gantry-test-").count(), group.location.v1().len(), "{groups}");
}

#[test]
fn devices_are_kept_away() {
    skip_unless_root!();
    let none = DeviceRule { allow: false, access: "rwm".to_owned(), ..DeviceRule::default() };
    let group = Group::new("devices", &Resources { devices: vec![none], ..Resources::default() });
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("kmsg");
    let script = format!(
        "head -c1 /dev/zero >/dev/null && echo zero; mknod {0} c 1 11 && echo made; head -c1 {0}; head -c1 /dev/kmsg",
        node.display()
    );
    let output = group.run(&script);
    assert_eq!(text(&output.stdout), "zero\nmade");
    assert_eq!(
        text(&output.stderr).matches("Operation not permitted").count(),
        2,
        "{}",
        text(&output.stderr)
    );

    // What is allowed later can be used, and what is taken away again cannot.
    let rules = |allow| {
        let kmsg = DeviceRule {
            allow,
            kind: "c".to_owned(),
            major: Some(1),
            minor: Some(11),
            access: "rwm".to_owned(),
        };
        let none = DeviceRule { allow: false, access: "rwm".to_owned(), ..DeviceRule::default() };
        Resources { devices: vec![none, kmsg], ..Resources::default() }
    };
    group.handle.update(&rules(true)).unwrap();
    assert!(group.run(&format!("true < {}", node.display())).status.success());
    group.handle.update(&rules(false)).unwrap();
    assert!(!group.run(&format!("true < {}", node.display())).status.success());
    assert!(group.run("true < /dev/null").status.success());
}

#[test]
fn frozen_processes_stand_still() {
    skip_unless_root!();
    let group = Group::new("freezer", &Resources::default());
    let mut child = group.start("while :; do :; done");
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap().parse::<u64>().unwrap()
    };
    while ticks(child.id()) == 0 {
        std::thread::yield_now();
    }
    assert!(!group.handle.frozen().unwrap());
    group.handle.freeze().unwrap();
    assert!(group.handle.frozen().unwrap());
    let before = ticks(child.id());
    // Another process gets its turns meanwhile.
    assert!(
        Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(ticks(child.id()), before);
    group.handle.thaw().unwrap();
    assert!(!group.handle.frozen().unwrap());
    while ticks(child.id()) == before {
        std::thread::yield_now();
    }

    // A frozen one can be killed.
    group.handle.freeze().unwrap();
    group.handle.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn nobody_forks_away_from_the_kill() {
    skip_unless_root!();
    let group = Group::new(
        "kill",
        &Resources { pids: Some(Pids { limit: Some(40) }), ..Resources::default() },
    );
    // Each of them makes another and ends: at no moment does a list of them stay right. Who may not fork gives up, whichever
    // of them it is, and when nobody is left others begin.
    let storm = "hop() { while :; do (hop &) ; done; }; hop & hop & hop &";
    let mut sleeper = group.start("exec sleep 1000");
    let mut storms = Vec::new();
    loop {
        let living = group.handle.procs().unwrap().len();
        if living >= 10 {
            break;
        }
        if living <= 1 {
            storms.push(group.start(storm));
        }
        std::thread::yield_now();
    }
    group.handle.kill_all().unwrap();
    assert_eq!(sleeper.wait().unwrap().signal(), Some(9));
    for mut ended in storms {
        ended.wait().unwrap();
    }
    // Only the emptied group can be removed.
    group.handle.destroy().unwrap();
}

#[test]
fn running_out_of_memory_is_heard() {
    skip_unless_root!();
    let group = Group::new(
        "oom",
        &Resources {
            memory: Some(Memory {
                limit: Some(16 << 20),
                swap: Some(16 << 20),
                ..Memory::default()
            }),
            ..Resources::default()
        },
    );
    let watch = group.handle.oom_watch().unwrap();
    assert_eq!(group.handle.oom_kills().unwrap(), Some(0));
    let output = group.run("exec tail /dev/zero");
    assert_eq!(output.status.signal(), Some(9));
    let mut fds = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1);
    assert_eq!(group.handle.oom_kills().unwrap(), Some(1));
    watch.forget();
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&now)).unwrap(), 0);
}

/// As a systemd that makes no scopes for us does on v1.
#[test]
fn a_directory_that_somebody_has_removed_keeps_nobody_out() {
    skip_unless_root!();
    let group = Group::new("robbed", &Resources::default());
    let count = || group.handle.joiner().map(|joiner| joiner.fds().count());
    let all = count().unwrap();
    for (removed, place) in group.location.v1().iter().enumerate() {
        assert_eq!(count().unwrap(), all - removed);
        std::fs::remove_dir(place.full_path()).unwrap();
    }
    if all > 1 {
        assert!(count().unwrap_err().to_string().ends_with("is gone"));
    }
}

/// What systemd does to a scope as soon as nobody is in it.
#[test]
fn a_group_that_was_removed_has_told_before() {
    skip_unless_root!();
    if Mode::detect().unwrap() == Mode::V2 {
        return;
    }
    let limit = Some(16 << 20);
    let memory = Some(Memory { limit, swap: limit, ..Memory::default() });
    for (script, once) in [("exec tail /dev/zero", false), ("kill -9 $$", true)] {
        let resources = Resources { memory: memory.clone(), ..Resources::default() };
        let mut group = Group::new("gone", &resources);
        group.handle.watch_early();
        let watch = group.handle.early_watch().unwrap();
        assert_eq!(group.run(script).status.signal(), Some(9));
        group.handle.destroy().unwrap();
        assert_eq!(group.handle.oom_kills().unwrap(), None);
        watch.hear_all();
        let told = watch.forget();
        assert!(told > 0 && (told == 1) == once, "{script}: {told}");
    }
}

#[test]
fn what_is_used_is_counted() {
    skip_unless_root!();
    let group = Group::new(
        "stats",
        &Resources {
            memory: Some(Memory { limit: Some(256 << 20), ..Memory::default() }),
            pids: Some(Pids { limit: Some(100) }),
            ..Resources::default()
        },
    );
    let mut child = group.start("head -c 20000000 /dev/zero | sha256sum; echo done; read never");
    let mut line = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let stats = group.handle.stats().unwrap();
    assert!(stats.cpu.usage > 1_000_000, "{stats:?}");
    assert!(stats.memory.usage > 10_000, "{stats:?}");
    assert_eq!(stats.memory.limit, 256 << 20);
    assert!(stats.memory.stat.contains_key("pgfault"));
    assert_eq!(stats.pids.limit, 100);
    group.handle.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn groups_within_are_removed_too() {
    skip_unless_root!();
    let group = Group::new("nested", &Resources::default());
    for path in paths(&group.location) {
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::create_dir_all(path.join("a/d")).unwrap();
    }
    group.handle.destroy().unwrap();
    assert!(paths(&group.location).iter().all(|path| !path.exists()));
    assert_eq!(Handle::open(&group.location).unwrap_err().kind(), Kind::NotFound);
    // Removing what is gone is no failure.
    group.handle.destroy().unwrap();
}

#[test]
fn a_group_is_opened_again() {
    skip_unless_root!();
    let group = Group::new("again", &Resources::default());
    let mut child = group.start("exec sleep 600");
    let written = serde_json::to_string(&group.location).unwrap();
    let location: Location = serde_json::from_str(&written).unwrap();
    let again = Handle::open(&location).unwrap();
    assert_eq!(again.procs().unwrap(), [Pid::from_child(&child)]);

    // And nobody moves in where somebody lives.
    let refusal = Handle::create(&location, &Resources::default()).unwrap_err();
    assert_eq!(refusal.kind(), Kind::Conflict);
    assert_eq!(refusal.to_string(), "container's cgroup is not empty: 1 process(es) found");
    again.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_limit_the_host_cannot_keep_is_refused_and_nothing_stays() {
    skip_unless_root!();
    let location = location("refused");
    let hugepage_limits = vec![HugepageLimit { page_size: "3MB".to_owned(), limit: 1 }];
    let refusal = Handle::create(&location, &Resources { hugepage_limits, ..Resources::default() })
        .unwrap_err();
    assert_eq!(refusal.kind(), Kind::NotImplemented);
    assert!(refusal.to_string().contains("hugetlb.3MB"), "{refusal}");
    assert!(paths(&location).iter().all(|path| !path.exists()));

    let nowhere = vec![ThrottleDevice { major: 4095, minor: 7, rate: 1 }];
    let block_io = Some(BlockIo { throttle_read_bps_device: nowhere, ..BlockIo::default() });
    let refusal =
        Handle::create(&location, &Resources { block_io, ..Resources::default() }).unwrap_err();
    assert!(refusal.chain().starts_with("failed to write \"4095:7 "), "{}", refusal.chain());
    assert!(paths(&location).iter().all(|path| !path.exists()));
    for path in paths(&location) {
        std::fs::remove_dir(path.parent().unwrap()).unwrap();
    }
}

#[test]
fn the_hosts_own_groups_stay_as_they_are() {
    skip_unless_root!();
    let own = || std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let controls =
        || std::fs::read_to_string(Path::new("/sys/fs/cgroup/unified/cgroup.subtree_control")).ok();
    let before = (own(), controls());
    drop(Group::new("quiet", &Resources::default()));
    if Mode::detect().unwrap() != Mode::V2 {
        assert_eq!((own(), controls()), before);
    }
}
