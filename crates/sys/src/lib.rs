//! The kernel in safe Rust: what rustix does not wrap. All `unsafe` of the project lives here.
//!
//! Sits on libc and rustix; serves every room. Functions are thin: one call each, errors are `io::Error` with the kernel's
//! number. Descriptors are owned or borrowed, never numbers; `message` is what our own processes pass them with.
#![allow(unsafe_code, reason = "this is the room for it")]

pub mod bpf;
pub mod caps;
pub mod datagram;
pub mod fd;
pub mod iptables;
pub mod keyring;
pub mod memfd;
pub mod memory;
pub mod message;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod ns;
pub mod overlay;
pub mod process;
pub mod quota;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;

use std::io;

/// `-1` means `errno`, anything else is the answer.
fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
