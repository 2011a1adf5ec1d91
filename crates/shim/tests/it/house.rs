//! A place to run containers in: a launcher, a root file system of busybox alone, a cgroup of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci::runtime::{
    Capabilities, Linux, Mount, Namespace, NamespaceType, Process, Resources, Root, Rootfs, Spec,
    User,
};
use shim::{
    AttachOptions, Client, Event, Exit, Launch, LaunchError, Launched, Launcher, Watch, logs,
};
use tempfile::TempDir;

pub(crate) const ALL: AttachOptions =
    AttachOptions { stdin: true, stdout: true, stderr: true, framed: None };
pub(crate) const OUTPUT: AttachOptions =
    AttachOptions { stdin: false, stdout: true, stderr: true, framed: None };

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) launcher: Launcher,
    runtime: Option<PathBuf>,
}

impl House {
    /// `None`, and a word about it, where containers cannot be made.
    pub(crate) fn open() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
        for name in [
            "sh", "echo", "cat", "sleep", "head", "tail", "dd", "true", "false", "stty", "seq",
            "kill", "yes", "ps", "tr",
        ] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let program = fs::File::open(env!("CARGO_BIN_EXE_test-launcher")).unwrap();
        let launcher = Launcher::spawn(program.into()).unwrap();
        Some(Self { dir, launcher, runtime: None })
    }

    pub(crate) fn with_runtime(self, program: &str) -> Self {
        Self { runtime: Some(program.into()), ..self }
    }

    /// A container that runs this in a shell, with nothing attached.
    pub(crate) fn shell(&self, script: &str) -> Launch {
        let id = format!("shim-test-{}", stdx::Id::random().short());
        let dir = self.dir.path().join(&id);
        fs::create_dir(&dir).unwrap();
        let rootfs = self.dir.path().join("rootfs");
        Launch {
            spec: spec(&id, &["/bin/sh", "-c", script], rootfs.clone()),
            rootfs: Rootfs::Directory { path: rootfs },
            netns: None,
            userns: None,
            trees: Vec::new(),
            logs: logs::Config { path: dir.join("json.log"), ..logs::Config::default() },
            open_stdin: false,
            stdin_once: false,
            tty: false,
            size: None,
            attach: Vec::new(),
            init: false,
            filter: None,
            cgroup_driver: runtime::cgroup::Driver::Cgroupfs,
            runtime: self.runtime.clone(),
            checkpoint: None,
            id,
            dir,
        }
    }

    pub(crate) fn launch(&self, launch: Launch) -> Container {
        self.try_launch(launch).unwrap()
    }

    pub(crate) fn try_launch(&self, launch: Launch) -> Result<Container, LaunchError> {
        let dir = launch.dir.clone();
        let log = launch.logs.clone();
        let Launched { pid, shim_pid, watch, .. } = self.launcher.launch(launch)?;
        let client = Client::connect(&dir).unwrap();
        Ok(Container { pid, shim_pid, client, watch, dir, log, exit: None })
    }
}

