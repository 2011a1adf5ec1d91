//! Drivers that carry lines to servers: what arrives there, and what arrives from Debian's dockerd.

mod beside;
mod clouds;
mod msgpack;
mod plugins;
mod remote;
mod servers;
