//! Links, addresses and routes: the few sentences of rtnetlink that we speak.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use stdx::Result;
use sys::netlink::Step;

use super::message::u32_at;
use super::message::{Attributes, Batch, CREATE, EXCLUSIVE, REPLACE, attribute, attributes, text};
use super::{Reply, Socket};
use crate::ipam::Family;
use crate::records::{IpvlanFlag, IpvlanMode, Mac, MacvlanMode, ShareMode};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PROXY: u16 = 11;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// A device with less knows nothing of IPv6 (RFC 8200, 5), and whoever speaks of it is told EAFNOSUPPORT.
const LEAST_IPV6_MTU: u32 = 1280;
const IFLA_BRPORT_HAIRPIN: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// Usable at once: whoever gave the address knows that nobody else has it.
const IFA_F_NODAD: u8 = 2;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 2;

/// Where VXLAN listens (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4789;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_LINK: u8 = 253;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;

/// The group of devices about to be removed: a number nobody else is likely to use ("gant").
const DOOMED: u32 = 0x6761_6e74;

pub(crate) const ENODEV: i32 = 19;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EOPNOTSUPP: i32 = 95;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
pub(crate) const EADDRINUSE: i32 = 98;
const EADDRNOTAVAIL: i32 = 99;

/// The loopback device is the first of every namespace.
const LOOPBACK: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// The bridge it is a port of.
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth` …; empty for hardware.
    pub(crate) kind: String,
}

/// A pair of devices: one end a port of a bridge here, the other in a container's namespace.
pub(crate) struct Pair<'a> {
    pub(crate) host: &'a str,
    pub(crate) bridge: u32,
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) container: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// May its frames reach other isolated ports of the bridge?
    pub(crate) isolated: bool,
}

/// The end of a network of several hosts.
pub(crate) struct Vxlan<'a> {
    pub(crate) name: &'a str,
    pub(crate) vni: u32,
    pub(crate) local: IpAddr,
    pub(crate) mtu: u32,
    pub(crate) namespace: BorrowedFd<'a>,
}

/// A device of a container's on a device of the host's.
pub(crate) struct Share<'a> {
    pub(crate) parent: u32,
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) container: &'a str,
    /// Those of ipvlan have their parent's.
    pub(crate) mac: Option<Mac>,
    pub(crate) mode: ShareMode,
}

/// Writing requests.
impl Batch {
    pub(crate) fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, name);
            // Given by hand, so that it stays when ports come and go.
            link.bytes(IFLA_ADDRESS, &mac.0);
            link.u32(IFLA_MTU, mtu);
            link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        });
    }

    /// Makes both ends where they belong at once: moving a device between namespaces later costs the kernel an RCU grace
    /// period, and us a moment in which it is visible on the host. With the one queue each that they would use anyway: asked
    /// for nothing, the kernel makes one per processor, and takes all but the first away again, for a grace period each.
    pub(crate) fn add_pair(&mut self, pair: &Pair) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, pair.host);
            link.u32(IFLA_MTU, pair.mtu);
            link.u32(IFLA_MASTER, pair.bridge);
            one_queue(link);
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth");
                info.nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        // Not yet up: it is opened before the two ends know each other (ENOTCONN).
                        peer.raw(&link_header(0, 0, 0));
                        peer.text(IFLA_IFNAME, pair.container);
                        peer.bytes(IFLA_ADDRESS, &pair.mac.0);
                        peer.u32(IFLA_MTU, pair.mtu);
                        one_queue(peer);
                        peer.u32(IFLA_NET_NS_FD, pair.namespace.as_raw_fd() as u32);
                    });
                });
            });
        });
        // A port of a bridge has no business with addresses of its own.
        self.push(RTM_NEWLINK, 0, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, pair.host);
            if pair.mtu >= LEAST_IPV6_MTU {
                link.nest(IFLA_AF_SPEC, no_ipv6_address);
            }
        });
        if pair.isolated {
            self.isolate_port(pair.host, true);
        }
    }

    /// Makes a macvlan or ipvlan device where it belongs.
    pub(crate) fn add_share(&mut self, share: &Share) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, share.container);
            link.u32(IFLA_LINK, share.parent);
            link.u32(IFLA_NET_NS_FD, share.namespace.as_raw_fd() as u32);
            if let Some(mac) = share.mac {
                link.bytes(IFLA_ADDRESS, &mac.0);
            }
            link.nest(IFLA_LINKINFO, |info| match share.mode {
                ShareMode::Macvlan(mode) => {
                    info.text(IFLA_INFO_KIND, "macvlan");
                    info.nest(IFLA_INFO_DATA, |data| {
                        data.u32(IFLA_MACVLAN_MODE, macvlan_mode(mode));
                    });
                }
                ShareMode::Ipvlan(mode, flag) => {
                    info.text(IFLA_INFO_KIND, "ipvlan");
                    info.nest(IFLA_INFO_DATA, |data| {
                        data.u16(IFLA_IPVLAN_MODE, ipvlan_mode(mode));
                        data.u16(IFLA_IPVLAN_FLAGS, ipvlan_flag(flag));
                    });
                }
            });
        });
    }

    /// A device without a wire.
    pub(crate) fn add_dummy(&mut self, name: &str) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, name);
            link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "dummy"));
        });
    }

    /// A device that gives back what it was given.
    pub(crate) fn add_ifb(&mut self, name: &str) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, name);
            link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "ifb"));
        });
    }

    pub(crate) fn add_vlan(&mut self, name: &str, parent: u32, id: u16) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, name);
            link.u32(IFLA_LINK, parent);
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "vlan");
                info.nest(IFLA_INFO_DATA, |data| data.u16(IFLA_VLAN_ID, id));
            });
        });
    }

    /// Puts a device into another namespace, under the name it shall have there.
    pub(crate) fn move_link(&mut self, index: u32, name: &str, namespace: BorrowedFd<'_>) {
        self.push(RTM_NEWLINK, 0, &link_header(index, 0, 0), |link| {
            link.u32(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
            link.text(IFLA_IFNAME, name);
        });
    }

    pub(crate) fn set_mac(&mut self, name: &str, mac: Mac) {
        self.push(RTM_NEWLINK, 0, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, name);
            link.bytes(IFLA_ADDRESS, &mac.0);
        });
    }

    /// By a neighbour, or straight on the link.
    pub(crate) fn add_route(&mut self, to: IpNet, by: Option<IpAddr>, link: u32) {
        let scope = if by.is_some() { 0 } else { RT_SCOPE_LINK };
        let mut header = default_route_header(Family::of(&to), scope);
        header[1] = to.prefix_len();
        self.push(RTM_NEWROUTE, CREATE | EXCLUSIVE, &header, |message| {
            message.ip(RTA_DST, to.addr());
            if let Some(by) = by {
                message.ip(RTA_GATEWAY, by);
            }
            message.u32(RTA_OIF, link);
        });
    }

    /// Makes a VXLAN device in another namespace; its packets are this one's. It learns nothing: it knows what it is told,
    /// and answers for whom it knows.
    pub(crate) fn add_vxlan(&mut self, vxlan: &Vxlan) {
        self.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, vxlan.name);
            link.u32(IFLA_MTU, vxlan.mtu);
            link.u32(IFLA_NET_NS_FD, vxlan.namespace.as_raw_fd() as u32);
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "vxlan");
                info.nest(IFLA_INFO_DATA, |data| {
                    data.u32(IFLA_VXLAN_ID, vxlan.vni);
                    let local = match vxlan.local {
                        IpAddr::V4(_) => IFLA_VXLAN_LOCAL,
                        IpAddr::V6(_) => IFLA_VXLAN_LOCAL6,
                    };
                    data.ip(local, vxlan.local);
                    data.u8(IFLA_VXLAN_LEARNING, 0);
                    data.u8(IFLA_VXLAN_PROXY, 1);
                    data.bytes(IFLA_VXLAN_PORT, &VXLAN_PORT.to_be_bytes());
                });
            });
        });
    }

    /// An address on a device, and whose it is.
    pub(crate) fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: Mac) {
        let header = neighbour_header(AF_INET, link, NUD_PERMANENT, 0);
        self.push(RTM_NEWNEIGH, CREATE | REPLACE, &header, |entry| {
            entry.ip(NDA_DST, address.into());
            entry.bytes(NDA_LLADDR, &mac.0);
        });
    }

    /// Where a VXLAN device sends the frames for a hardware address.
    pub(crate) fn add_forwarding(&mut self, link: u32, mac: Mac, to: IpAddr) {
        let header = neighbour_header(AF_BRIDGE, link, NUD_PERMANENT | NUD_NOARP, NTF_SELF);
        self.push(RTM_NEWNEIGH, CREATE | REPLACE, &header, |entry| {
            entry.ip(NDA_DST, to);
            entry.bytes(NDA_LLADDR, &mac.0);
        });
    }

    pub(crate) fn delete_link(&mut self, name: &str) {
        self.push(RTM_DELLINK, 0, &link_header(0, 0, 0), |link| link.text(IFLA_IFNAME, name));
    }

    /// Has a port of a bridge reach only those that are not kept apart, or all of them.
    pub(crate) fn isolate_port(&mut self, name: &str, isolated: bool) {
        self.switch_port(name, IFLA_BRPORT_ISOLATED, isolated);
    }

    /// Lets frames leave a port of a bridge by which they came.
    pub(crate) fn turn_port_back(&mut self, name: &str) {
        self.switch_port(name, IFLA_BRPORT_HAIRPIN, true);
    }

    /// As the slave that it is: what `AF_BRIDGE` and `IFLA_PROTINFO` say is heard in `RTM_SETLINK` alone, which knows no
    /// names.
    fn switch_port(&mut self, name: &str, switch: u16, on: bool) {
        self.push(RTM_NEWLINK, 0, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, name);
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge");
                info.nest(IFLA_INFO_SLAVE_DATA, |port| port.u8(switch, on.into()));
            });
        });
    }

    pub(crate) fn set_master(&mut self, name: &str, bridge: u32) {
        self.push(RTM_NEWLINK, 0, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, name);
            link.u32(IFLA_MASTER, bridge);
        });
    }

    pub(crate) fn loopback_up(&mut self) {
        self.push(RTM_NEWLINK, 0, &link_header(LOOPBACK, IFF_UP, IFF_UP), |_| {});
    }

    /// Up, with this MTU, and without an IPv6 address that nobody asked for.
    pub(crate) fn bridge_up(&mut self, name: &str, mtu: u32) {
        self.push(RTM_NEWLINK, 0, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, name);
            link.u32(IFLA_MTU, mtu);
            if mtu >= LEAST_IPV6_MTU {
                link.nest(IFLA_AF_SPEC, no_ipv6_address);
            }
        });
    }

    pub(crate) fn link_up(&mut self, name: &str) {
        self.push(RTM_NEWLINK, 0, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, name);
        });
    }

    pub(crate) fn get_link(&mut self, name: &str) {
        self.push(RTM_GETLINK, 0, &link_header(0, 0, 0), |link| link.text(IFLA_IFNAME, name));
    }

    pub(crate) fn add_address(&mut self, link: u32, address: IpNet) {
        self.push(RTM_NEWADDR, CREATE | EXCLUSIVE, &address_header(link, &address), |message| {
            message.ip(IFA_LOCAL, address.addr());
            message.ip(IFA_ADDRESS, address.addr());
            if let IpNet::V4(net) = address
                && net.prefix_len() < 31
            {
                message.ip(IFA_BROADCAST, net.broadcast().into());
            }
        });
    }

    pub(crate) fn delete_address(&mut self, link: u32, address: IpNet) {
        self.push(RTM_DELADDR, 0, &address_header(link, &address), |message| {
            message.ip(IFA_LOCAL, address.addr());
        });
    }

    /// What has no better route goes this way; another default route is replaced.
    pub(crate) fn set_default_route(&mut self, route: DefaultRoute) {
        let (family, scope) = match route {
            DefaultRoute::Via(gateway, _) => (Family::of_address(gateway), 0),
            DefaultRoute::Link(family, _) => (family, RT_SCOPE_LINK),
        };
        let header = default_route_header(family, scope);
        self.push(RTM_NEWROUTE, CREATE | REPLACE, &header, |message| match route {
            DefaultRoute::Via(gateway, link) => {
                message.ip(RTA_GATEWAY, gateway);
                message.u32(RTA_OIF, link);
            }
            DefaultRoute::Link(_, link) => message.u32(RTA_OIF, link),
        });
    }

    fn delete_default_route(&mut self, family: Family) {
        // Any scope.
        self.push(RTM_DELROUTE, 0, &default_route_header(family, 255), |_| {});
    }
}

/// Where a default route leads, by the index of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultRoute {
    Via(IpAddr, u32),
    /// Everybody is on the link, or so the device makes believe.
    Link(Family, u32),
}

/// Asking.
impl Socket {
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut batch = Batch::new();
        batch.get_link(name);
        let objects = only(self.exchange(batch)?).ok_or(&[ENODEV])?;
        Ok(links_in(&objects).next())
    }

    /// Can the kernel make devices of a kind that stand on another? Asked without saying on which, it either knows better
    /// or knows nothing of them.
    pub(crate) fn knows(&mut self, kind: &str) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
            link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
        });
        let failure = only(self.exchange(batch)?).failure;
        Ok(failure.is_none_or(|failure| failure.errno != EOPNOTSUPP))
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        let mut batch = Batch::new();
        // Its counters are summed up over all processors, for nobody.
        batch.push_dump(RTM_GETLINK, &link_header(0, 0, 0), |link| {
            link.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
        let objects = only(self.exchange(batch)?).ok()?;
        Ok(links_in(&objects).collect())
    }

    /// The addresses of a device, in both families.
    pub(crate) fn addresses(&mut self, link: u32) -> Result<Vec<IpNet>> {
        let mut batch = Batch::new();
        // The kernel leaves out those of others, or else they are left out here.
        let mut header = [0; 8];
        header[4..].copy_from_slice(&link.to_ne_bytes());
        batch.push_dump(RTM_GETADDR, &header, |_| {});
        let objects = only(self.exchange(batch)?).ok()?;
        Ok(objects.iter().filter_map(|(_, body)| address_in(body, link)).collect())
    }

    /// The networks that the main tables have routes to, without the default ones.
    pub(crate) fn routes(&mut self) -> Result<Vec<IpNet>> {
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut batch = Batch::new();
            let mut header = [0; 12];
            header[0] = family;
            header[4] = RT_TABLE_MAIN;
            batch.push_dump(RTM_GETROUTE, &header, |_| {});
            // A kernel without IPv6 has none.
            let objects = only(self.exchange(batch)?).ok_or(&[EOPNOTSUPP, ENOENT])?;
            routes.extend(objects.iter().filter_map(|(_, body)| route_in(body)));
        }
        Ok(routes)
    }

    /// The routes of the main tables, default ones too, each with the index of its device.
    pub(crate) fn routes_by_device(&mut self) -> Result<Vec<(IpNet, u32)>> {
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut batch = Batch::new();
            let mut header = [0; 12];
            header[0] = family;
            batch.push_dump(RTM_GETROUTE, &header, |_| {});
            let objects = only(self.exchange(batch)?).ok_or(&[EOPNOTSUPP])?;
            routes.extend(objects.iter().filter_map(|(_, body)| way_in(body)));
        }
        Ok(routes)
    }

    /// Takes the default route of a family away; none is fine.
    pub(crate) fn drop_default_route(&mut self, family: Family) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete_default_route(family);
        only(self.exchange(batch)?).ok_or(&[ESRCH, EOPNOTSUPP]).map(drop)
    }

    /// Removes devices; those that are gone already are fine.
    ///
    /// They go as one group: each removal ends with a wait for all processors (18 ms here), and a group waits once.
    pub(crate) fn delete_links<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let mut batch = Batch::new();
        for name in names {
            batch.push(RTM_NEWLINK, 0, &link_header(0, 0, 0), |link| {
                link.text(IFLA_IFNAME, name);
                link.u32(IFLA_GROUP, DOOMED);
            });
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch.push(RTM_DELLINK, 0, &link_header(0, 0, 0), |links| links.u32(IFLA_GROUP, DOOMED));
        self.exchange(batch)?.into_iter().try_for_each(|reply| reply.ok_or(&[ENODEV]).map(drop))
    }

    /// Removes an address; one that is gone already is fine.
    pub(crate) fn drop_address(&mut self, link: u32, address: IpNet) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete_address(link, address);
        only(self.exchange(batch)?).ok_or(&[ENODEV, EADDRNOTAVAIL]).map(drop)
    }
}

/// The link that a [`Batch::get_link`] brought.
pub(crate) fn link_of(reply: Reply) -> Result<Option<Link>> {
    Ok(links_in(&reply.ok()?).next())
}

/// How many packets have come by the device of this reply to [`Batch::get_link`].
pub(crate) fn received(reply: &Reply) -> Option<u64> {
    let (_, body) = reply.objects.first()?;
    let statistics = attribute(body.get(16..)?, IFLA_STATS64)?;
    Some(u64::from_ne_bytes(*statistics.first_chunk()?))
}

fn only(replies: Vec<Reply>) -> Reply {
    replies.into_iter().next().expect("one message, one reply")
}

fn one_queue(link: &mut Attributes) {
    link.u32(IFLA_NUM_TX_QUEUES, 1);
    link.u32(IFLA_NUM_RX_QUEUES, 1);
}

fn no_ipv6_address(families: &mut Attributes) {
    families.nest(AF_INET6.into(), |inet6| {
        inet6.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    });
}

/// `struct ifinfomsg`
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`
fn address_header(link: u32, address: &IpNet) -> [u8; 8] {
    let (family, flags) = match address {
        IpNet::V4(_) => (AF_INET, 0),
        IpNet::V6(_) => (AF_INET6, IFA_F_NODAD),
    };
    let mut header = [family, address.prefix_len(), flags, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header
}

/// `struct ndmsg`
fn neighbour_header(family: u8, link: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, 0];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header
}

