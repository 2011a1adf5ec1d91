//! Datagrams that know which of our addresses they came to, and are answered from it: one socket listens on all of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// What came, and how to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub bytes: usize,
    pub from: SocketAddr,
    /// Our address that it was sent to, and the device it came by.
    pub at: Option<Local>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub address: IpAddr,
    pub device: u32,
}

/// Room for one message about the address, of either family.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// From now on the socket says which address a datagram came to.
pub fn tell_local_address(socket: BorrowedFd, v6: bool) -> io::Result<()> {
    let (level, option) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int of ours.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(answer.into())?;
    Ok(())
}

/// Receives one datagram, cut to the size of `buffer`. Does not wait.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    // SAFETY: all three are plain data, for which zeros are valid.
    let (mut name, mut control, mut message): (libc::sockaddr_storage, Control, libc::msghdr) =
        unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: every pointer in `message` is to a place of ours with the length beside it, alive until the call returns.
    let bytes =
        check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
            as libc::c_long)?;
    let from = read_address(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Arrival { bytes: bytes as usize, from, at: local(&message) })
}

/// Sends one datagram, from that address of ours where one is given. Does not wait.
pub fn send(
    socket: BorrowedFd,
    bytes: &[u8],
    to: SocketAddr,
    from: Option<Local>,
) -> io::Result<()> {
    // SAFETY: both are plain data, for which zeros are valid.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { std::mem::zeroed() };
    let (mut name, length) = write_address(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(from) = from {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        match from.address {
            IpAddr::V4(address) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                attach(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(address) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                    // An address on a link means nothing without the link.
                    ipi6_ifindex: if address.is_unicast_link_local() { from.device } else { 0 },
                };
                attach(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the kernel only reads.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } as libc::c_long)?;
    Ok(())
}

/// Puts the one message there is room for into the control buffer.
fn attach<T: Copy>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: the buffer is aligned, of zeros, and larger than one message with either structure; the macros compute places
    // in it from the lengths in `message`.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const *message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
    }
}

fn local(message: &libc::msghdr) -> Option<Local> {
    // SAFETY: the kernel filled the buffer that `message` points to, and says how far; the macros stay within that.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() {
            return None;
        }
        match ((*header).cmsg_level, (*header).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info: libc::in_pktinfo =
                    libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                Some(Local {
                    address: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(),
                    device: info.ipi_ifindex as u32,
                })
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info: libc::in6_pktinfo =
                    libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                Some(Local {
                    address: Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
                    device: info.ipi6_ifindex,
                })
            }
            _ => None,
        }
    }
}

fn read_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure is there; the storage is large and aligned enough for each.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: plain data, for which zeros are valid.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: the storage is large and aligned enough for every kind of address.
            let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            (storage, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_flowinfo = address.flowinfo();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            (storage, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn answered_from_where_it_came_to() {
        for (all, one) in [("0.0.0.0:0", "127.0.0.5"), ("[::]:0", "::1")] {
            let Ok(server) = UdpSocket::bind(all) else { continue };
            let Ok(client) = UdpSocket::bind((one, 0)) else { continue };
            tell_local_address(server.as_fd(), all.starts_with('[')).unwrap();
            client.connect((one, server.local_addr().unwrap().port())).unwrap();
            client.send(b"hello").unwrap();
            let mut buffer = [0; 16];
            let mut readable = [rustix::event::PollFd::new(&server, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut readable, None).unwrap();
            let arrival = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..arrival.bytes], b"hello");
            assert_eq!(arrival.from, client.local_addr().unwrap());
            let at = arrival.at.unwrap();
            assert_eq!(at.address, one.parse::<IpAddr>().unwrap());
            // A connected socket hears nobody but who it is connected to.
            send(server.as_fd(), b"there", arrival.from, Some(at)).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 5);
            let nothing = receive(server.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
