//! Networks that users make: what they ask for becomes a record, or a refusal in Docker's words. Nothing here touches the
//! kernel; what it has is told in [`Surroundings`].

mod bridge;
mod overlay;
mod parent;
mod pools;

use std::collections::BTreeMap;

use ipnet::IpNet;
use stdx::{Error, Result};

use crate::config::AddressPool;
use crate::egress::{self, Egress};
use crate::ipam::Family;
use crate::netlink::route::Link;
use crate::records::{DriverKind, Ipam, IpamPool, Lease, Network, Scope};
use crate::remote::Pools;

/// The body of `POST /networks/create`, understood as far as it is this room's.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    pub name: String,
    /// Empty means `bridge`.
    pub driver: String,
    /// Empty means what the driver has, `local`.
    pub scope: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    /// To be a configuration for other networks, no network.
    pub config_only: bool,
    /// The name of such a configuration; empty for none.
    pub config_from: String,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// What its containers may reach outside; everything when absent.
    pub egress: Option<Egress>,
}

/// One of `IPAM.Config`, as it was written.
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// What stands around a new network.
pub(crate) struct Surroundings<'a> {
    pub(crate) networks: Vec<&'a Network>,
    /// The host's devices.
    pub(crate) devices: &'a [Link],
    /// Routes of the host, which a subnet of our choice must not shadow.
    pub(crate) routes: &'a [IpNet],
    pub(crate) default_pools: &'a [AddressPool],
    /// What the plugin that was asked for says of the network, if there is such a plugin.
    pub(crate) plugin: Option<Character>,
    /// What the plugin gave that gives out the addresses, if it is one.
    pub(crate) pools: Option<&'a Pools>,
    /// By driver: what an option is when nobody says.
    pub(crate) default_options: &'a BTreeMap<String, BTreeMap<String, String>>,
}

/// What a plugin says of a network before that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Character {
    /// What it is to other hosts.
    pub(crate) scope: Scope,
    pub(crate) gateways: Gateways,
}

impl Default for Character {
    fn default() -> Self {
        Self { scope: Scope::Local, gateways: Gateways::BOTH }
    }
}

/// The record of the network asked for.
pub(crate) fn plan(request: &CreateRequest, around: &Surroundings) -> Result<Network> {
    let driver = driver(request, around)?;
    check_name(request, around)?;
    check_configuration(request, around)?;
    let request = &with_defaults(request, driver, around);
    let (enable_ipv4, enable_ipv6) = families(request)?;
    let mut network = Network {
        internal: request.internal,
        attachable: request.attachable,
        enable_ipv4,
        enable_ipv6,
        config_only: request.config_only,
        config_from: request.config_from.clone(),
        ipam: Ipam {
            driver: match around.pools {
                Some(_) => request.ipam_driver.clone(),
                None if request.ipam_driver == Ipam::NULL => Ipam::NULL.to_owned(),
                None => Ipam::default().driver,
            },
            options: request.ipam_options.clone(),
            space: around.pools.map(|leased| leased.space.clone()).unwrap_or_default(),
            ..Ipam::default()
        },
        options: request.options.clone(),
        labels: request.labels.clone(),
        egress: request.egress.clone(),
        ..Network::new(&request.name, driver)
    };
    let mut asked = pools::understand(
        around.pools.map_or(&request.pools, |leased| &leased.requests),
        enable_ipv6,
    )?;
    if let Some(leased) = around.pools {
        for pool in &mut asked {
            pool.id = leased.ids.get(&pool.subnet).cloned().unwrap_or_default();
            let of_pool = |lease: &&Lease| pool.subnet.contains(&lease.address);
            pool.leases = leased.leases.iter().filter(of_pool).cloned().collect();
        }
    }
    if request.config_only {
        network.driver = DriverKind::Null;
        network.ipam.config = asked;
        return Ok(network);
    }
    let copied = match request.config_from.as_str() {
        "" => None,
        name => Some(apply_configuration(&mut network, name, around)?),
    };
    // Both what was asked for here and what was copied is still without what Docker chooses itself.
    let asked = copied.unwrap_or(asked);
    match network.driver {
        DriverKind::Bridge => {
            if !network.enable_ipv4 && !network.enable_ipv6 {
                return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
            }
            let gateways = bridge::gateways(&network)?;
            network.ipam.config = pools::complete(&network, asked, gateways, around)?;
            network.bridge = Some(bridge::device(&network, around)?);
        }
        DriverKind::Macvlan | DriverKind::Ipvlan => {
            let parent = parent::device(&network, around)?;
            network.ipam.config = pools::complete(&network, asked, Gateways::NONE, around)?;
            network.parent = Some(parent);
        }
        DriverKind::Overlay => {
            network.ipam.config = pools::complete(&network, asked, Gateways::NONE, around)?;
            let device = overlay::device(&network, around)?;
            // As Docker: who has to say the same elsewhere can read it.
            network.options.entry(overlay::VNI.to_owned()).or_insert(device.vni.to_string());
            network.overlay = Some(device);
        }
        DriverKind::Plugin => {
            network.plugin.clone_from(&request.driver);
            let character = around.plugin.unwrap_or_default();
            network.scope = character.scope;
            network.ipam.config = pools::complete(&network, asked, character.gateways, around)?;
        }
        DriverKind::Host | DriverKind::Null => unreachable!("refused before"),
    }
    if matches!(network.egress, Some(Egress::Only(_))) {
        egress::check(&network)?;
    }
    Ok(network)
}

