//! What the operator chose. Read from flags and files by `gantry::config`; here it is only words.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::firewall::view::Mark;

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
    /// `--default-address-pool`: where networks without a subnet of their own take it from.
    pub default_address_pools: Vec<AddressPool>,
    pub mtu: u32,
    /// `--icc`: may containers on the default bridge talk to each other?
    pub icc: bool,
    pub ip_masq: bool,
    /// `--ip-forward`: let the host forward packets.
    pub ip_forward: bool,
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
            default_address_pools: AddressPool::docker(),
            mtu: 1500,
            icc: true,
            ip_masq: true,
            ip_forward: true,
            iptables: true,
            ip6tables: true,
            allow_direct_routing: false,
            accept_fwmark: None,
            host_binding: Ipv4Addr::UNSPECIFIED,
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
    fn each_bridge_has_its_table() {
        let table = |bridge| NetworkConfig { bridge, ..NetworkConfig::default() }.table();
        assert_eq!(table(Bridge::default()), "gantry");
        assert_eq!(table(Bridge::Ours("test7".to_owned())), "gantry-test7");
        assert_eq!(table(Bridge::Disabled), "gantry");
        let named = NetworkConfig { table: Some("mine".to_owned()), ..NetworkConfig::default() };
        assert_eq!(named.table(), "mine");
    }
}