fn spec(id: &str, args: &[&str], rootfs: PathBuf) -> Spec {
    let namespace = |kind| Namespace { kind, path: None };
    let capabilities: Vec<String> =
        ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
            .map(str::to_owned)
            .into();
    Spec {
        oci_version: oci::runtime::VERSION.to_owned(),
        root: Some(Root { path: rootfs, readonly: false }),
        process: Some(Process {
            capabilities: Some(Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..Capabilities::default()
            }),
            ..process(args)
        }),
        mounts: vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            ),
        ],
        linux: Some(Linux {
            cgroups_path: format!("/gantry-shim-test/{id}"),
            resources: Some(Resources::default()),
            namespaces: [
                NamespaceType::Pid,
                NamespaceType::Mount,
                NamespaceType::Ipc,
                NamespaceType::Uts,
                NamespaceType::Network,
            ]
            .map(namespace)
            .into(),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.to_owned(),
        source: Some(kind.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process {
        user: User::default(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".into(),
        ..Process::default()
    }
}

pub(crate) struct Container {
    pub(crate) pid: u32,
    pub(crate) shim_pid: u32,
    pub(crate) client: Client,
    pub(crate) watch: Watch,
    pub(crate) dir: PathBuf,
    pub(crate) log: logs::Config,
    exit: Option<Exit>,
}

impl Container {
    /// Waits for an event that `wanted` makes something of.
    pub(crate) fn event<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.watch.next().unwrap().expect("the shim lives");
            let found = wanted(&event);
            match event {
                Event::Exit(exit) => self.exit = Some(exit),
                // It had ended before anybody watched.
                Event::State(state) => self.exit = state.exit.or(self.exit.take()),
                _ => {}
            }
            if let Some(found) = found {
                return found;
            }
        }
    }

    pub(crate) fn cgroup(&self) -> runtime::cgroup::Handle {
        runtime::cgroup::Handle::open(&self.location()).unwrap()
    }

    fn location(&self) -> runtime::cgroup::Location {
        let name = self.dir.file_name().unwrap().to_string_lossy().into_owned();
        runtime::cgroup::Location::of(&format!("/gantry-shim-test/{name}"), &name).unwrap()
    }

    pub(crate) fn wait(&mut self) -> Exit {
        match self.exit.clone() {
            Some(exit) => exit,
            None => self.event(|event| match event {
                Event::Exit(exit) => Some(exit.clone()),
                Event::State(state) => state.exit.clone(),
                _ => None,
            }),
        }
    }

    /// What is in its log: stream and line.
    pub(crate) fn logged(&self) -> Vec<(&'static str, String)> {
        let mut reader = logs::Reader::of(&self.log, logs::Options::default()).unwrap();
        let mut lines = Vec::new();
        while let logs::Next::Entry(entry) = reader.next().unwrap() {
            lines.push((entry.stream.as_str(), String::from_utf8_lossy(entry.line).into_owned()));
        }
        lines
    }
}

impl Drop for Container {
    /// No test leaves a container behind, failed ones neither.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let note = fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default();
            eprintln!("shim.log: {note}");
        }
        let _ended = self.client.kill(9, shim::Whom::Init);
        let mut over = self.exit.is_some();
        while !over {
            over = match self.watch.next() {
                Ok(Some(Event::State(state))) => state.exit.is_some(),
                Ok(Some(Event::Exit(_)) | None) | Err(_) => true,
                Ok(Some(_)) => false,
            };
        }
        // Refused by shims that were killed: what they left is for a daemon to find, and here for us.
        let _deleted = self.client.delete();
        if let Ok(left) = runtime::cgroup::Handle::open(&self.location()) {
            left.destroy().unwrap();
        }
    }
}

/// Both ends of a client's stream, the first being the client's.
pub(crate) fn stream() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (Stream(ours), theirs)
}

pub(crate) struct Stream(pub(crate) UnixStream);

impl Stream {
    pub(crate) fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn close_stdin(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Everything to the end, as it came.
    pub(crate) fn raw(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Reads until the text was seen.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0; 1];
        while !seen.ends_with(wanted.as_bytes()) {
            self.0
                .read_exact(&mut byte)
                .unwrap_or_else(|err| panic!("{err} after {:?}", String::from_utf8_lossy(&seen)));
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Everything to the end, taken apart: stdout and stderr.
    pub(crate) fn frames(&mut self) -> (String, String) {
        let [out, err, failure] = self.streams();
        assert_eq!(failure, "");
        (out, err)
    }

    /// The third says why there is no more.
    pub(crate) fn streams(&mut self) -> [String; 3] {
        let bytes = self.raw();
        let (mut streams, mut rest) = ([const { Vec::new() }; 3], &bytes[..]);
        while let Some((header, after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            streams[usize::from(header[0]) - 1].extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        streams.map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

/// Asks again until it is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
