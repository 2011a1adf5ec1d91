//! Another process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use oci::runtime::{Linux, NamespaceType, Process, Spec, State, Status};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::umask;
use stdx::{Context, Error, Result};
use sys::process::{CloneArgs, CloneFlags, Fork, Pid, exit_now};

use crate::cgroup;
use crate::channel::{self, Child, Message, Parent};
use crate::create::{Stdio, hand_over};
use crate::init::{Never, join_keyring};
use crate::process::{self, Program};
use crate::seccomp;
use crate::spawn::{self, flag};
use crate::terminal::Terminal;
use crate::userns;

/// The container to enter.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub id: &'a str,
    /// Its first process.
    pub pid: Pid,
    pub pidfd: BorrowedFd<'a>,
    /// What it was made from: which namespaces it has, its seccomp profile.
    pub spec: &'a Spec,
    pub cgroup: &'a cgroup::Handle,
    /// The seccomp profile, compiled already; it wins over the one that the spec has.
    pub filter: Option<&'a seccomp::Program>,
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: u32,
}

/// A process that runs in a container. Its parent is the caller: who waits for `pidfd` and reaps it.
#[derive(Debug)]
pub struct Executed {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

/// Runs `process` in the container; answers once `execve` has succeeded.
///
/// The child is born in the container's cgroup and pid namespace and enters the others by the pidfd, so it can never be in
/// another container that has got the same number meanwhile.
pub fn exec(target: &Target, process: &Process, stdio: Stdio) -> Result<Executed> {
    let linux = target.spec.linux_or_default();
    let plan = process::Plan::of(process, &joined(&linux), target.filter)?;
    let mut namespaces =
        linux.namespaces.iter().fold(CloneFlags::empty(), |all, one| all | flag(one.kind));
    let for_good = namespaces.contains(CloneFlags::NEWPID) && !spawn::may_come_back()?;
    let has_user = namespaces.contains(CloneFlags::NEWUSER);
    if for_good {
        namespaces = namespaces.without(CloneFlags::NEWUSER);
    }
    if has_user {
        userns::give_streams(&linux, &stdio)?;
    }
    let joiner = target.cgroup.joiner()?;
    let pid_namespace = linux.namespace(NamespaceType::Pid).map(|_| target.pidfd);
    let (parent, child) = channel::pair()?;

    let born = |cgroup: Option<BorrowedFd>| {
        if for_good {
            return spawn::born_for_good(target.pidfd, has_user, cgroup);
        }
        let args = CloneArgs { flags: CloneFlags::empty(), cgroup };
        spawn::born_in_pid_namespace(pid_namespace, &args)
    };
    let born = match born(target.cgroup.v2_dir()) {
        // The container has made groups of its own below and moved its processes there (systemd does): to its first process.
        Err(err) if err.errno() == Some(Errno::BUSY.raw_os_error()) => {
            born(Some(group_of(target.pid)?.as_fd()))
        }
        other => other,
    };
    match born.context(|| "cannot exec in the container".to_owned())? {
        Fork::Child => {
            drop(parent);
            run(Joining { target, plan: &plan, namespaces, joiner, stdio, parent: child })
        }
        Fork::Parent { pid, pidfd } => {
            drop((child, joiner, stdio));
            let mut executed =
                Executed { pid, pidfd, terminal: None, warnings: plan.warnings.clone() };
            match follow(&parent, &mut executed, target) {
                Ok(()) => Ok(executed),
                Err(error) => {
                    // It has said its last words, and ends.
                    match sys::signal::send(executed.pidfd.as_fd(), 9) {
                        Ok(()) => {}
                        Err(err) if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                        Err(err) => {
                            return Err(err).context(|| "cannot kill the process".to_owned());
                        }
                    }
                    spawn::reap(&executed.pidfd)?;
                    Err(error)
                }
            }
        }
    }
}

/// What of the container's document holds for those who join it: memory stays where the first process has put it.
fn joined(linux: &Linux) -> Linux {
    Linux {
        seccomp: linux.seccomp.clone(),
        personality: linux.personality.clone(),
        namespaces: linux.namespaces.clone(),
        ..Linux::default()
    }
}

/// Hears the child until it is another program.
fn follow(parent: &Parent, executed: &mut Executed, target: &Target) -> Result<()> {
    loop {
        match parent.next()? {
            None => return Ok(()),
            Some(Message::Terminal(master)) => executed.terminal = Some(master),
            Some(Message::Warning(warning)) => executed.warnings.push(warning),
            Some(Message::Listener(listener)) => {
                let state = State {
                    oci_version: oci::runtime::VERSION.to_owned(),
                    id: target.id.to_owned(),
                    status: Status::Running,
                    pid: Some(target.pid.as_raw_nonzero().get()),
                    bundle: Default::default(),
                    annotations: target.spec.annotations.clone(),
                };
                hand_over(&listener, target.spec.linux_or_default().seccomp.as_ref(), &state)?;
            }
            Some(Message::Failed(error)) => return Err(error),
            Some(Message::Hooks | Message::Ready) => {}
        }
    }
}

/// The v2 group a process is in, opened.
fn group_of(pid: Pid) -> Result<OwnedFd> {
    let words = || "cannot find the cgroup of the container's first process".to_owned();
    let groups =
        std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).context(words)?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).context(words)?;
    let path = std::path::Path::new("/sys/fs/cgroup").join(path);
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(words)
}

