//! The OCI runtime: a spec becomes a process.
//!
//! Sits on `oci` and `sys`; serves the shim as a library and other engines as a command ([`oci_cli`]). Blocks, has no
//! threads, and must be called from a process with one thread: what it forks is a copy of its caller.
//!
//! Read in the order of a start: [`create`](mod@create) (the parent's side), `spawn` (the process is born in its namespaces),
//! `init` (the child's side), `rootfs` (what it sees), `process` (what it may do). [`exec`](mod@exec) joins the last part.
//!
//! What must stay true: nothing of the container's file system is ever reached by a path string, only through
//! `rootfs::RootFd`; whatever of the host is needed is opened before the container's content can be seen; a security
//! measure that cannot be applied means that the container does not start.

pub mod capabilities;
pub mod cgroup;
mod channel;
pub mod create;
pub mod criu;
pub mod exec;
mod gate;
mod hooks;
mod init;
pub mod oci_cli;
mod process;
pub mod rlimits;
mod rootfs;
pub mod seccomp;
mod spawn;
mod sysctl;
mod terminal;
mod user;
pub mod userns;

use std::path::Path;

use oci::runtime::{Spec, State};
use stdx::Result;

pub use create::{Create, Created, Options, Pivot, RootfsIds, Running, Stdio, Wait, create};
pub use exec::{Executed, Target, exec};
pub use user::user_in;

/// Looks at what never changes on a host, once: for a process whose copies will all need it.
pub fn look_around() {
    // Who needs an answer that there is none to now asks again, and is told why.
    let _later = (cgroup::Mode::detect(), capabilities::available());
    let _known = sys::overlay::takes_layers_singly();
}

/// Lets a container start that was created to wait in its state directory ([`Wait::StateDir`]); answers once `execve` has
/// succeeded.
pub fn start_detached(state_dir: &Path) -> Result<()> {
    gate::start(state_dir)
}

/// Whether a container that was created so still waits.
pub fn waits_for_start(state_dir: &Path) -> bool {
    gate::waits(state_dir)
}

/// Runs the hooks of a container that has just been started so.
pub fn run_poststart(spec: &Spec, state: &State) -> Result<()> {
    match &spec.hooks {
        Some(hooks) => hooks::run("poststart", &hooks.poststart, state),
        None => Ok(()),
    }
}

/// Runs the hooks of a container that has stopped. Its last act, when all of it is gone: a failure is a remark, and no
/// hook is left out for another's.
pub fn run_poststop(spec: &Spec, state: &State) -> Result<()> {
    match &spec.hooks {
        Some(hooks) => hooks::run_all("poststop", &hooks.poststop, state),
        None => Ok(()),
    }
}
