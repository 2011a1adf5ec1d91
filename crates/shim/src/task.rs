//! The container's process, whoever has made it: our runtime, or somebody else's program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::runtime::{NamespaceType, Process, Spec};
use runtime::criu::{Criu, Restore, Settings};
use runtime::{Wait, cgroup, seccomp};
use rustix::process::Pid;
use stdx::{Context, Error, Result};

use crate::external::External;
use crate::protocol::{Failure, LaunchCall, Stage};

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: cgroup::Handle,
    /// Held until everybody has been told of the end. The root file system and the mount namespace: who lets go of them
    /// last waits for the kernel to take the mounts apart, and for an overlay to be written to disk. The network namespace:
    /// its devices tell whether anybody was spoken to, and go with it.
    held: Vec<OwnedFd>,
    external: Option<External>,
    /// What every process of the container is put under: execs come years later.
    filter: Option<seccomp::Program>,
}

/// The standard streams a process is given.
#[derive(Debug)]
pub(crate) enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal,
}

/// One more process: its number, and its terminal's master.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) pid: Pid,
    pub(crate) terminal: Option<OwnedFd>,
}

/// What a container has from elsewhere, by descriptor.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pub(crate) userns: Option<OwnedFd>,
    pub(crate) netns: Option<OwnedFd>,
    /// Mounts by their places.
    pub(crate) trees: Vec<(PathBuf, OwnedFd)>,
}

/// A container with everything in place, whose program does not run yet.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) terminal: Option<OwnedFd>,
    by: By,
}

/// What outlives the processes.
#[derive(Debug)]
struct Keep {
    mounts: bool,
    netns: Option<OwnedFd>,
}

#[derive(Debug)]
enum By {
    Us {
        created: runtime::Created,
        filter: Option<seccomp::Program>,
        keep: Keep,
    },
    /// Runs already, from a checkpoint.
    Criu {
        running: runtime::Running,
        filter: Option<seccomp::Program>,
        keep: Keep,
    },
    Them {
        pid: Pid,
        pidfd: OwnedFd,
        cgroup: cgroup::Handle,
        external: External,
    },
}

impl Created {
    pub(crate) fn new(
        call: &LaunchCall,
        borrowed: Borrowed,
        streams: Streams,
    ) -> Result<Self, Failure> {
        Self::create(call, borrowed, streams).map_err(|error| failure(Stage::Create, error))
    }

    fn create(call: &LaunchCall, borrowed: Borrowed, streams: Streams) -> Result<Self> {
        let cgroup = location(call)?;
        if let (Some(_), Some(_)) = (&call.runtime, &call.checkpoint) {
            return Err(Error::not_implemented("checkpoints need the built-in runtime"));
        }
        if let Some(program) = &call.runtime {
            if borrowed.userns.is_some() {
                return Err(Error::not_implemented(
                    "a user namespace of its own needs the built-in runtime",
                ));
            }
            let external = External::new(program, call);
            let (pid, terminal) = external.create(call, &borrowed, streams)?;
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .context(|| "cannot hold the container's process".to_owned())?;
            let mut cgroup = cgroup::Handle::open(&cgroup)?;
            if call.cgroup_driver == cgroup::Driver::Systemd {
                cgroup.watch_early();
            }
            return Ok(Self { terminal, by: By::Them { pid, pidfd, cgroup, external } });
        }
        let netns = borrowed.netns.as_ref().map(OwnedFd::try_clone).transpose();
        let netns = netns.context(|| "cannot hold the network namespace".to_owned())?;
        let rootfs_ids = match borrowed.userns {
            Some(_) => runtime::RootfsIds::Container,
            None => runtime::RootfsIds::Host,
        };
        let create = runtime::Create {
            id: &call.id,
            bundle: &call.dir,
            spec: &call.spec,
            rootfs: &call.rootfs,
            state_dir: &call.dir,
            stdio: streams.into(),
            namespaces: [
                (NamespaceType::User, borrowed.userns),
                (NamespaceType::Network, borrowed.netns),
            ]
            .into_iter()
            .filter_map(|(kind, fd)| Some((kind, fd?)))
            .collect(),
            binds: borrowed.trees,
            cgroup: &cgroup,
            options: runtime::Options {
                reaper: call.init,
                die_with_parent: true,
                filter: call.filter.clone(),
                // A terminal is given its size first.
                wait: if call.tty { Wait::Parent } else { Wait::Nobody },
                rootfs_ids,
                ..runtime::Options::default()
            },
        };
        let (filter, keep) = (call.filter.clone(), Keep { mounts: owns_mounts(call), netns });
        if let Some(checkpoint) = &call.checkpoint {
            let criu = Criu::at(&checkpoint.criu);
            let settings = Settings { work: Some(call.dir.clone()), ..Settings::default() };
            let from =
                Restore { images: &checkpoint.images, lsm_profile: None, settings: &settings };
            let mut running = runtime::criu::restore(&criu, &from, create)?;
            let terminal = running.terminal.take();
            return Ok(Self { terminal, by: By::Criu { running, filter, keep } });
        }
        let mut created = runtime::create(create)?;
        Ok(Self { terminal: created.terminal.take(), by: By::Us { created, filter, keep } })
    }