/// Whether a family of a network has an address that leads out, also if nobody chose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gateways {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Gateways {
    pub(crate) const BOTH: Self = Self { v4: true, v6: true };
    pub(crate) const NONE: Self = Self { v4: false, v6: false };

    pub(crate) fn of(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// A driver and an addresses' driver that are ours need no plugins.
pub(crate) fn plugins_wanted(request: &CreateRequest) -> (Option<&str>, Option<&str>) {
    let ours = ["", "bridge", "macvlan", "ipvlan", "host", "null", "overlay"];
    let driver =
        Some(request.driver.as_str()).filter(|name| !request.config_only && !ours.contains(name));
    let ipam = Some(request.ipam_driver.as_str())
        .filter(|name| !request.config_only && !matches!(*name, "" | "default" | Ipam::NULL));
    (driver, ipam)
}

/// Which addresses that lead out a network has without anybody's choice, where a plugin gives the addresses out.
pub(crate) fn gateways(request: &CreateRequest, plugin: Option<Character>) -> Gateways {
    match (request.driver.as_str(), plugin) {
        (_, Some(character)) => character.gateways,
        // What is beyond the wire is not ours to say.
        ("macvlan" | "ipvlan", None) => Gateways::NONE,
        _ => Gateways::BOTH,
    }
}

fn driver(request: &CreateRequest, around: &Surroundings) -> Result<DriverKind> {
    match request.driver.as_str() {
        "" | "bridge" => Ok(DriverKind::Bridge),
        "macvlan" => Ok(DriverKind::Macvlan),
        "ipvlan" => Ok(DriverKind::Ipvlan),
        // A configuration has no driver yet.
        _ if request.config_only => Ok(DriverKind::Null),
        name @ ("host" | "null") => {
            Err(Error::forbidden(format!("only one instance of \"{name}\" network is allowed")))
        }
        "overlay" if request.options.contains_key(overlay::PEERS) => Ok(DriverKind::Overlay),
        "overlay" => Err(Error::forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        _ if around.plugin.is_some() => Ok(DriverKind::Plugin),
        other => Err(Error::not_found(format!("plugin \"{other}\" not found"))),
    }
}

fn check_name(request: &CreateRequest, around: &Surroundings) -> Result<()> {
    let name = &request.name;
    if name.trim().is_empty() {
        return Err(Error::invalid(format!("invalid name: {name}")));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
        // Docker's has a blank at its end, too.
        return Err(Error::forbidden(format!(
            "operation is not permitted on predefined {name} network "
        )));
    }
    if around.networks.iter().any(|network| network.name == *name) {
        return Err(Error::conflict(format!("network with name {name} already exists")));
    }
    Ok(())
}

fn check_configuration(request: &CreateRequest, around: &Surroundings) -> Result<()> {
    let default_ipam = matches!(request.ipam_driver.as_str(), "" | "default");
    if request.config_only {
        if request.ingress || request.internal || request.attachable || !request.scope.is_empty() {
            return Err(Error::forbidden(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
            ));
        }
        if !request.config_from.is_empty() {
            return Err(Error::forbidden(
                "a configuration network cannot depend on another configuration network",
            ));
        }
    } else if !request.config_from.is_empty() {
        if !default_ipam
            || request.enable_ipv4 == Some(false)
            || request.enable_ipv6 == Some(true)
            || !request.labels.is_empty()
            || request.ipam_options.as_ref().is_some_and(|options| !options.is_empty())
            || !request.pools.is_empty()
        {
            return Err(Error::forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        if !request.options.is_empty() {
            return Err(Error::forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
    }
    if request.ingress {
        return Err(Error::forbidden("Ingress network can only be global scope network"));
    }
    match request.scope.as_str() {
        "" | "local" => {}
        "swarm" => {
            return Err(Error::forbidden(
                "cannot create a swarm scoped network when swarm is not active",
            ));
        }
        other => return Err(Error::invalid(format!("invalid network scope: {other}"))),
    }
    if !default_ipam && request.ipam_driver != Ipam::NULL && around.pools.is_none() {
        return Err(Error::not_found(format!("plugin \"{}\" not found", request.ipam_driver)));
    }
    Ok(())
}

/// The request with the daemon's `--default-network-opt` put in where it is silent.
fn with_defaults(
    request: &CreateRequest,
    driver: DriverKind,
    around: &Surroundings,
) -> CreateRequest {
    let mut request = request.clone();
    if request.config_from.is_empty()
        && let Some(options) = around.default_options.get(driver.as_str())
    {
        for (name, value) in options {
            request.options.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    // What was said in the request itself is not contradicted by an option.
    if request.enable_ipv4.is_some() {
        request.options.remove(ENABLE_IPV4);
    }
    if request.enable_ipv6.is_some() {
        request.options.remove(ENABLE_IPV6);
    }
    request
}

pub(crate) fn families(request: &CreateRequest) -> Result<(bool, bool)> {
    let wanted = |said: Option<bool>, option: &str, default: bool| match said {
        Some(said) => Ok(said),
        None => match request.options.get(option).map(|text| truth(text)) {
            None => Ok(default),
            Some(Some(value)) => Ok(value),
            Some(None) => Err(Error::invalid(format!("driver-opt {option:?} is not a valid bool"))),
        },
    };
    let v4 = wanted(request.enable_ipv4, ENABLE_IPV4, true)?;
    let v6 = wanted(request.enable_ipv6, ENABLE_IPV6, false)?;
    Ok((v4, v6))
}

/// Takes over what a configuration says, and returns its pools.
fn apply_configuration(
    network: &mut Network,
    name: &str,
    around: &Surroundings,
) -> Result<Vec<IpamPool>> {
    let from = around
        .networks
        .iter()
        .find(|network| network.config_only && network.name == name)
        .ok_or_else(|| {
        Error::not_found(format!("configuration network {name:?} does not exist"))
    })?;
    network.enable_ipv4 = from.enable_ipv4;
    network.enable_ipv6 = from.enable_ipv6;
    network.labels.clone_from(&from.labels);
    network.egress = network.egress.take().or_else(|| from.egress.clone());
    network.options.clone_from(&from.options);
    network.ipam.options.clone_from(&from.ipam.options);
    Ok(from.ipam.config.clone())
}

/// A boolean as Go's `strconv.ParseBool` reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
