//! The runtime's hat under other people's engines, and beside runc: Debian's podman, containerd and runc.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::House;
use testkit::house::{PATIENCE, shown, succeed};
use testkit::images::{Entry, TestImage, tar};

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// The test is of somebody else's program, which a machine may not have.
macro_rules! program {
    ($name:literal) => {
        match program($name) {
            Some(path) => path,
            None => {
                eprintln!("skipped: there is no {} here", $name);
                return;
            }
        }
    };
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until the answer is the one: these engines' commands tell nobody of what happens later.
fn wait_for(what: &str, mut asked: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !asked() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        pause();
    }
}

/// The binary by a name that makes it a runtime.
fn hat(dir: &Path, name: &str) -> PathBuf {
    let hat = dir.join(name);
    symlink(House::binary(), &hat).expect("a link to the binary");
    hat
}

/// Removes a cgroup of a test's own from every hierarchy. What lived there may be on its way out.
fn sweep(parent: &str) {
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
        let overlay = self.path("root/overlay");
        let _unmounted =
            Command::new("umount").arg("-l").arg(overlay).stderr(Stdio::null()).status();
        sweep(&self.parent);
    }
}

const WAITS: &str = "trap 'echo bye; exit 7' TERM; echo hi; while :; do sleep 0.1; done";

#[test]
fn podman_runs_and_hears_how_it_ended() {
    let podman = Podman::new(program!("podman"));
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
    let podman = Podman::new(program!("podman"));
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
            .stdin(Stdio::null());
        let output = script.output().expect("script can be executed");
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
    let podman = Podman::new(program!("podman"));
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
    let podman = Podman::new(program!("podman"));
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
    let containerd = Containerd::new(&program!("containerd"));
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
    let containerd = Containerd::new(&program!("containerd"));
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
    assert!(shown(&refused).contains("checkpoint is not supported yet"), "{}", shown(&refused));
    assert_eq!(containerd.status("t"), "RUNNING");

    containerd.ok(&["task", "kill", "-s", "SIGTERM", "t"]);
    wait_for("the end of the task", || containerd.status("t") == "STOPPED");
    let deleted = containerd.ctr(&["task", "delete", "t"]);
    assert!(shown(&deleted).contains("exit with non-zero exit code 7"), "{}", shown(&deleted));
    containerd.ok(&["container", "rm", "t"]);
}

// runc

/// One runtime with a bundle and a root of its own.
struct Bundle {
    dir: tempfile::TempDir,
    program: PathBuf,
    cgroup: String,
    said: String,
}

/// How much of an answer must be the same.
#[derive(Clone, Copy, PartialEq)]
enum Same {
    All,
    /// The words are each one's own.
    Code,
}

impl Bundle {
    fn new(program: PathBuf, name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
        let rootfs = dir.path().join("b/rootfs");
        fs::create_dir_all(&rootfs).expect("a place for a root");
        for layer in &TestImage::busybox().layers {
            ::tar::Archive::new(layer.as_slice()).unpack(&rootfs).expect("a layer");
        }
        let cgroup = format!("/gantry-runc-{name}-{}", std::process::id());
        let bundle = Self { dir, program, cgroup, said: String::new() };
        bundle.configure(&["sleep", "1000"], |_| {});
        bundle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// runc's own example without a terminal.
    fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let _absent = fs::remove_file(self.path("b/config.json"));
        let mut spec = Command::new("runc");
        spec.args(["spec", "--bundle"]).arg(self.path("b"));
        succeed(spec);
        let text = fs::read(self.path("b/config.json")).expect("an example");
        let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["root"]["readonly"] = json!(false);
        spec["annotations"] = json!({"a": "b"});
        spec["linux"]["cgroupsPath"] = json!(format!("{}/c", self.cgroup));
        change(&mut spec);
        fs::write(self.path("b/config.json"), spec.to_string()).expect("a configuration");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.path("b"))
            .arg("--root")
            .arg(self.path("root"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command and writes down what came of it, without what is by chance.
    fn step(&mut self, same: Same, args: &[&str]) -> i32 {
        let log = self.path("log");
        let _absent = fs::remove_file(&log);
        let (out, err) = (File::create(self.path("out")), File::create(self.path("err")));
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.path("b"))
            .arg("--root")
            .arg(self.path("root"))
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(args)
            .stdin(Stdio::null())
            // Files: who stays in the background holds no pipe.
            .stdout(out.expect("a file"))
            .stderr(err.expect("a file"));
        let status = command.status().expect("a runtime can be executed");
        let code = status.code().unwrap_or(-1);
        let log = fs::read_to_string(&log).unwrap_or_default();
        let message = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["level"] == "error" && line["time"].is_string())
            .filter_map(|line| Some(line["msg"].as_str()?.to_owned()))
            .next_back()
            .unwrap_or_default();
        if !message.is_empty() {
            let err = fs::read_to_string(self.path("err")).unwrap_or_default();
            assert!(err.contains(&message), "bare words on standard error: {err}");
        }
        let may_end_badly = matches!(args[0], "exec" | "run");
        assert!(code == 0 || !message.is_empty() || may_end_badly, "{args:?} says nothing");
        let shown = |text: String| self.plain(&text);
        let args = shown(args.join(" "));
        let mut said = format!("$ {}\n[{code}]\n", args.trim_end());
        if same == Same::All {
            said += &shown(fs::read_to_string(self.path("out")).unwrap_or_default());
            // runc says its own name first.
            let message = ["runc create failed: ", "runc run failed: "]
                .iter()
                .find_map(|prefix| message.strip_prefix(prefix))
                .unwrap_or(&message);
            said += &shown(message.to_owned());
        }
        self.said += said.trim_end();
        self.said += "\n";
        code
    }