/// `struct rtmsg`
fn default_route_header(family: Family, scope: u8) -> [u8; 12] {
    let family = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0]
}

/// `include/uapi/linux/if_link.h`
fn macvlan_mode(mode: MacvlanMode) -> u32 {
    match mode {
        MacvlanMode::Private => 1,
        MacvlanMode::Vepa => 2,
        MacvlanMode::Bridge => 4,
        MacvlanMode::Passthru => 8,
    }
}

fn ipvlan_mode(mode: IpvlanMode) -> u16 {
    match mode {
        IpvlanMode::L2 => 0,
        IpvlanMode::L3 => 1,
        IpvlanMode::L3s => 2,
    }
}

fn ipvlan_flag(flag: IpvlanFlag) -> u16 {
    match flag {
        IpvlanFlag::Bridge => 0,
        IpvlanFlag::Private => 1,
        IpvlanFlag::Vepa => 2,
    }
}

/// Those who hear of devices and addresses: the first group, the fifth and the ninth.
pub(crate) const DEVICES_AND_ADDRESSES: u32 = 1 | 1 << 4 | 1 << 8;

/// Of devices only that they go, and that they are set down: there is more news with every container.
pub(crate) fn what_is_lost() -> [Step; 10] {
    // The kernel reads as the network does; what it reads was written as this machine does.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let up = u32::from_be_bytes(IFF_UP.to_ne_bytes());
    let (half, word, equal, any, answer) = (0x28, 0x20, 0x15, 0x45, 0x06);
    [
        (half, 0, 0, 4),
        (equal, 6, 0, kind(RTM_DELLINK)),
        (equal, 0, 5, kind(RTM_NEWLINK)),
        // What has changed, which is everything when a device is new; and what is now.
        (word, 0, 0, 28),
        (equal, 4, 0, u32::MAX),
        (any, 0, 3, up),
        (word, 0, 0, 24),
        (any, 1, 0, up),
        (answer, 0, 0, u32::MAX),
        (answer, 0, 0, 0),
    ]
}

