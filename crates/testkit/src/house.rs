//! A daemon of a test's own: its own directories, socket, bridge, subnet and cgroup, gone without a trace when it ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::netns::Netns;

/// How long anything that must happen soon may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon and everything it owns.
pub struct House {
    dir: tempfile::TempDir,
    /// Where its data lies, if not beside everything else.
    data: Option<PathBuf>,
    /// In memory, as `/run` is.
    run: tempfile::TempDir,
    /// Number of the subnet, which nobody else has as long as this lock is held.
    subnet: u16,
    lock: File,
    daemon: Option<Child>,
    flags: Vec<String>,
    /// What executes it, if not the test itself: a program and its arguments.
    wrapper: Vec<String>,
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}

impl House {
    /// Starts a daemon with nothing but its own places.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Starts a daemon with more flags.
    pub fn with(flags: &[&str]) -> Self {
        Self::build(flags, &[])
    }

    /// Starts a daemon to which a test's own network is the host's.
    pub fn within(netns: &Netns) -> Self {
        Self::through(&["nsenter", &format!("--net={}", netns.path().display()), "--"])
    }

    /// The same, with more flags.
    pub fn within_with(netns: &Netns, flags: &[&str]) -> Self {
        Self::build(flags, &["nsenter", &format!("--net={}", netns.path().display()), "--"])
    }

    /// Starts a daemon by a program that executes what follows its arguments under its own process id.
    pub fn through(wrapper: &[&str]) -> Self {
        Self::build(&[], wrapper)
    }

    /// The same, with more flags.
    pub fn through_with(wrapper: &[&str], flags: &[&str]) -> Self {
        Self::build(flags, wrapper)
    }

    /// Starts a daemon whose data lies in a directory that somebody else keeps.
    pub fn on(data: &Path, flags: &[&str], wrapper: &[&str]) -> Self {
        Self::build_on(Some(data.to_owned()), flags, wrapper)
    }

    fn build(flags: &[&str], wrapper: &[&str]) -> Self {
        Self::build_on(None, flags, wrapper)
    }

    fn build_on(data: Option<PathBuf>, flags: &[&str], wrapper: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("gt-").tempdir().expect("a place for a test");
        let run = run_dir("gt-");
        let (subnet, lock) = reserve();
        let [flags, wrapper] =
            [flags, wrapper].map(|words| words.iter().map(|&word| word.to_owned()).collect());
        let mut house = Self { dir, data, run, subnet, lock, daemon: None, flags, wrapper };
        // A test that was killed could not tidy up.
        house.succeed_the_last();
        house.sweep();
        house.start();
        house
    }

