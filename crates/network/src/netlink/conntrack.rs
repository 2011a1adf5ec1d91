//! The flows that the kernel remembers: listed as far as they are of interest, and forgotten one by one.

use std::net::{IpAddr, SocketAddr};

use rustix::net::{AddressFamily, ipproto};
use stdx::Result;

use super::message::attribute;
use super::{Attributes, Batch, Socket};
use crate::records::Protocol;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
/// Insisted on where the protocol is younger than the flag.
const NESTED: u16 = 0x8000;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Which part of a tuple a filter looks at: the kernel's `CTA_FILTER_FLAG`s. Those for addresses of IPv6 and for answers are
/// there, too, and cannot be used: kernels compare the first the wrong way round, and do not read the second.
const LOOK_AT_PROTOCOL: u32 = 1 << 3;
const LOOK_AT_TARGET_PORT: u32 = 1 << 5;

/// It went between our question and our wish, or the kernel keeps none.
const ENOENT: i32 = 2;

/// Who speaks to whom, as one side sees it. Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    pub(crate) original: Ends,
    /// Of the answers: its source is whom the flow really reaches.
    pub(crate) reply: Ends,
    /// What names it to the kernel.
    name: Vec<u8>,
}

/// What a flow must have asked for to be listed. The kernel looks, so that only these come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) ipv6: bool,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// The kernel's number of a protocol.
pub(crate) fn number(protocol: Protocol) -> u8 {
    let number = match protocol {
        Protocol::Tcp => ipproto::TCP,
        Protocol::Udp => ipproto::UDP,
        Protocol::Sctp => ipproto::SCTP,
    };
    number.as_raw().get().try_into().expect("all of them are small")
}

impl Socket {
    /// The flows that asked for this; all flows without it.
    pub(crate) fn flows(&mut self, asked: Option<&Asked>) -> Result<Vec<Flow>> {
        let mut batch = Batch::new();
        let family = match asked {
            None => AddressFamily::UNSPEC,
            Some(asked) if asked.ipv6 => AddressFamily::INET6,
            Some(_) => AddressFamily::INET,
        };
        batch.push_dump(GET, &header(family), |message| {
            if let Some(asked) = asked {
                asked.write(message);
            }
        });
        let mut flows = Vec::new();
        for reply in self.exchange(batch)? {
            flows.extend(reply.ok()?.iter().filter_map(|(_, body)| read(body)));
        }
        Ok(flows)
    }

    /// Has the kernel forget flows. Whatever of them still comes is judged anew.
    pub(crate) fn forget(&mut self, flows: &[Flow]) -> Result<()> {
        for some in flows.chunks(TOGETHER) {
            let mut batch = Batch::new();
            for flow in some {
                let family = match flow.original.source {
                    SocketAddr::V4(_) => AddressFamily::INET,
                    SocketAddr::V6(_) => AddressFamily::INET6,
                };
                batch.push(DELETE, 0, &header(family), |message| message.raw(&flow.name));
            }
            for reply in self.exchange(batch)? {
                reply.ok_or(&[ENOENT])?;
            }
        }
        Ok(())
    }
}

/// Flows forgotten in one go: their answers have to fit into what a socket holds.
const TOGETHER: usize = 64;

impl Asked {
    fn write(&self, message: &mut Attributes) {
        message.nest(CTA_TUPLE_ORIG | NESTED, |tuple| {
            tuple.nest(CTA_TUPLE_PROTO | NESTED, |proto| {
                proto.u8(CTA_PROTO_NUM, number(self.protocol));
                proto.bytes(CTA_PROTO_DST_PORT, &self.port.to_be_bytes());
            });
        });
        message.nest(CTA_FILTER | NESTED, |filter| {
            filter.u32(CTA_FILTER_ORIG_FLAGS, LOOK_AT_PROTOCOL | LOOK_AT_TARGET_PORT);
        });
    }
}

fn read(body: &[u8]) -> Option<Flow> {
    let attributes = body.get(4..)?;
    let original = attribute(attributes, CTA_TUPLE_ORIG)?;
    let (protocol, ends) = read_tuple(original)?;
    let (_, reply) = read_tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    let mut name = Attributes::new();
    name.bytes(CTA_TUPLE_ORIG | NESTED, original);
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(value) = attribute(attributes, kind) {
            name.bytes(kind, value);
        }
    }
    Some(Flow { protocol, original: ends, reply, name: name.into_bytes() })
}

fn read_tuple(tuple: &[u8]) -> Option<(u8, Ends)> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    let proto = attribute(tuple, CTA_TUPLE_PROTO)?;
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(octets) = attribute(ip, v4) {
            return Some(<[u8; 4]>::try_from(octets).ok()?.into());
        }
        Some(<[u8; 16]>::try_from(attribute(ip, v6)?).ok()?.into())
    };
    let port = |kind: u16| {
        let bytes = attribute(proto, kind).and_then(|value| value.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    let source = SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT));
    let target = SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT));
    Some((*attribute(proto, CTA_PROTO_NUM)?.first()?, Ends { source, target }))
}

/// `struct nfgenmsg`
fn header(family: AddressFamily) -> [u8; 4] {
    let family = u8::try_from(family.as_raw()).expect("families are small");
    [family, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use sys::ns::unshare;
    use sys::process::CloneFlags;

    use super::*;

    /// Flows over loopback, in a namespace of the test's own.
    #[test]
    fn some_are_forgotten_and_others_are_not() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = std::thread::spawn(|| {
            unshare(CloneFlags::NEWNET).unwrap();
            sys::net::loopback_up().unwrap();
            // The kernel remembers flows only where a rule looks at them.
            let rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ct state new";
            assert!(std::process::Command::new("nft").arg(rules).status().unwrap().success());
            let mut socket = Socket::netfilter().unwrap();
            for ip in ["127.0.0.1", "::1"] {
                let ip: IpAddr = ip.parse().unwrap();
                let client = UdpSocket::bind((ip, 0)).unwrap();
                let (one, other) =
                    (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap());
                client.send_to(b"x", one.local_addr().unwrap()).unwrap();
                client.send_to(b"x", other.local_addr().unwrap()).unwrap();
                let all = socket.flows(None).unwrap();
                assert_eq!(all.iter().filter(|flow| flow.original.target.ip() == ip).count(), 2);
                let asked = |socket: &UdpSocket| Asked {
                    ipv6: ip.is_ipv6(),
                    protocol: Protocol::Udp,
                    port: socket.local_addr().unwrap().port(),
                };
                let found = socket.flows(Some(&asked(&one))).unwrap();
                let [flow] = found.as_slice() else { panic!("{ip}: {found:?}") };
                assert_eq!(flow.original.target, one.local_addr().unwrap());
                assert_eq!(flow.reply.source, one.local_addr().unwrap());
                assert_eq!(flow.protocol, number(Protocol::Udp));
                socket.forget(&found).unwrap();
                // What is gone already is gone.
                socket.forget(&found).unwrap();
                assert_eq!(socket.flows(Some(&asked(&one))).unwrap(), []);
                assert_eq!(socket.flows(Some(&asked(&other))).unwrap().len(), 1);
            }
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
