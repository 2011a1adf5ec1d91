//! From a spec to a process that waits, and from there to one that runs: the parent's side.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci::runtime::{Hook, Hooks, Linux, NamespaceType, Rootfs, Seccomp, Spec, State, Status};
use rustix::process::WaitIdStatus;
use stdx::{Context, Error, Result};
use sys::process::{Fork, Pid};

use crate::channel::{self, Message, Parent};
use crate::init::Init;
use crate::rootfs::{self, Mapping, Sources};
use crate::spawn::{self, Namespaces};
use crate::{cgroup, gate, hooks, init, process, seccomp, sysctl, userns};

/// What to create.
#[derive(Debug)]
pub struct Create<'a> {
    pub id: &'a str,
    /// Where relative paths of the spec begin, and what hooks are told.
    pub bundle: &'a Path,
    pub spec: &'a Spec,
    pub rootfs: &'a Rootfs,
    /// A directory of the caller's for this container, reachable by nobody else.
    pub state_dir: &'a Path,
    pub stdio: Stdio,
    /// Namespaces to join by descriptor; they win over what the spec says of the same kind.
    pub namespaces: Vec<(NamespaceType, OwnedFd)>,
    /// Detached mounts to bind by descriptor; they win over the source that the spec names for a bind at the same place.
    pub binds: Vec<(PathBuf, OwnedFd)>,
    pub cgroup: &'a cgroup::Location,
    pub options: Options,
}

/// Standard input, output and error of a process.
#[derive(Debug)]
pub enum Stdio {
    Fds {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A new terminal in the container; its master comes back.
    Terminal,
    /// The caller's own.
    Inherit,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep a small process of ours as the first of the container: it forwards signals and reaps orphans (`--init`).
    pub reaper: bool,
    /// End the container when its parent ends.
    pub die_with_parent: bool,
    pub pivot: Pivot,
    pub rootfs_ids: RootfsIds,
    pub wait: Wait,
    /// Stay in the caller's session keyring.
    pub keep_keyring: bool,
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: u32,
    /// The seccomp profile, compiled already; it wins over the one that the spec has.
    pub filter: Option<seccomp::Program>,
}

/// How the container's root becomes the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pivot {
    #[default]
    PivotRoot,
    /// Where the host's root is an initramfs, which cannot be pivoted away.
    MoveAndChroot,
}

/// Whose numbers the owners of files in the root file system are, when the container has a user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootfsIds {
    /// The host's: somebody has shifted the files already.
    #[default]
    Host,
    /// The container's: mount it with the container's mapping.
    Container,
}

/// How the created process hears that it may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// From whoever holds [`Created`]; if that one dies, the process ends.
    #[default]
    Parent,
    /// Not at all: it goes on as soon as everything is in place. [`Created::start`] only hears how that went.
    Nobody,
    /// Through files in the state directory, from anyone who may open them ([`start_detached`](crate::start_detached)).
    StateDir,
}

/// A container with everything in place, waiting immediately before `execve`.
#[derive(Debug)]
pub struct Created {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    pub cgroup: cgroup::Handle,
    root: Option<OwnedFd>,
    /// What could not be given exactly as asked, and does no harm.
    pub warnings: Vec<String>,
    starter: Starter,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
    state: State,
}

/// How the word to start is given.
#[derive(Debug)]
enum Starter {
    Socket(Parent),
    /// None is needed.
    Nobody(Parent),
    StateDir(PathBuf),
}

/// A container whose program runs. Its parent is the caller: who waits for `pidfd` and reaps it.
#[derive(Debug)]
pub struct Running {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    pub cgroup: cgroup::Handle,
    /// Its root file system. Whoever lets go of it last waits until an overlay has been written to disk; while this is
    /// held, that is not the container's first process on its way out, whose end everybody waits for.
    pub root: Option<OwnedFd>,
}

