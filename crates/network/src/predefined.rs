//! The networks that are always there, named as Docker names them: `bridge`, `host` and `none`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use stdx::{Error, Id, Result};

use crate::config::{Bridge, NetworkConfig};
use crate::host::Host;
use crate::ipam::{self, Family};
use crate::model::Model;
use crate::records::{BridgeDevice, DriverKind, Ipam, IpamPool, Network};

pub(crate) const BRIDGE: &str = "bridge";
const HOST: &str = "host";
const NONE: &str = "none";

impl Network {
    /// Whether it came with the daemon: it cannot be removed, and offers neither aliases nor chosen addresses.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), BRIDGE | HOST | NONE)
    }
}

/// What has to be written so that the records agree with the configuration.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) put: Vec<Network>,
    pub(crate) removed: Vec<Id>,
}

pub(crate) fn changes(config: &NetworkConfig, model: &Model, host: &Host) -> Result<Changes> {
    let recorded = |name: &str| model.networks.values().find(|network| network.name == name);
    let mut changes = Changes::default();
    for (name, driver) in [(HOST, DriverKind::Host), (NONE, DriverKind::Null)] {
        if recorded(name).is_none() {
            changes.put.push(Network::new(name, driver));
        }
    }
    let before = recorded(BRIDGE).map(|network| &**network);
    let Some(device) = device(config, before, model, host)? else {
        changes.removed.extend(before.map(|network| network.id.clone()));
        return Ok(changes);
    };
    let network = default_bridge(config, device, before);
    if let Some(before) = before
        && subnets(before) != subnets(&network)
        && model.endpoints.values().any(|endpoint| endpoint.network_id == before.id)
    {
        tracing::warn!(
            "containers are connected to the default bridge; its subnet changes when they are gone"
        );
        return Ok(changes);
    }
    if before != Some(&network) {
        changes.put.push(network);
    }
    Ok(changes)
}

fn subnets(network: &Network) -> Vec<IpNet> {
    network.ipam.config.iter().map(|pool| pool.subnet).collect()
}

/// The default bridge's device: from `--bip`, else as it was, else a subnet that nobody uses.
fn device(
    config: &NetworkConfig,
    before: Option<&Network>,
    model: &Model,
    host: &Host,
) -> Result<Option<BridgeDevice>> {
    let (name, ours) = match &config.bridge {
        Bridge::Disabled => return Ok(None),
        Bridge::Ours(name) => (name, true),
        Bridge::Existing(name) => (name, false),
    };
    let found = {
        let mut route = host.route();
        match route.link(name)? {
            Some(link) => route.addresses(link.index)?,
            None => Vec::new(),
        }
    };
    let found4 = found.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    });
    let found6 = found.iter().find_map(|net| match net {
        IpNet::V6(net) if !net.addr().is_unicast_link_local() => Some(*net),
        _ => None,
    });
    let before =
        before.and_then(|network| network.bridge.as_ref()).filter(|bridge| bridge.name == *name);
    let before4 = before.and_then(|bridge| bridge.address);
    let address = match (config.bip, config.fixed_cidr) {
        (_, part) if !ours => best_for(part, found4)
            .ok_or_else(|| Error::invalid(format!("the bridge {name} has no IPv4 address")))?,
        (Some(bip), _) => bip,
        (None, Some(part)) => {
            let had = best_for(Some(part), before4.into_iter().chain(found4));
            had.and_then(|had| holding(had, part)).unwrap_or_else(|| first_host(part))
        }
        (None, None) if let Some(had) = before4.or(best_for(None, found4)) => had,
        (None, None) => match unused_subnet(config, Family::V4, model, host)? {
            IpNet::V4(subnet) => first_host(subnet),
            IpNet::V6(_) => unreachable!("of the family asked for"),
        },
    };
    let address6 = match (config.bip6, config.fixed_cidr6) {
        _ if !config.ipv6 && config.bip6.is_none() => None,
        (Some(bip6), _) => Some(bip6),
        (None, Some(subnet)) => Some(first_host6(subnet)),
        (None, None) => match before.and_then(|bridge| bridge.address6).or(found6) {
            Some(address) => Some(address),
            None => match unused_subnet(config, Family::V6, model, host)? {
                IpNet::V6(subnet) => Some(first_host6(subnet)),
                IpNet::V4(_) => unreachable!("of the family asked for"),
            },
        },
    };
    let binding = IpAddr::from(config.host_binding);
    Ok(Some(BridgeDevice {
        name: name.clone(),
        address: Some(address),
        address6,
        mtu: config.mtu,
        icc: config.icc,
        masquerade: config.ip_masq,
        masquerade6: config.ip_masq,
        host_binding: Some(binding).filter(|ip| !ip.is_unspecified()),
        ours,
        ..BridgeDevice::default()
    }))
}

/// Of the addresses that a bridge has, the one whose subnet holds `part`, else one within `part`, else the first.
fn best_for(part: Option<Ipv4Net>, found: impl Iterator<Item = Ipv4Net>) -> Option<Ipv4Net> {
    let found: Vec<_> = found.collect();
    let holds = |net: &&Ipv4Net| part.is_some_and(|part| net.contains(&part.network()));
    let within = |net: &&Ipv4Net| part.is_some_and(|part| part.contains(&net.addr()));
    let chosen = found.iter().find(holds).or_else(|| found.iter().find(within));
    chosen.or(found.first()).copied()
}