    pub(crate) fn start(self) -> Result<Task, Failure> {
        match self.by {
            By::Us { created, filter, keep } => {
                let running = created.start().map_err(|error| failure(Stage::Start, error))?;
                Ok(Task::of(running, filter, keep))
            }
            By::Criu { running, filter, keep } => Ok(Task::of(running, filter, keep)),
            By::Them { pid, pidfd, cgroup, external } => {
                if let Err(error) = external.start() {
                    external.delete();
                    return Err(failure(Stage::Start, error));
                }
                Ok(Task {
                    pid,
                    pidfd,
                    cgroup,
                    held: Vec::new(),
                    external: Some(external),
                    filter: None,
                })
            }
        }
    }
}

impl Task {
    fn of(running: runtime::Running, filter: Option<seccomp::Program>, keep: Keep) -> Self {
        // Where the kernel has no such question (before 6.11), the end takes longer.
        let mounts = keep.mounts.then(|| sys::ns::mounts_of(running.pidfd.as_fd()).ok());
        Self {
            held: running.root.into_iter().chain(mounts.flatten()).chain(keep.netns).collect(),
            pid: running.pid,
            pidfd: running.pidfd,
            cgroup: running.cgroup,
            external: None,
            filter,
        }
    }

    pub(crate) fn exec(
        &self,
        id: &str,
        dir: &Path,
        process: &Process,
        streams: Streams,
    ) -> Result<Executed, Failure> {
        self.run(id, dir, process, streams).map_err(|error| failure(Stage::Start, error))
    }

    fn run(&self, id: &str, dir: &Path, process: &Process, streams: Streams) -> Result<Executed> {
        if let Some(external) = &self.external {
            let (pid, terminal) = external.exec(process, streams)?;
            return Ok(Executed { pid, terminal });
        }
        let spec = read_spec(dir)?;
        let target = runtime::Target {
            id,
            pid: self.pid,
            pidfd: self.pidfd.as_fd(),
            spec: &spec,
            cgroup: &self.cgroup,
            filter: self.filter.as_ref(),
            preserve_fds: 0,
        };
        let executed = runtime::exec(&target, process, streams.into())?;
        Ok(Executed { pid: executed.pid, terminal: executed.terminal })
    }

    /// A user's container may have no cgroup to be known by.
    pub(crate) fn has_no_group(&self) -> bool {
        self.cgroup.location().is_nowhere()
    }

    /// All processes in the container: those in its cgroup; without one, those who share the first one's process ids, if
    /// these are not the host's.
    pub(crate) fn processes(&self) -> Result<Vec<Pid>> {
        if !self.has_no_group() {
            return self.cgroup.procs();
        }
        let numbers = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let first = self.pid.as_raw_nonzero().to_string();
        let Some(own) = numbers(&first).filter(|own| Some(own) != numbers("self").as_ref()) else {
            return Ok(vec![self.pid]);
        };
        let entries = std::fs::read_dir("/proc").context(|| "cannot read /proc".to_owned())?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|name| numbers(name).as_ref() == Some(&own))
            .filter_map(|name| Pid::from_raw(name.parse().ok()?))
            .collect())
    }

    /// Lets go of what was held.
    pub(crate) fn let_go(&mut self) {
        self.held.clear();
    }

    /// What remains of it in the kernel after its end, but for the mounts.
    pub(crate) fn clean_up(&mut self) -> Result<()> {
        let emptied = self.cgroup.kill_all();
        if let Some(external) = &self.external {
            external.delete();
        }
        emptied.and_then(|()| self.cgroup.destroy())
    }
}

