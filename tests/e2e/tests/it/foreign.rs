//! The runtime's hat under other people's engines: Debian's podman, containerd and dockerd.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use testkit::house::{PATIENCE, shown, succeed};
use testkit::images::TestImage;
use testkit::{House, Netns};

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// The test is of somebody else's program, which a machine may not have.
macro_rules! theirs {
    ($name:literal) => {
        match $crate::foreign::program($name) {
            Some(path) => path,
            None => {
                eprintln!("SKIPPED: there is no {} here", $name);
                return;
            }
        }
    };
}
pub(crate) use theirs;

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until the answer is the one: these engines' commands tell nobody of what happens later.
pub(crate) fn wait_for(what: &str, mut asked: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !asked() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        pause();
    }
}

/// The binary by a name that makes it a runtime.
pub(crate) fn hat(dir: &Path, name: &str) -> PathBuf {
    let hat = dir.join(name);
    symlink(House::binary(), &hat).expect("a link to the binary");
    hat
}

/// Removes a cgroup of a test's own from every hierarchy. What lived there may be on its way out.
pub(crate) fn sweep(parent: &str) {
    fn remove(dir: &Path) {
        let below = fs::read_dir(dir).into_iter().flatten().flatten();
        for inner in below.filter(|entry| entry.path().is_dir()) {
            remove(&inner.path());
        }
        let _busy = fs::remove_dir(dir);
    }
    let name = parent.trim_start_matches('/');
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let dir = controller.path().join(name);
        let deadline = Instant::now() + Duration::from_secs(10);
        while dir.exists() && Instant::now() < deadline {
            remove(&dir);
            pause();
        }
    }
}

/// Whether a process that is still there has been started with this path.
fn is_named(path: &Path) -> bool {
    let path = path.to_str().expect("a path in UTF-8");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|words| text(&words).contains(path))
}

#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

// podman

struct Podman {
    dir: tempfile::TempDir,
    program: PathBuf,
    parent: String,
}

impl Podman {
    fn new(program: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
        let parent = format!("/gantry-podman-{}", std::process::id());
        // Locks in files: those in shared memory are everybody's. Limits that this machine can give.
        let config = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n[engine]\nlock_type = \"file\"\nruntime_supports_json = [\"gantry-runtime\"]\n";
        fs::write(dir.path().join("containers.conf"), config).expect("a configuration");
        hat(dir.path(), "gantry-runtime");
        let podman = Self { dir, program, parent };
        let archive = podman.path("busybox.tar");
        fs::write(&archive, TestImage::busybox().docker_archive(&["localhost/busybox:latest"]))
            .expect("an archive");
        podman.ok(&["load", "-q", "-i", archive.to_str().expect("a path in UTF-8")]);
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            // conmon notes in its directory that a container was out of memory.
            .current_dir(self.dir.path())
            .arg("--runtime")
            .arg(self.path("gantry-runtime"))
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(["--storage-driver", "overlay"])
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"))
            .arg("--tmpdir")
            .arg(self.path("tmp"))
            .args(args)
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("podman can be executed")
    }

    fn ok(&self, args: &[&str]) -> String {
        succeed(self.command(args))
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut all = vec!["run", "--rm", "--network", "none", "--cgroup-parent", &self.parent];
        all.extend(args);
        self.output(&all)
    }

    /// Runs busybox with these flags; the script's output and exit code.
    fn script(&self, flags: &[&str], script: &str) -> (i32, String) {
        let output = self.run(&[flags, &["busybox", "sh", "-c", script]].concat());
        (output.status.code().unwrap_or(-1), text(&output.stdout))
    }

    fn start(&self, name: &str, flags: &[&str], script: &str) {
        let fixed = ["run", "-d", "--name", name, "--network", "none"];
        let parent = ["--cgroup-parent", self.parent.as_str()];
        let program = ["busybox", "sh", "-c", script];
        self.ok(&[&fixed[..], &parent, flags, &program].concat());
    }

