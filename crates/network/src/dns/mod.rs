//! The name server that a container on a user-defined network finds at 127.0.0.11.
//!
//! Most of it is values: [`wire`] reads questions and writes answers, [`zone`] knows who is called what on a network,
//! [`answer`] decides. [`inside`] makes the sockets in a container's namespace; `server` and `forward` are the part that
//! runs in netd, on those sockets, whether a daemon lives or not.

mod answer;
mod forward;
pub(crate) mod inside;
mod leash;
pub(crate) mod server;
mod upstream;
mod ways;
mod wire;
pub(crate) mod zone;

use std::net::Ipv4Addr;

/// Where a container finds it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
pub(crate) const PORT: u16 = 53;
