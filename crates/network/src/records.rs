//! What is remembered, drawn once:
//!
//! ```text
//! networks   <network id>   Network    name, driver, pools, the bridge's name and addresses
//! endpoints  <endpoint id>  Endpoint   container, network, addresses, MAC, ports; its veth is named after its id
//! ```
//!
//! There is no record of the allocator: an address is taken when an endpoint has it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use state::Record;
use stdx::time::Timestamp;
use stdx::{Error, Id};

use crate::egress::Egress;
use crate::rate::Rate;

/// A network, predefined or made by a user. Field for field what `GET /networks` tells, plus what the kernel was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: Id,
    pub name: String,
    pub driver: DriverKind,
    pub scope: Scope,
    pub created: Timestamp,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    /// A configuration for other networks to be made from; nobody connects to it.
    #[serde(default)]
    pub config_only: bool,
    /// The name of the network that this one's configuration was copied from.
    #[serde(default)]
    pub config_from: String,
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// What it is to other hosts, for networks of that driver.
    #[serde(default)]
    pub overlay: Option<OverlayDevice>,
    /// The name of the plugin that is its driver; empty for our own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plugin: String,
    /// The bridge on the host, for networks of that driver.
    pub bridge: Option<BridgeDevice>,
    /// The device of the host that containers share, for macvlan and ipvlan.
    #[serde(default)]
    pub parent: Option<ParentDevice>,
    /// What its containers may reach outside, but for those of which something else was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

impl Network {
    /// The driver as Docker calls it.
    pub fn driver_name(&self) -> &str {
        if self.plugin.is_empty() { self.driver.as_str() } else { &self.plugin }
    }

    /// Whether its pools are its own: nobody else may have them.
    pub(crate) fn has_subnets(&self) -> bool {
        !self.config_only && !self.ipam.is_null()
    }

    /// One without addresses, options or devices.
    pub fn new(name: &str, driver: DriverKind) -> Self {
        Self {
            id: Id::random(),
            name: name.to_owned(),
            driver,
            scope: Scope::Local,
            created: Timestamp::now(),
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ingress: false,
            config_only: false,
            config_from: String::new(),
            ipam: Ipam::default(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            overlay: None,
            plugin: String::new(),
            bridge: None,
            parent: None,
            egress: None,
        }
    }
}

/// A bridge as the kernel has it, and what is allowed to pass it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeDevice {
    pub name: String,
    /// The host's address on it with the subnet's prefix: `172.17.0.1/16`. None where the host keeps out.
    pub address: Option<Ipv4Net>,
    pub address6: Option<Ipv6Net>,
    pub mtu: u32,
    /// May containers on it talk to each other?
    pub icc: bool,
    /// Does what leaves it by another device carry that device's address?
    pub masquerade: bool,
    pub masquerade6: bool,
    pub gateway_mode: GatewayMode,
    pub gateway_mode6: GatewayMode,
    /// Where published ports listen when nothing is said; everywhere when absent.
    pub host_binding: Option<IpAddr>,
    pub host_binding6: Option<IpAddr>,
    /// The address that what leaves carries instead of the outgoing device's.
    pub host_ip: Option<IpAddr>,
    pub host_ip6: Option<IpAddr>,
    /// The host gets no IPv4 address on the bridge, and containers no default route by it.
    pub inhibit_ipv4: bool,
    /// How devices are called inside of containers, before their number; empty is `eth`.
    pub container_prefix: String,
    /// Devices of the host whose packets may reach containers directly.
    pub trusted: Vec<String>,
    /// Made and removed by us; `false` for one the operator brought (`--bridge`).
    pub ours: bool,
}

impl Default for BridgeDevice {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: None,
            address6: None,
            mtu: 1500,
            icc: true,
            masquerade: true,
            masquerade6: true,
            gateway_mode: GatewayMode::Nat,
            gateway_mode6: GatewayMode::Nat,
            host_binding: None,
            host_binding6: None,
            host_ip: None,
            host_ip6: None,
            inhibit_ipv4: false,
            container_prefix: String::new(),
            trusted: Vec::new(),
            ours: true,
        }
    }
}

/// What the bridge is to the packets of a family: `com.docker.network.bridge.gateway_mode_ipv4` and `_ipv6`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Published ports are translated; what leaves is masqueraded.
    #[default]
    Nat,
    /// As `Nat`, and ports that are not published can be reached, too.
    NatUnprotected,
    /// Nothing is translated: published ports are reached at the container's own address.
    Routed,
    /// The host has no address on the bridge. Internal networks only.
    Isolated,
}