    fn status(&self, name: &str) -> String {
        self.ok(&["inspect", "--format", "{{.State.Status}}", name]).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _gone = self.output(&["rm", "--all", "--force", "--time", "0"]);
        // conmon starts one more podman when its container has ended, which mounts this again.
        let deadline = Instant::now() + PATIENCE;
        while is_named(self.dir.path()) && Instant::now() < deadline {
            pause();
        }
        let overlay = self.path("root/overlay");
        let _unmounted =
            Command::new("umount").arg("-l").arg(overlay).stderr(Stdio::null()).status();
        sweep(&self.parent);
    }
}

const WAITS: &str = "trap 'echo bye; exit 7' TERM; echo hi; while :; do sleep 0.1; done";

#[test]
fn podman_runs_and_hears_how_it_ended() {
    let podman = Podman::new(theirs!("podman"));
    let both = podman.run(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(both.status.code(), Some(3), "{}", shown(&both));
    assert_eq!((text(&both.stdout).as_str(), text(&both.stderr).as_str()), ("out\n", "err\n"));

    for (command, code, words) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", 127, "stat /no/such: no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
    ] {
        let refused = podman.run(&["busybox", command]);
        assert_eq!(refused.status.code(), Some(code), "{}", shown(&refused));
        assert!(shown(&refused).contains(words), "{}", shown(&refused));
        assert!(!shown(&refused).contains("level="), "bare words: {}", shown(&refused));
    }
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
    let info = podman.ok(&["info", "--format", "{{.Host.OCIRuntime.Version}}"]);
    assert!(info.contains("gantry"), "{info}");
}

