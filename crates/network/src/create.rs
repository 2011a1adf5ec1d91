//! Networks that users make: what they ask for becomes a record, or a refusal in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use stdx::{Error, Id, Result};

use crate::config::AddressPool;
use crate::ipam::{self, Family};
use crate::records::{BridgeDevice, DriverKind, Ipam, IpamPool, Network};

/// The body of `POST /networks/create`, understood as far as it is this room's.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    pub name: String,
    /// Empty means `bridge`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: bool,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// One of `IPAM.Config`, as it was written.
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

/// The MTU of networks that do not choose one; the daemon's `--mtu` is for the default bridge.
const MTU: u32 = 1500;

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const DRIVER_MTU: &str = "com.docker.network.driver.mtu";
/// Options that would change what the network does, and that we cannot honour yet.
const NOT_YET: [&str; 3] = [
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.host_ipv4",
];

/// What stands around a new network.
pub(crate) struct Surroundings<'a> {
    pub(crate) networks: Vec<&'a Network>,
    /// Names of the host's devices.
    pub(crate) devices: Vec<&'a str>,
    /// Routes of the host, which a subnet of our choice must not shadow.
    pub(crate) routes: Vec<Ipv4Net>,
    pub(crate) default_pools: &'a [AddressPool],
}

/// The record of the network asked for.
pub(crate) fn plan(request: &CreateRequest, around: &Surroundings) -> Result<Network> {
    driver(&request.driver)?;
    if request.name.trim().is_empty() {
        return Err(Error::invalid(format!("invalid name: {}", request.name)));
    }
    if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(Error::forbidden(format!(
            "operation is not permitted on predefined {} network",
            request.name
        )));
    }
    if around.networks.iter().any(|network| network.name == request.name) {
        return Err(Error::conflict(format!("network with name {} already exists", request.name)));
    }
    if request.ingress {
        return Err(Error::not_implemented("ingress networks are not supported yet"));
    }
    if request.enable_ipv6 {
        return Err(Error::not_implemented("IPv6 networks are not supported yet"));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(Error::not_implemented(format!(
            "IPAM driver {} is not supported yet",
            request.ipam_driver
        )));
    }
    if let Some(option) = NOT_YET.into_iter().find(|option| {
        request
            .options
            .get(*option)
            .is_some_and(|value| !matches!(value.as_str(), "" | "nat" | "false"))
    }) {
        return Err(Error::not_implemented(format!(
            "network option {option} is not supported yet"
        )));
    }
    let id = Id::random();
    let pool = pool(&request.pools, around)?;
    let bridge = bridge(request, &id, &pool)?;
    if let Some(other) = around
        .networks
        .iter()
        .find(|network| network.bridge.as_ref().is_some_and(|one| one.name == bridge.name))
    {
        return Err(Error::forbidden(format!(
            "conflicts with network {} ({}): networks have same bridge name",
            other.id, other.name
        )));
    }
    if around.devices.contains(&bridge.name.as_str()) {
        return Err(Error::not_implemented(format!(
            "using the existing device {} for a network is not supported yet",
            bridge.name
        )));
    }
    Ok(Network {
        id,
        internal: request.internal,
        attachable: request.attachable,
        ipam: Ipam { options: request.ipam_options.clone(), config: vec![pool], ..Ipam::default() },
        options: request.options.clone(),
        labels: request.labels.clone(),
        bridge: Some(bridge),
        ..Network::new(&request.name, DriverKind::Bridge)
    })
}

fn driver(name: &str) -> Result<()> {
    match name {
        "" | "bridge" => Ok(()),
        "host" | "null" => {
            Err(Error::forbidden(format!("only one instance of \"{name}\" network is allowed")))
        }
        "macvlan" | "ipvlan" | "overlay" => {
            Err(Error::not_implemented(format!("the network driver {name} is not supported yet")))
        }
        other => Err(Error::not_found(format!("plugin \"{other}\" not found"))),
    }
}

fn bridge(request: &CreateRequest, id: &Id, pool: &IpamPool) -> Result<BridgeDevice> {
    let option = |name: &str| {
        request.options.get(name).map(String::as_str).filter(|value| !value.is_empty())
    };
    let flag = |name: &str| match option(name) {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(Error::invalid(format!(
            "failed to parse {name} value: {other:?} (strconv.ParseBool: parsing {other:?}: invalid syntax)"
        ))),
    };
    let mtu = match option(DRIVER_MTU) {
        None => MTU,
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid(format!("failed to parse {DRIVER_MTU} value: {text:?}")))?,
    };
    let name = match option(BRIDGE_NAME) {
        Some(name)
            if name.len() > 15 || name.contains(['/', ' ']) || name == "." || name == ".." =>
        {
            return Err(Error::invalid(format!("invalid bridge name: {name}")));
        }
        Some(name) => name.to_owned(),
        None => format!("br-{}", id.short()),
    };
    let address = match pool.gateway {
        Some(IpAddr::V4(host)) => Ipv4Net::new(host, pool.subnet.prefix_len()).ok(),
        _ => None,
    };
    Ok(BridgeDevice {
        name,
        address,
        mtu,
        icc: flag(ICC)?,
        masquerade: flag(MASQUERADE)?,
        ..BridgeDevice::default()
    })
}