    /// The built binary: `GANTRY` in the environment, else the one beside the tests.
    pub fn binary() -> PathBuf {
        #[allow(
            clippy::disallowed_methods,
            reason = "tests are told by their environment what to test"
        )]
        if let Some(path) = std::env::var_os("GANTRY") {
            return path.into();
        }
        let test = std::env::current_exe().expect("a test knows where it is");
        let beside =
            test.ancestors().find_map(|dir| Some(dir.join("gantry")).filter(|path| path.is_file()));
        beside.expect("set GANTRY to the built binary, or run ./scripts/test")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("s")
    }

    pub fn data_root(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.path("data"))
    }

    pub fn exec_root(&self) -> PathBuf {
        self.run.path().to_owned()
    }

    pub fn bridge(&self) -> String {
        format!("gt{}", self.subnet)
    }

    pub fn cgroup_parent(&self) -> String {
        cgroup_parent(&format!("gantry-test-{}", self.subnet))
    }

    /// The address of the bridge.
    pub fn gateway(&self) -> String {
        format!("10.{}.{}.1", 128 + self.subnet / 256, self.subnet % 256)
    }

    /// Where its networks take their subnets from: sixteen, of fourteen addresses each.
    pub fn pool(&self) -> String {
        format!("100.{}.{}.0", 64 + self.subnet / 256, self.subnet % 256)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// What else the daemon is told when it is started next.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Starts the daemon and returns when it has said that it is ready.
    pub fn start(&mut self) {
        let notify = self.path("notify");
        let _absent = std::fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket to be told on");
        ready.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = match self.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(Self::binary());
                command
            }
            None => Command::new(Self::binary()),
        };
        command
            .arg("daemon")
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(["--bridge", &self.bridge(), "--bip", &format!("{}/24", self.gateway())])
            .args(["--default-address-pool", &format!("base={}/24,size=28", self.pool())])
            .args(["--cgroup-parent", &self.cgroup_parent()])
            .args(firewall())
            .args(&self.flags)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let mut daemon = command.spawn().expect("the daemon starts");
        let mut word = [0; 64];
        if ready.recv(&mut word).is_err() {
            let _dead = daemon.kill();
            panic!("the daemon did not become ready:\n{}", self.log());
        }
        self.daemon = Some(daemon);
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().expect("a living daemon can be killed");
        daemon.wait().expect("a killed daemon can be waited for");
    }

    /// Whether it lives still; one that ended by itself is forgotten.
    pub fn lives(&mut self) -> bool {
        let daemon = self.daemon.as_mut().expect("the daemon was started");
        let lives = daemon.try_wait().expect("it is a child of ours").is_none();
        if !lives {
            self.daemon = None;
        }
        lives
    }

    /// SIGTERM, and wait.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let pid = Pid::from_child(&daemon);
        rustix::process::kill_process(pid, Signal::TERM).expect("a living daemon can be asked");
        daemon.wait().expect("a stopped daemon can be waited for");
    }

    /// As when the machine loses its power: whatever lives dies, and what is in memory is gone. What is on disk stays.
    pub fn cut_the_power(&mut self) {
        let list = self.api("GET", "/containers/json", None).json();
        let living: Vec<Pid> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| {
                let id = container["Id"].as_str()?;
                let inspect = self.api("GET", &format!("/containers/{id}/json"), None).json();
                Pid::from_raw(inspect["State"]["Pid"].as_i64()? as i32)
            })
            .collect();
        let shims: Vec<OwnedFd> = living.iter().filter_map(|pid| kill(parent(*pid)?)).collect();
        self.kill();
        for shim in shims {
            let mut dead = [PollFd::new(&shim, PollFlags::IN)];
            poll(&mut dead, None).expect("what is killed ends");
        }
        self.sweep();
        let below = format!(" {}/", self.exec_root().display());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().filter(|line| line.contains(&below)) {
            let place = mount.split(' ').nth(1).expect("each is somewhere");
            let _gone = Command::new("umount").args(["-l", place]).status();
        }
        for entry in std::fs::read_dir(self.run.path()).expect("it is there").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).expect("nothing is mounted there"),
                false => std::fs::remove_file(path).expect("a file"),
            }
        }
    }

    /// The real docker CLI, pointed here.
    pub fn docker(&self, args: &[&str]) -> Command {
        self.client("docker", args)
    }

    /// Our own command, pointed here.
    pub fn gantry(&self, args: &[&str]) -> Command {
        self.client(Self::binary().to_str().expect("a path in UTF-8"), args)
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// Runs docker and returns what it printed; it must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        succeed(self.docker(args))
    }

    /// For a thread of its own.
    pub fn client_of_api(&self) -> Client {
        Client(self.socket())
    }

    /// Asks the API.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.client_of_api().ask(method, path, body).expect("the daemon answers")
    }

    /// Asks the API with any body.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        self.client_of_api().send(method, path, kind, body).expect("the daemon answers")
    }

    /// `docker load` of an image.
    pub fn load(&self, archive: &[u8]) {
        let answer = self.send("POST", "/images/load?quiet=1", "application/x-tar", archive);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 200 && !text.contains("error"), "load: {} {text}", answer.status);
    }

    /// Records = kernel = disk, or the test fails.
    pub fn check(&self) {
        let answer = self.api("POST", "/gantry/system/check?strict=1", None);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let findings = answer.json()["findings"].clone();
        assert_eq!(findings, Value::Array(Vec::new()), "\n{}", self.log());
    }
}

/// A directory for what a reboot may take: in memory where the machine has such a place, as `/run` is nearly everywhere.
pub fn run_dir(prefix: &str) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).expect("a place for a test")
}

/// The output of a command that must succeed.
pub fn succeed(mut command: Command) -> String {
    let output = command.output().expect("it can be executed");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both streams, for messages.
pub fn shown(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A number below 16384 that nobody else on this machine holds. The lock has in it where whoever held it before had what
/// may have outlived a test that was killed.
fn reserve() -> (u16, File) {
    let dir = Path::new("/tmp/gantry-test-subnets");
    std::fs::create_dir_all(dir).expect("a place for locks");
    let start = (std::process::id() % 97) as u16;
    for number in (0..16384).map(|step| (start + step) % 16384) {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(dir.join(number.to_string())).expect("a lock file");
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            return (number, file);
        }
    }
    panic!("all subnets for tests are taken")
}

#[allow(clippy::print_stderr, reason = "a failed test shows what its daemon said")]
impl Drop for House {
    fn drop(&mut self) {
        if self.daemon.is_none() && !std::thread::panicking() {
            self.start();
        }
        if self.daemon.is_some() {
            if !std::thread::panicking() {
                let list = self.api("GET", "/containers/json?all=1", None).json();
                for container in list.as_array().into_iter().flatten() {
                    let id = container["Id"].as_str().unwrap_or_default();
                    self.api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
                }
                self.api("POST", "/networks/prune", None);
                self.check();
                self.stop();
            } else {
                let _closed = writeln!(std::io::stderr(), "the daemon's log:\n{}", self.log());
                self.kill();
            }
        }
        self.sweep();
    }
}

impl House {
    /// Ends the netd of who had this number before, and writes down where the next one finds ours.
    fn succeed_the_last(&mut self) {
        let mut before = String::new();
        self.lock.read_to_string(&mut before).expect("where it was");
        if !before.is_empty() {
            let _none = network::netd::end(Path::new(&before));
        }
        self.lock.set_len(0).expect("an empty lock file");
        self.lock.rewind().expect("the beginning");
        write!(self.lock, "{}", self.exec_root().display()).expect("where it is");
    }

    /// What a daemon leaves behind on purpose (its bridge and rules), and what a failed test left by accident.
    fn sweep(&self) {
        let _none = network::netd::end(&self.exec_root());
        remove_cgroups(&self.cgroup_parent());
        let quiet = |program: &str, args: &[&str]| {
            let _absent = Command::new(program)
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        };
        quiet("ip", &["link", "delete", &self.bridge()]);
        let pool = self.pool();
        let addresses = Command::new("ip").args(["-o", "-4", "addr", "show"]).output();
        let addresses = addresses.map(|output| output.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&addresses).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, device, "inet", address, ..] = words[..] else { continue };
            if address.starts_with(pool.trim_end_matches('0')) {
                quiet("ip", &["link", "delete", device]);
            }
        }
        for family in ["inet", "bridge"] {
            quiet("nft", &["delete", "table", family, &format!("gantry-{}", self.bridge())]);
        }
    }
}