    fn all(&mut self, args: &[&str]) {
        self.step(Same::All, args);
    }

    fn code(&mut self, args: &[&str]) {
        self.step(Same::Code, args);
    }

    /// Places, times and numbers of processes by their kind.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(self.dir.path().to_str().expect("a path in UTF-8"), "DIR");
        let mut plain = String::new();
        for line in text.lines() {
            // The table's columns are as wide as what stands in them.
            let mut words: Vec<String> =
                line.split_whitespace().map(|word| self.plain_word(word)).collect();
            if words.len() == 6 && words[4] == "TIME" {
                words[1] = "PID".to_owned();
            }
            plain += &words.join(" ");
            plain += "\n";
        }
        plain
    }

    fn plain_word(&self, word: &str) -> String {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_time = core.len() > 20 && core.ends_with('Z') && core.as_bytes()[10] == b'T';
        if is_time { word.replace(core, "TIME") } else { word.to_owned() }
    }

    fn state(&self, id: &str) -> Value {
        let text = succeed(self.command(&["state", id]));
        serde_json::from_str(&text).expect("JSON")
    }

    fn wait_until_stopped(&self, id: &str) {
        wait_for("the end of the container", || self.state(id)["status"] == "stopped");
    }

    /// The state, key by key in its order, without what is by chance.
    fn note_state(&mut self, id: &str) {
        let text = succeed(self.command(&["state", id]));
        let mut state: Value = serde_json::from_str(&text).expect("JSON");
        let alive = state["pid"] != 0;
        (state["pid"], state["created"]) = (json!(alive), json!("TIME"));
        let keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        self.said += &self.plain(&format!("state {keys:?} {state}"));
    }

    fn file(&mut self, path: &str) {
        let found = fs::read_to_string(path.replace("CGROUP", &format!("{}/c", self.cgroup)));
        self.said += &format!("{path}: {}\n", found.unwrap_or_default().trim());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let list = self.command(&["list", "-q"]).output().map(|output| text(&output.stdout));
        for id in list.unwrap_or_default().lines() {
            let _gone = self.command(&["delete", "--force", id]).output();
        }
        sweep(&self.cgroup);
    }
}

/// Both play the same part; what they have said must be the same.
#[track_caller]
fn both(name: &str, runc: PathBuf, part: impl Fn(&mut Bundle)) {
    let place = tempfile::tempdir().expect("a place for a test");
    let [theirs, ours] = [(runc, "theirs"), (hat(place.path(), "gantry-runtime"), "ours")].map(
        |(program, whose)| {
            let mut bundle = Bundle::new(program, &format!("{name}-{whose}"));
            part(&mut bundle);
            std::mem::take(&mut bundle.said)
        },
    );
    if theirs != ours {
        let differ = theirs.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
        panic!("they differ at {differ:?}\n--- runc\n{theirs}\n--- ours\n{ours}");
    }
}