/// A network on several hosts, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayDevice {
    /// The number that all hosts know it by.
    pub vni: u32,
    /// The address of this host that the others send to.
    pub local: IpAddr,
    /// What is left of the underlay's when nobody chose one.
    pub mtu: Option<u32>,
    pub peers: Vec<Peer>,
}

/// Another host, and the addresses of the containers on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub vtep: IpAddr,
    pub range: Ipv4Net,
}

/// A device of the host whose wire containers are put on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentDevice {
    pub name: String,
    pub mode: ShareMode,
    pub origin: ParentOrigin,
}

/// How containers share the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareMode {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    L2,
    L3,
    L3s,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    Bridge,
    Private,
    Vepa,
}

/// Where the parent comes from, and so whether it goes with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParentOrigin {
    /// The operator's.
    Existing,
    /// Ours, a VLAN of the operator's device: `eth0.10`.
    Vlan(u16),
    /// Ours, a device with no wire at all: containers reach each other only.
    Dummy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    Bridge,
    Host,
    Null,
    Macvlan,
    Ipvlan,
    Overlay,
    /// A program beside us.
    Plugin,
}

impl DriverKind {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Overlay => "overlay",
            Self::Plugin => "plugin",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    #[default]
    Local,
    /// A plugin says that it is the same network on other hosts.
    Global,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// How a network's addresses are given out, in Docker's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Vec<IpamPool>,
    /// What the plugin that gives them out calls the addresses of this host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub space: String,
}

impl Default for Ipam {
    fn default() -> Self {
        Self {
            driver: "default".to_owned(),
            options: None,
            config: Vec::new(),
            space: String::new(),
        }
    }
}

impl Ipam {
    /// The driver that gives out no addresses at all.
    pub const NULL: &str = "null";

    /// Whether a plugin gives the addresses out.
    pub fn is_remote(&self) -> bool {
        !self.is_null() && self.driver != "default"
    }

    /// Whether nobody does: whoever has the network's devices knows what they are called.
    pub fn is_null(&self) -> bool {
        self.driver == Self::NULL
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    pub subnet: IpNet,
    /// The part of the subnet that containers get addresses from; all of it when absent.
    pub ip_range: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    /// Addresses somebody else has.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The subnet was chosen by whoever made the network, who may then choose addresses in it too.
    pub chosen: bool,
    /// What the plugin calls it that it is from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What else the network has from that plugin: the gateway's address, and auxiliary ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
}

impl IpamPool {
    /// A subnet of our choice, all of it.
    pub fn new(subnet: IpNet) -> Self {
        Self {
            subnet,
            ip_range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            chosen: false,
            id: String::new(),
            leases: Vec::new(),
        }
    }
}

/// An address that a plugin gave out, and will want back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub driver: String,
    pub pool: String,
    pub address: IpAddr,
}

/// An endpoint that a plugin has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteEndpoint {
    pub driver: String,
    /// The device of the host that becomes the container's; empty when there is none.
    pub device: String,
    pub routes: Vec<RemoteRoute>,
    /// It shall have no way out but the plugin's.
    #[serde(default)]
    pub stays_in: bool,
    /// It is the container's way out, and the plugin publishes its ports, if it does such things.
    #[serde(default)]
    pub leads_out: bool,
    /// The plugin knows of it, or may: it is told when it is over.
    pub told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRoute {
    pub destination: IpNet,
    /// On the link when absent.
    pub next_hop: Option<IpAddr>,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    #[serde(rename = "id")]
    pub endpoint_id: Id,
    pub network_id: Id,
    /// The network's name when the endpoint was made.
    pub network: String,
    pub container: Id,
    /// The container's name, for `docker network inspect`.
    pub container_name: String,
    /// Its device within the container; empty where there is none (`host`, `none`).
    pub ifname: String,
    pub ip: Option<Ipv4Addr>,
    /// Length of the subnet's prefix; 0 without an address.
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub prefix6: u8,
    pub gateway6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub aliases: Vec<String>,
    /// More addresses, valid on the link only.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// What is bound on the host for it.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Containers that this one knows by names of its own.
    #[serde(default)]
    pub links: Vec<Link>,
    /// What it says that it listens on: what those may ask of it that are linked to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<(Protocol, u16)>,
    /// What the container is called on this network: its name, its aliases, the beginning of its id.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// The highest gives the default route.
    #[serde(default)]
    pub gw_priority: i64,
    /// Its device is the default route without anybody's address: ipvlan on layer 3.
    #[serde(default)]
    pub routed_by_link: bool,
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    /// `net.ipv4.conf.IFNAME.log_martians=1`, applied to the device.
    #[serde(default)]
    pub sysctls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteEndpoint>,
    /// Nobody asked for it: without it what its container is connected to would lead nowhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub way_out: bool,
    /// Its addresses, where a plugin gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// What its container may reach outside, instead of what the network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// How fast its container may be by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Its container came back, or its ports were given to another, while it was still being taken out: whatever lives after
    /// a crash, this does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A container, under the name that another one has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub alias: String,
    pub container: Id,
}

