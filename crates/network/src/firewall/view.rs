//! What the firewall has to know, and nothing else: bridges, and what is published where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use stdx::{Error, Id};

use crate::egress::{Allowed, Egress};
use crate::records::{Endpoint, GatewayMode, Mac, Network, Protocol, PublishedPort};

/// All of it, as values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) overlays: Vec<Overlay>,
    pub(crate) ports: BTreeSet<Port>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) links: BTreeSet<Link>,
    pub(crate) choices: Choices,
}

/// What was decided for the whole host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// `--iptables` and `--ip6tables`: which families are ours to judge.
    pub(crate) ipv4: Rules,
    pub(crate) ipv6: Rules,
    pub(crate) localhost: Localhost,
    /// `--allow-direct-routing`: published ports may be reached at the container's own address, too.
    pub(crate) direct_routing: bool,
    /// `--bridge-accept-fwmark`: packets that carry it are let in.
    pub(crate) accepted_mark: Option<Mark>,
    /// Devices that the host did not forward between before we had it forward packets, for each family.
    pub(crate) strangers: [Vec<String>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Ours,
    Nobodys,
}

/// Who brings what the host sends to `127.0.0.1` to a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Localhost {
    /// The kernel: its devices route the loopback's addresses, so our table must be one that nobody can take away.
    Kernel,
    /// Whoever listens on the published port.
    #[default]
    Proxy,
}

/// `VALUE` or `VALUE/MASK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub value: u32,
    pub mask: u32,
}

impl FromStr for Mark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |what: &str, part: &str| {
            let number = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => part.parse(),
            };
            // Docker's words, by way of its language's.
            number.map_err(|_| {
                Error::invalid(format!(
                    "invalid firewall {what} {text:?}: strconv.ParseUint: parsing {part:?}: invalid syntax"
                ))
            })
        };
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number("mark", value)?, number("mask", mask)?),
            None => (number("mark", text)?, u32::MAX),
        };
        Ok(Self { value, mask })
    }
}

/// A network of several hosts: who may send for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) vni: u32,
    pub(crate) peers: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) icc: bool,
    pub(crate) internal: bool,
    pub(crate) ipv4: Option<Family>,
    pub(crate) ipv6: Option<Family>,
    /// Devices of the host by which published ports may be reached at the container's own address.
    pub(crate) trusted: Vec<String>,
}

/// A bridge in one of the two families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) mode: GatewayMode,
    pub(crate) masquerade: bool,
    /// Has the host an address here?
    pub(crate) addressed: bool,
}

/// An endpoint that may reach no more outside of its network than it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The port of the bridge that it is behind.
    pub(crate) device: String,
    pub(crate) mac: Mac,
    /// Where its packets come from; others that it sends are not believed.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) allowed: Vec<Allowed>,
}

/// One port of the host and where it leads. Both addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// The bridge that the container is on.
    pub(crate) bridge: String,
    pub(crate) protocol: Protocol,
    pub(crate) host: (IpAddr, u16),
    pub(crate) container: (IpAddr, u16),
    pub(crate) mode: GatewayMode,
}

/// What a container may ask of another on a bridge whose containers do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub(crate) bridge: String,
    pub(crate) from: Ipv4Addr,
    pub(crate) to: (Ipv4Addr, u16),
    pub(crate) protocol: Protocol,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            ipv4: Rules::Ours,
            ipv6: Rules::Ours,
            localhost: Localhost::default(),
            direct_routing: false,
            accepted_mark: None,
            strangers: [Vec::new(), Vec::new()],
        }
    }
}

impl View {
    pub(crate) fn of<'a>(
        networks: impl IntoIterator<Item = &'a Network>,
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
        leaving: &BTreeSet<Id>,
        withdrawn: &BTreeSet<Id>,
        choices: Choices,
    ) -> Self {
        let endpoints: Vec<&Endpoint> = endpoints.into_iter().collect();
        let networks: Vec<&Network> = networks.into_iter().collect();
        let by_id: BTreeMap<&Id, &Network> =
            networks.iter().map(|network| (&network.id, *network)).collect();
        let network = |endpoint: &Endpoint| by_id.get(&endpoint.network_id).copied();
        let stays = |endpoint: &&&Endpoint| !leaving.contains(&endpoint.endpoint_id);
        let staying: Vec<&Endpoint> = endpoints.iter().filter(stays).copied().collect();
        let links = staying
            .iter()
            .filter(|endpoint| !endpoint.links.is_empty())
            .filter_map(|endpoint| Some(links_of(network(endpoint)?, endpoint, &staying)))
            .flatten()
            .collect();
        // Whoever is on his way out can still send, and is asked for no more.
        let guards = endpoints
            .iter()
            .filter_map(|endpoint| Guard::of(network(endpoint)?, endpoint))
            .collect();
        let ports = endpoints
            .iter()
            .filter(|endpoint| {
                !endpoint.ports.is_empty()
                    && !leaving.contains(&endpoint.endpoint_id)
                    && !withdrawn.contains(&endpoint.endpoint_id)
            })
            .filter_map(|endpoint| Some(ports_of(network(endpoint)?, endpoint)))
            .flatten()
            .collect();
        let bridges = networks.iter().filter_map(|network| Bridge::of(network)).collect();
        let overlays = networks.iter().filter_map(|network| Overlay::of(network)).collect();
        Self { bridges, overlays, ports, links, guards, choices }
    }
}