#[test]
fn runc_of_nothing() {
    both("nothing", program!("runc"), |bundle| {
        for args in [
            &["list"][..],
            &["list", "-f", "json"],
            &["list", "-q"],
            &["list", "-f", "x"],
            &["state", "nope"],
            &["kill", "nope"],
            &["delete", "nope"],
            &["delete", "--force", "nope"],
            &["start", "nope"],
            &["exec", "nope", "true"],
            &["ps", "nope"],
            &["pause", "nope"],
            &["resume", "nope"],
            &["update", "nope"],
            &["events", "--stats", "nope"],
            &["create", "bad/id"],
            &["create", "--bundle", "/nowhere", "c"],
            &["run", "--bundle", "/nowhere", "c"],
        ] {
            bundle.all(args);
        }
        for args in [
            &["state"][..],
            &["state", "a", "b"],
            &["state", "--bogus", "c"],
            &["create"],
            &["run"],
            &["exec"],
            &["kill"],
            &["list", "x"],
            &["delete"],
        ] {
            bundle.code(args);
        }
        fs::write(bundle.path("b/config.json"), "{").expect("a configuration");
        bundle.code(&["create", "c"]);
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.code(&["create", "c"]);
        bundle.all(&["list", "-q"]);
    });
}

#[test]
fn runc_from_create_to_delete() {
    both("life", program!("runc"), |bundle| {
        let pid_file = bundle.path("pid");
        let pid_file = pid_file.to_str().expect("a path in UTF-8");
        bundle.all(&["create", "--pid-file", pid_file, "--no-pivot", "--no-new-keyring", "c"]);
        let written = fs::read_to_string(pid_file).expect("a number");
        assert_eq!(bundle.state("c")["pid"].to_string(), written);
        bundle.note_state("c");
        for args in [
            &["create", "c"][..],
            &["list"],
            &["list", "-q"],
            &["exec", "c", "echo", "before its start"],
            &["pause", "c"],
        ] {
            bundle.all(args);
        }
        bundle.note_state("c");
        for args in [&["resume", "c"][..], &["start", "c"], &["start", "c"]] {
            bundle.all(args);
        }
        bundle.note_state("c");
        let json = succeed(bundle.command(&["ps", "-f", "json", "c"]));
        assert_eq!(
            serde_json::from_str::<Value>(&json).expect("JSON"),
            json!([bundle.state("c")["pid"]])
        );
        let table = succeed(bundle.command(&["ps", "c"]));
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(
            (rows[1][0], rows[1][1], &rows[1][7..]),
            ("root", written.as_str(), &["sleep", "1000"][..])
        );

        for args in [
            &["ps", "-f", "x", "c"][..],
            &["delete", "c"],
            &["pause", "c"],
            &["pause", "c"],
            &["exec", "c", "true"],
            &["start", "c"],
            &["resume", "c"],
            &["resume", "c"],
            &[
                "update",
                "--memory",
                "64m",
                "--pids-limit",
                "20",
                "--cpu-quota",
                "50000",
                "--cpu-period",
                "100000",
                "c",
            ],
        ] {
            bundle.all(args);
        }
        bundle.file("/sys/fs/cgroup/memory/CGROUP/memory.limit_in_bytes");
        bundle.file("/sys/fs/cgroup/pids/CGROUP/pids.max");
        bundle.file("/sys/fs/cgroup/cpu/CGROUP/cpu.cfs_quota_us");
        let resources = bundle.path("r.json");
        fs::write(&resources, r#"{"memory":{"limit":50331648},"cpu":{"shares":512}}"#)
            .expect("a file");
        bundle.all(&["update", "-r", resources.to_str().expect("a path in UTF-8"), "c"]);
        bundle.file("/sys/fs/cgroup/memory/CGROUP/memory.limit_in_bytes");
        bundle.file("/sys/fs/cgroup/cpu/CGROUP/cpu.shares");
        bundle.all(&["update", "--memory", "bad", "c"]);
        bundle.all(&["update", "-r", "/nope", "c"]);
        bundle.code(&["update", "--blkio-weight", "x", "c"]);

        for args in [&["kill", "c", "BADSIG"][..], &["kill", "c", "0"], &["kill", "c", "KILL"]] {
            bundle.all(args);
        }
        bundle.wait_until_stopped("c");
        bundle.note_state("c");
        for args in [
            &["kill", "c"][..],
            &["kill", "c", "KILL"],
            &["exec", "c", "true"],
            &["start", "c"],
            &["pause", "c"],
            &["resume", "c"],
            &["list", "-q"],
            &["delete", "c"],
            &["delete", "c"],
            &["state", "c"],
            &["list"],
        ] {
            bundle.all(args);
        }
    });
}

#[test]
fn runc_joining() {
    both("exec", program!("runc"), |bundle| {
        bundle.all(&["run", "--detach", "c"]);
        let process = bundle.path("p.json");
        let document = json!({
            "args": ["sh", "-c", "pwd; id -u; exit 9"], "cwd": "/tmp", "env": ["PATH=/bin"],
            "user": {"uid": 5, "gid": 5},
        });
        fs::write(&process, document.to_string()).expect("a file");
        let process = process.to_str().expect("a path in UTF-8").to_owned();
        for args in [
            &["exec", "c", "sh", "-c", "echo out; exit 5"][..],
            &["exec", "c", "nosuch"],
            &["exec", "c"],
            &[
                "exec",
                "-u",
                "1000:7",
                "--cwd",
                "/tmp",
                "-e",
                "A=b",
                "c",
                "sh",
                "-c",
                "id -u; id -g; pwd; echo $A",
            ],
            &["exec", "-g", "5", "-g", "6", "c", "id", "-G"],
            &["exec", "--cap", "CAP_SYS_ADMIN", "c", "grep", "CapEff", "/proc/self/status"],
            &["exec", "--no-new-privs", "c", "grep", "NoNewPrivs", "/proc/self/status"],
            &["exec", "--cwd", "/nope", "c", "pwd"],
            &["exec", "--process", &process, "c"],
            &["exec", "c", "sh", "-c", "kill -9 $$"],
        ] {
            bundle.all(args);
        }
        for args in [
            &["exec", "-u", "bad", "c", "id"][..],
            &["exec", "--cwd", "rel", "c", "pwd"],
            &["exec", "c", "/etc"],
        ] {
            bundle.code(args);
        }
        // Descriptors, and only those that were asked for.
        for (flags, expected) in [(&[][..], "0 1 2"), (&["--preserve-fds", "1"][..], "0 1 2 3")] {
            let script = "for f in 0 1 2 3 4 5; do [ -e /proc/$$/fd/$f ] && echo $f; done; true";
            let exec = [&["exec"], flags, &["c", "sh", "-c", script]].concat();
            let outer = bundle.command(&exec);
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" 3</etc/hostname 4</etc/hostname", "sh"]);
            shell.arg(outer.get_program()).args(outer.get_args()).stdin(Stdio::null());
            let seen = succeed(shell);
            let seen: Vec<&str> = seen.split_whitespace().filter(|fd| fd.len() == 1).collect();
            assert_eq!(seen.join(" "), expected, "{flags:?}");
        }
        let pid_file = bundle.path("epid");
        bundle.all(&[
            "exec",
            "-d",
            "--pid-file",
            pid_file.to_str().expect("a path"),
            "c",
            "sleep",
            "1000",
        ]);
        let pid = fs::read_to_string(pid_file).expect("a number");
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
        assert_eq!(comm, "sleep\n");

        let stats = succeed(bundle.command(&["events", "--stats", "c"]));
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!("c")));
        for pointer in [
            "/data/cpu/usage/total",
            "/data/memory/usage/usage",
            "/data/memory/usage/limit",
            "/data/memory/raw/rss",
            "/data/pids/current",
        ] {
            assert!(stats.pointer(pointer).is_some_and(Value::is_u64), "{pointer}: {stats}");
        }
        bundle.all(&["delete", "--force", "c"]);
        bundle.all(&["list", "-q"]);
    });
}

