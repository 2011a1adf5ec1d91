//! What there is to be seen: records, rules in the kernel, switches, routes, name servers.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use stdx::Result;

use crate::check::Finding;
use crate::files;
use crate::firewall::Survey;
use crate::firewall::view::{Choices, Rules, ports_of};
use crate::firewalld::Standing;
use crate::netlink::route::Link;
use crate::networks::Core;
use crate::records::{Endpoint, Network, PublishedPort};
use crate::sysctl;

/// All of it, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) networks: Vec<Arc<Network>>,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// What leads somewhere, in the kernel.
    pub(super) elements: BTreeSet<(&'static str, Vec<u8>)>,
    pub(super) choices: Choices,
    pub(super) judges: Vec<(bool, Judge)>,
    pub(super) refusals: Vec<Refusals>,
    pub(super) forwarding: [bool; 2],
    pub(super) filtered: bool,
    pub(super) unowned: bool,
    pub(super) legacy: bool,
    pub(super) ufw: bool,
    pub(super) firewalld: Standing,
    pub(super) addresses: Vec<IpAddr>,
    /// Each with its device.
    pub(super) routes: Vec<(IpNet, String)>,
    pub(super) default_routes: usize,
    /// The device of the default route, and its MTU.
    pub(super) uplink: Option<(String, u32)>,
    /// Devices that believe nobody who came another way.
    pub(super) strict: Vec<String>,
    /// Each, and whether it answers.
    pub(super) resolvers: Vec<(IpAddr, bool)>,
    pub(super) differences: Vec<Finding>,
}

/// A chain of somebody else's, through which what is forwarded has to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judge {
    pub(crate) name: String,
    /// What it does not know.
    pub(crate) drops: bool,
    /// Bridges that it lets through because of us.
    pub(crate) let_through: Vec<String>,
}

/// What an operator refuses of what is forwarded, in the chain that is his.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusals {
    pub(crate) chain: String,
    /// How many rules of it, and of the chains that it asks, refuse something.
    pub(crate) rules: usize,
    /// One of its own refuses whatever comes to it.
    pub(crate) everything: bool,
}

/// Whether the kernel has what leads to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Missing,
    Nobodys,
}

/// A name server that is silent for so long is not asked by anybody.
const SILENCE: Duration = Duration::from_secs(2);

impl Facts {
    pub(super) fn gather(core: &Core) -> Result<Self> {
        let (networks, endpoints, known) = {
            let model = core.model();
            let endpoints = model.present(|_| true);
            let known: BTreeSet<_> = endpoints.iter().map(|one| one.container.clone()).collect();
            (model.networks.values().cloned().collect(), endpoints, known)
        };
        let (survey, choices) = core.survey()?;
        let Survey { elements, judges, refusals, unowned, legacy, ufw } = survey;
        let links = core.host.route().links()?;
        let name = |index: u32| {
            links.iter().find(|link| link.index == index).map(|link| link.name.clone())
        };
        let routes = core.host.route().routes_by_device()?;
        let default: Vec<u32> = routes
            .iter()
            .filter(|(net, _)| net.prefix_len() == 0)
            .map(|(_, index)| *index)
            .collect();
        let uplink =
            default.first().and_then(|index| links.iter().find(|link| link.index == *index));
        let known: Vec<_> = known.into_iter().collect();
        let switch = |name: &str| -> Result<bool> {
            Ok(sysctl::get(name)?.is_some_and(|value| value != "0"))
        };
        Ok(Self {
            networks,
            endpoints,
            elements,
            choices,
            judges,
            refusals,
            forwarding: [switch("ipv4/ip_forward")?, switch("ipv6/conf/all/forwarding")?],
            filtered: sysctl::bridges_are_filtered()?[1],
            unowned,
            legacy,
            ufw,
            firewalld: core.firewalld.standing(),
            addresses: addresses(core, &links)?,
            routes: routes
                .iter()
                .filter(|(net, _)| net.prefix_len() > 0)
                .filter_map(|(net, index)| Some((*net, name(*index)?)))
                .collect(),
            default_routes: default.len(),
            uplink: uplink.map(|link| (link.name.clone(), link.mtu)),
            strict: strict(&links)?,
            resolvers: resolvers(core.config.outside.as_ref().and_then(|outside| outside.dns()))?,
            differences: core.differences(&known)?,
        })
    }

    /// Chains that judge a family.
    pub(super) fn judges(&self, ipv6: bool) -> impl Iterator<Item = &Judge> {
        self.judges.iter().filter(move |(of_ipv6, _)| *of_ipv6 == ipv6).map(|(_, judge)| judge)
    }

    pub(super) fn presence(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        port: PublishedPort,
    ) -> Presence {
        let rules = if port.host_ip.is_ipv4() { self.choices.ipv4 } else { self.choices.ipv6 };
        if rules == Rules::Nobodys {
            return Presence::Nobodys;
        }
        let alone = Endpoint { ports: vec![port], ..endpoint.clone() };
        let mut wanted = ports_of(network, &alone)
            .flat_map(|port| crate::firewall::elements_of_port(&port, &self.choices));
        match wanted.all(|element| self.elements.contains(&element)) {
            true => Presence::There,
            false => Presence::Missing,
        }
    }
}

/// The host's own, but for those on bridges of containers.
fn addresses(core: &Core, links: &[Link]) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for link in links.iter().filter(|link| link.kind != "bridge" || !core.is_bridge(&link.name)) {
        addresses.extend(core.host.route().addresses(link.index)?.iter().map(IpNet::addr));
    }
    Ok(addresses)
}

fn strict(links: &[Link]) -> Result<Vec<String>> {
    let all = sysctl::get("ipv4/conf/all/rp_filter")?.unwrap_or_default();
    let mut strict = Vec::new();
    for link in links.iter().filter(|link| link.kind.is_empty() && link.name != "lo") {
        let own = sysctl::get(&format!("ipv4/conf/{}/rp_filter", link.name))?.unwrap_or_default();
        // The larger counts.
        if all.as_str().max(own.as_str()) == "1" {
            strict.push(link.name.clone());
        }
    }
    Ok(strict)
}

fn resolvers(stand_in: Option<IpAddr>) -> Result<Vec<(IpAddr, bool)>> {
    let servers = files::host_resolver(stand_in)?.servers();
    let asked: Vec<_> = servers
        .into_iter()
        .map(|server| (server, thread::spawn(move || answers(server))))
        .collect();
    Ok(asked.into_iter().map(|(server, asked)| (server, asked.join().unwrap_or(false))).collect())
}

/// Asks who serves the root, as resolvers do when they begin.
fn answers(server: IpAddr) -> bool {
    const QUESTION: [u8; 17] = [0x67, 0x61, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(SocketAddr::new(server, 53))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send(&QUESTION)?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer)?;
        Ok(length >= 12 && answer[..2] == QUESTION[..2])
    };
    ask().unwrap_or(false)
}

/// Whether the old iptables has rules, or refuses what is forwarded. That somebody listed its table, which is then there,
/// does not count.
pub(crate) fn legacy_filters() -> bool {
    use sys::iptables::{Family, filters};
    let tables = [(Family::Ipv4, "ip_tables_names"), (Family::Ipv6, "ip6_tables_names")];
    tables.into_iter().any(|(family, names)| {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
        names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
            && filters(family).unwrap_or(true)
    })
}
