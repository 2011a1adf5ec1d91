//! Checkpoint and restore, done by CRIU where it is installed and works with the kernel.
//!
//! [`dump`](mod@dump) freezes a container into a directory of images, [`restore`](mod@restore) makes one of them; both are
//! decided by the container's spec as it is, never by what lies in the directory. [`session`] is the conversation, [`rpc`]
//! its words, [`wire`] how they are spelled.

mod dump;
mod restore;
mod rpc;
mod session;
mod wire;

use std::path::PathBuf;

pub use dump::{Dump, Network, dump};
pub use restore::{Restore, restore};
pub use rpc::Cgroups;
pub use session::Criu;

/// What dumping and restoring can both be told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where CRIU's logs go, if not to the images.
    pub work: Option<PathBuf>,
    pub tcp_established: bool,
    pub external_unix_sockets: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub cgroups: Cgroups,
    /// The network is not kept; somebody else makes it.
    pub empty_network: bool,
}

/// What the standard streams were, by descriptor: pipes are given anew.
const DESCRIPTORS: &str = "descriptors.json";
/// How the network namespace is called between dump and restore; it is the engine's, not CRIU's.
const NETWORK: &str = "extRootNetNS";
/// What hides a file.
const NULL: &str = "/dev/null";

fn empty_namespaces(settings: &Settings) -> u32 {
    const CLONE_NEWNET: u32 = 0x4000_0000;
    if settings.empty_network { CLONE_NEWNET } else { 0 }
}