/// What is published of one endpoint. A port whose two ends are of different families is its listener's to serve.
pub(crate) fn ports_of<'a>(
    network: &Network,
    endpoint: &'a Endpoint,
) -> impl Iterator<Item = Port> + use<'a> {
    let bridge = network.bridge.clone().filter(|_| !network.internal);
    endpoint.ports.iter().filter_map(move |published| {
        let device = bridge.as_ref()?;
        let PublishedPort { protocol, container_port, host_ip, host_port } = *published;
        let (address, mode): (IpAddr, _) = match host_ip {
            IpAddr::V4(_) => (endpoint.ip?.into(), device.gateway_mode),
            IpAddr::V6(_) => (endpoint.ip6?.into(), device.gateway_mode6),
        };
        Some(Port {
            bridge: device.name.clone(),
            protocol,
            host: (host_ip, host_port),
            container: (address, container_port),
            mode,
        })
    })
}

impl Guard {
    /// `None` for an endpoint that nothing restricts, or that has nowhere to go.
    pub(crate) fn of(network: &Network, endpoint: &Endpoint) -> Option<Self> {
        let allowed = Egress::of(endpoint, network)?;
        network.bridge.as_ref()?;
        Some(Self {
            device: endpoint.host_device(),
            mac: endpoint.mac?,
            addresses: endpoint.addresses().chain(endpoint.link_local.iter().copied()).collect(),
            allowed: allowed.to_vec(),
        })
    }
}

/// What the links of one endpoint open, where not everything is open. Docker's are of IPv4 only.
fn links_of<'a>(
    network: &Network,
    endpoint: &'a Endpoint,
    all: &'a [&'a Endpoint],
) -> impl Iterator<Item = Link> + use<'a> {
    let bridge = network.bridge.as_ref().filter(|bridge| !bridge.icc);
    let name = bridge.map(|bridge| bridge.name.clone());
    let linked = endpoint.links.iter().flat_map(move |link| {
        all.iter().filter(move |other| {
            other.container == link.container && other.network_id == endpoint.network_id
        })
    });
    linked.flat_map(move |other| {
        let name = name.clone();
        other.exposed.iter().filter_map(move |&(protocol, port)| {
            Some(Link {
                bridge: name.clone()?,
                from: endpoint.ip?,
                to: (other.ip?, port),
                protocol,
            })
        })
    })
}

impl Overlay {
    fn of(network: &Network) -> Option<Self> {
        let device = network.overlay.as_ref()?;
        let peers = device.peers.iter().map(|peer| peer.vtep).collect();
        Some(Self { vni: device.vni, peers })
    }
}

impl Bridge {
    fn of(network: &Network) -> Option<Self> {
        let device = network.bridge.as_ref()?;
        let subnets = |of: fn(&IpNet) -> bool| {
            network.ipam.config.iter().map(|pool| pool.subnet).filter(of).collect()
        };
        let ipv4 = network.enable_ipv4.then(|| Family {
            subnets: subnets(|subnet| subnet.addr().is_ipv4()),
            mode: device.gateway_mode,
            masquerade: device.masquerade,
            addressed: device.address.is_some(),
        });
        let ipv6 = network.enable_ipv6.then(|| Family {
            subnets: subnets(|subnet| subnet.addr().is_ipv6()),
            mode: device.gateway_mode6,
            masquerade: device.masquerade6,
            addressed: device.address6.is_some(),
        });
        Some(Self {
            name: device.name.clone(),
            icc: device.icc,
            internal: network.internal,
            ipv4,
            ipv6,
            trusted: device.trusted.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let mark = |text: &str| text.parse::<Mark>().map(|mark| (mark.value, mark.mask));
        assert_eq!(mark("1").unwrap(), (1, u32::MAX));
        assert_eq!(mark("0x10/0xff").unwrap(), (16, 255));
        for nonsense in ["", "x", "1/", "/1", "-1", "0x1ffffffff"] {
            assert!(mark(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(
            mark("1/x").unwrap_err().to_string(),
            "invalid firewall mask \"1/x\": strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }
}