impl From<Streams> for runtime::Stdio {
    fn from(streams: Streams) -> Self {
        match streams {
            Streams::Pipes { stdin, stdout, stderr } => Self::Fds { stdin, stdout, stderr },
            Streams::Terminal => Self::Terminal,
        }
    }
}

/// Whether everything that is mounted was made for this container. What is the host's must be free again, to be unmounted
/// or removed, when the container's end is told.
fn owns_mounts(call: &LaunchCall) -> bool {
    let linux = call.spec.linux_or_default();
    let own_namespace =
        linux.namespace(NamespaceType::Mount).is_some_and(|mounts| mounts.path.is_none());
    let is_bind = |mount: &oci::runtime::Mount| {
        mount.kind == "bind" || mount.options.iter().any(|word| word == "bind" || word == "rbind")
    };
    let made_for_it = |mount: &oci::runtime::Mount| {
        mount.source.as_ref().is_some_and(|source| source.starts_with(&call.dir))
    };
    own_namespace && call.spec.mounts.iter().all(|mount| !is_bind(mount) || made_for_it(mount))
}

pub(crate) fn location(call: &LaunchCall) -> Result<cgroup::Location> {
    let path = call.spec.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
    cgroup::Location::granted(call.cgroup_driver, path, &call.id)
}

/// What the container was made from, for execs and hooks. Kept on disk and not in memory: between execs nobody needs it.
pub(crate) const BUNDLE_SPEC: &str = "config.json";

pub(crate) fn write_spec(dir: &Path, spec: &Spec) -> Result<()> {
    let bytes = serde_json::to_vec(spec).map_err(std::io::Error::from)?;
    std::fs::write(dir.join(BUNDLE_SPEC), bytes).context(|| format!("cannot write {BUNDLE_SPEC}"))
}

/// What a running container was made from, and where its control groups are, by its shim's directory. They are where they
/// were made, whoever makes those of the next.
pub fn spec_of(dir: &Path) -> Result<(Spec, cgroup::Location)> {
    let spec = read_spec(dir)?;
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let path = &spec.linux_or_default().cgroups_path;
    let location = cgroup::Location::granted(cgroup::Driver::of_path(path), path, &id)?;
    Ok((spec, location))
}

fn read_spec(dir: &Path) -> Result<Spec> {
    let bytes =
        std::fs::read(dir.join(BUNDLE_SPEC)).context(|| format!("cannot read {BUNDLE_SPEC}"))?;
    serde_json::from_slice(&bytes)
        .map_err(std::io::Error::from)
        .context(|| format!("cannot read {BUNDLE_SPEC}"))
}

/// Adds what Docker makes of a failed start: 127 not found, 126 cannot be invoked, 128 the runtime's own fault.
pub(crate) fn failure(stage: Stage, error: Error) -> Failure {
    const NOT_FOUND: [&str; 2] = ["executable file not found", "no such file or directory"];
    const NOT_INVOKED: [&str; 4] =
        ["permission denied", "not a directory", "is a directory", "exec format error"];
    let words = error.chain().to_lowercase();
    let exit_code = match &words {
        words if NOT_FOUND.iter().any(|known| words.contains(known)) => 127,
        words if NOT_INVOKED.iter().any(|known| words.contains(known)) => 126,
        _ => 128,
    };
    Failure { exit_code: Some(exit_code), stage: Some(stage), ..Failure::from(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_dockers() {
        for (words, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc\": permission denied", 126),
            ("exec /x: exec format error", 126),
            ("cannot mount proc: operation not permitted", 128),
        ] {
            assert_eq!(
                failure(Stage::Start, Error::internal(words)).exit_code,
                Some(code),
                "{words}"
            );
        }
    }
}