/// Flags for a daemon, ours or Docker's, on a kernel without the tables that ours needs: there nobody filters.
pub fn firewall() -> &'static [&'static str] {
    static FLAGS: OnceLock<&[&str]> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let mut tried = Command::new("unshare");
        tried.args(["--net", "nft", "add", "table", "inet", "tried"]).stderr(Stdio::null());
        match tried.status().is_ok_and(|status| status.success()) {
            true => &[],
            false => &["--iptables=false", "--ip6tables=false"],
        }
    })
}

/// A parent for cgroups as the host's usual driver wants it: a directory, or a slice of systemd's.
pub fn cgroup_parent(name: &str) -> String {
    let one_tree = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    match one_tree && Path::new("/run/systemd/system").exists() {
        // A dash would make it a slice in a slice.
        true => format!("{}.slice", name.replace('-', "_")),
        false => format!("/{name}"),
    }
}

/// Kills what lives in a cgroup of a test's own, in every hierarchy, and removes it. What is frozen dies when it thaws,
/// and a cgroup can be removed when its last process is dead.
pub fn remove_cgroups(parent: &str) {
    let dirs = cgroups_below(parent);
    let dying: Vec<OwnedFd> = dirs.iter().flat_map(|dir| kill_all(dir)).collect();
    for dir in &dirs {
        let _not_frozen = write_existing(&dir.join("freezer.state"), "THAWED");
        let _not_frozen = write_existing(&dir.join("cgroup.freeze"), "0");
    }
    for process in dying {
        let mut dead = [PollFd::new(&process, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).expect("a minute is a time");
        let _ended = poll(&mut dead, Some(&patience));
    }
    for dir in dirs {
        let _busy = std::fs::remove_dir(dir);
    }
}

/// How many there are, in all hierarchies.
pub fn cgroups(parent: &str) -> usize {
    cgroups_below(parent).len()
}

fn cgroups_below(parent: &str) -> Vec<PathBuf> {
    let controllers = [
        "pids", "memory", "freezer", "devices", "cpu", "cpuacct", "cpuset", "blkio", "hugetlb",
        "net_cls", "net_prio", "rdma", "systemd", "unified", "",
    ];
    let mut dirs = Vec::new();
    for controller in controllers {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        collect_below(&root.join(parent.trim_start_matches('/')), &mut dirs);
    }
    dirs
}

/// A directory and all below it, the deepest first.
fn collect_below(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        collect_below(&entry.path(), into);
    }
    into.push(dir.to_owned());
}

fn kill_all(cgroup: &Path) -> Vec<OwnedFd> {
    let procs = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pids = procs.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    pids.filter_map(kill).collect()
}

/// Kills a process; what tells when it is dead.
fn kill(pid: Pid) -> Option<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    pidfd_send_signal(&process, Signal::KILL).ok()?;
    Some(process)
}

fn parent(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(parent.trim().parse().ok()?)
}

fn write_existing(path: &Path, text: &str) -> std::io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_goes_too() {
        let name = format!("/gantry-test-frozen-{}", std::process::id());
        let (root, switch, frozen) = match Path::new("/sys/fs/cgroup/freezer").is_dir() {
            true => ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"),
            false => ("/sys/fs/cgroup", "cgroup.freeze", "1"),
        };
        let below = Path::new(root).join(&name[1..]).join("below");
        std::fs::create_dir_all(&below).expect("root may make cgroups");
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let write = |file: &str, text: &str| write_existing(&below.join(file), text);
        write("cgroup.procs", &child.id().to_string()).expect("a process can be moved");
        write(switch, frozen).expect("a cgroup can be frozen");
        remove_cgroups(&name);
        child.wait().expect("it was killed");
        assert!(!below.parent().expect("it has one").exists());
    }
}
