//! What is said between a daemon in the namespaces and the process outside: one JSON value and some descriptors a message,
//! over a `SOCK_SEQPACKET` socket; a reply for each call.
//!
//! Both may be of different releases, and the older of them stays as long as its containers: calls are added, never changed.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sys::message;
pub(crate) use sys::message::send;

use crate::link::Kind;

/// Its `argv[0]`: the hat our program wears then.
pub const NAME: &str = "gantry-outside";

/// Its socket, within the daemon's directory.
pub(crate) const SOCKET: &str = "outside.sock";

const LONGEST: usize = 16 * 1024;

/// What it is told when it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A directory of the user's that is gone after a reboot.
    pub dir: PathBuf,
    /// Where programs are looked for.
    pub path: String,
    pub link: Kind,
    /// Of the link; what it carries at most, if nothing is said.
    pub mtu: Option<u32>,
    /// May containers reach the host's loopback, at the link's gateway?
    pub host_loopback: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Who are you, and where are the namespaces?
    Hello,
    /// A socket of the host's network, by the kernel's numbers.
    Socket { family: u16, kind: u32, protocol: u32 },
    /// The first port that needs no privilege on the host.
    FirstPort,
    /// A name, looked up as the host's programs do. The answer takes its time, so it is asked on a connection of its own.
    Lookup { host: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// With descriptors of the user, mount and network namespaces.
    Hello {
        pid: i32,
        anchor: i32,
        dns: Option<IpAddr>,
    },
    /// With the socket.
    Socket,
    Port(u16),
    Addresses(Vec<IpAddr>),
    /// The kernel's number where it was the kernel that refused.
    Failed {
        sentence: String,
        errno: Option<i32>,
    },
}

/// `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    message::receive(socket, LONGEST)
}
