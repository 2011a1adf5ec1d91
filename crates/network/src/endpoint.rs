//! A container's place in a network, decided: which device, which addresses. Functions from what is to what shall be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use stdx::{Error, Id, Result};

use crate::egress::{self, Egress};
use crate::files::Dns;
use crate::ipam::{self, Family};
use crate::model::Model;
use crate::rate::{self, Rate};
use crate::records::{
    DriverKind, Endpoint, IpamPool, IpvlanMode, Lease, Link, Mac, Network, Protocol, ShareMode,
};

/// A container that wants to be connected.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    pub container: Id,
    /// Its name, for `docker network inspect`.
    pub name: String,
    /// In order: the first becomes `eth0`. None at all: loopback only.
    pub networks: Vec<EndpointRequest>,
    /// What is to be published, on whichever network leads out.
    pub ports: Vec<PortRequest>,
    /// What it says that it listens on, for those who look for services.
    pub exposed: Vec<(Protocol, u16)>,
    /// Who knows what we do not.
    pub dns: Dns,
}

/// A port as it was asked for, with `-p` or by the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub container_port: u16,
    /// Everywhere, in both families, when absent.
    pub host_ip: Option<IpAddr>,
    /// Any free one when absent.
    pub host_ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, Default)]
pub struct EndpointRequest {
    /// By name, id or a prefix of it.
    pub network: String,
    pub aliases: Vec<String>,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    /// The container speaks no IPv6, whatever the network does.
    pub without_ipv6: bool,
    /// More addresses, valid on the link only.
    pub link_local: Vec<IpAddr>,
    pub mac: Option<Mac>,
    /// Containers that it shall know by names of its own.
    pub links: Vec<Link>,
    /// What it is called on this network.
    pub dns_names: Vec<String>,
    /// The highest gives the default route.
    pub gw_priority: i64,
    pub driver_opts: BTreeMap<String, String>,
    /// Addresses above that a plugin has given out for it. Filled in by this room.
    pub leases: Vec<Lease>,
    /// What the container may reach outside, instead of what the network says.
    pub egress: Option<Egress>,
    /// How fast the container may be.
    pub rate: Option<Rate>,
}

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// `IFNAMSIZ` without the NUL.
const DEVICE_NAME: usize = 15;

