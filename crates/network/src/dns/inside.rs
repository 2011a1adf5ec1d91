//! A container's namespace: where its name server's sockets are made, with the rules that lead to them.
//!
//! The sockets have ports of their own, so that a container may itself listen on port 53 of every address; what is sent
//! to 127.0.0.11:53 is led there by a table within the namespace.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use stdx::{Context, Result};
use sys::ns::setns;
use sys::process::CloneFlags;

use super::{ADDRESS, PORT};
use crate::netlink::message::{APPEND, CREATE, EXCLUSIVE};
use crate::netlink::{Attributes, Batch, Socket};
use crate::netns;

/// A name server's.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: OwnedFd,
    pub(crate) tcp: OwnedFd,
}

/// Makes the sockets in the namespace of the calling thread. Asked again, it leads to the new ones.
pub(crate) fn open() -> Result<Sockets> {
    let failed = || "cannot make the name server's sockets".to_owned();
    let (udp, tcp) = listen(0).context(failed)?;
    let ports =
        (udp.local_addr().context(failed)?.port(), tcp.local_addr().context(failed)?.port());
    match redirect(ports) {
        Ok(()) => Ok(Sockets { udp: udp.into(), tcp: tcp.into() }),
        // A kernel that cannot lead anything anywhere: then the port is taken from the container.
        Err(err) => {
            tracing::warn!(error = %err.chain(), "a name server takes port 53 of its container");
            drop((udp, tcp));
            let (udp, tcp) = listen(PORT).context(failed)?;
            Ok(Sockets { udp: udp.into(), tcp: tcp.into() })
        }
    }
}

fn listen(port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let address = SocketAddr::V4(SocketAddrV4::new(ADDRESS, port));
    Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
}

/// The way into containers' namespaces and back, for a thread that has other things to do there than to stay.
pub(crate) struct Entrance {
    home: OwnedFd,
}

impl Entrance {
    pub(crate) fn here() -> Result<Self> {
        Ok(Self { home: netns::own()? })
    }

    /// Does something in the namespace of a socket. It must not wait.
    pub(crate) fn within<T>(
        &self,
        socket: BorrowedFd,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let namespace = sys::net::namespace_of(socket)?;
        setns(namespace.as_fd(), CloneFlags::NEWNET)?;
        let done = work();
        if setns(self.home.as_fd(), CloneFlags::NEWNET).is_err() {
            // Lost in a container's network: nothing that this process does from here on would be right.
            std::process::abort();
        }
        done
    }
}

const TABLE: &str = "gantry-dns";
const CHAIN: &str = "output";

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const FAMILY_IPV4: u8 = 2;
const HOOK_OUTPUT: u32 = 3;
const PRIORITY_DSTNAT: i32 = -100;
const DATA_VALUE: u16 = 1;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// ```text
/// table ip gantry-dns {
///     chain output {
///         type nat hook output priority dstnat; policy accept;
///         meta l4proto udp ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:UDP
///         meta l4proto tcp ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:TCP
///     }
/// }
/// ```
fn redirect(ports: (u16, u16)) -> Result<()> {
    let mut socket = Socket::netfilter()?;
    // To take a table away costs the kernel milliseconds: only where there is one.
    socket
        .execute(rules(ports, Before::Nothing))
        .or_else(|_| socket.execute(rules(ports, Before::Another)))
        .context(|| "cannot lead to the name server".to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Another,
}

fn rules((udp, tcp): (u16, u16), before: Before) -> Batch {
    let mut batch = Batch::new();
    let begin = [0, 0, 0, (SUBSYSTEM >> 8) as u8];
    batch.push_silent(BATCH_BEGIN, 0, &begin, |_| {});
    let header = [FAMILY_IPV4, 0, 0, 0];
    let table = |message: &mut Attributes| message.text(1, TABLE);
    if before == Before::Another {
        // Made first, so that deleting it cannot fail.
        batch.push_silent(NEW_TABLE, CREATE, &header, table);
        batch.push_silent(DELETE_TABLE, 0, &header, table);
    }
    batch.push(NEW_TABLE, CREATE | EXCLUSIVE, &header, table);
    batch.push_silent(NEW_CHAIN, CREATE, &header, |message| {
        message.text(1, TABLE);
        message.text(3, CHAIN);
        message.nest(4, |hook| {
            hook.be32(1, HOOK_OUTPUT);
            hook.be32(2, PRIORITY_DSTNAT.cast_unsigned());
        });
        message.text(7, "nat");
    });
    for (protocol, port) in [(IPPROTO_UDP, udp), (IPPROTO_TCP, tcp)] {
        // Acknowledged: the batch is done when its last rule is.
        batch.push(NEW_RULE, CREATE | APPEND, &header, |message| {
            message.text(1, TABLE);
            message.text(2, CHAIN);
            message.nest(4, |list| {
                expression(list, "meta", |meta| {
                    meta.be32(1, REGISTER_1);
                    meta.be32(2, META_PROTOCOL);
                });
                equals(list, &[protocol]);
                payload(list, NETWORK_HEADER, 16, 4);
                equals(list, &ADDRESS.octets());
                payload(list, TRANSPORT_HEADER, 2, 2);
                equals(list, &PORT.to_be_bytes());
                immediate(list, REGISTER_1, &ADDRESS.octets());
                immediate(list, REGISTER_2, &port.to_be_bytes());
                expression(list, "nat", |nat| {
                    nat.be32(1, 1);
                    nat.be32(2, u32::from(FAMILY_IPV4));
                    nat.be32(3, REGISTER_1);
                    nat.be32(5, REGISTER_2);
                });
            });
        });
    }
    batch.push_silent(BATCH_END, 0, &begin, |_| {});
    batch
}

fn expression(list: &mut Attributes, name: &str, data: impl FnOnce(&mut Attributes)) {
    list.nest(1, |item| {
        item.text(1, name);
        item.nest(2, data);
    });
}

fn equals(list: &mut Attributes, value: &[u8]) {
    expression(list, "cmp", |compare| {
        compare.be32(1, REGISTER_1);
        compare.be32(2, 0);
        compare.nest(3, |data| data.bytes(DATA_VALUE, value));
    });
}

fn payload(list: &mut Attributes, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |payload| {
        payload.be32(1, REGISTER_1);
        payload.be32(2, base);
        payload.be32(3, offset);
        payload.be32(4, length);
    });
}

fn immediate(list: &mut Attributes, register: u32, value: &[u8]) {
    expression(list, "immediate", |immediate| {
        immediate.be32(1, register);
        immediate.nest(2, |data| data.bytes(DATA_VALUE, value));
    });
}
