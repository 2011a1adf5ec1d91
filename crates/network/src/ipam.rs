//! Which subnet, which address: functions from what is taken to what is free. There is no allocator state.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use stdx::{Error, Result};

use crate::config::AddressPool;
use crate::records::IpamPool;

/// The first subnet of the pools that overlaps nothing.
pub(crate) fn subnet(pools: &[AddressPool], taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    pools
        .iter()
        .filter_map(|pool| pool.base.subnets(pool.size).ok())
        .flatten()
        .find(|candidate| !taken.iter().any(|other| overlap(candidate, other)))
        .ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
}

pub(crate) fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// An address of the pool: the one wanted, or the lowest free one, as Docker gives them out.
///
/// `taken` holds the addresses of endpoints. What nobody may have — the subnet's first and last address, the gateway,
/// auxiliary addresses — is known from the pool.
pub(crate) fn address(
    pool: &IpamPool,
    taken: &BTreeSet<Ipv4Addr>,
    wanted: Option<Ipv4Addr>,
) -> Result<Option<Ipv4Addr>> {
    let subnet = pool.subnet;
    let reserved = |address: Ipv4Addr| {
        let border = subnet.prefix_len() < 31
            && (address == subnet.network() || address == subnet.broadcast());
        border
            || pool.gateway == Some(address)
            || pool.auxiliary.values().any(|other| *other == address)
    };
    if let Some(wanted) = wanted {
        if !subnet.contains(&wanted) {
            return Err(Error::invalid(format!(
                "no configured subnet or ip-range contain the IP address {wanted}"
            )));
        }
        if reserved(wanted) || taken.contains(&wanted) {
            return Err(Error::forbidden("Address already in use"));
        }
        return Ok(Some(wanted));
    }
    let range = pool.ip_range.unwrap_or(subnet);
    let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
    let mut next = Some(first);
    let mut neighbours = taken.range(Ipv4Addr::from(first)..=Ipv4Addr::from(last)).peekable();
    while let Some(candidate) = next.filter(|candidate| *candidate <= last) {
        let address = Ipv4Addr::from(candidate);
        if neighbours.peek() == Some(&&address) {
            neighbours.next();
        } else if !reserved(address) {
            return Ok(Some(address));
        }
        next = candidate.checked_add(1);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, range: Option<&str>, gateway: &str) -> IpamPool {
        IpamPool {
            subnet: subnet.parse().unwrap(),
            ip_range: range.map(|range| range.parse().unwrap()),
            gateway: gateway.parse().ok(),
            auxiliary: BTreeMap::new(),
            chosen: true,
        }
    }

    fn ips(texts: &[&str]) -> BTreeSet<Ipv4Addr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(pool: &IpamPool, taken: &[&str], expected: Option<&str>) {
        let found = address(pool, &ips(taken), None).unwrap();
        assert_eq!(found.map(|ip| ip.to_string()).as_deref(), expected);
    }

    #[test]
    fn lowest_free() {
        let docker = pool("172.17.0.0/16", None, "172.17.0.1");
        check(&docker, &[], Some("172.17.0.2"));
        check(&docker, &["172.17.0.2", "172.17.0.3", "172.17.0.5"], Some("172.17.0.4"));
        check(&docker, &["172.17.0.3"], Some("172.17.0.2"));
    }

    #[test]
    fn small_pools_end() {
        let tiny = pool("10.0.0.0/29", None, "10.0.0.1");
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        check(&tiny, &all[..4], Some("10.0.0.6"));
        check(&tiny, &all, None);
        check(&pool("10.0.0.0/31", None, "10.0.0.0"), &[], Some("10.0.0.1"));
        check(&pool("255.255.255.254/31", None, "255.255.255.254"), &["255.255.255.255"], None);
    }

    #[test]
    fn range_narrows_and_auxiliary_is_skipped() {
        let mut narrow = pool("10.0.0.0/24", Some("10.0.0.64/30"), "10.0.0.1");
        check(&narrow, &[], Some("10.0.0.64"));
        narrow.auxiliary.insert("router".to_owned(), "10.0.0.64".parse().unwrap());
        check(&narrow, &["10.0.0.65"], Some("10.0.0.66"));
        check(&narrow, &["10.0.0.65", "10.0.0.66", "10.0.0.67"], None);
    }

    #[test]
    fn wanted() {
        let docker = pool("172.17.0.0/16", Some("172.17.9.0/24"), "172.17.0.1");
        let ask = |ip: &str| address(&docker, &ips(&["172.17.0.7"]), Some(ip.parse().unwrap()));
        assert_eq!(ask("172.17.3.3").unwrap().unwrap().to_string(), "172.17.3.3");
        for taken in ["172.17.0.7", "172.17.0.1", "172.17.0.0", "172.17.255.255"] {
            assert_eq!(ask(taken).unwrap_err().to_string(), "Address already in use");
        }
        assert_eq!(
            ask("10.0.0.1").unwrap_err().to_string(),
            "no configured subnet or ip-range contain the IP address 10.0.0.1"
        );
    }

    #[test]
    fn subnets_avoid_what_is_there() {
        let pools = AddressPool::docker();
        let choose = |taken: &[&str]| {
            let taken: Vec<Ipv4Net> = taken.iter().map(|net| net.parse().unwrap()).collect();
            subnet(&pools, &taken).map(|net| net.to_string())
        };
        assert_eq!(choose(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(choose(&["172.17.4.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(choose(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(choose(&["172.16.0.0/12", "192.168.1.0/24"]).unwrap(), "192.168.16.0/20");
        assert_eq!(
            choose(&["172.16.0.0/12", "192.168.0.0/16"]).unwrap_err().to_string(),
            "all predefined address pools have been fully subnetted"
        );
    }

    proptest! {
        #[test]
        fn never_twice_never_outside(prefix in 20u8..=30, taken in proptest::collection::btree_set(0u32..5000, 0..200)) {
            let subnet = Ipv4Net::new(Ipv4Addr::new(10, 9, 0, 0), prefix).unwrap();
            let pool = IpamPool { subnet, ip_range: None, gateway: Some(Ipv4Addr::new(10, 9, 0, 1)), auxiliary: BTreeMap::new(), chosen: true };
            let base = u32::from(subnet.network());
            let taken: BTreeSet<Ipv4Addr> = taken.into_iter().map(|n| Ipv4Addr::from(base + n)).filter(|ip| subnet.contains(ip)).collect();
            match address(&pool, &taken, None).unwrap() {
                Some(ip) => {
                    prop_assert!(subnet.contains(&ip) && !taken.contains(&ip));
                    prop_assert!(ip != subnet.network() && ip != subnet.broadcast() && Some(ip) != pool.gateway);
                    let lower_all_taken = (base + 2..u32::from(ip)).all(|n| taken.contains(&Ipv4Addr::from(n)));
                    prop_assert!(lower_all_taken);
                }
                None => prop_assert!(subnet.hosts().filter(|ip| Some(*ip) != pool.gateway).all(|ip| taken.contains(&ip))),
            }
        }
    }
}