/// The name of a device that is no more, or down, if that is what a message tells.
pub(crate) fn link_lost(kind: u16, body: &[u8]) -> Option<String> {
    let link = link_in(body).filter(|_| matches!(kind, RTM_NEWLINK | RTM_DELLINK))?;
    (kind == RTM_DELLINK || !link.up).then_some(link.name)
}

/// The host's address that is no more, if that is what a message tells.
pub(crate) fn address_gone(kind: u16, body: &[u8]) -> Option<IpAddr> {
    let (header, rest) = body.split_at_checked(8).filter(|_| kind == RTM_DELADDR)?;
    ip_in(header[0], attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?)
}

fn links_in(objects: &[(u16, Vec<u8>)]) -> impl Iterator<Item = Link> {
    objects.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(|(_, body)| link_in(body))
}

fn link_in(body: &[u8]) -> Option<Link> {
    let (header, rest) = body.split_at_checked(16)?;
    let mut link = Link {
        index: u32_at(header, 4),
        name: String::new(),
        up: u32_at(header, 8) & IFF_UP != 0,
        mtu: 0,
        master: None,
        kind: String::new(),
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU if value.len() == 4 => link.mtu = u32_at(value, 0),
            IFLA_MASTER if value.len() == 4 => link.master = Some(u32_at(value, 0)),
            IFLA_LINKINFO => {
                link.kind = attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn address_in(body: &[u8], link: u32) -> Option<IpNet> {
    let (header, rest) = body.split_at_checked(8)?;
    if u32_at(header, 4) != link {
        return None;
    }
    let address = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    IpNet::new(ip_in(header[0], address)?, header[1]).ok()
}

fn route_in(body: &[u8]) -> Option<IpNet> {
    let (header, rest) = body.split_at_checked(12)?;
    if header[4] != RT_TABLE_MAIN || header[7] != RTN_UNICAST {
        return None;
    }
    IpNet::new(ip_in(header[0], attribute(rest, RTA_DST)?)?, header[1]).ok()
}

fn way_in(body: &[u8]) -> Option<(IpNet, u32)> {
    let (header, rest) = body.split_at_checked(12)?;
    if header[4] != RT_TABLE_MAIN || header[7] != RTN_UNICAST {
        return None;
    }
    let device = u32_at(attribute(rest, RTA_OIF).filter(|value| value.len() == 4)?, 0);
    let everywhere: IpAddr = match header[0] {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let to = attribute(rest, RTA_DST).and_then(|bytes| ip_in(header[0], bytes));
    Some((IpNet::new(to.unwrap_or(everywhere), header[1]).ok()?, device))
}

fn ip_in(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}
