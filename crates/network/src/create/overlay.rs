//! The options of the overlay driver with static peers: text becomes the device that the kernel gets.
//!
//! Every host has its part of the subnet (`--ip-range`) and is told which part each other host has. A container's hardware
//! address follows from its address, so that everybody knows where every frame goes, and nothing is ever flooded.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use stdx::{Error, Result};

use super::Surroundings;
use crate::ipam;
use crate::records::{Network, OverlayDevice, Peer};

/// `VTEP=RANGE,…`: the other hosts, and the parts of the subnet that they have.
pub(super) const PEERS: &str = "gantry.overlay.peers";
/// The address of this host that the others send to.
const LOCAL: &str = "gantry.overlay.local";
pub(super) const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
const MTU: &str = "com.docker.network.driver.mtu";
const ENCRYPTED: &str = "encrypted";

/// Docker's first, for networks that do not choose one.
const FIRST_VNI: u32 = 4096;
/// VXLAN has 24 bits.
const LAST_VNI: u32 = 0xff_ffff;
/// An address of a peer is two entries in tables of the kernel's.
const MOST_ADDRESSES: u64 = 8192;
/// What IPv4 asks for.
const SMALLEST_MTU: u32 = 68;

/// The device of a network whose pools are complete.
pub(super) fn device(network: &Network, around: &Surroundings) -> Result<OverlayDevice> {
    let option = |name: &str| network.options.get(name).map(String::as_str);
    if option(ENCRYPTED).is_some_and(|text| super::truth(text) != Some(false)) {
        return Err(Error::not_implemented(
            "encrypted overlay networks need IPsec, which is not supported",
        ));
    }
    if network.enable_ipv6 || !network.enable_ipv4 {
        return Err(Error::invalid("overlay networks with static peers are of IPv4 only"));
    }
    let [pool] = network.ipam.config.as_slice() else {
        return Err(Error::invalid("overlay networks with static peers have one subnet"));
    };
    let (IpNet::V4(subnet), Some(IpNet::V4(own)), true) = (pool.subnet, pool.ip_range, pool.chosen)
    else {
        return Err(Error::invalid(
            "overlay networks with static peers need a subnet and this host's part of it: --subnet and --ip-range",
        ));
    };
    let local = option(LOCAL).unwrap_or_default();
    let local: IpAddr =
        local.parse().map_err(|_| Error::invalid(format!("invalid {LOCAL}: {local:?}")))?;
    let peers = peers(option(PEERS).unwrap_or_default(), local, subnet, own)?;
    let used = |vni: u32| around.networks.iter().any(|other| vni_of(other) == Some(vni));
    let vni = match option(VNI) {
        Some(text) => number(VNI, text, 1, LAST_VNI)?,
        None => (FIRST_VNI..=LAST_VNI)
            .find(|vni| !used(*vni))
            .ok_or_else(|| Error::forbidden("all VXLAN network identifiers are taken"))?,
    };
    if used(vni) {
        return Err(Error::conflict(format!("VXLAN network identifier {vni} is already in use")));
    }
    let mtu = option(MTU).map(|text| number(MTU, text, SMALLEST_MTU, 65535)).transpose()?;
    Ok(OverlayDevice { vni, local, mtu, peers })
}

fn vni_of(network: &Network) -> Option<u32> {
    network.overlay.as_ref().map(|overlay| overlay.vni)
}

fn number(name: &str, text: &str, least: u32, most: u32) -> Result<u32> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| Error::invalid(format!("invalid {name}: {text:?}")))
}

fn peers(text: &str, local: IpAddr, subnet: Ipv4Net, own: Ipv4Net) -> Result<Vec<Peer>> {
    let bad = |why: &str| Error::invalid(format!("invalid {PEERS} {text:?}: {why}"));
    let mut peers: Vec<Peer> = Vec::new();
    let mut addresses = 0;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (vtep, range) = part.split_once('=').ok_or_else(|| bad("it should be HOST=RANGE"))?;
        let vtep: IpAddr = vtep.parse().map_err(|_| bad("a host is an IP address"))?;
        if vtep.is_ipv4() != local.is_ipv4() {
            return Err(bad("all hosts are of one family"));
        }
        let range: Ipv4Net = range.parse().map_err(|_| bad("a range is a CIDR block"))?;
        let everybody = vtep == IpAddr::from(Ipv4Addr::BROADCAST);
        if vtep == local || vtep.is_unspecified() || vtep.is_multicast() || everybody {
            return Err(bad("a peer is another host"));
        }
        if range != range.trunc() || !subnet.contains(&range) {
            return Err(bad("a range is a part of the subnet"));
        }
        let taken = peers.iter().map(|peer| peer.range).chain([own]);
        for other in taken {
            if ipam::overlap(&other.into(), &range.into()) {
                return Err(bad("two hosts have the same addresses"));
            }
        }
        addresses += 1_u64 << (32 - range.prefix_len());
        if addresses > MOST_ADDRESSES {
            return Err(bad("the peers have too many addresses"));
        }
        peers.push(Peer { vtep, range });
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Peer>> {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        peers(text, Ipv4Addr::new(192, 0, 2, 1).into(), net("10.9.0.0/24"), net("10.9.0.0/26"))
    }

    #[test]
    fn hosts_and_their_parts() {
        let peers = read("192.0.2.2=10.9.0.64/26,192.0.2.3=10.9.0.128/26").unwrap();
        let vteps: Vec<String> = peers.iter().map(|peer| peer.vtep.to_string()).collect();
        assert_eq!(vteps, ["192.0.2.2", "192.0.2.3"]);
        for (bad, why) in [
            ("192.0.2.2", "HOST=RANGE"),
            ("x=10.9.0.64/26", "a host is an IP address"),
            ("192.0.2.2=10.9.0.64", "a CIDR block"),
            ("192.0.2.1=10.9.0.64/26", "another host"),
            ("2001:db8::2=10.9.0.64/26", "of one family"),
            ("192.0.2.2=10.9.1.0/26", "a part of the subnet"),
            ("192.0.2.2=10.9.0.65/26", "a part of the subnet"),
            ("192.0.2.2=10.9.0.32/27", "the same addresses"),
            ("192.0.2.2=10.9.0.64/26,192.0.2.3=10.9.0.64/27", "the same addresses"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
