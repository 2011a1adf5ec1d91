//! Debian's dockerd beside ours: its own directories, socket, cgroup, and a network namespace of the test's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::Netns;
use testkit::client::Client;
use testkit::house::{cgroup_parent, remove_cgroups};

/// Where Debian installs it.
pub(crate) const DOCKERD: &str = "/usr/sbin/dockerd";

pub(crate) struct Peer {
    dir: tempfile::TempDir,
    daemon: Child,
    parent: String,
}

impl Peer {
    /// Starts one in a network of its own, with more flags.
    pub(crate) fn within(netns: &Netns, flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("gp-").tempdir().expect("a place for a test");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let parent = cgroup_parent(&format!("gantry-peer-{}", std::process::id()));
        let log = File::create(dir.path().join("log")).expect("a log");
        let daemon = netns
            .command(DOCKERD)
            .args(["-H", &format!("unix://{}", path("s"))])
            .args(["--data-root", &path("data"), "--exec-root", &path("run")])
            .args(["--pidfile", &path("pid"), "--cgroup-parent", &parent])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("nsenter");
        let peer = Self { dir, daemon, parent };
        let (_never, pause) = std::sync::mpsc::channel::<()>();
        let ready = (0..600).any(|_| {
            let _time = pause.recv_timeout(Duration::from_millis(100));
            peer.client().ask("GET", "/_ping", None).is_ok_and(|answer| answer.status == 200)
        });
        assert!(ready, "{}", peer.log());
        peer
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn cgroup_parent(&self) -> &str {
        &self.parent
    }

    pub(crate) fn client(&self) -> Client {
        Client(self.path("s"))
    }

    /// The real docker CLI, pointed there.
    pub(crate) fn docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.path("s").display()))
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_CONTEXT")
            .args(words)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(list) = self.docker(&["ps", "-aq"]).output() {
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            let words: Vec<&str> = ["rm", "-f"].into_iter().chain(list.lines()).collect();
            let _gone = self.docker(&words).output();
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _dead = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.daemon.wait();
        remove_cgroups(&self.parent);
        unmount_below(self.dir.path());
    }
}

/// What a daemon that was killed has left mounted.
fn unmount_below(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines().rev() {
        let at = line.split(' ').nth(4).unwrap_or_default();
        if Path::new(at).starts_with(dir) {
            let _gone = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
