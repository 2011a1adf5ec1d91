//! Faults of what the daemon stands on: disks, descriptors, memory, time, and system calls that fail (F4, F11 to F17, F23).

mod broken_disk;
mod calls;
mod descriptors;
mod full_disk;
mod memory;
mod standstill;
mod unkillable;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::House;
use testkit::house::PATIENCE;

/// How long a tracer may take to end.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Waits until `ready` says yes.
pub(crate) fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// What only looks, of a daemon that has the container `kept`, the volume `kept` and the image `busybox`.
const LOOKS: &[&str] = &[
    "/version",
    "/info",
    "/containers/json?all=1&size=1",
    "/containers/kept/json?size=1",
    "/containers/kept/logs?stdout=1",
    "/containers/kept/top",
    "/containers/kept/stats?stream=0&one-shot=1",
    "/containers/kept/changes",
    "/containers/kept/archive?path=/etc/passwd",
    "/images/json",
    "/images/busybox/json",
    "/images/busybox/history",
    "/images/busybox/get",
    "/volumes",
    "/volumes/kept",
    "/networks",
    "/networks/bridge",
    "/events?since=0&until=1",
    "/system/df",
];

/// Everything that only looks is answered.
pub(crate) fn looks(house: &House) {
    looks_at(house, LOOKS);
}

pub(crate) fn looks_at(house: &House, paths: &[&str]) {
    for path in paths {
        let answer = house.api("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text(), house.log());
    }
}

/// What [`LOOKS`] looks at.
pub(crate) fn furnish(house: &House) {
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    house.ok(&["volume", "create", "kept"]);
    let script = "echo said; echo kept > /v/file; exec sleep 3600";
    let args = [
        "run", "-d", "--name", "kept", "--label", "kept", "-v", "kept:/v", "busybox", "sh", "-c",
        script,
    ];
    house.ok(&args);
    until("it has spoken", || house.ok(&["logs", "kept"]) == "said\n");
}

/// A tracer that has the daemon's system calls fail as `inject` says, until it is dropped.
pub(crate) struct Tracer(Child);

impl Tracer {
    pub(crate) fn attach(house: &House, inject: &str) -> Self {
        let log = house.path("trace");
        let _old = std::fs::remove_file(&log);
        let (calls, _) = inject.split_once(':').expect("calls, and what happens to them");
        let child = Command::new("strace")
            .args(["-f", "-q", "-o"])
            .arg(&log)
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")])
            .args(["-p", &house.pid().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        let threads = format!("/proc/{}/task", house.pid());
        until("all threads are traced", || {
            let Ok(threads) = std::fs::read_dir(&threads) else { return true };
            threads.flatten().all(|thread| {
                let status =
                    std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            })
        });
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It lets go of what lives when it is asked; of what it has killed it may wait for an end that is for us to see.
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begin = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begin.elapsed() < LETTING_GO {
            std::thread::yield_now();
        }
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
