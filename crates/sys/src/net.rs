//! The one thing a namespace needs that is too small for netlink.

use std::io;
use std::os::fd::AsRawFd;

use crate::check;

/// Brings the loopback device of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .or_else(|_| {
            socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        })?;
    // SAFETY: an ifreq of zeros is a valid one: integers and byte arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let set_flags = libc::SIOCSIFFLAGS as libc::c_ulong;
    // SAFETY: SIOCSIFFLAGS reads one ifreq with flags in it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), set_flags as _, &raw const request) };
    check(answer.into())?;
    Ok(())
}