/// Builds a container up to the moment before its program starts. After a failure nothing of it remains.
pub fn create(create: Create) -> Result<Created> {
    let plan = Plan::of(&create)?;
    let namespaces = Namespaces::open(create.spec, create.namespaces)?;
    let mapping = mapping(create.spec, &namespaces)?;
    let linux = create.spec.linux_or_default();
    if namespaces.makes(NamespaceType::User) || namespaces.joins(NamespaceType::User) {
        userns::give_streams(&linux, &create.stdio)?;
    }
    let sources = match may_mount()? {
        true => {
            let joined = namespaces.joined(NamespaceType::User);
            Some(Sources::open(&plan.rootfs, create.binds, joined)?)
        }
        false if create.binds.is_empty() => None,
        false => return Err(Error::forbidden("only root can bind mounts by descriptor")),
    };
    let root = sources.as_ref().map(Sources::share_root).transpose()?;
    let gates = match create.options.wait {
        Wait::Parent | Wait::Nobody => None,
        Wait::StateDir => Some(gate::make(create.state_dir)?),
    };
    let resources = linux.resources.clone().unwrap_or_default();
    let mut cgroup = cgroup::Handle::create(create.cgroup, &resources)?;
    let state = State {
        oci_version: oci::runtime::VERSION.to_owned(),
        id: create.id.to_owned(),
        status: Status::Creating,
        pid: None,
        bundle: create.bundle.to_owned(),
        annotations: create.spec.annotations.clone(),
    };

    let born = || -> Result<Birth> {
        let (parent, child) = channel::pair()?;
        let joiner = cgroup.joiner()?;
        match spawn::spawn(&namespaces, cgroup.v2_dir(), &linux.time_offsets)? {
            Fork::Child => {
                drop(parent);
                init::run(Init {
                    id: create.id,
                    bundle: create.bundle,
                    spec: create.spec,
                    process: &plan.process,
                    rootfs: &plan.rootfs,
                    sources,
                    namespaces: &namespaces,
                    joiner: Some(joiner),
                    location: create.cgroup,
                    stdio: &create.stdio,
                    options: &create.options,
                    parent: child,
                    gate: gates,
                })
            }
            Fork::Parent { pid, pidfd } => Ok(Birth { pid, pidfd, parent }),
        }
    };
    let birth = match born() {
        Ok(birth) => birth,
        Err(error) => return Err(undone(error, cgroup.destroy())),
    };
    // Into a group of version 2 it is born; others it joins by itself, on its way.
    let moved_in = match cgroup.v2_dir().is_some() {
        true => cgroup.moved_in(),
        false => Ok(()),
    };
    let state = State { pid: Some(birth.pid.as_raw_nonzero().get()), ..state };
    let hooks = create.spec.hooks.clone().unwrap_or_default();
    let outside = match namespaces.joins(NamespaceType::User) {
        true => birth.set_oom_score(&plan),
        false => Ok(()),
    };
    let brought_up = moved_in.and(outside).and_then(|()| {
        birth.bring_up(mapping.as_ref(), &plan, &hooks, &state, linux.seccomp.as_ref())
    });
    let brought_up = brought_up.and_then(|brought| cgroup.moved_in().map(|()| brought));
    match brought_up {
        Ok((terminal, warnings)) => Ok(Created {
            pid: birth.pid,
            pidfd: birth.pidfd,
            terminal,
            cgroup,
            root,
            warnings: [plan.process.warnings, warnings].concat(),
            starter: match create.options.wait {
                Wait::Parent => Starter::Socket(birth.parent),
                Wait::Nobody => Starter::Nobody(birth.parent),
                Wait::StateDir => Starter::StateDir(create.state_dir.to_owned()),
            },
            poststart: hooks.poststart,
            poststop: hooks.poststop,
            state,
        }),
        Err(error) => Err(undo(error, &birth.pidfd, &cgroup, &hooks.poststop, &state)),
    }
}

/// The whole request, understood; no host looked at but for what it can give.
struct Plan {
    process: process::Plan,
    rootfs: rootfs::Plan,
    oom_score_adj: Option<i32>,
}