#[test]
fn runc_running() {
    both("run", program!("runc"), |bundle| {
        bundle.configure(&["sh", "-c", "echo out; exit 3"], |_| {});
        bundle.all(&["run", "c"]);
        bundle.all(&["list", "-q"]);
        bundle.all(&["run", "--keep", "c"]);
        bundle.note_state("c");
        bundle.all(&["delete", "c"]);
        bundle.configure(&["nosuch"], |_| {});
        bundle.all(&["run", "c"]);
        bundle.all(&["create", "c"]);
        bundle.all(&["list", "-q"]);
        bundle.configure(&["sh", "-c", "kill -9 $$"], |spec| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .retain(|one| one["type"] != "pid");
        });
        bundle.all(&["run", "c"]);
        bundle.configure(&["cat", "/proc/sys/kernel/msgmax", "/proc/self/oom_score_adj"], |spec| {
            spec["linux"]["sysctl"] = json!({"kernel.msgmax": "1000"});
            spec["process"]["oomScoreAdj"] = json!(500);
        });
        bundle.all(&["run", "c"]);
        for (name, wrong) in [
            ("sysctl", json!({"kernel.core_pattern": "x"})),
            ("sysctl", json!({"net.ipv4.ip_forward": "1"})),
            ("rootfsPropagation", json!("loud")),
        ] {
            bundle.configure(&["true"], |spec| {
                spec["linux"][name] = wrong;
                spec["linux"]["namespaces"]
                    .as_array_mut()
                    .expect("a list")
                    .retain(|one| one["type"] != "network");
            });
            bundle.code(&["run", "c"]);
        }
        // Two documents to begin with, each good for the other's runtime too.
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.all(&["spec"]);
        bundle.all(&["spec"]);
        let text = fs::read(bundle.path("b/config.json")).expect("an example");
        let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
        (spec["process"]["terminal"], spec["process"]["args"]) =
            (json!(false), json!(["hostname"]));
        spec["hostname"] = json!("same");
        spec["ociVersion"] = json!("1.0.2");
        fs::write(bundle.path("b/config.json"), spec.to_string()).expect("a configuration");
        bundle.all(&["run", "c"]);
        let other = Command::new("runc")
            .current_dir(bundle.path("b"))
            .arg("--root")
            .arg(bundle.path("other"))
            .args(["run", "c"])
            .stdin(Stdio::null())
            .output()
            .expect("runc can be executed");
        assert_eq!(text_of(&other), "same\n", "{}", shown(&other));
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.all(&["spec", "--rootless"]);
        let text = fs::read(bundle.path("b/config.json")).expect("an example");
        let spec: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    });
}

