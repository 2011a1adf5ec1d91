//! The daemon's half of bringing a container to life: a launcher process, and a launch request through it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oci::runtime::{Rootfs, Spec};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

use crate::client::{Answers, Watch};
pub use crate::protocol::Stage;
use crate::protocol::{
    AttachOptions, Checkpoint, Failure, Hello, LaunchCall, LaunchReply, Reply, Size, VERSION, frame,
};
use crate::{launcher, logs};

/// Mounts on a slow disk and a large image's first exec take their time; a launch that takes longer is given up.
const DEADLINE: Duration = Duration::from_secs(120);

/// Everything about one run of a container.
#[derive(Debug)]
pub struct Launch {
    pub id: String,
    /// Exists, 0700, on a file system that is gone after a reboot. Holds the socket and the exit record.
    pub dir: PathBuf,
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub netns: Option<OwnedFd>,
    /// The user namespace that the spec's mapping is of; its files are mounted with that mapping.
    pub userns: Option<OwnedFd>,
    /// Detached mounts to be bound at these places, where the spec binds something.
    pub trees: Vec<(PathBuf, OwnedFd)>,
    pub logs: logs::Config,
    /// Otherwise its stdin is empty.
    pub open_stdin: bool,
    /// Its stdin ends with the first attached client's.
    pub stdin_once: bool,
    pub tty: bool,
    pub size: Option<Size>,
    /// Clients that get every byte from the first, as long as they take something every half minute.
    pub attach: Vec<(AttachOptions, UnixStream)>,
    /// A reaper of ours stays as pid 1.
    pub init: bool,
    pub cgroup_driver: runtime::cgroup::Driver,
    /// The seccomp filter for our runtime, compiled; the spec has none then.
    pub filter: Option<runtime::seccomp::Program>,
    /// An OCI runtime to be used instead of ours.
    pub runtime: Option<PathBuf>,
    /// It goes on where it was, instead of beginning.
    pub checkpoint: Option<Checkpoint>,
}

/// A container that runs.
#[derive(Debug)]
pub struct Launched {
    pub pid: u32,
    pub shim_pid: u32,
    pub started_at: Timestamp,
    /// Everything that happens to it, from its first moment.
    pub watch: Watch,
}

/// A container that does not: nothing of it is left but its directory.
#[derive(Debug)]
pub struct LaunchError {
    pub stage: Stage,
    pub error: Error,
    /// As Docker counts: 127 not found, 126 cannot be invoked, 128 everything else.
    pub exit_code: i32,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.chain())
    }
}

impl std::error::Error for LaunchError {}

impl From<Error> for LaunchError {
    fn from(error: Error) -> Self {
        Self { stage: Stage::Create, error, exit_code: 128 }
    }
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        let stage = failure.stage.unwrap_or(Stage::Create);
        let exit_code = failure.exit_code.unwrap_or(128);
        Self { stage, error: failure.into(), exit_code }
    }
}

/// The launcher process, which is executed once from a sealed copy of our own program and then only forks. If it dies
/// another takes its place; containers do not notice.
#[derive(Debug)]
pub struct Launcher {
    program: OwnedFd,
    /// The open files that containers may have unless they say otherwise: what the daemon itself was given.
    files: Rlimit,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    socket: OwnedFd,
}

impl Launcher {
    /// `program`: see [`sys::memfd::seal_self`].
    pub fn spawn(program: OwnedFd) -> Result<Self> {
        let files = getrlimit(Resource::Nofile);
        let process = Process::spawn(&program, files)?;
        Ok(Self { program, files, process: Mutex::new(Some(process)) })
    }

    /// Brings a container to life and returns when the user's program has been executed, or has failed to.
    pub fn launch(&self, launch: Launch) -> Result<Launched, LaunchError> {
        let request = encode(&launch)?;
        let mut passed = Vec::with_capacity(2 + launch.trees.len() + launch.attach.len());
        let trees = launch.trees.iter().map(|(_, tree)| tree);
        passed.extend(launch.userns.iter().chain(&launch.netns).chain(trees).map(AsFd::as_fd));
        passed.extend(launch.attach.iter().map(|(_, stream)| stream.as_fd()));

        let Born { mut answers, hello, sent } = match self.fork_shim(&request, &passed) {
            Err(Unborn(_)) => self.fork_shim(&request, &passed).map_err(|Unborn(error)| error)?,
            Ok(born) => born,
        };
        let outcome = sent
            .and_then(|()| answers.next::<Reply<LaunchReply>>())
            .context(|| format!("cannot launch container {}", launch.id));
        match outcome {
            Ok(reply) => {
                let LaunchReply { pid, started_at } = reply.into_result()?;
                let watch = answers.into_watch()?;
                Ok(Launched { pid, shim_pid: hello.shim_pid, started_at, watch })
            }
            Err(error) => {
                give_up(&answers, hello.shim_pid);
                Err(error.into())
            }
        }
    }

