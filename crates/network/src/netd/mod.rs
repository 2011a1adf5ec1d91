//! netd: the process that holds what must outlive the daemon and belongs to no container: the sockets of published ports,
//! the name servers of containers, and descriptors that somebody asked it to keep.
//!
//! ```text
//! daemon  ── Client ──▶  <exec-root>/netd.sock  ──▶  Desk in netd  (proxy.rs, dns/server.rs)
//! ```
//!
//! Both hold every descriptor: when the daemon dies netd goes on alone, and the next daemon asks it what it has; when netd
//! dies the daemon gives the same sockets to another, and what waits in them is not lost. When both die, the records say
//! what is to be made again. It is executed when it is first needed, and ends when nobody is connected and nothing is left to
//! hold, or its socket is gone: nobody could ask for what it holds any more, and nobody else could have that.
//!
//! `protocol.rs` has what is said, `client.rs` the daemon's half, `server.rs` and `address.rs` the other.

mod address;
mod client;
pub(crate) mod protocol;
mod server;

pub(crate) use client::Client;
pub use protocol::NAME;
pub use server::main;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use stdx::Result;

/// How to have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdConfig {
    /// What is executed, under the name [`NAME`].
    pub program: PathBuf,
    /// Where its socket lies: a directory that is gone after a reboot.
    pub dir: PathBuf,
    /// For a name server on the host's loopback, where that is not ours.
    pub stand_in: Option<IpAddr>,
}

/// The process that serves a directory.
pub fn pid(dir: &Path) -> Option<u32> {
    client::pid(dir)
}

/// Ends the netd of a directory, whatever it holds: for tests that have no daemon any more.
pub fn end(dir: &Path) -> Result<()> {
    client::end(dir)
}
