//! Debian's dockerd, in a network and mount namespace of its own, with its own directories and cgroup.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::house;

use crate::engine::Engine;

pub(crate) struct Peer {
    dir: TempDir,
    _run: TempDir,
    daemon: Child,
    cgroup: String,
}

/// A network namespace needs a sysfs of its own, else dockerd waits 20 ms for each endpoint's `/sys/class/net`; that
/// one hides the cgroups, which are put back. `unshare` and `sh` become dockerd, so its process id is the child's.
const SCRIPT: &str = "set -e
ip link set lo up
mount --rbind /sys/fs/cgroup \"$1\"
mount -t sysfs sysfs /sys
mount --rbind \"$1\" /sys/fs/cgroup
shift
exec \"$@\"";

impl Peer {
    pub(crate) fn start(dockerd: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gantry-bench-peer-").tempdir()?;
        let run = house::run_dir("gantry-bench-peer-");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("cgroup"))?;
        std::fs::write(path("daemon.json"), "{}")?;
        let ready = UnixDatagram::bind(path("notify"))?;
        ready.set_read_timeout(Some(house::PATIENCE))?;
        let log = std::fs::File::create(path("log"))?;
        let cgroup = format!("/gantry-bench-{}", std::process::id());
        let daemon = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"])
            .arg(path("cgroup"))
            .arg(dockerd)
            .arg("--config-file")
            .arg(path("daemon.json"))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(run.path())
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("-H")
            .arg(format!("unix://{}", path("s").display()))
            .args(["--group", "root", "--storage-driver", "overlay2"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &cgroup])
            .env("NOTIFY_SOCKET", path("notify"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("unshare (util-linux) is needed")?;
        // From here on, leaving early takes it down again.
        let mut peer = Self { dir, _run: run, daemon, cgroup };
        let told = ready.recv(&mut [0; 256]);
        ensure!(
            told.is_ok() && peer.daemon.try_wait()?.is_none(),
            "dockerd did not become ready:\n{}",
            std::fs::read_to_string(peer.dir.path().join("log")).unwrap_or_default()
        );
        Ok(peer)
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine {
            name: "dockerd",
            socket: self.dir.path().join("s"),
            config: self.dir.path().join("config"),
            daemon: self.daemon.id(),
        }
    }

    fn remove_containers(&self) -> Result<()> {
        let engine = self.engine();
        let mut http = engine.connect()?;
        let list = http.json("GET", "/containers/json?all=1", None)?;
        for container in list.as_array().into_iter().flatten() {
            engine.remove(&mut http, container["Id"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _as_far_as_it_goes = self.remove_containers();
        // What lives in its network namespace is dockerd, its containerd and their shims.
        let namespace = std::fs::read_link(self.engine().network_namespace()).ok();
        let _gone = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if !ended_within(&mut self.daemon, house::PATIENCE) {
            let _gone = self.daemon.kill();
            let _gone = self.daemon.wait();
        }
        if let Some(namespace) = namespace {
            kill_all_in(&namespace);
        }
        house::remove_cgroups(&self.cgroup);
    }
}

/// Waits by the descriptor of the process, which becomes readable when it ends.
fn ended_within(child: &mut Child, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = Pid::from_child(child);
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return false;
    };
    let patience = Timespec { tv_sec: i64::try_from(patience.as_secs()).unwrap_or(60), tv_nsec: 0 };
    let _ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
    matches!(child.try_wait(), Ok(Some(_)))
}

fn kill_all_in(namespace: &Path) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let there = std::fs::read_link(entry.path().join("ns/net"));
        if there.is_ok_and(|there| there == namespace)
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}