impl Plan {
    fn of(create: &Create) -> Result<Self> {
        let spec = create.spec;
        let Some(process) = &spec.process else {
            return Err(Error::invalid("process property must not be empty"));
        };
        let linux = spec.linux_or_default();
        if !spec.hostname.is_empty() && linux.namespace(NamespaceType::Uts).is_none() {
            return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
        }
        if !spec.domainname.is_empty() && linux.namespace(NamespaceType::Uts).is_none() {
            return Err(Error::invalid("unable to set domainname without a private UTS namespace"));
        }
        for (asked, what) in [
            (linux.intel_rdt.is_some(), "intelRdt"),
            (!linux.net_devices.is_empty(), "netDevices"),
            (!linux.mount_label.is_empty(), "mountLabel"),
        ] {
            if asked {
                return Err(Error::not_implemented(format!("{what} is not supported yet")));
            }
        }
        if !linux.time_offsets.is_empty() {
            check_clocks(&linux)?;
        }
        let planned = process::Plan::of(process, &linux, create.options.filter.as_ref())?;
        if planned.notifies_late() {
            return Err(Error::not_implemented(
                "seccomp: SCMP_ACT_NOTIFY with noNewPrivileges is not supported yet",
            ));
        }
        sysctl::check(spec)?;
        let Options { pivot, rootfs_ids, .. } = create.options;
        Ok(Self {
            process: planned,
            rootfs: rootfs::Plan::of(spec, create.rootfs, create.bundle, pivot, rootfs_ids)?,
            oom_score_adj: process.oom_score_adj,
        })
    }
}

/// Clocks are a new time namespace's, and these two are all it has.
fn check_clocks(linux: &Linux) -> Result<()> {
    if let Some(clock) =
        linux.time_offsets.keys().find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime"))
    {
        return Err(Error::invalid(format!("time offset of unknown clock {clock:?}")));
    }
    match linux.namespace(NamespaceType::Time) {
        Some(namespace) if namespace.path.is_none() => Ok(()),
        Some(_) => Err(Error::invalid("time offsets cannot be set in an existing time namespace")),
        None => Err(Error::invalid("time namespace offsets specified, but no time namespace")),
    }
}

fn mapping(spec: &Spec, namespaces: &Namespaces) -> Result<Option<Mapping>> {
    if !namespaces.makes(NamespaceType::User) {
        return Ok(None);
    }
    let linux = spec.linux_or_default();
    let mapping = Mapping::of(&linux.uid_mappings, &linux.gid_mappings)
        .ok_or_else(|| Error::invalid("user namespaces enabled, but no user mappings found"))?;
    userns::check(&mapping)?;
    Ok(Some(mapping))
}

/// Whether this process can open detached mounts; else the child can, as root of its user namespace.
pub(crate) fn may_mount() -> Result<bool> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let own = sys::caps::get().context(|| "cannot read our own capabilities".to_owned())?;
    Ok(own.effective & CAP_SYS_ADMIN != 0)
}

/// A child that sets itself up.
struct Birth {
    pid: Pid,
    pidfd: OwnedFd,
    parent: Parent,
}

impl Birth {
    /// Gives the child what only its parent can, until it is ready.
    fn bring_up(
        &self,
        mapping: Option<&Mapping>,
        plan: &Plan,
        hooks: &Hooks,
        state: &State,
        seccomp: Option<&Seccomp>,
    ) -> Result<(Option<OwnedFd>, Vec<String>)> {
        if let Some(mapping) = mapping {
            userns::write_mappings(self.pid, mapping)?;
            self.set_oom_score(plan)?;
            self.parent.go()?;
        }
        let (mut terminal, mut warnings) = (None, Vec::new());
        loop {
            match self.parent.next()? {
                Some(Message::Ready) => return Ok((terminal, warnings)),
                Some(Message::Hooks) => {
                    hooks::run("prestart", &hooks.prestart, state)?;
                    hooks::run("createRuntime", &hooks.create_runtime, state)?;
                    self.parent.go()?;
                }
                Some(Message::Terminal(master)) => terminal = Some(master),
                Some(Message::Listener(listener)) => hand_over(&listener, seccomp, state)?,
                Some(Message::Warning(warning)) => warnings.push(warning),
                Some(Message::Failed(error)) => return Err(error),
                None => return Err(self.died()?),
            }
        }
    }

    /// In its user namespace it may not lower its own.
    fn set_oom_score(&self, plan: &Plan) -> Result<()> {
        let Some(score) = plan.oom_score_adj else { return Ok(()) };
        let path = format!("/proc/{}/oom_score_adj", self.pid.as_raw_nonzero());
        match std::fs::write(path, score.to_string()) {
            Err(err) if err.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other.context(|| format!("cannot set oom_score_adj to {score}")),
        }
    }

    /// It closed its end without a word.
    fn died(&self) -> Result<Error> {
        Ok(Error::internal(match spawn::reap(&self.pidfd)? {
            Some(status) => format!("the container's init died early: {}", ending(&status)),
            None => "the container's init died early".to_owned(),
        }))
    }
}

