//! The process that outlives the daemon: it owns one container's stdio, log, exec sessions and exit record.
//!
//! Sits on `runtime` (which turns a spec into a process), `oci` and `sys`; serves the engine. Three processes meet here:
//! the daemon holds a [`Launcher`] and, per container, a [`Client`]; the launcher forks shims and does nothing else; a
//! shim is a `poll` loop without threads and without tokio, so that a thousand of them cost little.
//!
//! What must stay true: the container's output is always drained, whatever its readers do; the exit record is on disk
//! before anybody is told; a shim needs nobody in order to go on.
//!
//! Start reading at `protocol.rs` (what can be asked), then `server.rs` (the loop).

mod client;
mod container;
mod descriptors;
mod exec;
pub mod exit;
mod external;
mod launch;
pub mod launcher;
pub mod logs;
mod oom;
mod protocol;
mod ring;
mod server;
mod stdio;
mod task;
mod tty;

pub use client::{Client, Leaving, Watch};
pub use exit::Exit;
pub use launch::{Launch, LaunchError, Launched, Launcher, Stage};
pub use protocol::{
    AttachOptions, Checkpoint, Decoder, Event, ExecExit, ExecFailure, ExecRequest, ExecState, Size,
    State, Status, Stream, Target, Whom,
};
pub use task::spec_of;