/// `had` as an address of the default bridge whose containers get theirs from `part`: in a subnet that holds it, which is
/// made larger where `part` is. `None` if the two have nothing to do with each other.
fn holding(had: Ipv4Net, part: Ipv4Net) -> Option<Ipv4Net> {
    let length = had.prefix_len().min(part.prefix_len());
    let net = Ipv4Net::new(had.addr(), length).expect("a length that one of them had");
    had.contains(&part.network()).then_some(net)
}

/// A subnet of the pools that neither a route of the host nor another network of ours uses.
fn unused_subnet(
    config: &NetworkConfig,
    family: Family,
    model: &Model,
    host: &Host,
) -> Result<IpNet> {
    let mut taken = host.route().routes()?;
    let real = model.networks.values().filter(|network| network.has_subnets());
    taken.extend(real.flat_map(|network| &network.ipam.config).map(|pool| pool.subnet));
    ipam::subnet(&config.default_address_pools, family, &taken)
}

fn first_host(subnet: Ipv4Net) -> Ipv4Net {
    let first = subnet.hosts().next().unwrap_or_else(|| subnet.network());
    Ipv4Net::new(first, subnet.prefix_len()).expect("the prefix was one before")
}

fn first_host6(subnet: Ipv6Net) -> Ipv6Net {
    let first = Ipv6Addr::from_bits(subnet.network().to_bits() | 1);
    Ipv6Net::new(first, subnet.prefix_len()).expect("the prefix was one before")
}

fn default_bridge(
    config: &NetworkConfig,
    device: BridgeDevice,
    before: Option<&Network>,
) -> Network {
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", config.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", config.ip_masq.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", config.host_binding.to_string()),
        ("com.docker.network.bridge.name", device.name.clone()),
        ("com.docker.network.driver.mtu", config.mtu.to_string()),
    ];
    let v4 = device.address.map(|address| IpamPool {
        ip_range: part_of(address, config.fixed_cidr),
        gateway: Some(address.addr().into()),
        auxiliary: set_aside("DefaultGatewayIPv4", config.default_gateway.map(IpAddr::from)),
        chosen: config.bip.is_some() || config.fixed_cidr.is_some(),
        ..IpamPool::new(address.trunc().into())
    });
    let v6 = device.address6.map(|address| IpamPool {
        ip_range: config.fixed_cidr6.map(IpNet::from).filter(|_| config.bip6.is_some()),
        gateway: Some(address.addr().into()),
        auxiliary: set_aside("DefaultGatewayIPv6", config.default_gateway6.map(IpAddr::from)),
        chosen: config.bip6.is_some() || config.fixed_cidr6.is_some(),
        ..IpamPool::new(address.trunc().into())
    });
    let fresh = Network::new(BRIDGE, DriverKind::Bridge);
    Network {
        id: before.map_or(fresh.id, |network| network.id.clone()),
        created: before.map_or(fresh.created, |network| network.created),
        enable_ipv6: v6.is_some(),
        options: options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ipam: Ipam { config: v4.into_iter().chain(v6).collect(), ..Ipam::default() },
        bridge: Some(device),
        ..Network::new(BRIDGE, DriverKind::Bridge)
    }
}

/// Where containers get their addresses from. A part that is outside is no part: the operator is told, and the daemon starts.
fn part_of(address: Ipv4Net, part: Option<Ipv4Net>) -> Option<IpNet> {
    let part = part?;
    if !address.trunc().contains(&part) {
        tracing::warn!(fixed_cidr = %part, bridge = %address, "fixed-cidr is outside the default bridge's subnet");
        return None;
    }
    Some(part.into())
}

/// Docker's way of saying that somebody else than the bridge leads out.
fn set_aside(name: &str, gateway: Option<IpAddr>) -> BTreeMap<String, IpAddr> {
    gateway.into_iter().map(|gateway| (name.to_owned(), gateway)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_part_finds_its_address() {
        let found = ["10.1.0.1/24", "10.2.0.1/16", "10.3.0.9/30"].map(net);
        let best = |part: Option<&str>| best_for(part.map(net), found.into_iter()).unwrap();
        assert_eq!(best(None), net("10.1.0.1/24"));
        assert_eq!(best(Some("10.2.7.0/24")), net("10.2.0.1/16"));
        assert_eq!(best(Some("10.3.0.0/16")), net("10.3.0.9/30"));
        assert_eq!(best(Some("10.9.0.0/16")), net("10.1.0.1/24"));
        assert_eq!(best_for(None, [].into_iter()), None);
    }

    #[test]
    fn an_address_that_was_there_is_kept_while_it_fits() {
        let kept = |had, part| holding(net(had), net(part));
        assert_eq!(kept("10.11.12.13/16", "10.11.22.0/24"), Some(net("10.11.12.13/16")));
        assert_eq!(kept("10.11.0.1/24", "10.11.0.0/16"), Some(net("10.11.0.1/16")));
        assert_eq!(kept("10.11.0.1/24", "10.12.0.0/24"), None);
    }

    #[test]
    fn a_part_lies_within() {
        assert_eq!(part_of(net("10.1.0.1/16"), None), None);
        assert_eq!(
            part_of(net("10.1.0.1/16"), Some(net("10.1.2.0/24"))),
            Some("10.1.2.0/24".parse().unwrap())
        );
        assert_eq!(part_of(net("10.1.0.1/24"), Some(net("10.1.0.0/16"))), None);
    }
}