impl Model {
    /// The endpoint a wish becomes. `others` are those the container has or gets with it; not all of them are records yet.
    pub(crate) fn plan(
        &self,
        container: &Id,
        name: &str,
        wish: &EndpointRequest,
        others: &[Arc<Endpoint>],
    ) -> Result<Endpoint> {
        let network = self.find(&wish.network)?;
        check(&network, wish)?;
        if others.iter().any(|endpoint| endpoint.network_id == network.id) {
            return Err(Error::forbidden(format!(
                "endpoint with name {name} already exists in network {}",
                network.name
            )));
        }
        let mut endpoint = Endpoint {
            endpoint_id: self.fresh_id(),
            aliases: wish.aliases.clone(),
            link_local: wish.link_local.clone(),
            links: wish.links.clone(),
            dns_names: wish.dns_names.clone(),
            gw_priority: wish.gw_priority,
            driver_opts: wish.driver_opts.clone(),
            sysctls: sysctls(wish),
            leases: wish.leases.clone(),
            egress: wish.egress.clone(),
            rate: wish.rate,
            ..Endpoint::new(&network, container, name)
        };
        if matches!(network.driver, DriverKind::Host | DriverKind::Null) {
            return Ok(endpoint);
        }
        endpoint.ifname = ifname(&network, wish, others)?;
        let taken = self.taken(&network.id);
        let given_out = !network.ipam.is_null();
        if network.enable_ipv4 && given_out {
            let wanted = wish.ip.map(IpAddr::from);
            let (pool, ip) = address(&network, Family::V4, &taken, wanted)?;
            if let IpAddr::V4(ip) = ip {
                endpoint.ip = Some(ip);
                endpoint.prefix = pool.subnet.prefix_len();
            }
            if let Some(IpAddr::V4(gateway)) = leads_out(&network, pool) {
                endpoint.gateway = Some(gateway);
            }
        }
        if network.enable_ipv6 && given_out && !wish.without_ipv6 {
            let wanted = wish.ip6.map(IpAddr::from);
            let (pool, ip) = address(&network, Family::V6, &taken, wanted)?;
            if let IpAddr::V6(ip) = ip {
                endpoint.ip6 = Some(ip);
                endpoint.prefix6 = pool.subnet.prefix_len();
            }
            if let Some(IpAddr::V6(gateway)) = leads_out(&network, pool) {
                endpoint.gateway6 = Some(gateway);
            }
        }
        endpoint.routed_by_link = !network.internal
            && network.parent.as_ref().is_some_and(|parent| {
                matches!(parent.mode, ShareMode::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
            });
        endpoint.mac = match network.driver {
            // Those of ipvlan all have their parent's.
            DriverKind::Ipvlan => None,
            // The peers know it without being told.
            DriverKind::Overlay => endpoint.ip.map(|ip| Mac::of(ip.into())),
            // A plugin's device has one already.
            DriverKind::Plugin => wish.mac,
            _ => Some(wish.mac.unwrap_or_else(|| self.mac(&network, &endpoint))),
        };
        Ok(endpoint)
    }

    /// The addresses that endpoints of a network have.
    pub(crate) fn taken(&self, network: &Id) -> BTreeSet<IpAddr> {
        let here = self.endpoints.values().filter(|endpoint| endpoint.network_id == *network);
        here.flat_map(|endpoint| endpoint.addresses()).collect()
    }

    /// Made from an address, unless somebody chose the same for another.
    fn mac(&self, network: &Network, endpoint: &Endpoint) -> Mac {
        let made = endpoint.addresses().next().map_or_else(Mac::random, Mac::of);
        let used = |mac: Mac| {
            self.endpoints
                .values()
                .any(|other| other.network_id == network.id && other.mac == Some(mac))
        };
        if used(made) { Mac::random() } else { made }
    }

    /// An id whose device on the host no other endpoint has: seven digits are few enough to meet again.
    fn fresh_id(&self) -> Id {
        loop {
            let id = Id::random();
            let digits = &id.as_str()[..7];
            if !self.endpoints.keys().any(|other| other.as_str().starts_with(digits)) {
                return id;
            }
        }
    }
}

/// What a network cannot give, in Docker's words.
fn check(network: &Network, wish: &EndpointRequest) -> Result<()> {
    if network.config_only {
        return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
    }
    if network.is_predefined() && !wish.aliases.is_empty() {
        return Err(Error::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        ));
    }
    if network.driver == DriverKind::Overlay && wish.mac.is_some() {
        return Err(Error::invalid(
            "containers on an overlay network with static peers cannot choose their MAC addresses",
        ));
    }
    if matches!(wish.egress, Some(Egress::Only(_))) {
        egress::check(network)?;
    }
    rate::check(network, wish.rate)?;
    for wanted in [wish.ip.map(IpAddr::from), wish.ip6.map(IpAddr::from)].into_iter().flatten() {
        check_address(network, wanted).map_err(Error::invalid)?;
    }
    Ok(())
}

/// Whether a network lets its containers choose this address.
pub(crate) fn check_address(network: &Network, wanted: IpAddr) -> Result<(), String> {
    if network.is_predefined() {
        return Err(
            "user specified IP address is supported on user defined networks only".to_owned()
        );
    }
    let mut chosen = network
        .ipam
        .config
        .iter()
        .filter(|pool| pool.chosen && Family::of(&pool.subnet) == Family::of_address(wanted))
        .peekable();
    if chosen.peek().is_none() {
        return Err("user specified IP address is supported only when connecting to networks with user configured subnets".to_owned());
    }
    // What is outside of this host's part of an overlay network is another host's.
    let ours = |pool: &IpamPool| match pool.ip_range {
        Some(range) if network.driver == DriverKind::Overlay => range.contains(&wanted),
        _ => pool.subnet.contains(&wanted),
    };
    if !chosen.any(ours) {
        return Err(format!("no configured subnet or ip-range contain the IP address {wanted}"));
    }
    Ok(())
}