/// The pool as asked for, completed: a subnet where none was chosen, its first address as the gateway.
fn pool(requests: &[PoolRequest], around: &Surroundings) -> Result<IpamPool> {
    let mut taken: Vec<IpNet> = around
        .networks
        .iter()
        .flat_map(|network| &network.ipam.config)
        .map(|pool| pool.subnet)
        .collect();
    let request = match requests {
        [] => PoolRequest::default(),
        [one] => one.clone(),
        _ => {
            return Err(Error::not_implemented(
                "networks with several subnets are not supported yet",
            ));
        }
    };
    let mut pool = if request.subnet.is_empty() {
        if !request.ip_range.is_empty() || !request.gateway.is_empty() {
            return Err(Error::invalid(
                "invalid network config:\ninvalid subnet : invalid CIDR block notation",
            ));
        }
        taken.extend(around.routes.iter().copied().map(IpNet::from));
        let subnet = ipam::subnet(around.default_pools, Family::V4, &taken)?;
        IpamPool {
            subnet,
            ip_range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            chosen: false,
        }
    } else {
        let pool = understand(&request).map_err(|problems| {
            Error::invalid(format!("invalid network config:\n{}", problems.join("\n")))
        })?;
        if taken.iter().any(|other| ipam::overlap(&pool.subnet, other)) {
            return Err(Error::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        pool
    };
    if pool.gateway.is_none() {
        pool.gateway = ipam::gateway(&pool);
    }
    Ok(pool)
}

/// Every problem at once, each in a line of its own.
fn understand(request: &PoolRequest) -> Result<IpamPool, Vec<String>> {
    let mut problems = Vec::new();
    let subnet = match request.subnet.parse::<IpNet>() {
        Ok(IpNet::V4(subnet)) => subnet,
        Ok(IpNet::V6(_)) => return Err(vec!["IPv6 subnets are not supported yet".to_owned()]),
        Err(_) => {
            return Err(vec![format!(
                "invalid subnet {}: invalid CIDR block notation",
                request.subnet
            )]);
        }
    };
    if subnet != subnet.trunc() {
        problems.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let ip_range = match request.ip_range.as_str() {
        "" => None,
        text => match text.parse::<IpNet>() {
            Err(_) => {
                problems.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
                None
            }
            Ok(IpNet::V6(range)) => {
                problems.push(format!("invalid ip-range {range}: parent subnet is an IPv4 block"));
                None
            }
            Ok(IpNet::V4(range)) => {
                if range.prefix_len() < subnet.prefix_len() {
                    problems.push(format!("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"));
                }
                if range != range.trunc() {
                    problems
                        .push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
                }
                if !subnet.contains(&range.addr()) {
                    problems.push(format!(
                        "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
                    ));
                }
                Some(range)
            }
        },
    };
    let mut address = |what: &str, text: &str| match text.parse::<IpAddr>() {
        Err(_) => {
            problems.push(format!("invalid {what} {text}: invalid address"));
            None
        }
        Ok(IpAddr::V6(ip)) => {
            problems.push(format!("invalid {what} {ip}: parent subnet is an IPv4 block"));
            None
        }
        Ok(IpAddr::V4(ip)) => {
            if !subnet.contains(&ip) {
                problems.push(format!(
                    "invalid {what} {ip}: parent subnet {subnet} doesn't contain this address"
                ));
            }
            Some(IpAddr::V4(ip))
        }
    };
    let gateway = match request.gateway.as_str() {
        "" => None,
        text => address("gateway", text),
    };
    let auxiliary = request
        .auxiliary
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), address("auxiliary address", text)?)))
        .collect();
    if problems.is_empty() {
        let ip_range = ip_range.map(IpNet::from);
        Ok(IpamPool { subnet: subnet.into(), ip_range, gateway, auxiliary, chosen: true })
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use stdx::Kind;

    use super::*;

    fn around<'a>(networks: Vec<&'a Network>, pools: &'a [AddressPool]) -> Surroundings<'a> {
        Surroundings {
            networks,
            devices: vec!["docker0"],
            routes: vec!["172.17.0.0/16".parse().unwrap()],
            default_pools: pools,
        }
    }

    fn request(change: impl FnOnce(&mut CreateRequest)) -> CreateRequest {
        let mut request = CreateRequest { name: "net".to_owned(), ..CreateRequest::default() };
        change(&mut request);
        request
    }

    fn subnet(subnet: &str, ip_range: &str, gateway: &str) -> Vec<PoolRequest> {
        vec![PoolRequest {
            subnet: subnet.to_owned(),
            ip_range: ip_range.to_owned(),
            gateway: gateway.to_owned(),
            auxiliary: BTreeMap::new(),
        }]
    }

    #[track_caller]
    fn planned(change: impl FnOnce(&mut CreateRequest)) -> Network {
        plan(&request(change), &around(Vec::new(), &AddressPool::docker())).unwrap()
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut CreateRequest), kind: Kind, words: &str) {
        let existing = planned(|request| {
            request.name = "taken".to_owned();
            request.pools = subnet("10.1.0.0/16", "", "");
            request.options.insert(BRIDGE_NAME.to_owned(), "br-taken".to_owned());
        });
        let pools = AddressPool::docker();
        let err = plan(&request(change), &around(vec![&existing], &pools)).unwrap_err();
        let words = words.replace("{id}", existing.id.as_str());
        assert_eq!((err.kind(), err.to_string()), (kind, words));
    }

    #[test]
    fn nothing_chosen() {
        let network = planned(|_| {});
        let pool = &network.ipam.config[0];
        assert_eq!((pool.subnet.to_string(), pool.chosen), ("172.18.0.0/16".to_owned(), false));
        let bridge = network.bridge.as_ref().unwrap();
        assert_eq!(bridge.address.unwrap().to_string(), "172.18.0.1/16");
        assert_eq!(bridge.name, format!("br-{}", network.id.short()));
        assert!(bridge.icc && bridge.masquerade && bridge.mtu == 1500);
    }

    #[test]
    fn everything_chosen() {
        let network = planned(|request| {
            request.pools = subnet("10.5.0.0/24", "10.5.0.128/25", "10.5.0.254");
            for (name, value) in [
                (BRIDGE_NAME, "mine0"),
                (ICC, "false"),
                (MASQUERADE, "false"),
                (DRIVER_MTU, "1400"),
            ] {
                request.options.insert(name.to_owned(), value.to_owned());
            }
        });
        assert_eq!(
            network.bridge.unwrap(),
            BridgeDevice {
                name: "mine0".to_owned(),
                address: "10.5.0.254/24".parse().ok(),
                mtu: 1400,
                icc: false,
                masquerade: false,
                ..BridgeDevice::default()
            }
        );
        assert!(network.ipam.config[0].chosen);
    }

    #[test]
    fn refusals() {
        refused(|request| request.name.clear(), Kind::Invalid, "invalid name: ");
        refused(
            |request| request.name = "taken".to_owned(),
            Kind::Conflict,
            "network with name taken already exists",
        );
        refused(
            |request| request.name = "host".to_owned(),
            Kind::Forbidden,
            "operation is not permitted on predefined host network",
        );
        refused(
            |request| request.driver = "weave".to_owned(),
            Kind::NotFound,
            "plugin \"weave\" not found",
        );
        refused(
            |request| request.driver = "overlay".to_owned(),
            Kind::NotImplemented,
            "the network driver overlay is not supported yet",
        );
        refused(
            |request| request.pools = subnet("10.1.2.0/24", "", ""),
            Kind::Forbidden,
            "invalid pool request: Pool overlaps with other one on this address space",
        );
        refused(
            |request| {
                request.options.insert(BRIDGE_NAME.to_owned(), "br-taken".to_owned());
            },
            Kind::Forbidden,
            "conflicts with network {id} (taken): networks have same bridge name",
        );
        refused(
            |request| {
                request.options.insert(BRIDGE_NAME.to_owned(), "docker0".to_owned());
            },
            Kind::NotImplemented,
            "using the existing device docker0 for a network is not supported yet",
        );
        refused(
            |request| request.pools = subnet("10.5.0.1/24", "10.6.0.0/25", "10.7.0.1"),
            Kind::Invalid,
            "invalid network config:\n\
             invalid subnet 10.5.0.1/24: it should be 10.5.0.0/24\n\
             invalid ip-range 10.6.0.0/25: parent subnet 10.5.0.1/24 doesn't contain ip-range\n\
             invalid gateway 10.7.0.1: parent subnet 10.5.0.1/24 doesn't contain this address",
        );
    }
}
