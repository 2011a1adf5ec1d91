//! Containers: from a request to a running process and back to nothing.
//!
//! Sits on image, storage, network and shim, which it combines; serves `server`. A request becomes a [`container::plan`],
//! a plan becomes an OCI spec, and both are pure; the doing around them is one file per verb in [`container`].
//!
//! What must stay true: a container changes state only through [`container::state::State::after`] with its gate held;
//! failed start, exit and recovery end in the same `release`; nothing is held while waiting for a client or a container.

pub mod apparmor;
mod boot;
mod check;
pub mod container;
mod containers;
pub mod filters;
mod log_budget;
mod metrics;
mod names;
mod networks;
mod recover;
mod registry;
mod rooms;
mod secrets;
mod stream;
pub mod system;
mod volumes;
mod warnings;
mod yaml;

pub use container::attach::{AttachRequest, Attached, DetachKeys, Over};
pub use container::commit::CommitRequest;
pub use container::copy::ExtractRequest;
pub use container::exec::{Exec, ExecStarted};
pub use container::logs::LogsRequest;
pub use container::mounts::ReadOnlyBinds;
pub use container::plan::{check_cgroup_parent, default_cgroup_parent, usual_cgroupns_mode};
pub use container::remove::RemoveRequest;
pub use container::wait::{WaitCondition, Waiting};
pub use container::{Container, CreateRequest};
pub use containers::{Containers, ListOptions};
pub use filters::Filters;
pub use log_budget::LogBudget;
pub use rooms::{Parts, Settings};
pub use secrets::{Secrets, Sort};
pub use stream::{ByteStream, LogStream};
pub use system::{CheckOptions, Finding, System};
pub use volumes::Volumes;
pub use warnings::OpenDoor;