/// The name asked for, else the first number that is free behind the network's prefix.
fn ifname(network: &Network, wish: &EndpointRequest, others: &[Arc<Endpoint>]) -> Result<String> {
    let taken = |name: &str| others.iter().any(|other| other.ifname == name);
    if let Some(name) = wish.driver_opts.get(IFNAME).filter(|name| !name.is_empty()) {
        let bad = name.len() > DEVICE_NAME
            || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
            || matches!(name.as_str(), "." | ".." | "lo" | "all" | "default");
        if bad {
            return Err(Error::invalid(format!("invalid interface name: {name}")));
        }
        if taken(name) {
            return Err(Error::conflict(format!("interface name {name} is already in use")));
        }
        return Ok(name.clone());
    }
    let prefix = match network.bridge.as_ref().map(|bridge| bridge.container_prefix.as_str()) {
        None | Some("") => "eth",
        Some(prefix) => prefix,
    };
    let mut names = (0..).map(|number| format!("{prefix}{number}"));
    Ok(names.find(|name| !taken(name)).expect("numbers do not end"))
}

/// Commas stand between settings, and within a value where no setting begins.
fn sysctls(wish: &EndpointRequest) -> Vec<String> {
    let text = wish.driver_opts.get(SYSCTLS).map(String::as_str).unwrap_or_default();
    let mut settings: Vec<String> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match settings.last_mut() {
            Some(last) if !part.contains('=') => {
                last.push(',');
                last.push_str(part);
            }
            _ => settings.push(part.to_owned()),
        }
    }
    settings
}

/// An address of the family, and the pool it is from: the one wanted, else the first free one of any pool.
fn address<'a>(
    network: &'a Network,
    family: Family,
    taken: &BTreeSet<IpAddr>,
    wanted: Option<IpAddr>,
) -> Result<(&'a IpamPool, IpAddr)> {
    let of_family = network.ipam.config.iter().filter(|pool| Family::of(&pool.subnet) == family);
    for pool in of_family {
        if wanted.is_some_and(|wanted| !pool.subnet.contains(&wanted)) {
            continue;
        }
        if let Some(ip) = ipam::address(pool, taken, wanted)? {
            return Ok((pool, ip));
        }
    }
    let word = if family == Family::V4 { "IPv4" } else { "IPv6" };
    Err(Error::forbidden(format!(
        "no available {word} addresses on this network's address pools: {} ({})",
        network.name, network.id
    )))
}

/// Whom a container sends to what is not on the network: the address set aside for that, else the host's.
fn leads_out(network: &Network, pool: &IpamPool) -> Option<IpAddr> {
    if network.internal {
        return None;
    }
    let set_aside = match pool.subnet {
        IpNet::V4(_) => "DefaultGatewayIPv4",
        IpNet::V6(_) => "DefaultGatewayIPv6",
    };
    let routed_by_bridge = network.bridge.is_some();
    pool.auxiliary.get(set_aside).filter(|_| routed_by_bridge).copied().or(pool.gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(options: &[(&str, &str)]) -> EndpointRequest {
        EndpointRequest {
            driver_opts: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..EndpointRequest::default()
        }
    }

    #[test]
    fn names_of_devices() {
        let network = Network::new("n", DriverKind::Bridge);
        let other = |name: &str| {
            let mut endpoint = Endpoint::new(&network, &Id::random(), "web");
            endpoint.ifname = name.to_owned();
            Arc::new(endpoint)
        };
        let others = [other("eth0"), other("eth2")];
        let ask = |wish: &EndpointRequest| ifname(&network, wish, &others);
        assert_eq!(ask(&wish(&[])).unwrap(), "eth1");
        assert_eq!(ask(&wish(&[(IFNAME, "lan0")])).unwrap(), "lan0");
        let refusal = |name| ask(&wish(&[(IFNAME, name)])).unwrap_err().to_string();
        assert_eq!(refusal("eth2"), "interface name eth2 is already in use");
        assert_eq!(refusal("lo"), "invalid interface name: lo");
        assert_eq!(refusal("a/b"), "invalid interface name: a/b");
    }

    #[test]
    fn settings_of_devices() {
        let one = "net.ipv4.conf.IFNAME.log_martians=1";
        let list = "net.ipv6.conf.IFNAME.x=1,2";
        let wish = wish(&[(SYSCTLS, &format!("{one},{list}"))]);
        assert_eq!(sysctls(&wish), [one, list]);
    }
}