    /// A new shim with its launch request, which waits for it in its socket. A shim that has not said hello has not read
    /// it: a failure means that nothing has happened.
    fn fork_shim(&self, request: &[u8], passed: &[BorrowedFd]) -> Result<Born, Unborn> {
        let (ours, theirs) =
            UnixStream::pair().context(|| "cannot make a socket".to_owned()).map_err(Unborn)?;
        self.hand_over(&theirs).map_err(Unborn)?;
        drop(theirs);
        let mut answers = Answers::over(ours, DEADLINE).map_err(Unborn)?;
        let sent = answers.send(request, passed);
        match answers.next::<Hello>() {
            Ok(hello) => Ok(Born { answers, hello, sent }),
            Err(error) => {
                self.lose_the_dead();
                Err(Unborn(
                    Error::new(error.kind(), "the launcher did not fork a shim").caused_by(error),
                ))
            }
        }
    }

    fn hand_over(&self, socket: &UnixStream) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(living) = process.as_ref()
            && sys::socket::send_with_fds(&living.socket, b"fork", &[socket.as_fd()]).is_ok()
        {
            return Ok(());
        }
        if let Some(dead) = process.take() {
            dead.bury();
        }
        let new = process.insert(Process::spawn(&self.program, self.files)?);
        sys::socket::send_with_fds(&new.socket, b"fork", &[socket.as_fd()])
            .context(|| "cannot reach the launcher".to_owned())?;
        Ok(())
    }

    /// Reaps a launcher that has died with a request in its hands, so that the next request meets a new one.
    fn lose_the_dead(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if process.as_mut().is_some_and(|process| !matches!(process.child.try_wait(), Ok(None)))
            && let Some(dead) = process.take()
        {
            dead.bury();
        }
    }
}

/// A shim, and whether it has all of its request.
struct Born {
    answers: Answers,
    hello: Hello,
    sent: Result<()>,
}

/// Why there is no shim.
struct Unborn(Error);

impl Drop for Launcher {
    /// The launcher leaves when its socket ends; its shims stay.
    fn drop(&mut self) {
        if let Some(process) = self.process.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            process.bury();
        }
    }
}

impl Process {
    fn spawn(program: &OwnedFd, files: Rlimit) -> Result<Self> {
        let (ours, theirs) = sys::socket::pair().context(|| "cannot make a socket".to_owned())?;
        let child = Command::new(sys::fd::path(program.as_fd()))
            .arg0(launcher::NAME)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            // A shim outlives whoever reads the daemon's output: it must not keep that pipe open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(|| "cannot execute the launcher".to_owned())?;
        // Before it is asked for anything: shims inherit it, and their containers.
        prlimit(Some(Pid::from_child(&child)), Resource::Nofile, files)
            .context(|| "cannot limit the launcher's files".to_owned())?;
        Ok(Self { child, socket: ours })
    }

    fn bury(mut self) {
        drop(self.socket);
        // It has been waiting for nothing else: the end of its socket ends it.
        if let Err(err) = self.child.wait() {
            debug_assert_eq!(err.kind(), io::ErrorKind::NotFound, "the launcher is our child");
        }
    }
}

fn encode(launch: &Launch) -> Result<Vec<u8>> {
    if launch.attach.len() + launch.trees.len() + 2 > sys::socket::MAX_FDS {
        return Err(Error::invalid(
            "too many clients attach to a container before it starts, or too much is mounted into it",
        ));
    }
    frame(&LaunchCall {
        version: VERSION,
        id: launch.id.clone(),
        dir: launch.dir.clone(),
        spec: Box::new(launch.spec.clone()),
        rootfs: launch.rootfs.clone(),
        userns: launch.userns.is_some(),
        netns: launch.netns.is_some(),
        trees: launch.trees.iter().map(|(place, _)| place.clone()).collect(),
        logs: launch.logs.clone(),
        open_stdin: launch.open_stdin,
        stdin_once: launch.stdin_once,
        tty: launch.tty,
        size: launch.size,
        attach: launch.attach.iter().map(|(options, _)| *options).collect(),
        init: launch.init,
        cgroup_driver: launch.cgroup_driver,
        filter: launch.filter.clone(),
        runtime: launch.runtime.clone(),
        checkpoint: launch.checkpoint.clone(),
    })
}

/// Ends a shim that has not answered, and with it what it had begun (init dies with its parent). As long as its socket is
/// open the process is there, so the number means nobody else.
fn give_up(answers: &Answers, shim_pid: u32) {
    if answers.peer_is_gone() {
        return;
    }
    let pid = i32::try_from(shim_pid).ok().and_then(Pid::from_raw);
    if let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        // Fails only if it is gone by now, which is what is wanted.
        let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}
