//! Which subnet, which address: functions from what is taken to what is free. There is no allocator state.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use stdx::{Error, Result};

use crate::config::AddressPool;
use crate::records::IpamPool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    pub(crate) fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(number as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

/// The first subnet of the pools of a family that overlaps nothing.
pub(crate) fn subnet(pools: &[AddressPool], family: Family, taken: &[IpNet]) -> Result<IpNet> {
    let mut taken: Vec<(u128, u128)> =
        taken.iter().filter(|net| Family::of(net) == family).map(ends).collect();
    taken.sort_unstable();
    pools
        .iter()
        .filter(|pool| Family::of(&pool.base) == family)
        .find_map(|pool| free_in(pool, family, &taken))
        .ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
}

/// The first free piece of a pool; `taken` is in order. What is taken is stepped over, so that the thousandth network
/// costs a walk along the others and not along all that could be.
fn free_in(pool: &AddressPool, family: Family, taken: &[(u128, u128)]) -> Option<IpNet> {
    if pool.size < pool.base.prefix_len() || pool.size > family.bits() {
        return None;
    }
    let (first, last) = ends(&pool.base);
    // One address less than a piece has: all of IPv6 is one more than fits.
    let span = !(u128::MAX.checked_shl(u32::from(family.bits() - pool.size)).unwrap_or(0));
    let mut start = first;
    for (from, to) in taken {
        if *to < start {
            continue;
        }
        if *from > start | span {
            break;
        }
        start = (to | span).checked_add(1)?;
    }
    (start | span <= last)
        .then(|| IpNet::new(family.address(start), pool.size).expect("the size was checked"))
}

pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// An address of the pool: the one wanted, or the lowest free one, as Docker gives them out.
///
/// `taken` holds the addresses of endpoints. What nobody may have — the subnet's first address, IPv4's last one, the
/// gateway, auxiliary addresses — is known from the pool.
pub(crate) fn address(
    pool: &IpamPool,
    taken: &BTreeSet<IpAddr>,
    wanted: Option<IpAddr>,
) -> Result<Option<IpAddr>> {
    if let Some(wanted) = wanted {
        if !pool.subnet.contains(&wanted) {
            return Err(Error::invalid(format!(
                "no configured subnet or ip-range contain the IP address {wanted}"
            )));
        }
        if is_reserved(pool, wanted) || taken.contains(&wanted) {
            return Err(Error::forbidden("Address already in use"));
        }
        return Ok(Some(wanted));
    }
    let family = Family::of(&pool.subnet);
    let (first, last) = ends(&pool.ip_range.unwrap_or(pool.subnet));
    let mut next = Some(first);
    let mut neighbours = taken.range(family.address(first)..=family.address(last)).peekable();
    while let Some(candidate) = next.filter(|candidate| *candidate <= last) {
        let address = family.address(candidate);
        if neighbours.peek() == Some(&&address) {
            neighbours.next();
        } else if !is_reserved(pool, address) {
            return Ok(Some(address));
        }
        next = candidate.checked_add(1);
    }
    Ok(None)
}

/// The address for the host when nobody chose one: the first of the range that is not somebody else's.
pub(crate) fn gateway(pool: &IpamPool) -> Option<IpAddr> {
    let pool = IpamPool { gateway: None, ..pool.clone() };
    address(&pool, &BTreeSet::new(), None).expect("nothing is wanted")
}

/// How many addresses of a pool are in use, and how many are left to be given out. Docker counts what nobody may have
/// among those in use.
pub(crate) fn usage(pool: &IpamPool, taken: &BTreeSet<IpAddr>) -> Usage {
    let mut used: BTreeSet<IpAddr> =
        taken.iter().filter(|address| pool.subnet.contains(*address)).copied().collect();
    used.extend(pool.gateway.filter(|address| pool.subnet.contains(address)));
    used.extend(pool.auxiliary.values().filter(|address| pool.subnet.contains(*address)));
    used.extend(borders(&pool.subnet));
    let range = pool.ip_range.unwrap_or(pool.subnet);
    let (first, last) = ends(&range);
    let in_range = used.iter().filter(|address| range.contains(*address)).count() as u128;
    let limited = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    Usage {
        in_use: used.len() as u64,
        available: limited((last - first).saturating_add(1) - in_range),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub in_use: u64,
    pub available: u64,
}

fn is_reserved(pool: &IpamPool, address: IpAddr) -> bool {
    borders(&pool.subnet).any(|border| border == address)
        || pool.gateway == Some(address)
        || pool.auxiliary.values().any(|other| *other == address)
}

/// A subnet's name for itself, and IPv4's for everybody in it. In pairs (RFC 3021) both are hosts.
pub(crate) fn borders(subnet: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let (first, last) = match subnet {
        IpNet::V4(subnet) if subnet.prefix_len() >= 31 => (None, None),
        IpNet::V4(subnet) => (Some(subnet.network().into()), Some(subnet.broadcast().into())),
        IpNet::V6(subnet) if subnet.prefix_len() >= 127 => (None, None),
        IpNet::V6(subnet) => (Some(subnet.network().into()), None),
    };
    first.into_iter().chain(last)
}

/// First and last address, as numbers.
fn ends(net: &IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (net.network().to_bits().into(), net.broadcast().to_bits().into()),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, range: Option<&str>, gateway: &str) -> IpamPool {
        IpamPool {
            ip_range: range.map(|range| range.parse().unwrap()),
            gateway: gateway.parse().ok(),
            ..IpamPool::new(subnet.parse().unwrap())
        }
    }

    fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
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
        let six = pool("fd00:1::/64", None, "fd00:1::1");
        check(&six, &[], Some("fd00:1::2"));
        check(&six, &["fd00:1::2"], Some("fd00:1::3"));
        check(&pool("::/0", None, "::1"), &[], Some("::2"));
    }

    #[test]
    fn small_pools_end() {
        let tiny = pool("10.0.0.0/29", None, "10.0.0.1");
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        check(&tiny, &all[..4], Some("10.0.0.6"));
        check(&tiny, &all, None);
        check(&pool("10.0.0.0/31", None, "10.0.0.0"), &[], Some("10.0.0.1"));
        check(&pool("255.255.255.254/31", None, "255.255.255.254"), &["255.255.255.255"], None);
        check(&pool("fd00::/127", None, "fd00::"), &[], Some("fd00::1"));
        check(&pool("fd00::/126", None, "fd00::1"), &["fd00::2"], Some("fd00::3"));
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
    fn gateways() {
        let first = |subnet, range| gateway(&pool(subnet, range, "")).unwrap().to_string();
        assert_eq!(first("10.0.0.0/24", None), "10.0.0.1");
        assert_eq!(first("10.0.0.0/24", Some("10.0.0.64/30")), "10.0.0.64");
        assert_eq!(first("fd00:5::/64", None), "fd00:5::1");
    }

    #[test]
    fn wanted() {
        let docker = pool("172.17.0.0/16", Some("172.17.9.0/24"), "172.17.0.1");
        let ask = |ip: &str| address(&docker, &ips(&["172.17.0.7"]), Some(ip.parse().unwrap()));
        assert_eq!(ask("172.17.3.3").unwrap().unwrap().to_string(), "172.17.3.3");
        for taken in ["172.17.0.7", "172.17.0.1", "172.17.0.0", "172.17.255.255"] {
            assert_eq!(ask(taken).unwrap_err().to_string(), "Address already in use");
        }
        for outside in ["10.0.0.1", "fd00::1"] {
            assert_eq!(
                ask(outside).unwrap_err().to_string(),
                format!("no configured subnet or ip-range contain the IP address {outside}")
            );
        }
    }

    #[test]
    fn what_is_in_use() {
        let docker = pool("172.17.0.0/16", None, "172.17.0.1");
        let found = usage(&docker, &ips(&["172.17.0.2", "10.0.0.1"]));
        assert_eq!(found, Usage { in_use: 4, available: 65532 });
        let narrow = pool("10.0.0.0/24", Some("10.0.0.64/30"), "10.0.0.1");
        assert_eq!(
            usage(&narrow, &ips(&["10.0.0.64", "10.0.0.200"])),
            Usage { in_use: 5, available: 3 }
        );
        let six = usage(&pool("::/0", None, "::1"), &BTreeSet::new());
        assert_eq!(six, Usage { in_use: 2, available: u64::MAX });
    }

    #[test]
    fn subnets() {
        let docker = AddressPool::docker();
        let ask = |taken: &[&str]| {
            subnet(&docker, Family::V4, &nets(taken)).map(|net| net.to_string()).unwrap()
        };
        assert_eq!(ask(&[]), "172.17.0.0/16");
        assert_eq!(ask(&["172.17.0.0/16", "172.18.4.0/24", "fd00::/8"]), "172.19.0.0/16");
        assert_eq!(ask(&["172.16.0.0/12"]), "192.168.0.0/20");
        assert_eq!(ask(&["172.16.0.0/12", "192.168.0.0/24", "192.168.15.0/28"]), "192.168.16.0/20");
        let everything = subnet(&docker, Family::V4, &nets(&["0.0.0.0/0"])).unwrap_err();
        assert_eq!(
            everything.to_string(),
            "all predefined address pools have been fully subnetted"
        );
    }

    #[test]
    fn thousands_of_subnets() {
        let pools = [
            AddressPool { base: "10.0.0.0/8".parse().unwrap(), size: 24 },
            AddressPool { base: "fd00:1:2::/48".parse().unwrap(), size: 64 },
        ];
        let mut taken = Vec::new();
        for _ in 0..2000 {
            taken.push(subnet(&pools, Family::V4, &taken).unwrap());
            taken.push(subnet(&pools, Family::V6, &taken).unwrap());
        }
        assert_eq!(taken[3998].to_string(), "10.7.207.0/24");
        assert_eq!(taken[3999].to_string(), "fd00:1:2:7cf::/64");
    }

    fn address_at(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 9, 9, last).into()
    }

    proptest! {
        #[test]
        fn free_and_never_reserved(taken in prop::collection::btree_set(0u8..=255, 0..256)) {
            let small = pool("10.9.9.0/24", None, "10.9.9.1");
            let taken: BTreeSet<IpAddr> =
                taken.into_iter().map(address_at).collect();
            match address(&small, &taken, None).unwrap() {
                Some(found) => prop_assert!(
                    !taken.contains(&found)
                        && small.subnet.contains(&found)
                        && !is_reserved(&small, found)
                ),
                None => prop_assert_eq!(taken.range(address_at(2)..=address_at(254)).count(), 253),
            }
        }

        #[test]
        fn a_free_subnet_overlaps_nothing(
            taken in prop::collection::vec((any::<u16>(), 9u8..=32), 0..64)
        ) {
            let pools = [AddressPool { base: "10.0.0.0/8".parse().unwrap(), size: 14 }];
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(bits, prefix)| {
                    let address = Ipv4Addr::from_bits(10 << 24 | u32::from(bits) << 8);
                    IpNet::new(address.into(), prefix).unwrap().trunc()
                })
                .collect();
            let every: Vec<IpNet> = pools[0].base.subnets(14).unwrap().collect();
            let free = every.into_iter().find(|net| !taken.iter().any(|other| overlap(net, other)));
            prop_assert_eq!(subnet(&pools, Family::V4, &taken).ok(), free);
        }
    }
}