fn ending(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// Tells the profile's supervisor of a filter's descriptor, as the specification words it.
pub(crate) fn hand_over(
    listener: &OwnedFd,
    seccomp: Option<&Seccomp>,
    state: &State,
) -> Result<()> {
    let Some((path, seccomp)) =
        seccomp.and_then(|seccomp| Some((seccomp.listener_path.as_ref()?, seccomp)))
    else {
        return Err(Error::invalid("seccomp: a profile that notifies needs a listenerPath"));
    };
    let words = || format!("cannot tell the seccomp supervisor at {}", path.display());
    let socket = UnixStream::connect(path).context(words)?;
    let told = serde_json::json!({
        "ociVersion": oci::runtime::VERSION,
        "fds": ["seccompFd"],
        "pid": state.pid,
        "metadata": seccomp.listener_metadata,
        "state": state,
    });
    sys::socket::send_with_fds(&socket, told.to_string().as_bytes(), &[listener.as_fd()])
        .context(words)?;
    Ok(())
}

impl Created {
    /// Lets the program start; answers once `execve` has succeeded. After a failure nothing of the container remains; the
    /// error has the kernel's number and Docker's words.
    pub fn start(self) -> Result<Running> {
        let Self { pid, pidfd, terminal, cgroup, root, .. } = self;
        let Self { starter, poststart, poststop, state, .. } = self;
        let started = match starter {
            Starter::Socket(parent) => parent.go().and_then(|()| hear_start(&parent)),
            Starter::Nobody(parent) => hear_start(&parent),
            Starter::StateDir(dir) => gate::start(&dir),
        };
        let running = State { status: Status::Running, ..state };
        match started.and_then(|()| hooks::run("poststart", &poststart, &running)) {
            Ok(()) => Ok(Running { pid, pidfd, terminal, cgroup, root }),
            Err(error) => Err(undo(error, &pidfd, &cgroup, &poststop, &running)),
        }
    }

    /// Gives the container up: nothing of it remains.
    pub fn abandon(self) -> Result<()> {
        let state = State { status: Status::Stopped, ..self.state };
        end(&self.pidfd, &self.cgroup)?;
        hooks::run_all("poststop", &self.poststop, &state)
    }

    /// Leaves it waiting for [`start_detached`](crate::start_detached), which only one that waits in its state directory
    /// survives.
    pub fn leave(self) -> (Pid, Option<OwnedFd>, cgroup::Handle, Vec<String>) {
        (self.pid, self.terminal, self.cgroup, self.warnings)
    }
}

/// Until it has become another program, or says why not.
fn hear_start(parent: &Parent) -> Result<()> {
    loop {
        match parent.next()? {
            None => return Ok(()),
            Some(Message::Failed(error)) => return Err(error),
            Some(_) => {}
        }
    }
}

/// After a failure: ends what runs, removes what was made, and passes the failure on.
fn undo(
    error: Error,
    pidfd: &OwnedFd,
    cgroup: &cgroup::Handle,
    poststop: &[Hook],
    state: &State,
) -> Error {
    let ended = end(pidfd, cgroup);
    let stopped = State { status: Status::Stopped, pid: None, ..state.clone() };
    undone(error, ended.and_then(|()| hooks::run_all("poststop", poststop, &stopped)))
}

fn end(pidfd: &OwnedFd, cgroup: &cgroup::Handle) -> Result<()> {
    match sys::signal::send(pidfd.as_fd(), 9) {
        // Gone and buried already.
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
        other => other.context(|| "cannot kill the container's init".to_owned())?,
    }
    spawn::reap(pidfd)?;
    cgroup.kill_all()?;
    cgroup.destroy()
}

/// The first failure is the one to hear of; what went wrong in cleaning up after it is told behind it.
fn undone(error: Error, cleaned: Result<()>) -> Error {
    match cleaned {
        Ok(()) => error,
        Err(left) => {
            let (kind, errno) = (error.kind(), error.errno());
            let error = Error::new(
                kind,
                format!("{} (and cleaning up failed: {})", error.chain(), left.chain()),
            );
            match errno {
                Some(errno) => error.with_errno(errno),
                None => error,
            }
        }
    }
}
