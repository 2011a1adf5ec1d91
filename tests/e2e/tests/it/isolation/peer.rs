//! Debian's dockerd, on this test's host, with a firewall of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::house::{remove_cgroups, succeed};

pub(crate) struct Peer {
    dir: tempfile::TempDir,
    daemon: Child,
    parent: String,
}

impl Peer {
    pub(crate) fn start(program: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("gi-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let parent = format!("/gantry-isolation-{}", std::process::id());
        let log = File::create(dir.path().join("log")).unwrap();
        let daemon = Command::new(program)
            .args(["-H", &format!("unix://{}", path("s"))])
            .args(["--data-root", &path("data"), "--exec-root", &path("run")])
            .args(["--pidfile", &path("pid"), "--cgroup-parent", &parent])
            .args(super::stage::DEFAULT_BRIDGE)
            .args(["--storage-driver", "vfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let peer = Self { dir, daemon, parent };
        let (_never, pause) = std::sync::mpsc::channel::<()>();
        let answers =
            || peer.docker(&["version"]).output().is_ok_and(|output| output.status.success());
        let ready = (0..600).any(|_| {
            let _time = pause.recv_timeout(Duration::from_millis(100));
            answers()
        });
        assert!(ready, "{}", peer.log());
        let archive = peer.dir.path().join("busybox.tar");
        std::fs::write(&archive, super::busybox()).unwrap();
        peer.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
        peer
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .env_remove("DOCKER_CONTEXT")
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn ok(&self, words: &[&str]) -> String {
        succeed(self.docker(words))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(list) = self.docker(&["ps", "-aq"]).output() {
            for id in String::from_utf8_lossy(&list.stdout).lines() {
                let _gone = self.docker(&["rm", "-f", id]).output();
            }
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _dead = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.daemon.wait();
        remove_cgroups(&self.parent);
    }
}
