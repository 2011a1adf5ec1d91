//! A container's limits and what is done to it, as one looks at them on any host: whoever makes the groups, and however many
//! trees of them there are.

use std::path::{Path, PathBuf};

use testkit::House;
use testkit::house::{cgroups, remove_cgroups};

/// Who makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Cgroupfs,
    Systemd,
}

/// Below what a daemon of a test's makes them.
pub(super) struct Parent {
    pub(super) driver: Driver,
    name: String,
}

impl Parent {
    pub(super) fn new(driver: Driver, of: &str) -> Self {
        let of = format!("{of}_{}", std::process::id());
        let name = match driver {
            Driver::Cgroupfs => format!("/gantry_test_{of}"),
            Driver::Systemd => format!("gantry_test_{of}.slice"),
        };
        Self { driver, name }
    }

    pub(super) fn driver_name(&self) -> &'static str {
        match self.driver {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        }
    }

    /// What a daemon is told.
    pub(super) fn flags(&self) -> [&str; 4] {
        let driver = match self.driver {
            Driver::Cgroupfs => "native.cgroupdriver=cgroupfs",
            Driver::Systemd => "native.cgroupdriver=systemd",
        };
        ["--exec-opt", driver, "--cgroup-parent", &self.name]
    }

    /// Whether a container's group is one of its own.
    pub(super) fn has(&self, house: &House, name: &str) -> bool {
        let id = house.ok(&["inspect", "-f", "{{.Id}}", name]);
        let group = match self.driver {
            Driver::Cgroupfs => id.trim().to_owned(),
            Driver::Systemd => format!("gantry-{}.scope", id.trim()),
        };
        let parent = Path::new(self.name.trim_start_matches('/'));
        group_of(house, name, "memory").ends_with(parent.join(group))
    }

    /// Nobody's group is left, in any tree.
    pub(super) fn assert_empty(&self) {
        let trees = std::fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten();
        let trees = trees.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        for tree in trees {
            let parent = tree.join(self.name.trim_start_matches('/'));
            let left = std::fs::read_dir(parent).into_iter().flatten().flatten();
            let left: Vec<_> =
                left.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        remove_cgroups(&self.name);
        if !std::thread::panicking() {
            assert_eq!(cgroups(&self.name), 0, "{}", self.name);
        }
    }
}

/// The directory that a container's first process is in, in the tree of a controller.
pub(super) fn group_of(house: &House, name: &str, controller: &str) -> PathBuf {
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let lines = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("it lives");
    let mut trees = lines.lines().map(|line| {
        let (controllers, path) =
            line.split_once(':').and_then(|line| line.1.split_once(':')).expect("three parts");
        (controllers, path.trim_start_matches('/'))
    });
    let of_v1 =
        trees.clone().find(|(controllers, _)| controllers.split(',').any(|one| one == controller));
    match of_v1 {
        Some((_, path)) => Path::new("/sys/fs/cgroup").join(controller).join(path),
        None => {
            let (_, path) =
                trees.find(|(controllers, _)| controllers.is_empty()).expect("one tree");
            Path::new("/sys/fs/cgroup").join(path)
        }
    }
}

/// What a container is limited to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) megabytes: u64,
    pub(super) pids: u64,
    /// Microseconds of the processors' time in a tenth of a second.
    pub(super) quota: u64,
}

/// As the kernel has them.
pub(super) fn limits(house: &House, name: &str) -> Limits {
    let read = |controller: &str, files: [&str; 2]| {
        let group = group_of(house, name, controller);
        let file = files.into_iter().map(|file| group.join(file)).find(|file| file.exists());
        let text = std::fs::read_to_string(file.expect("a file of a limit")).expect("a limit");
        let number = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("{text}"))
    };
    Limits {
        megabytes: read("memory", ["memory.limit_in_bytes", "memory.max"]) >> 20,
        pids: read("pids", ["pids.max", "pids.max"]),
        quota: read("cpu", ["cpu.cfs_quota_us", "cpu.max"]),
    }
}

pub(super) const LIMITS: [&str; 8] =
    ["--memory", "32m", "--memory-swap", "32m", "--cpus", "0.5", "--pids-limit", "50"];
pub(super) const LIMITED: Limits = Limits { megabytes: 32, pids: 50, quota: 50_000 };

/// Starts one with limits.
pub(super) fn run(house: &House, name: &str) {
    let run = ["run", "-d", "--network", "none", "--name", name];
    house.ok(&[&run[..], &LIMITS, &["busybox", "sleep", "600"]].concat());
}

/// Whether every process stands still.
pub(super) fn is_frozen(house: &House, name: &str) -> bool {
    let group = group_of(house, name, "freezer");
    let read = |file| std::fs::read_to_string(group.join(file));
    match read("freezer.state") {
        Ok(state) => state.trim() == "FROZEN",
        Err(_) => read("cgroup.events").expect("a freezer").contains("frozen 1"),
    }
}

/// Everything that is done by a container's groups, to one that was just given [`LIMITED`].
pub(super) fn is_controllable(house: &House, name: &str) {
    assert_eq!(limits(house, name), LIMITED);
    house.ok(&[
        "update",
        "--memory",
        "40m",
        "--memory-swap",
        "40m",
        "--pids-limit",
        "60",
        "--cpus",
        "0.25",
        name,
    ]);
    assert_eq!(limits(house, name), Limits { megabytes: 40, pids: 60, quota: 25_000 });
    let shown = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}";
    assert_eq!(house.ok(&["inspect", "-f", shown, name]), "41943040 60 250000000\n");

    house.ok(&["exec", "-d", name, "sleep", "601"]);
    let top = house.ok(&["top", name]);
    assert!(top.contains("sleep 600") && top.contains("sleep 601"), "{top}");
    let stats = house.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name]);
    assert!(stats.contains("/ 40MiB 2"), "{stats}");
    // Which is all but the first process.
    house.ok(&["exec", name, "killall", "-9", "sleep"]);

    house.ok(&["pause", name]);
    assert!(is_frozen(house, name));
    house.ok(&["unpause", name]);
    assert!(!is_frozen(house, name));
    house.ok(&[
        "update",
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        name,
    ]);
    assert_eq!(limits(house, name), LIMITED);
}

/// One that the kernel kills is known, however quickly it goes; one that somebody kills is not taken for it.
pub(super) fn kills_are_told_apart(house: &House) {
    let state = "{{.State.OOMKilled}} {{.State.ExitCode}}";
    let state = |name: &str| house.ok(&["inspect", "-f", state, name]);
    let limits = ["--network", "none", "--memory", "16m", "--memory-swap", "16m"];
    for number in 0..5 {
        let (hog, victim) = (format!("hog{number}"), format!("victim{number}"));
        let run = [&["run"][..], &limits, &["--name", &hog, "busybox", "tail", "/dev/zero"]];
        let ended = house.docker(&run.concat()).status().expect("docker can be executed");
        assert_eq!(ended.code(), Some(137));
        assert_eq!(state(&hog), "true 137\n", "{hog}");
        let run = [&["run", "-d"][..], &limits, &["--name", &victim, "busybox", "sleep", "600"]];
        house.ok(&run.concat());
        house.ok(&["kill", &victim]);
        house.ok(&["wait", &victim]);
        assert_eq!(state(&victim), "false 137\n", "{victim}");
    }
}