fn text_of(output: &Output) -> String {
    text(&output.stdout)
}

#[test]
fn runc_features() {
    let runc = program!("runc");
    let place = tempfile::tempdir().expect("a place for a test");
    let ask = |program: &Path| -> Value {
        let mut features = Command::new(program);
        features.arg("features");
        serde_json::from_str(&succeed(features)).expect("JSON")
    };
    let (theirs, ours) = (ask(&runc), ask(&hat(place.path(), "gantry-runtime")));
    let words = |features: &Value, pointer: &str| -> Vec<String> {
        let list = features.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    for (pointer, not_ours) in [
        ("/hooks", &[][..]),
        // Words of the file system, which are passed on.
        ("/mountOptions", &["acl", "noacl"][..]),
        ("/linux/namespaces", &[]),
        ("/linux/capabilities", &[]),
        ("/linux/seccomp/actions", &[]),
        ("/linux/seccomp/operators", &[]),
        (
            "/linux/seccomp/archs",
            &[
                "SCMP_ARCH_MIPS",
                "SCMP_ARCH_MIPS64",
                "SCMP_ARCH_MIPS64N32",
                "SCMP_ARCH_MIPSEL",
                "SCMP_ARCH_MIPSEL64",
                "SCMP_ARCH_MIPSEL64N32",
                "SCMP_ARCH_PPC",
                "SCMP_ARCH_PPC64",
                "SCMP_ARCH_PPC64LE",
                "SCMP_ARCH_S390",
                "SCMP_ARCH_S390X",
            ],
        ),
    ] {
        let ours = words(&ours, pointer);
        let lacking: Vec<String> =
            words(&theirs, pointer).into_iter().filter(|word| !ours.contains(word)).collect();
        assert_eq!(lacking, not_ours, "{pointer}");
    }
}

// Hooks: the six moments of the specification.

/// A hook that writes down its moment, the state it is told, and whose mounts it sees.
fn hook(log: &Path, moment: &str, then: &str) -> Value {
    let script = format!(
        "state=$(cat | tr -d '\\n ' | grep -o '\"status\":\"[a-z]*\"'); echo \"{moment} $state $(readlink /proc/self/ns/mnt)\" >>{}; {then}",
        log.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 20})
}

