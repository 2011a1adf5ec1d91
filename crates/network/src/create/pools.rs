//! `IPAM.Config`, understood and completed: a subnet where none was chosen, a gateway where one is needed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use stdx::{Error, Result};

use super::{Gateways, PoolRequest, Surroundings};
use crate::ipam::{self, Family};
use crate::records::{DriverKind, IpamPool, Network};
use crate::words::listed;

/// The pools as they were asked for. All that is wrong is told at once, each in a line of its own.
pub(super) fn understand(requests: &[PoolRequest], enable_ipv6: bool) -> Result<Vec<IpamPool>> {
    let mut problems = Vec::new();
    let pools =
        requests.iter().filter_map(|request| pool(request, enable_ipv6, &mut problems)).collect();
    if problems.is_empty() {
        Ok(pools)
    } else {
        Err(Error::invalid(format!("invalid network config:\n{}", listed(&problems))))
    }
}

/// The pools as the network has them.
pub(super) fn complete(
    network: &Network,
    asked: Vec<IpamPool>,
    gateways: Gateways,
    around: &Surroundings,
) -> Result<Vec<IpamPool>> {
    if network.ipam.is_null() {
        return nobodys(network, &asked);
    }
    let real = around.networks.iter().filter(|network| network.has_subnets());
    let mut taken: Vec<IpNet> =
        real.flat_map(|network| &network.ipam.config).map(|pool| pool.subnet).collect();
    let mut pools = Vec::new();
    for (family, enabled) in [(Family::V4, network.enable_ipv4), (Family::V6, network.enable_ipv6)]
    {
        if !enabled {
            continue;
        }
        let mut chosen: Vec<IpamPool> =
            asked.iter().filter(|pool| Family::of(&pool.subnet) == family).cloned().collect();
        for pool in &chosen {
            // A plugin knows what it gives out.
            if !network.ipam.is_remote()
                && taken.iter().any(|other| ipam::overlap(&pool.subnet, other))
            {
                return Err(Error::forbidden(
                    "invalid pool request: Pool overlaps with other one on this address space",
                ));
            }
            if pool.subnet.prefix_len() == 0 {
                let word = if family == Family::V4 { "ipv4" } else { "ipv6" };
                return Err(Error::invalid(format!("{word} pool is empty")));
            }
            if !network.ipam.is_remote() {
                check_reserved(pool)?;
            }
            taken.push(pool.subnet);
        }
        if chosen.is_empty() {
            // Ours to choose: what the host has routes to is left alone.
            taken.extend(around.routes);
            let subnet = ipam::subnet(around.default_pools, family, &taken)?;
            taken.push(subnet);
            chosen.push(IpamPool::new(subnet));
        }
        for pool in &mut chosen {
            if pool.gateway.is_none() && gateways.of(family) {
                pool.gateway = ipam::gateway(pool);
            }
        }
        pools.append(&mut chosen);
    }
    Ok(pools)
}

/// What is set aside is nobody else's, each of it.
fn check_reserved(pool: &IpamPool) -> Result<()> {
    let border = |ip: &IpAddr| ipam::borders(&pool.subnet).any(|border| border == *ip);
    if let Some(gateway) = pool.gateway.filter(border) {
        return Err(Error::internal(format!(
            "failed to allocate gateway ({gateway}): Address already in use"
        )));
    }
    let mut others = BTreeSet::new();
    for (name, ip) in &pool.auxiliary {
        if border(ip) || pool.gateway == Some(*ip) || !others.insert(*ip) {
            return Err(Error::internal(format!(
                "failed to allocate secondary ip address ({name}:{ip}): Address already in use"
            )));
        }
    }
    Ok(())
}

/// The pools of a network whose addresses nobody gives out: all there are. Our own drivers do not know what to do with them.
fn nobodys(network: &Network, asked: &[IpamPool]) -> Result<Vec<IpamPool>> {
    let families = [
        (Family::V4, network.enable_ipv4, "0.0.0.0/0", "ipv4 pool is empty"),
        (Family::V6, network.enable_ipv6, "::/0", "ipv6 pool is empty"),
    ];
    let enabled: Vec<_> = families.into_iter().filter(|(_, enabled, ..)| *enabled).collect();
    for (family, ..) in &enabled {
        if asked.iter().any(|pool| Family::of(&pool.subnet) == *family) {
            return Err(Error::invalid(
                "null ipam driver does not handle specific address pool requests",
            ));
        }
    }
    match enabled.first() {
        Some((.., refusal)) if network.driver != DriverKind::Plugin => {
            Err(Error::invalid(*refusal))
        }
        _ => Ok(enabled
            .into_iter()
            .map(|(_, _, all, _)| IpamPool::new(all.parse().expect("all of a family's addresses")))
            .collect()),
    }
}

fn pool(request: &PoolRequest, enable_ipv6: bool, problems: &mut Vec<String>) -> Option<IpamPool> {
    let Some(subnet) = cidr(&request.subnet) else {
        problems.push(format!("invalid subnet {}: invalid CIDR block notation", request.subnet));
        return None;
    };
    // Docker does not look at it either.
    if matches!(subnet, IpNet::V6(_)) && !enable_ipv6 {
        return None;
    }
    if subnet != subnet.trunc() {
        problems.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let ip_range = range(&request.ip_range, &subnet, problems);
    let mut address = |what: &str, shown: &str, text: &str| match check_address(text, &subnet) {
        Ok(address) => address,
        Err(problem) => {
            problems.push(format!("invalid {what} {shown}: {problem}"));
            None
        }
    };
    let gateway = address("gateway", &request.gateway, &request.gateway);
    let auxiliary = request
        .auxiliary
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), address("auxiliary address", name, text)?)))
        .collect();
    Some(IpamPool { ip_range, gateway, auxiliary, chosen: true, ..IpamPool::new(subnet) })
}

/// As Go reads it: numbers without zeros before them, which some read as octal, and without a sign.
fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
}

fn range(text: &str, subnet: &IpNet, problems: &mut Vec<String>) -> Option<IpNet> {
    if text.is_empty() {
        return None;
    }
    let Some(range) = cidr(text) else {
        problems.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if Family::of(&range) != Family::of(subnet) {
        problems.push(format!("invalid ip-range {range}: {}", other_family(subnet)));
        return None;
    }
    if range.prefix_len() < subnet.prefix_len() {
        problems.push(format!(
            "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.trunc() {
        problems.push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
    }
    if !ipam::overlap(subnet, &range) {
        problems.push(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    Some(range)
}

fn check_address(text: &str, subnet: &IpNet) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if Family::of_address(address) != Family::of(subnet) {
        return Err(other_family(subnet));
    }
    if !subnet.contains(&address) {
        return Err(format!("parent subnet {subnet} doesn't contain this address"));
    }
    Ok(Some(address))
}

fn other_family(subnet: &IpNet) -> String {
    let family = if matches!(subnet, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
    format!("parent subnet is an {family} block")
}
