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
pub mod create;
pub mod exec;
pub mod rlimits;
pub mod seccomp;

pub use create::{Create, Created, Options, Pivot, RootfsIds, Running, Stdio, Wait, create};
pub use exec::{Executed, Target, exec};