const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle of ours whose hooks write into a file that both the host and the container see at one path.
fn with_hooks(name: &str, fails: Option<&str>) -> (tempfile::TempDir, Bundle, PathBuf) {
    let place = tempfile::tempdir().expect("a place for a test");
    let bundle = Bundle::new(hat(place.path(), "gantry-runtime"), name);
    let shared = place.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    let log = shared.join("log");
    bundle.configure(&["sleep", "1000"], |spec| {
        for moment in MOMENTS {
            let then = if fails == Some(moment) { "echo why >&2; exit 3" } else { "true" };
            let second = hook(&log, &format!("{moment}2"), "true");
            spec["hooks"][moment] = json!([hook(&log, moment, then), second]);
        }
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({"destination": shared, "source": shared, "options": ["bind"]}));
    });
    (place, bundle, log)
}

#[test]
fn hooks_have_their_moments() {
    let (_place, bundle, log) = with_hooks("hooks", None);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let told = |lines: &[&str]| {
        let text = said();
        let moments: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(moments, lines, "{text}");
    };
    let quiet = |args: &[&str]| {
        let status = bundle.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("it can be executed").success(), "{args:?}");
    };
    let twice = |moments: &[&str]| -> Vec<String> {
        moments.iter().flat_map(|moment| [(*moment).to_owned(), format!("{moment}2")]).collect()
    };
    let check = |number: usize| {
        let expected = twice(&MOMENTS[..number]);
        told(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    quiet(&["create", "c"]);
    check(3);
    quiet(&["start", "c"]);
    check(5);
    let pid = bundle.state("c")["pid"].to_string();
    let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("it runs");
    quiet(&["kill", "c", "KILL"]);
    bundle.wait_until_stopped("c");
    check(5);
    quiet(&["delete", "c"]);
    check(6);

    let ours = fs::read_link("/proc/self/ns/mnt").expect("we run");
    let line = |moment: &str| {
        let text = said();
        let line = text.lines().find(|line| line.starts_with(&format!("{moment} ")));
        line.expect("it was run").to_owned()
    };
    for (moment, status, mounts) in [
        ("prestart", "creating", &ours),
        ("createRuntime", "creating", &ours),
        ("createContainer", "creating", &theirs),
        ("startContainer", "created", &theirs),
        ("poststart", "running", &ours),
        ("poststop", "stopped", &ours),
    ] {
        let expected = format!("{moment} \"status\":\"{status}\" {}", mounts.display());
        assert_eq!(line(moment), expected);
    }
}

#[test]
fn a_failing_hook_ends_it_but_after_the_end() {
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let (place, bundle, log) = with_hooks(&format!("fails{number}"), Some(moment));
        let err = place.path().join("err");
        let run = |args: &[&str]| {
            let file = File::create(&err).expect("a file");
            let status = bundle.command(args).stdout(Stdio::null()).stderr(file).status();
            let said = fs::read_to_string(&err).unwrap_or_default();
            (status.expect("it can be executed").success(), said)
        };
        let words = format!("error running {moment} hook #0: exit status 3");
        let (created, said) = run(&["create", "c"]);
        assert_eq!(created, number > 2, "{moment}: {said}");
        if number < 3 {
            assert!(said.contains(&words), "{said}");
            assert!(
                bundle.command(&["state", "c"]).output().is_ok_and(|state| !state.status.success())
            );
            continue;
        }
        let (started, said) = run(&["start", "c"]);
        assert_eq!(started, moment == "poststop", "{moment}: {said}");
        if started {
            assert!(run(&["kill", "c", "KILL"]).0);
        } else {
            assert!(said.contains(&words), "{said}");
        }
        bundle.wait_until_stopped("c");
        let (deleted, said) = run(&["delete", "c"]);
        assert!(deleted, "{moment}: {said}");
        if moment == "poststop" {
            assert!(said.contains("level=warning") && said.contains(&words), "{said}");
        }
        // The others of the last moment are run all the same.
        let log = fs::read_to_string(&log).unwrap_or_default();
        assert!(log.lines().any(|line| line.starts_with("poststop2 ")), "{moment}: {log}");
    }
}

// Where the host's program could be met (E1): a container that waits for somebody to join it.

