//! A process that does nothing: systemd makes a scope around one that lives, and the container's is born in it later.

use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Pid;
use stdx::{Context, Result};
use sys::process::{Fork, exit_now, fork};

use crate::spawn::reap;

/// Ends with this value, or with whoever holds it.
#[derive(Debug)]
pub(in crate::cgroup) struct Holder {
    pub(super) pid: Pid,
    pidfd: OwnedFd,
    /// It ends when nobody has this any more: neither we, nor the copies that we make of ourselves meanwhile.
    _leash: PipeWriter,
}

impl Holder {
    pub(super) fn new() -> Result<Self> {
        let what = || "cannot start a process for a scope".to_owned();
        let (read, leash) = std::io::pipe().context(what)?;
        match fork().context(what)? {
            Fork::Child => {
                // A copy of the other end would keep us for ever; copies of anything else are others' business.
                let _late = sys::process::close_all_but(&[read.as_fd()]);
                wait(read)
            }
            Fork::Parent { pid, pidfd } => Ok(Self { pid, pidfd, _leash: leash }),
        }
    }
}

fn wait(mut read: PipeReader) -> ! {
    let _end = read.read(&mut [0]);
    exit_now(0)
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It cannot be but ours, and nothing keeps it from ending: what fails has happened already.
        let _dead = sys::signal::send(self.pidfd.as_fd(), 9);
        let _ended = reap(&self.pidfd);
    }
}