#[test]
fn podman_has_terminals_and_input() {
    let podman = Podman::new(theirs!("podman"));
    let in_terminal = |args: &[&str]| {
        let command = podman.command(args);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
            .collect();
        let mut script = Command::new("script");
        script
            .current_dir(podman.dir.path())
            .args(["-qefc", &words.join(" "), "/dev/null"])
            .env("CONTAINERS_CONF", podman.path("containers.conf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = script.spawn().expect("script can be executed");
        // The end of its input would be the end of the terminal, before anything was said.
        let held = child.stdin.take();
        let output = child.wait_with_output().expect("script can be waited for");
        drop(held);
        (output.status.code(), text(&output.stdout))
    };
    let run = ["run", "-it", "--rm", "--network", "none", "--cgroup-parent", &podman.parent];
    let program = ["busybox", "sh", "-c", "tty; test -t 1 && echo terminal; exit 4"];
    let (code, said) = in_terminal(&[&run[..], &program].concat());
    assert!(said.contains("/dev/pts/0") && said.contains("terminal"), "{said}");
    assert_eq!(code, Some(4), "{said}");

    podman.start("sleeps", &[], WAITS);
    let (code, said) = in_terminal(&["exec", "-it", "sleeps", "sh", "-c", "tty; exit 6"]);
    assert!(said.contains("/dev/pts/"), "{said}");
    assert_eq!(code, Some(6), "{said}");

    let input = podman.path("input");
    fs::write(&input, "hello\n").expect("an input");
    let run = ["run", "-i", "--rm", "--network", "none", "--cgroup-parent", &podman.parent];
    let mut cat = podman.command(&[&run[..], &["busybox", "cat"]].concat());
    cat.stdin(File::open(&input).expect("an input"));
    assert_eq!(succeed(cat), "hello\n");
}

#[test]
fn podman_lives_with_a_running_container() {
    let podman = Podman::new(theirs!("podman"));
    podman.start("c", &["--memory", "100m", "--pids-limit", "50"], WAITS);
    wait_for("the first line", || podman.ok(&["logs", "c"]) == "hi\n");

    let exec = podman.output(&[
        "exec",
        "-u",
        "nobody",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "c",
        "sh",
        "-c",
        "id -u; pwd; echo $A; exit 5",
    ]);
    assert_eq!((exec.status.code(), text(&exec.stdout).as_str()), (Some(5), "65534\n/tmp\nb\n"));
    for (command, code, words) in [
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let refused = podman.output(&["exec", "c", command]);
        assert_eq!(refused.status.code(), Some(code), "{}", shown(&refused));
        assert!(shown(&refused).contains(words), "{}", shown(&refused));
    }
    assert!(podman.ok(&["top", "c"]).contains("sleep 0.1"));
    let stats = podman.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "c"]);
    assert!(stats.contains("104.9MB"), "{stats}");

    podman.ok(&["pause", "c"]);
    assert_eq!(podman.status("c"), "paused");
    assert!(!podman.output(&["exec", "c", "true"]).status.success());
    podman.ok(&["unpause", "c"]);
    assert_eq!(podman.status("c"), "running");
    podman.ok(&["exec", "c", "true"]);

    podman.ok(&["update", "--memory", "64m", "c"]);
    if Path::new("/sys/fs/cgroup/memory").exists() {
        let limit = podman.ok(&["exec", "c", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }

    podman.ok(&["stop", "-t", "30", "c"]);
    assert_eq!(podman.ok(&["inspect", "--format", "{{.State.ExitCode}}", "c"]).trim(), "7");
    assert!(podman.ok(&["logs", "c"]).ends_with("bye\n"));
    podman.ok(&["start", "c"]);
    podman.ok(&["kill", "-s", "KILL", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]).trim(), "137");
    podman.ok(&["start", "c"]);
    podman.ok(&["rm", "-f", "-t", "0", "c"]);
}

#[test]
fn podman_gives_what_was_asked() {
    let podman = Podman::new(theirs!("podman"));
    let check = |flags: &[&str], script: &str, expected: (i32, &str)| {
        let (code, said) = podman.script(flags, script);
        assert_eq!((code, said.trim()), expected, "{flags:?} {script}");
    };
    check(&["--read-only"], "touch /x 2>/dev/null || touch /tmp/y && echo shut", (0, "shut"));
    check(&[], "touch /x && echo open", (0, "open"));
    check(&["--user", "1000:7"], "id -u; id -g", (0, "1000\n7"));
    check(&[], "grep Seccomp: /proc/self/status | tr -d '\\t'", (0, "Seccomp:2"));
    check(&["--privileged"], "grep Seccomp: /proc/self/status | tr -d '\\t'", (0, "Seccomp:0"));
    check(&["--hostname", "box"], "hostname", (0, "box"));
    check(&["--sysctl", "kernel.msgmax=1000"], "cat /proc/sys/kernel/msgmax", (0, "1000"));
    check(&["--cpuset-cpus", "0"], "nproc", (0, "1"));
    check(
        &["--uidmap", "0:100000:65536"],
        "id -u; cat /proc/self/uid_map | tr -s ' '",
        (0, "0\n 0 100000 65536"),
    );
    check(&["--tmpfs", "/data:size=1m"], "df -k /data | tail -1 | awk '{print $2}'", (0, "1024"));
    // Two of them would be enough for a shell; the third is refused.
    check(
        &["--pids-limit", "4"],
        "(sleep 3 & sleep 3 & sleep 3 & sleep 3 & sleep 3 &) 2>/dev/null; exit $?",
        (2, ""),
    );
    // The killed one is named by its code.
    check(
        &["--memory", "32m", "--memory-swap", "32m"],
        "exec dd if=/dev/zero of=/dev/shm/a bs=1M count=60 2>/dev/null",
        (137, ""),
    );
    check(
        &["--shm-size", "100m"],
        "dd if=/dev/zero of=/dev/shm/a bs=1M count=60 2>/dev/null; echo $?",
        (0, "0"),
    );
}

// containerd

struct Containerd {
    dir: tempfile::TempDir,
    daemon: Child,
    namespace: String,
}

const IMAGE: &str = "docker.io/library/busybox:latest";

impl Containerd {
    fn new(program: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {grpc:?}\n[ttrpc]\n  address = {ttrpc:?}\n",
            root = dir.path().join("root"),
            state = dir.path().join("state"),
            grpc = dir.path().join("c.sock"),
            ttrpc = dir.path().join("t.sock"),
        );
        fs::write(dir.path().join("config.toml"), config).expect("a configuration");
        let log = File::create(dir.path().join("log")).expect("a log");
        let daemon = Command::new(program)
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        hat(dir.path(), "runc");
        let namespace = format!("gantry-ctr-{}", std::process::id());
        let containerd = Self { dir, daemon, namespace };
        wait_for("containerd's socket", || containerd.ctr(&["version"]).status.success());
        let archive = containerd.dir.path().join("busybox.tar");
        fs::write(&archive, TestImage::busybox().docker_archive(&[IMAGE])).expect("an archive");
        containerd.ok(&["images", "import", archive.to_str().expect("a path in UTF-8")]);
        containerd
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.dir.path().join("c.sock"))
            .args(["--namespace", &self.namespace])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("ctr can be executed")
    }

    fn ok(&self, args: &[&str]) -> String {
        succeed(self.command(args))
    }

    fn run(&self, flags: &[&str], id: &str, program: &[&str]) -> Output {
        let hat = self.dir.path().join("runc");
        let hat = hat.to_str().expect("a path in UTF-8");
        let fixed = ["run", "--runc-binary", hat];
        self.ctr(&[&fixed[..], flags, &[IMAGE, id], program].concat())
    }

    fn status(&self, id: &str) -> String {
        let tasks = self.ok(&["task", "ls"]);
        let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in text(&self.ctr(&["task", "ls", "-q"]).stdout).lines() {
            let _gone = self.ctr(&["task", "rm", "-f", id]);
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.daemon.wait();
        sweep(&self.namespace);
    }
}