/// Opens the program of everybody it sees for writing, for ever, and says which one it could.
const GRASPS: &str = r#"
    me=$(readlink /proc/1/exe)
    while :; do
        for p in /proc/[0-9]*; do
            l=$(readlink $p/exe 2>/dev/null) || continue
            [ "$l" = "$me" ] && continue
            echo "$l" >>/tmp/seen
            (echo broken >>$p/exe) 2>/dev/null && echo "wrote $l" >>/tmp/wrote
        done
    done
"#;

#[test]
fn e1_the_runtimes_own_program_is_not_written() {
    let runc = program!("runc");
    let place = tempfile::tempdir().expect("a place for a test");
    drop(runc);
    // A copy: if it fails, others' tests go on.
    let copy = place.path().join("gantry-runtime");
    fs::copy(House::binary(), &copy).expect("a copy of the binary");
    let before = fs::read(&copy).expect("a program");
    let bundle = Bundle::new(copy.clone(), "e1");
    let ptrace = |spec: &mut Value| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] =
                json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
        }
    };
    bundle.configure(&["sh", "-c", GRASPS], ptrace);
    let out = File::create(place.path().join("out")).expect("a file");
    let mut run = bundle.command(&["run", "--detach", "c"]);
    run.stdout(out.try_clone().expect("a file")).stderr(out);
    assert!(run.status().expect("a runtime can be executed").success());
    for _ in 0..60 {
        succeed(bundle.command(&["exec", "c", "true"]));
    }
    // The program itself, by every name it could be given.
    let link = bundle.path("b/rootfs/link");
    symlink("/proc/self/exe", &link).expect("a link");
    for path in ["/proc/self/exe", "/link"] {
        let _either = bundle.command(&["exec", "c", path, "--version"]).output();
    }
    let wrote =
        bundle.command(&["exec", "c", "cat", "/tmp/wrote"]).output().expect("it can be executed");
    assert_eq!(text(&wrote.stdout), "");
    let seen = succeed(bundle.command(&["exec", "c", "sort", "-u", "/tmp/seen"]));
    assert!(fs::read(&copy).expect("a program") == before, "written from inside; seen: {seen}");

    // And as the container's own first program.
    succeed(bundle.command(&["delete", "--force", "c"]));
    bundle.configure(&["/proc/self/exe", "--version"], ptrace);
    let _either = bundle.command(&["run", "d"]).output();
    assert!(fs::read(&copy).expect("a program") == before);

    // The twin: the same wish on a program of the container's own comes true.
    bundle.configure(
        &["sh", "-c", "cp /bin/busybox /tmp/own; echo more >>/tmp/own && echo wrote"],
        ptrace,
    );
    assert_eq!(succeed(bundle.command(&["run", "d"])), "wrote\n");
}

#[test]
fn e1_nor_the_daemons() {
    let house = House::new();
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let before = fs::read(House::binary()).expect("a program");
    let run = ["run", "-d", "--name", "grasps", "--network", "none", "--cap-add", "SYS_PTRACE"];
    house.ok(&[&run[..], &["busybox", "sh", "-c", GRASPS]].concat());
    for _ in 0..20 {
        house.ok(&["exec", "grasps", "true"]);
    }
    let _either = house.docker(&["exec", "grasps", "/proc/self/exe", "--version"]).output();
    let own = TestImage::new(
        vec![tar(&[
            Entry::File("script".to_owned(), b"#!/proc/self/exe\n".to_vec(), 0o755),
            Entry::Symlink("link".to_owned(), "/proc/self/exe".to_owned()),
        ])],
        &json!({"Cmd": ["/script"]}),
    );
    house.load(&own.docker_archive(&["own:latest"]));
    for path in ["/script", "/link", "/proc/self/exe"] {
        let _either = house.docker(&["run", "--rm", "--network", "none", "own", path]).output();
    }
    let wrote = house
        .docker(&["exec", "grasps", "cat", "/tmp/wrote"])
        .output()
        .expect("it can be executed");
    assert_eq!(text(&wrote.stdout), "");
    assert!(fs::read(House::binary()).expect("a program") == before, "the binary was written");
    assert_eq!(house.ok(&["exec", "grasps", "echo", "fine"]), "fine\n");
    house.ok(&["rm", "-f", "grasps"]);
}
