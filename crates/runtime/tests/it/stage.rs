//! A stage for containers: a busybox root, a spec like Docker's default one, and a process with one thread to start it from.
//!
//! The runtime copies its caller, so the caller must have one thread, which a test has not. [`Stage::run`] therefore writes
//! down what to do and starts this very test binary once more, on the ignored test [`stage`], alone.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use oci::runtime::{Process, Rootfs, Spec};
use runtime::cgroup::Location;
use runtime::{Create, Options, Running, Stdio, Target};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

/// What came of a process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Why it did not start: the whole chain.
    pub(crate) failure: Option<String>,
    /// 128 + n for a signal.
    pub(crate) code: Option<i32>,
    /// Standard output and error.
    pub(crate) output: String,
    /// The others that were run in the container meanwhile, one after the other.
    pub(crate) execs: Vec<Outcome>,
    pub(crate) warnings: Vec<String>,
}

impl Outcome {
    /// It ran, ended with zero, and wrote this.
    #[track_caller]
    pub(crate) fn wrote(&self, expected: &str) {
        assert_eq!(
            (self.failure.as_deref(), self.output.trim(), self.code),
            (None, expected, Some(0)),
            "{self:?}"
        );
    }

    pub(crate) fn refused(&self) -> &str {
        self.failure.as_deref().unwrap_or_else(|| panic!("it was started: {self:?}"))
    }
}

#[derive(Serialize, Deserialize)]
struct Case {
    spec: Spec,
    execs: Vec<Process>,
    times: u32,
}

/// A bundle in a directory of its own.
pub(crate) struct Stage {
    dir: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        // Others than root, in a user namespace, come along here.
        fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let rootfs = stage.rootfs();
        for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "root", "vol"] {
            fs::create_dir_all(rootfs.join(dir)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for applet in
            String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox")
        {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(stage.canary(), "untouched").unwrap();
        fs::create_dir(stage.trap()).unwrap();
        stage
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// A file of the host that no container may reach.
    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// An empty directory of the host that stays empty.
    pub(crate) fn trap(&self) -> PathBuf {
        self.dir.path().join("trap")
    }

    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.canary()).unwrap(), "untouched");
        let caught: Vec<_> =
            fs::read_dir(self.trap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(caught.is_empty(), "{caught:?}");
    }

    /// Replaces something of the root file system by a symbolic link.
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        let path = self.rootfs().join(path);
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(&path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        symlink(target, path).unwrap();
    }

    pub(crate) fn run(&self, spec: &Spec) -> Outcome {
        self.run_with(spec, &[])
    }

    /// Runs the others in the container once its first process runs, then ends it.
    pub(crate) fn run_with(&self, spec: &Spec, execs: &[Process]) -> Outcome {
        self.perform(&Case { spec: spec.clone(), execs: execs.to_vec(), times: 1 })
    }

    /// Starts it again and again from one process; the outcome of the last.
    pub(crate) fn run_times(&self, spec: &Spec, times: u32) -> Outcome {
        self.perform(&Case { spec: spec.clone(), execs: Vec::new(), times })
    }

    fn perform(&self, case: &Case) -> Outcome {
        let dir = self.dir.path();
        fs::write(dir.join("case.json"), serde_json::to_vec(case).unwrap()).unwrap();
        let output = Command::new("/proc/self/exe") // also when it has been built anew meanwhile
            .args(["--exact", "stage::stage", "--ignored", "--nocapture", "--test-threads=1"])
            .current_dir(dir)
            .output()
            .unwrap();
        let outcome = fs::read(dir.join("outcome.json"));
        let _ = fs::remove_file(dir.join("outcome.json"));
        let stderr = || String::from_utf8_lossy(&output.stderr);
        let outcome = outcome.unwrap_or_else(|error| {
            panic!("nothing came of it: {error}: {output:?}\n{}", stderr())
        });
        serde_json::from_slice(&outcome).unwrap()
    }
}

