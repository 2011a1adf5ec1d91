//! Network namespaces: what is too small for netlink, and where a socket lives.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// `SIOCGSKNS`, which libc does not have.
const NAMESPACE_OF_SOCKET: libc::c_ulong = 0x894c;

/// The network namespace that a socket was made in, wherever its user is. Needs CAP_NET_ADMIN there.
pub fn namespace_of(socket: BorrowedFd) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and makes a descriptor, which is nobody else's.
    let number =
        check(unsafe { libc::ioctl(socket.as_raw_fd(), NAMESPACE_OF_SOCKET as _) }.into())?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
}
