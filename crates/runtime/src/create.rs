//! From a spec to a process that waits, and from there to one that runs: the parent's side.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci::runtime::{NamespaceType, Rootfs, Spec};
use stdx::{Error, Result};
use sys::process::Pid;

use crate::cgroup;

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
    /// Through files in the state directory, from anyone who may open them ([`start_detached`]).
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
    /// What could not be given exactly as asked, and does no harm.
    pub warnings: Vec<String>,
}

/// A container whose program runs. Its parent is the caller: who waits for `pidfd` and reaps it.
#[derive(Debug)]
pub struct Running {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    pub cgroup: cgroup::Handle,
}

/// Builds a container up to the moment before its program starts. After a failure nothing of it remains.
pub fn create(create: Create) -> Result<Created> {
    Err(Error::not_implemented(format!("creating {} is not supported yet", create.id)))
}

impl Created {
    /// Lets the program start; answers once `execve` has succeeded. After a failure nothing of the container remains; the
    /// error has the kernel's number and Docker's words.
    pub fn start(self) -> Result<Running> {
        Err(Error::not_implemented(format!("starting {:?} is not supported yet", self.pid)))
    }
}
