//! Another process in a running container.

use std::os::fd::{BorrowedFd, OwnedFd};

use oci::runtime::{Process, Spec};
use stdx::{Error, Result};
use sys::process::Pid;

use crate::cgroup;
use crate::create::Stdio;

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
pub fn exec(target: &Target, process: &Process, stdio: Stdio) -> Result<Executed> {
    let _ = (process, stdio);
    Err(Error::not_implemented(format!("exec in {} is not supported yet", target.id)))
}