/// A port of the host that leads to a container: what is bound, not what was asked for. One a family and host address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            other => Err(Error::invalid(format!("invalid proto: {other}"))),
        }
    }
}

impl Endpoint {
    /// One without device, addresses or wishes.
    pub fn new(network: &Network, container: &Id, container_name: &str) -> Self {
        Self {
            endpoint_id: Id::random(),
            network_id: network.id.clone(),
            network: network.name.clone(),
            container: container.clone(),
            container_name: container_name.to_owned(),
            ifname: String::new(),
            ip: None,
            prefix: 0,
            gateway: None,
            ip6: None,
            prefix6: 0,
            gateway6: None,
            mac: None,
            aliases: Vec::new(),
            link_local: Vec::new(),
            ports: Vec::new(),
            links: Vec::new(),
            exposed: Vec::new(),
            dns_names: Vec::new(),
            gw_priority: 0,
            routed_by_link: false,
            driver_opts: BTreeMap::new(),
            sysctls: Vec::new(),
            remote: (!network.plugin.is_empty()).then(|| RemoteEndpoint {
                driver: network.plugin.clone(),
                device: String::new(),
                routes: Vec::new(),
                stays_in: false,
                leads_out: false,
                told: true,
            }),
            way_out: false,
            leases: Vec::new(),
            egress: None,
            rate: None,
            left: false,
        }
    }

    /// Whether plugins are to be told when it is over.
    pub(crate) fn is_foreign(&self) -> bool {
        self.remote.is_some() || !self.leases.is_empty()
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from))
    }

    /// Its addresses with their subnets' prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + use<> {
        let v4 = self.ip.and_then(|ip| IpNet::new(ip.into(), self.prefix).ok());
        let v6 = self.ip6.and_then(|ip| IpNet::new(ip.into(), self.prefix6).ok());
        v4.into_iter().chain(v6)
    }

    /// The host's end of the pair: `veth` and seven digits of the endpoint's id.
    pub fn host_device(&self) -> String {
        format!("{HOST_DEVICE_PREFIX}{}", &self.endpoint_id.as_str()[..7])
    }
}

pub(crate) const HOST_DEVICE_PREFIX: &str = "veth";

/// Whether a device of the host is named as one of ours would be.
pub(crate) fn is_host_device(name: &str) -> bool {
    name.strip_prefix(HOST_DEVICE_PREFIX).is_some_and(|digits| {
        digits.len() == 7 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A hardware address, written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Docker's address for a device with this IP address. An address given out again comes with the MAC that the
    /// neighbours still remember, so nothing has to be announced. Of IPv6 the last four bytes count.
    pub fn of(ip: IpAddr) -> Self {
        let [a, b, c, d] = match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => (ip.to_bits() as u32).to_be_bytes(),
        };
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Any address that nobody was given by a manufacturer.
    pub fn random() -> Self {
        let id = Id::random();
        let digit = |at: usize| u8::from_str_radix(&id.as_str()[2 * at..][..2], 16);
        let mut bytes = [0; 6];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = digit(at).expect("an id is hexadecimal");
        }
        // Of one device, and given by nobody.
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("invalid MAC address {text}"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|err: Error| serde::de::Error::custom(err))
    }
}

impl Record for Network {
    const TABLE: &'static str = "networks";

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for Endpoint {
    const TABLE: &'static str = "endpoints";

    fn key(&self) -> String {
        self.endpoint_id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_of_an_address() {
        assert_eq!(Mac::of(Ipv4Addr::new(172, 17, 0, 2).into()).to_string(), "02:42:ac:11:00:02");
        assert_eq!(Mac::of("fd00::1:2".parse().unwrap()).to_string(), "02:42:00:01:00:02");
        assert_eq!(Mac::random().0[0] & 3, 2);
        assert_eq!("02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for bad in ["", "02:42", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"] {
            assert_eq!(
                bad.parse::<Mac>().unwrap_err().to_string(),
                format!("invalid MAC address {bad}")
            );
        }
    }

    #[test]
    fn names_of_ours() {
        assert!(is_host_device("veth01234ab"));
        for other in ["veth0", "vethABCDEF0", "veth01234abc", "eth0", "docker0"] {
            assert!(!is_host_device(other), "{other}");
        }
    }
}
