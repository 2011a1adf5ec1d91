//! Network namespaces: what is too small for netlink, and where a socket lives.

use std::ffi::CStr;
use std::io;
use std::net::Ipv6Addr;
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

/// The kernel's `struct in6_rtmsg`.
#[repr(C)]
#[derive(Default)]
struct Route6 {
    to: [u8; 16],
    from: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    to_length: u16,
    from_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    device: libc::c_int,
}

/// Gives a device of the current network namespace an IPv6 address, and the namespace a default route by it. Allocates
/// nothing: for a forked child.
pub fn way_out6(device: &CStr, address: Ipv6Addr, prefix: u8, gateway: Ipv6Addr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `device` ends with a zero.
    let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
        ifr6_prefixlen: prefix.into(),
        ifr6_ifindex: index.cast_signed(),
    };
    // SAFETY: SIOCSIFADDR of an IPv6 socket reads one in6_ifreq.
    let answer =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &raw const request) };
    check(answer.into())?;
    let route = Route6 {
        gateway: gateway.octets(),
        metric: 1024,
        flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
        device: index.cast_signed(),
        ..Route6::default()
    };
    // SAFETY: SIOCADDRT of an IPv6 socket reads one in6_rtmsg, which Route6 is.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) };
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