/// What the child brings along.
struct Joining<'a> {
    target: &'a Target<'a>,
    plan: &'a process::Plan,
    namespaces: CloneFlags,
    joiner: cgroup::Joiner,
    stdio: Stdio,
    parent: Child,
}

/// The child's side. Never comes back.
fn run(joining: Joining) -> ! {
    // A panic must not climb into what the parent was doing when it made this copy.
    let failure = match catch_unwind(AssertUnwindSafe(|| joining.become_program())) {
        Ok(Ok(never)) => match never {},
        Ok(Err(failure)) => failure,
        Err(_) => Error::internal("the joining process panicked"),
    };
    // If nobody listens any more, there is nobody to tell.
    let _told = joining.parent.tell(&Message::Failed(failure));
    exit_now(1)
}

impl Joining<'_> {
    fn become_program(&self) -> Result<Never> {
        sys::signal::reset_all();
        sys::signal::set_mask(&sys::signal::Set::empty())
            .context(|| "cannot unblock signals".to_owned())?;
        self.plan.scheduling.place_first()?;
        let labels = self.plan.prepare()?;
        self.joiner.join_v1()?;
        self.plan.scheduling.place_at_last()?;
        let others = self.namespaces.without(CloneFlags::NEWPID);
        match sys::ns::setns(self.target.pidfd, others) {
            Err(err) if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
                return Err(Error::conflict("cannot exec in a stopped container"));
            }
            other => other.context(|| "cannot join the container's namespaces".to_owned())?,
        }
        if self.namespaces.contains(CloneFlags::NEWUSER) {
            spawn::become_root()?;
        }
        rustix::process::setsid().context(|| "setsid".to_owned())?;
        join_keyring(self.target.id)?;
        umask(Mode::empty());
        let root = || {
            rustix::fs::openat(
                CWD,
                "/",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .context(|| "cannot open the container's root".to_owned())
        };
        match &self.stdio {
            Stdio::Terminal => {
                let terminal = Terminal::open_below(root()?)?;
                if let Some(size) = self.plan.process().console_size {
                    terminal.resize(size)?;
                }
                self.parent.tell(&Message::Terminal(terminal.master))?;
                crate::terminal::control(&terminal.terminal)?;
            }
            Stdio::Fds { stdin, stdout, stderr } => {
                sys::fd::install_stdio(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
                    .context(|| "cannot install the standard streams".to_owned())?;
            }
            Stdio::Inherit => {}
        }
        let identity = self.plan.identify()?;
        self.plan.confine(&identity, &labels, &self.parent)?;
        let name =
            self.plan.argv.first().ok_or_else(|| Error::invalid("args must not be empty"))?;
        let program = Program::find(name, self.plan.search_path())?;
        let (argv, env) = (self.plan.argv(), self.plan.env(&identity)?);
        self.plan.filter_late(&self.parent)?;
        let first = 3 + self.target.preserve_fds;
        sys::process::close_on_exec_from(first)
            .context(|| "cannot close descriptors".to_owned())?;
        Err(process::execute(&program, &argv, &env))
    }
}
