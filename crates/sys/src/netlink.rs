//! Sockets to the kernel itself: network devices, routes, the firewall.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use crate::check;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// The firewall and its connections.
    Netfilter,
}

/// Opens a socket that belongs to the network namespace of this thread, wherever its user goes. Refusals come with a
/// sentence and without a copy of what was asked. `groups` are those whose news it hears, one bit each.
pub fn open(protocol: Protocol, groups: u32) -> io::Result<OwnedFd> {
    let number = match protocol {
        // It has the number that elsewhere means "the usual one".
        Protocol::Route => None,
        Protocol::Netfilter => Some(netlink::NETFILTER),
    };
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    set(&socket, libc::NETLINK_EXT_ACK)?;
    set(&socket, libc::NETLINK_CAP_ACK)?;
    if protocol == Protocol::Route {
        // Lists of what is asked for; a kernel before 4.20 lists everything.
        let _unknown = set(&socket, libc::NETLINK_GET_STRICT_CHK);
    }
    Ok(socket)
}

/// One step of a classic BPF program: code, where to go if so and if not, operand.
pub type Step = (u16, u8, u8, u32);

/// Has the kernel ask a program which messages a socket is to have, so that nobody wakes for the others.
pub fn hear_only(socket: impl AsFd, program: &[Step]) -> io::Result<()> {
    let mut steps: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let number = crate::fd::number(socket.as_fd()) as libc::c_int;
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads the program and its steps, which both live until the call returns.
    let answer = unsafe {
        libc::setsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    check(answer.into()).map(drop)
}

/// The number by which the kernel knows a socket.
pub fn port(socket: impl AsFd) -> io::Result<u32> {
    let address: SocketAddrNetlink = getsockname(socket)?.try_into()?;
    Ok(address.pid())
}

fn set(socket: impl AsFd, option: libc::c_int) -> io::Result<()> {
    let number = crate::fd::number(socket.as_fd()) as libc::c_int;
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one int of ours, for as long as the call takes.
    let answer = unsafe {
        libc::setsockopt(number, libc::SOL_NETLINK, option, (&raw const on).cast(), length)
    };
    check(answer.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number() {
        let ports = [Protocol::Route, Protocol::Route, Protocol::Netfilter]
            .map(|protocol| port(open(protocol, 0).unwrap()).unwrap());
        assert!(ports.iter().all(|port| *port != 0), "{ports:?}");
    }
}
