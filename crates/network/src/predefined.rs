//! The networks that are always there, named as Docker names them: `bridge`, `host` and `none`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use stdx::{Error, Id, Result};

use crate::config::{Bridge, NetworkConfig};
use crate::host::Host;
use crate::ipam::{self, Family};
use crate::networks::Model;
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
        && before.ipam.config.first().map(|pool| pool.subnet)
            != network.ipam.config.first().map(|pool| pool.subnet)
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
            Some(link) => route.addresses(link.index)?.first().copied(),
            None => None,
        }
    };
    let address = match before.and_then(|network| network.bridge.as_ref()) {
        _ if !ours => {
            found.ok_or_else(|| Error::invalid(format!("the bridge {name} has no IPv4 address")))?
        }
        _ if config.bip.is_some() => config.bip.expect("just seen"),
        Some(BridgeDevice { name: known, address: Some(address), .. }) if known == name => *address,
        _ => match found {
            Some(address) => address,
            None => first_host(unused_subnet(config, model, host)?),
        },
    };
    Ok(Some(BridgeDevice {
        name: name.clone(),
        address: Some(address),
        mtu: config.mtu,
        icc: config.icc,
        masquerade: config.ip_masq,
        host_binding: Some(config.host_binding.into()).filter(|ip: &IpAddr| !ip.is_unspecified()),
        ours,
        ..BridgeDevice::default()
    }))
}

/// A subnet of the pools that neither a route of the host nor another network of ours uses.
fn unused_subnet(config: &NetworkConfig, model: &Model, host: &Host) -> Result<Ipv4Net> {
    let mut taken: Vec<IpNet> = host.route().routes()?.into_iter().map(IpNet::from).collect();
    taken.extend(
        model.networks.values().flat_map(|network| &network.ipam.config).map(|pool| pool.subnet),
    );
    match ipam::subnet(&config.default_address_pools, Family::V4, &taken)? {
        IpNet::V4(subnet) => Ok(subnet),
        IpNet::V6(_) => unreachable!("of the family asked for"),
    }
}

fn first_host(subnet: Ipv4Net) -> Ipv4Net {
    let first = subnet.hosts().next().unwrap_or_else(|| subnet.network());
    Ipv4Net::new(first, subnet.prefix_len()).expect("the prefix was one before")
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
    let address = device.address.expect("the default bridge has an IPv4 address");
    let pool = IpamPool {
        subnet: address.trunc().into(),
        ip_range: config.fixed_cidr.map(IpNet::from),
        gateway: Some(config.default_gateway.unwrap_or_else(|| address.addr()).into()),
        auxiliary: match config.default_gateway {
            Some(_) => BTreeMap::from([("DefaultGatewayIPv4".to_owned(), address.addr().into())]),
            None => BTreeMap::new(),
        },
        chosen: config.bip.is_some(),
    };
    let fresh = Network::new(BRIDGE, DriverKind::Bridge);
    Network {
        id: before.map_or(fresh.id, |network| network.id.clone()),
        created: before.map_or(fresh.created, |network| network.created),
        options: options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ipam: Ipam { config: vec![pool], ..Ipam::default() },
        bridge: Some(device),
        ..Network::new(BRIDGE, DriverKind::Bridge)
    }
}
