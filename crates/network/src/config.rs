//! What the operator chose. Read from flags and files by `gantry::config`; here it is only words.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use plugin::Plugins;
use rootless::Outside;

use crate::firewall::view::Mark;
use crate::netd::NetdConfig;

/// The options of the daemon that concern its networks. The defaults are Docker's.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub bridge: Bridge,
    /// `--bip`: the default bridge's address and subnet.
    pub bip: Option<Ipv4Net>,
    /// `--fixed-cidr`: the part of it that containers get addresses from.
    pub fixed_cidr: Option<Ipv4Net>,
    /// `--default-gateway`: what containers on the default bridge route through instead of the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    /// `--ipv6`: does the default bridge have IPv6, too?
    pub ipv6: bool,
    /// `--bip6`, `--fixed-cidr-v6`, `--default-gateway-v6`
    pub bip6: Option<Ipv6Net>,
    pub fixed_cidr6: Option<Ipv6Net>,
    pub default_gateway6: Option<Ipv6Addr>,
    /// `--default-network-opt`: options of new networks that do not say, by driver.
    pub default_network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// `--host-gateway-ip`: what `host-gateway` means instead of the default bridge's addresses.
    pub host_gateway: Vec<IpAddr>,
    /// `--default-address-pool`: where networks without a subnet of their own take it from.
    pub default_address_pools: Vec<AddressPool>,
    pub mtu: u32,
    /// `--icc`: may containers on the default bridge talk to each other?
    pub icc: bool,
    pub ip_masq: bool,
    /// `--ip-forward`: let the host forward packets.
    pub ip_forward: bool,
    /// `--ip-forward-no-drop`: a host that forwards because of us forwards everything.
    pub ip_forward_no_drop: bool,
    /// `--iptables`: may we have firewall rules at all?
    pub iptables: bool,
    /// `--ip6tables`: the same for IPv6.
    pub ip6tables: bool,
    /// `--allow-direct-routing`: may published ports be reached at the container's own address?
    pub allow_direct_routing: bool,
    /// `--bridge-accept-fwmark`: packets with this mark are let in.
    pub accept_fwmark: Option<Mark>,
    /// `--ip`: where published ports listen by default.
    pub host_binding: Ipv4Addr,
    /// What serves published ports and names; without it there are none.
    pub netd: Option<NetdConfig>,
    /// Where the namespaces of overlay networks have their names: a directory that is gone after a reboot. Without it there
    /// are no such networks.
    pub namespaces: Option<PathBuf>,
    /// Where drivers come from that are not ours.
    pub plugins: Option<Arc<Plugins>>,
    /// Who has sockets of the real host's network, where ours is a namespace of a user's.
    pub outside: Option<Arc<Outside>>,
    /// Where the host's message bus (D-Bus) is, by which firewalld is spoken with: an address as in
    /// `DBUS_SYSTEM_BUS_ADDRESS`. `None` speaks with nobody.
    pub system_bus: Option<String>,
    /// The name of our nftables table; `None` derives it from the bridge's, so that daemons with different bridges live
    /// side by side.
    pub table: Option<String>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: Bridge::default(),
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            ipv6: false,
            bip6: None,
            fixed_cidr6: None,
            default_gateway6: None,
            default_network_options: BTreeMap::new(),
            host_gateway: Vec::new(),
            default_address_pools: AddressPool::docker(),
            mtu: 1500,
            icc: true,
            ip_masq: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            iptables: true,
            ip6tables: true,
            allow_direct_routing: false,
            accept_fwmark: None,
            host_binding: Ipv4Addr::UNSPECIFIED,
            netd: None,
            namespaces: None,
            plugins: None,
            outside: None,
            system_bus: None,
            table: None,
        }
    }
}

impl NetworkConfig {
    pub(crate) fn table(&self) -> String {
        match (&self.table, &self.bridge) {
            (Some(table), _) => table.clone(),
            (None, Bridge::Ours(bridge) | Bridge::Existing(bridge)) if bridge != DEFAULT_BRIDGE => {
                format!("gantry-{bridge}")
            }
            // Beside a daemon that has the default bridge.
            (None, Bridge::Disabled) => "gantry-none".to_owned(),
            (None, _) => "gantry".to_owned(),
        }
    }
}

const DEFAULT_BRIDGE: &str = "gantry0";

/// The bridge behind the network named `bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// Made by us under this name.
    Ours(String),
    /// `--bridge NAME`: made by the operator, who also gave it its address.
    Existing(String),
    /// `--bridge none`: there is no default bridge.
    Disabled,
}

impl Default for Bridge {
    fn default() -> Self {
        Self::Ours(DEFAULT_BRIDGE.to_owned())
    }
}

/// A range that is cut into subnets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub base: IpNet,
    /// Length of the prefix of each subnet.
    pub size: u8,
}

impl AddressPool {
    /// The pool of unique local IPv6 addresses (RFC 4193) of a host with this name for itself: other hosts have others.
    pub fn unique_local(host: &str) -> Self {
        // FNV-1a: 40 bits that differ when names do are all that is asked of it.
        let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let global = u128::from((hash >> 40 ^ hash) & 0xff_ffff_ffff);
        let base = Ipv6Addr::from_bits(0xfd << 120 | global << 80);
        Self { base: Ipv6Net::new_assert(base, 48).into(), size: 64 }
    }

    /// Docker's default pools, in its order.
    pub fn docker() -> Vec<Self> {
        [
            ([172, 17, 0, 0], 16, 16),
            ([172, 18, 0, 0], 16, 16),
            ([172, 19, 0, 0], 16, 16),
            ([172, 20, 0, 0], 14, 16),
            ([172, 24, 0, 0], 14, 16),
            ([172, 28, 0, 0], 14, 16),
            ([192, 168, 0, 0], 16, 20),
        ]
        .into_iter()
        .map(|(base, prefix, size)| Self {
            base: Ipv4Net::new_assert(base.into(), prefix).into(),
            size,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_local_pools() {
        let pool = AddressPool::unique_local("one");
        assert_eq!((pool.base.prefix_len(), pool.size), (48, 64));
        assert!(pool.base.to_string().starts_with("fd"));
        assert_ne!(pool, AddressPool::unique_local("other"));
    }

    #[test]
    fn each_bridge_has_its_table() {
        let table = |bridge| NetworkConfig { bridge, ..NetworkConfig::default() }.table();
        assert_eq!(table(Bridge::default()), "gantry");
        assert_eq!(table(Bridge::Ours("test7".to_owned())), "gantry-test7");
        assert_eq!(table(Bridge::Disabled), "gantry-none");
        let named = NetworkConfig { table: Some("mine".to_owned()), ..NetworkConfig::default() };
        assert_eq!(named.table(), "mine");
    }
}