#[test]
fn containerd_runs_and_hears_how_it_ended() {
    let containerd = Containerd::new(&theirs!("containerd"));
    let both = containerd.run(&["--rm"], "a", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(both.status.code(), Some(3), "{}", shown(&both));
    assert_eq!((text(&both.stdout).as_str(), text(&both.stderr).as_str()), ("out\n", "err\n"));
    // The shim finds these words in the log that it has named.
    for (id, command, words) in [
        (
            "b",
            "nosuch",
            "OCI runtime create failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            "c",
            "/etc",
            "OCI runtime create failed: unable to start container process: exec: \"/etc\": is a directory",
        ),
    ] {
        let refused = containerd.run(&["--rm"], id, &[command]);
        assert!(
            !refused.status.success() && shown(&refused).contains(words),
            "{}",
            shown(&refused)
        );
    }
    let shut = containerd.run(
        &["--rm", "--read-only"],
        "d",
        &["sh", "-c", "touch /x 2>/dev/null || echo shut"],
    );
    assert_eq!(text(&shut.stdout), "shut\n", "{}", shown(&shut));
    let filtered =
        containerd.run(&["--rm", "--seccomp"], "e", &["grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(text(&filtered.stdout), "Seccomp:\t2\n", "{}", shown(&filtered));
    let free = containerd.run(&["--rm"], "f", &["grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(text(&free.stdout), "Seccomp:\t0\n", "{}", shown(&free));
}

#[test]
fn containerd_lives_with_a_running_task() {
    let containerd = Containerd::new(&theirs!("containerd"));
    let started = containerd.run(&["-d", "--memory-limit", "67108864"], "t", &["sh", "-c", WAITS]);
    assert!(started.status.success(), "{}", shown(&started));
    assert_eq!(containerd.status("t"), "RUNNING");
    let exec =
        containerd.ctr(&["task", "exec", "--exec-id", "1", "t", "sh", "-c", "echo in; exit 5"]);
    assert_eq!((exec.status.code(), text(&exec.stdout).as_str()), (Some(5), "in\n"));
    let refused = containerd.ctr(&["task", "exec", "--exec-id", "2", "t", "nosuch"]);
    let words = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
    assert!(containerd.ok(&["task", "ps", "t"]).lines().count() > 1);
    let metrics = containerd.ok(&["task", "metrics", "t"]);
    assert!(metrics.contains("67108864"), "{metrics}");
    containerd.ok(&["task", "pause", "t"]);
    assert_eq!(containerd.status("t"), "PAUSED");
    containerd.ok(&["task", "resume", "t"]);
    assert_eq!(containerd.status("t"), "RUNNING");

    let refused = containerd.ctr(&["task", "checkpoint", "t"]);
    assert!(!refused.status.success(), "{}", shown(&refused));
    // Debian's CRIU, where the kernel is newer than it knows; none, where none is installed.
    assert!(shown(&refused).contains("criu"), "{}", shown(&refused));
    assert_eq!(containerd.status("t"), "RUNNING");

    containerd.ok(&["task", "kill", "-s", "SIGTERM", "t"]);
    wait_for("the end of the task", || containerd.status("t") == "STOPPED");
    let deleted = containerd.ctr(&["task", "delete", "t"]);
    assert!(shown(&deleted).contains("exit with non-zero exit code 7"), "{}", shown(&deleted));
    containerd.ok(&["container", "rm", "t"]);
}

// dockerd

/// Debian's, in a network namespace of its own: it touches nobody's firewall.
pub(crate) struct Dockerd {
    dir: tempfile::TempDir,
    daemon: Child,
    parent: String,
}

impl Dockerd {
    pub(crate) fn new(program: &Path) -> Self {
        Self::of(Command::new("unshare").arg("--net").arg(program))
    }

    /// In a network namespace that others have their part in, and with something in its environment.
    pub(crate) fn within(netns: &Netns, program: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = netns.command(program.to_str().expect("a path in UTF-8"));
        Self::of(command.envs(environment.iter().copied()))
    }

    fn of(command: &mut Command) -> Self {
        let dir = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let parent = format!("/gantry-dockerd-{}", std::process::id());
        let hat = hat(dir.path(), "gantry-runtime");
        let log = File::create(dir.path().join("log")).expect("a log");
        let daemon = command
            .args(["-H", &format!("unix://{}", path("s"))])
            .args(["--data-root", &path("data"), "--exec-root", &path("run")])
            .args(["--pidfile", &path("pid"), "--cgroup-parent", &parent])
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .args(["--add-runtime", &format!("gantry={}", hat.display())])
            .args(["--default-runtime", "gantry"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let dockerd = Self { dir, daemon, parent };
        wait_for("dockerd's socket", || dockerd.docker(&["version"]).status.success());
        let archive = dockerd.dir.path().join("busybox.tar");
        fs::write(&archive, TestImage::busybox().docker_archive(&["busybox:latest"]))
            .expect("an archive");
        dockerd.ok(&["load", "-q", "-i", archive.to_str().expect("a path in UTF-8")]);
        dockerd
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.dir.path().join("s").display()))
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .env_remove("DOCKER_CONTEXT")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn docker(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("docker can be executed")
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        succeed(self.command(args))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        for id in text(&self.docker(&["ps", "-aq"]).stdout).lines() {
            let _gone = self.docker(&["rm", "-f", id]);
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.daemon.wait();
        sweep(&self.parent);
    }
}

#[test]
fn dockerd_has_it_as_its_default() {
    let dockerd = Dockerd::new(&theirs!("dockerd"));
    let run = |command: &[&str]| {
        dockerd.docker(&[&["run", "--rm", "--network", "none", "busybox"], command].concat())
    };
    let both = run(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(both.status.code(), Some(3), "{}", shown(&both));
    assert_eq!((text(&both.stdout).as_str(), text(&both.stderr).as_str()), ("out\n", "err\n"));
    for (command, code, words) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
    ] {
        let refused = run(&[command]);
        assert_eq!(refused.status.code(), Some(code), "{}", shown(&refused));
        let words = format!(
            "OCI runtime create failed: unable to start container process: {words}: unknown"
        );
        assert!(shown(&refused).contains(&words), "{}", shown(&refused));
    }

    let flags = ["run", "-d", "--name", "waits", "--network", "none", "--memory", "64m"];
    dockerd.ok(&[&flags[..], &["busybox", "sh", "-c", WAITS]].concat());
    let runtime = dockerd.ok(&["inspect", "--format", "{{.HostConfig.Runtime}}", "waits"]);
    assert_eq!(runtime.trim(), "gantry");
    wait_for("the first line", || dockerd.ok(&["logs", "waits"]) == "hi\n");
    assert_eq!(dockerd.docker(&["exec", "waits", "sh", "-c", "exit 5"]).status.code(), Some(5));
    assert!(dockerd.ok(&["top", "waits"]).contains("sleep 0.1"));
    dockerd.ok(&["pause", "waits"]);
    let status = || dockerd.ok(&["inspect", "--format", "{{.State.Status}}", "waits"]);
    assert_eq!(status().trim(), "paused");
    dockerd.ok(&["unpause", "waits"]);
    dockerd.ok(&["update", "--memory", "48m", "--memory-swap", "48m", "waits"]);
    dockerd.ok(&["stop", "-t", "30", "waits"]);
    let code = dockerd.ok(&["inspect", "--format", "{{.State.ExitCode}}", "waits"]);
    assert_eq!(code.trim(), "7");
    dockerd.ok(&["rm", "waits"]);
}