/// Docker's default surroundings for a shell script.
pub(crate) fn spec(script: &str) -> Spec {
    let capabilities = json!(DOCKERS);
    let masked = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs"},
        "hostname": "stage",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["ro", "nosuid", "noexec", "nodev"]},
        ],
        "linux": {
            "cgroupsPath": format!("/gantry-test-{}-{}", std::process::id(), unique()),
            "namespaces": [{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": masked,
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    let mut spec: Spec = serde_json::from_value(spec).unwrap();
    let capabilities: Vec<String> = DOCKERS.iter().map(|name| (*name).to_owned()).collect();
    let surroundings = runtime::seccomp::profile::Surroundings::here(&capabilities);
    let profile = runtime::seccomp::Profile::default_profile().resolve(surroundings);
    spec.linux.as_mut().unwrap().seccomp = Some(profile);
    spec
}

/// Another process of the same kind.
pub(crate) fn process(script: &str) -> Process {
    spec(script).process.unwrap()
}

pub(crate) const DOCKERS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The other side of [`Stage::run`]: does what is written in the current directory.
#[test]
#[ignore = "started by the other tests"]
fn stage() {
    let Ok(case) = fs::read("case.json") else { return };
    let case: Case = serde_json::from_slice(&case).unwrap();
    let mut outcome = Outcome::default();
    for _ in 0..case.times {
        outcome = perform(&case);
    }
    fs::write("outcome.json", serde_json::to_vec(&outcome).unwrap()).unwrap();
}

fn perform(case: &Case) -> Outcome {
    let bundle = std::env::current_dir().unwrap();
    let state_dir = bundle.join("state");
    fs::create_dir_all(&state_dir).unwrap();
    let rootfs = Rootfs::Directory { path: bundle.join("rootfs") };
    let cgroups_path = &case.spec.linux.as_ref().unwrap().cgroups_path;
    let location = Location::of(cgroups_path, "stage").unwrap();
    let (stdio, output) = stdio();
    let created = runtime::create(Create {
        id: "stage",
        bundle: &bundle,
        spec: &case.spec,
        rootfs: &rootfs,
        state_dir: &state_dir,
        stdio,
        namespaces: Vec::new(),
        binds: Vec::new(),
        cgroup: &location,
        options: Options::default(),
    });
    let warnings = created.as_ref().map(|created| created.warnings.clone()).unwrap_or_default();
    let running = match created.and_then(runtime::Created::start) {
        Ok(running) => running,
        Err(error) => return Outcome { failure: Some(error.chain()), ..Outcome::default() },
    };
    let execs =
        case.execs.iter().map(|process| exec(&running, &case.spec, process)).collect::<Vec<_>>();
    if !execs.is_empty() {
        running.cgroup.kill_all().unwrap();
    }
    let code = wait(&running.pidfd);
    // Its root is let go of by us, not by its first process on the way out.
    let root = running.root.as_ref().unwrap();
    rustix::fs::statat(root, "bin", rustix::fs::AtFlags::empty()).unwrap();
    running.cgroup.kill_all().unwrap();
    running.cgroup.destroy().unwrap();
    Outcome { failure: None, code: Some(code), output: output.read(), execs, warnings }
}

fn exec(running: &Running, spec: &Spec, process: &Process) -> Outcome {
    let (stdio, output) = stdio();
    let target = Target {
        id: "stage",
        pid: running.pid,
        pidfd: running.pidfd.as_fd(),
        spec,
        cgroup: &running.cgroup,
        filter: None,
        preserve_fds: 0,
    };
    match runtime::exec(&target, process, stdio) {
        Ok(executed) => {
            let code = Some(wait(&executed.pidfd));
            Outcome {
                code,
                output: output.read(),
                warnings: executed.warnings,
                ..Outcome::default()
            }
        }
        Err(error) => Outcome { failure: Some(error.chain()), ..Outcome::default() },
    }
}

fn wait(pidfd: &OwnedFd) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

/// What a process writes, in a file without a name.
struct Written(File);

fn stdio() -> (Stdio, Written) {
    let file = tempfile::tempfile().unwrap();
    let copy = || OwnedFd::from(file.try_clone().unwrap());
    let stdio = Stdio::Fds {
        stdin: File::open("/dev/null").unwrap().into(),
        stdout: copy(),
        stderr: copy(),
    };
    (stdio, Written(file))
}

impl Written {
    fn read(mut self) -> String {
        use std::io::{Read, Seek};
        let mut text = Vec::new();
        self.0.rewind().unwrap();
        self.0.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}
